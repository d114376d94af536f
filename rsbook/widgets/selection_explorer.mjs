// Sample selection of CromSS: epoch, α, γ and ranking; confidences, weights, and which wrong pixels they find.
import {
  asImage, asScale, button, cell, choice, element, follow, frame, part, percent, picture, put, rgbOf, slider, table, unpack,
} from "./common.mjs";

const STATE = ["scene", "moment", "ratio", "gamma", "follows", "ranking"];
const LEAST = 50; // α = 0.50, 0.51, … 1.00
const FULL = 255;
const SIDE = 256; // about so many pixels has the noisy map, so that there is room for stripes in any scene
const PERIOD = 8; // of the stripes
const COLUMNS = ["F_l", "F′_l", "W_l", "F′_e", "W_e"];

// Values from what is new in them from column to column and row to row, modulo 256; in place.
function restored(array) {
  const [height, width] = array.shape.slice(-2);
  for (let p = 0; p < array.length; p += 1) if (p % width) array[p] += array[p - 1];
  for (let p = 0; p < array.length; p += 1) if (p % (height * width) >= width) array[p] += array[p - width];
  return array;
}

// F′ of a modality beside another as integers, 2 · 255² · F′ (eq. 2): thresholds are compared without rounding.
function scores(own, other) {
  const found = new Int32Array(own.length);
  for (let p = 0; p < found.length; p += 1) found[p] = own[p] * (FULL + other[p]);
  return found;
}

// W_l (eq. 3) from scores and the lowest selected one for each label, −1 for none; it is 1 for no other than selected.
function selected(score, noisy, least) {
  const weights = new Float64Array(score.length);
  for (let p = 0; p < weights.length; p += 1) {
    if (noisy[p] >= 0) weights[p] = score[p] < least[noisy[p]] ? score[p] / least[noisy[p]] : 1;
  }
  return weights;
}

// Right and wrong pixels that have a label, how many of them weigh less than 1, and what they weigh together.
function judged(weights, noisy, wrong) {
  const found = [0, 1].map(() => ({ pixels: 0, low: 0, sum: 0 }));
  for (let p = 0; p < weights.length; p += 1) {
    if (noisy[p] < 0) continue;
    const kind = found[wrong[p]];
    kind.pixels += 1;
    kind.low += weights[p] < 1 ? 1 : 0;
    kind.sum += weights[p];
  }
  return found;
}

// A writer for `paint`: classes in their colours, −1 left empty.
function asMap(map, colours) {
  return (p, out, at) => {
    const colour = colours[map[p]] ?? [0, 0, 0];
    out[at] = colour[0]; out[at + 1] = colour[1]; out[at + 2] = colour[2]; out[at + 3] = map[p] < 0 ? 0 : 255;
  };
}

// A writer for the map at `zoom` times its size, wrong pixels with stripes in black and white, seen on any class.
function asStriped(map, wrong, colours, width, zoom) {
  const write = asMap(map, colours);
  return (q, out, at) => {
    const [row, column] = [Math.floor(q / (width * zoom)), q % (width * zoom)];
    const p = Math.floor(row / zoom) * width + Math.floor(column / zoom);
    write(p, out, at);
    const stripe = (row + column) % PERIOD;
    if (wrong[p] && stripe < PERIOD / 2) out.fill(stripe < PERIOD / 4 ? 0 : 255, at, at + 3);
  };
}

async function render({ model, el }) {
  const arrays = await unpack(model);
  const [, height, width] = arrays.clean.shape;
  const [labels, entities] = [restored(arrays.labels), restored(arrays.entities)];
  const [modalities, classes, epochs, ramp] = ["modalities", "classes", "epochs", "ramp"].map((name) => model.get(name));
  const colours = model.get("colours").map(rgbOf);
  const zoom = Math.max(1, Math.round(SIDE / Math.max(height, width)));
  const hundredth = (k) => (k / 100).toFixed(2);
  const following = (moment) => ({ moment, ratio: ramp[moment][0], gamma: ramp[moment][1], follows: true });

  const scene = choice("Scene", model.get("names").map((name, i) => [i, name]), 0, (i) => put(model, { scene: i }));
  const epoch = slider("Epoch", { min: 0, max: epochs.length - 1, format: (i) => String(epochs[i]) }, 0,
    (i) => put(model, model.get("follows") ? following(i) : { moment: i }));
  const alpha = slider("Selection ratio α", { min: LEAST, max: 100, format: hundredth }, LEAST,
    (k) => put(model, { ratio: k / 100, follows: false }));
  const gamma = slider("Weight γ", { min: 0, max: 100, format: hundredth }, 0,
    (k) => put(model, { gamma: k / 100, follows: false }));
  const ranked = choice("Ranked among", [["global", "all pixels"], ["per_class", "pixels of each label"]], "global",
    (ranking) => put(model, { ranking }));
  const again = button("α and γ follow the epoch",
    () => put(model, model.get("follows") ? { follows: false } : following(model.get("moment"))));

  const clean = cell(picture(height, width, "clean map"), "clean map", "rsbook-wide");
  const noisy = cell(picture(height * zoom, width * zoom, "noisy map, wrong pixels striped"), "noisy map", "rsbook-wide rsbook-fine");
  const rows = modalities.map((name) => {
    const made = [name, "prediction", ...COLUMNS].map((title, k) => cell(picture(height, width, k ? `${name}, ${title}` : name), title));
    return { cells: made, shown: element("div", { class: "rsbook-flow" }, ...made) };
  });
  const bar = picture(1, FULL + 1, "Colour scale from 0, dark blue, through green to 1, yellow");
  bar.paint(asImage(arrays.heat));
  const scale = element("div", { class: "rsbook-colour-scale" }, bar, ...["0", "confidence or weight", "1"]
    .map((text) => element("span", {}, text)));
  const legend = element("div", { class: "rsbook-legend" }, ...classes.map((name, l) => {
    const entry = element("span", { class: "first" }, name);
    entry.style.setProperty("--class-colour", model.get("colours")[l]);
    return entry;
  }), element("span", { class: "striped" }, "wrong in the noisy map"));
  const said = element("p", { class: "rsbook-masks", "data-told": true });
  const counts = table(["modality", "precision", "recall", "mean W_l, right", "mean W_l, wrong", "mean W_e"],
    "What the masks do to right and wrong pixels");
  counts.classList.add("rsbook-masks-table");

  frame(el, model,
    element("div", { class: "rsbook-controls" }, scene, epoch, ranked),
    element("div", { class: "rsbook-controls" }, alpha, gamma, again),
    element("div", { class: "rsbook-flow" }, clean, noisy, legend), ...rows.map(({ shown }) => shown), scale, said, counts);

  const heat = (values, full) => asScale(arrays.heat, (p) => Math.round((FULL * values[p]) / full));
  const share = (some, whole) => (whole ? percent(some, whole) : "–");
  const mean = ({ sum, pixels }) => (pixels ? (sum / pixels).toFixed(2) : "–");
  const wrong = new Uint8Array(height * width);
  let painted; // the scene whose maps and images are

  const choose = (i, map) => {
    if (painted === i) return;
    painted = i;
    const truth = part(arrays.clean, i);
    for (let p = 0; p < wrong.length; p += 1) wrong[p] = map[p] >= 0 && map[p] !== truth[p] ? 1 : 0;
    clean.canvas.paint(asMap(truth, colours));
    noisy.canvas.paint(asStriped(map, wrong, colours, width, zoom));
    rows.forEach(({ cells }, m) => cells[0].canvas.paint(asImage(part(part(arrays.pictures, i), m))));
  };

  return follow(model, STATE, () => {
    const [i, moment, ratio, g, ranking] = ["scene", "moment", "ratio", "gamma", "ranking"].map((name) => model.get(name));
    const map = part(arrays.noisy, i);
    const step = Math.round(100 * ratio) - LEAST;
    choose(i, map);
    const found = modalities.map((name, m) => {
      const [own, other, sure, otherSure] = [labels, entities].flatMap((both) => [m, 1 - m].map(
        (k) => part(part(part(both, moment), k), i)));
      const thresholds = part(part(arrays.thresholds, moment), m); // of all pixels, then of each label
      const least = classes.map((_, l) => part(thresholds, ranking === "global" ? 0 : 1 + l)[step]);
      const [score, certain] = [scores(own, other), scores(sure, otherSure)];
      const weights = selected(score, map, least);
      const teaches = Float64Array.from(certain, (value) => 1 - g + (g * value) / (2 * FULL * FULL));
      const predicted = part(part(part(arrays.predictions, moment), m), i);
      [asMap(predicted, colours), heat(own, FULL), heat(score, 2 * FULL * FULL), heat(weights, 1),
        heat(certain, 2 * FULL * FULL), heat(teaches, 1)].forEach((write, k) => rows[m].cells[k + 1].canvas.paint(write));
      const [right, bad] = judged(weights, map, wrong);
      return { name, right, bad, teaches: teaches.reduce((sum, value) => sum + value, 0) / teaches.length };
    });
    counts.fill(found.map(({ name, right, bad, teaches }) => [name, share(bad.low, bad.low + right.low),
      share(bad.low, bad.pixels), mean(right), mean(bad), teaches.toFixed(2)]));
    said.textContent = `Epoch ${epochs[moment]}, α = ${ratio.toFixed(2)}, γ = ${g.toFixed(2)}: W_l is below 1 for `
      + `${found.map(({ name, right, bad }) => `${bad.low} of ${bad.pixels} wrong and ${right.low} of ${right.pixels} right pixels `
        + `in ${name}`).join(", and for ")}.`;

    again.setAttribute("aria-pressed", String(model.get("follows")));
    [scene.show(i), epoch.show(moment), alpha.show(Math.round(100 * ratio)), gamma.show(Math.round(100 * g)), ranked.show(ranking)];
  });
}

export default { render };
