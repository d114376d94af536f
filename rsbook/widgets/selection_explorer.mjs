// Sample selection of CromSS: epoch, α, γ and ranking; confidences, weights, and which wrong pixels they find.
import {
  asImage, asScale, button, choice, element, follow, frame, part, percent, picture, put, rgbOf, slider, table, unpack,
} from "./common.mjs";

const STATE = ["scene", "moment", "ratio", "gamma", "follows", "ranking"];
const LEAST = 50; // α = 0.50, 0.51, … 1.00
const FULL = 255;
const ZOOM = 4; // of the noisy map, so that a pixel has room for stripes
const COLUMNS = ["F_l", "F′_l", "W_l", "F′_e", "W_e"];

// F′ of one of two modalities as an integer, 2 · 255² · F′ (eq. 2): thresholds are compared without rounding.
function scores(confidences, m) {
  const [own, other] = [part(confidences, m), part(confidences, 1 - m)];
  return Float64Array.from(own, (value, p) => value * (FULL + other[p]));
}

// A writer for `paint`: classes in their colours, −1 left empty.
function asMap(map, colours, at = (p) => p, dark = () => false) {
  return (p, out, to) => {
    const l = map[at(p)];
    const colour = l < 0 ? [0, 0, 0] : colours[l];
    for (let band = 0; band < 3; band += 1) out[to + band] = dark(p) ? 0 : colour[band];
    out[to + 3] = l < 0 ? 0 : 255;
  };
}

function cell(canvas, title) {
  return Object.assign(element("div", { class: "rsbook-cell" }, element("div", { class: "rsbook-head" }, title), canvas),
    { canvas });
}

async function render({ model, el }) {
  const arrays = await unpack(model);
  const [, height, width] = arrays.clean.shape;
  const [modalities, epochs, ramp] = ["modalities", "epochs", "ramp"].map((name) => model.get(name));
  const colours = model.get("colours").map(rgbOf);
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
  const again = button("α and γ of the epoch", () => put(model, following(model.get("moment"))));

  const maps = ["clean map", "noisy map"].map((title, i) => cell(
    picture(height * (i ? ZOOM : 1), width * (i ? ZOOM : 1), title), title));
  const rows = modalities.map((name) => {
    const made = [name, "prediction", ...COLUMNS].map((title) => cell(picture(height, width, `${name}, ${title}`), title));
    return { cells: made, shown: element("div", { class: "rsbook-flow" }, ...made) };
  });
  const bar = picture(1, FULL + 1, "Colour scale from 0, dark blue, through green to 1, yellow");
  bar.paint(asImage(arrays.heat));
  const scale = element("div", { class: "rsbook-colour-scale" }, bar, ...["0", "confidence or weight", "1"]
    .map((text) => element("span", {}, text)));
  const legend = element("div", { class: "rsbook-legend" }, ...model.get("classes").map((name, l) => {
    const entry = element("span", { class: "first" }, name);
    entry.style.setProperty("--class-colour", model.get("colours")[l]);
    return entry;
  }));
  const said = element("p", { class: "rsbook-masks", "data-told": true });
  const counts = table(["modality", "precision", "recall", "W_l, right", "W_l, wrong", "W_e"],
    "What the masks do to right and wrong pixels");

  frame(el, model,
    element("div", { class: "rsbook-controls" }, scene, epoch, ranked),
    element("div", { class: "rsbook-controls" }, alpha, gamma, again),
    element("div", { class: "rsbook-flow" }, ...maps), legend, ...rows.map(({ shown }) => shown), scale, said, counts);

  const heat = (value) => asScale(arrays.heat, (p) => Math.round(FULL * value(p)));
  const share = (part_, whole) => (whole ? percent(part_, whole) : "–");
  const mean = (sum, n) => (n ? (sum / n).toFixed(2) : "–");

  return follow(model, STATE, () => {
    const [i, moment, ratio, g] = ["scene", "moment", "ratio", "gamma"].map((name) => model.get(name));
    const [clean, noisy] = [part(arrays.clean, i), part(arrays.noisy, i)];
    const wrong = (p) => noisy[p] >= 0 && noisy[p] !== clean[p];
    const at = (p) => Math.floor(p / (width * ZOOM * ZOOM)) * width + Math.floor((p % (width * ZOOM)) / ZOOM);
    const striped = (p) => wrong(at(p)) && (Math.floor(p / (width * ZOOM)) + p % (width * ZOOM)) % ZOOM === 0;
    maps[0].canvas.paint(asMap(clean, colours));
    maps[1].canvas.paint(asMap(noisy, colours, at, striped));

    const of = (array) => { // both modalities of the scene, one after the other
      const both = [0, 1].map((m) => part(part(part(array, moment), m), i));
      return Object.assign(Uint8Array.from([...both[0], ...both[1]]), { shape: [2, height, width] });
    };
    const [labels, entities] = [of(arrays.labels), of(arrays.entities)];
    const found = modalities.map((name, m) => {
      const thresholds = part(part(arrays.thresholds, moment), m);
      const step = Math.round(100 * ratio) - LEAST;
      const steps = thresholds.shape[1];
      const [score, sure, own] = [scores(labels, m), scores(entities, m), part(labels, m)];
      const least = (p) => thresholds[(model.get("ranking") === "global" ? 0 : 1 + noisy[p]) * steps + step];
      const low = (p) => noisy[p] >= 0 && score[p] < least(p);
      const weight = (p) => (noisy[p] < 0 ? 0 : low(p) ? score[p] / least(p) : 1);
      const teaches = (p) => 1 - g + (g * sure[p]) / (2 * FULL * FULL);
      const predicted = part(part(part(arrays.predictions, moment), m), i);
      const drawn = [asImage(part(part(arrays.pictures, i), m)), asMap(predicted, colours),
        heat((p) => own[p] / FULL), heat((p) => score[p] / (2 * FULL * FULL)), heat(weight),
        heat((p) => sure[p] / (2 * FULL * FULL)), heat(teaches)];
      drawn.forEach((write, k) => rows[m].cells[k].canvas.paint(write));
      const n = { name, low: 0, caught: 0, wrong: 0, right: 0, onWrong: 0, onRight: 0, teaches: 0 };
      for (let p = 0; p < noisy.length; p += 1) {
        n.teaches += teaches(p) / noisy.length;
        if (noisy[p] < 0) continue;
        n.low += low(p);
        n.caught += low(p) && wrong(p);
        n[wrong(p) ? "wrong" : "right"] += 1;
        n[wrong(p) ? "onWrong" : "onRight"] += weight(p);
      }
      return n;
    });
    counts.fill(found.map((n) => [n.name, share(n.caught, n.low), share(n.caught, n.wrong),
      mean(n.onRight, n.right), mean(n.onWrong, n.wrong), n.teaches.toFixed(2)]));
    const caught = found.map((n) => `${n.caught} in ${n.name}`).join(" and ");
    said.textContent = `Epoch ${epochs[moment]}, α = ${ratio.toFixed(2)}, γ = ${g.toFixed(2)}: of ${found[0].wrong} wrong pixels, `
      + `${caught} weigh less than 1.`;

    again.disabled = model.get("follows");
    [scene.show(i), epoch.show(moment), alpha.show(Math.round(100 * ratio)), gamma.show(Math.round(100 * g)),
      ranked.show(model.get("ranking"))];
  });
}

export default { render };
