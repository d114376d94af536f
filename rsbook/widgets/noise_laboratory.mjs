// Map noise: what a kind, an intensity and a fraction do to the map of a scene, and to the label of a mixture.
import {
  asClasses, asImage, choice, count, element, follow, frame, holeAndPatch, mistakes, part, paste, percent, put,
  rgbOf, slider, table, unpack, view,
} from "./common.mjs";

const STATE = ["level", "first", "second", "box", "source"];
const CHANGED = [213, 94, 0]; // seen on light and dark grey by every eye

// What an intensity means, in words.
const AMOUNTS = {
  mask_shift: (a) => `up to ${a} pixels`,
  dilation_erosion: (a) => `by ${a} pixels`,
  rectify_borders: (a) => `blocks of ${a} × ${a}`,
  border_deformation: (a) => `boxes: ${a}`,
};

const spoken = (kind) => kind.replaceAll("_", " ");
const hit = (kind) => (kind === "class_swap" ? "of all segments" : "of the maps");

// Class positions of class indices, −1 for none.
function bitsOf(indices) {
  const bits = new Int32Array(indices.length);
  for (let p = 0; p < bits.length; p += 1) bits[p] = indices[p] < 0 ? 0 : 1 << indices[p];
  return bits;
}

function differing(a, b) {
  let pixels = 0;
  for (let p = 0; p < a.length; p += 1) pixels += a[p] !== b[p];
  return pixels;
}

// A writer for `paint`: the clean map in pale grey, with what differs from it in one colour.
function asDifference(clean, noisy, colours) {
  const greys = colours.map(([r, g, b]) => { const grey = 0.3 * r + 0.59 * g + 0.11 * b; return [grey, grey, grey]; });
  const write = asClasses(clean, greys);
  return (p, out, at) => {
    write(p, out, at);
    if (clean[p] === noisy[p]) {
      out[at + 3] *= 0.35;
      return;
    }
    out[at] = CHANGED[0]; out[at + 1] = CHANGED[1]; out[at + 2] = CHANGED[2]; out[at + 3] = 255;
  };
}

// Controls of the level. Not every fraction need be there at every intensity: then the nearest is taken.
function levelControls(model) {
  const levels = model.get("levels");
  const kinds = [...new Set(levels.map(([kind]) => kind))];
  const values = (kind, axis) => [...new Set(levels.filter(([k]) => k === kind).map((level) => level[axis]))].sort((a, b) => a - b);
  const places = () => {
    const level = model.get("level");
    return [1, 2].map((axis) => values(level[0], axis).indexOf(level[axis]));
  };
  const go = (kind, wanted, weights) => {
    const axes = [values(kind, 1), values(kind, 2)];
    const off = (level) => axes.reduce((sum, axis, i) => sum + weights[i] * Math.abs(axis.indexOf(level[i + 1]) - wanted[i]), 0);
    const own = levels.filter(([k]) => k === kind);
    put(model, { level: own.reduce((best, level) => (off(level) < off(best) ? level : best)) });
  };
  const now = () => model.get("level")[0];
  const kind = choice("Kind of noise", kinds.map((k) => [k, spoken(k)]), now(), (k) => go(k, places(), [1, 1]));
  const intensity = slider("Intensity", {
    min: 0, max: 1, format: (i) => AMOUNTS[now()]?.(values(now(), 2)[i]) ?? "",
  }, 0, (i) => go(now(), [places()[0], i], [1, 100]));
  const fraction = slider("Fraction", {
    min: 0, max: 1, format: (i) => `${+(100 * values(now(), 1)[i]).toPrecision(6)} % ${hit(now())}`,
  }, 0, (i) => go(now(), [i, places()[1]], [100, 1]));
  kind.hidden = kinds.length === 1;
  const rows = [kind, intensity, fraction];
  rows.show = () => {
    kind.show(now());
    [fraction, intensity].forEach((row, i) => {
      const last = values(now(), i + 1).length - 1;
      row.querySelector("input").max = last;
      row.hidden = last === 0;
      if (places()[i] >= 0) row.show(places()[i]);
    });
  };
  return rows;
}

// The level in words, its first letter large: "Mask shift, up to 36 pixels, in 50 % of the maps".
function inWords([kind, fraction, intensity]) {
  const amount = intensity === null ? "" : `, ${AMOUNTS[kind](intensity)}`;
  const name = spoken(kind);
  return `${name[0].toUpperCase()}${name.slice(1)}${amount}, in ${+(100 * fraction).toPrecision(6)} % ${hit(kind)}`;
}

async function render({ model, el }) {
  const arrays = await unpack(model);
  const [n, height, width] = arrays.images.shape;
  const classes = model.get("classes");
  const colours = model.get("colours").map(rgbOf);
  const levels = model.get("levels").map((level) => JSON.stringify(level));
  const { patch, moveHole, movePatch } = holeAndPatch(model, height, width);
  const all = height * width;

  const x1 = ["x₁ with its hole", "x₁: clean map", "x₁: noisy map", "x₁: difference"]
    .map((title, i) => view(height, width, title, { name: "Hole in the first scene", move: i ? undefined : moveHole }));
  const mixed = ["x₂ with its patch", "mixture: clean map", "mixture: noisy map", "mixture: difference"]
    .map((title, i) => view(height, width, title, { name: "Patch in the second scene", move: i ? undefined : movePatch }));
  const mixtures = [new Int32Array(all), new Int32Array(all)];

  const level = levelControls(model);
  const first = choice("First scene x₁", [], model.get("first"), (i) => put(model, { first: i }));
  const second = choice("Second scene x₂", [], model.get("second"), (i) => put(model, { second: i }));
  const status = element("p", { class: "rsbook-area", "data-told": true });
  const verdict = element("p", { class: "rsbook-verdict", "data-told": true });
  const labels = table(["class", "pixels, clean map", "pixels, noisy map", "label, clean map", "label, noisy map"], "Labels of the mixture");

  frame(el, model,
    element("div", { class: "rsbook-controls" }, ...level),
    element("div", { class: "rsbook-controls" }, first, second),
    status, element("div", { class: "rsbook-quads" }, ...x1, ...mixed), labels, verdict);

  const showMaps = (row, clean, noisy) => {
    row[1].canvas.paint(asClasses(clean, colours));
    row[2].canvas.paint(asClasses(noisy, colours));
    row[3].canvas.paint(asDifference(clean, noisy, colours));
  };

  // What depends on level and scenes only, not on the box.
  let key, clean, noisy, changed;
  const choose = (at, i, j) => {
    if (key === `${[at, i, j]}`) return;
    key = `${[at, i, j]}`;
    const scene = (k) => [part(arrays.clean, k), part(part(arrays.noisy, k), at)];
    changed = Array.from({ length: n }, (_, k) => differing(...scene(k)));
    [clean, noisy] = [0, 1].map((way) => [i, j].map((k) => bitsOf(scene(k)[way])));
    x1[0].canvas.paint(asImage(part(arrays.images, i)));
    mixed[0].canvas.paint(asImage(part(arrays.images, j)));
    showMaps(x1, clean[0], noisy[0]);
    x1[3].entitle(`x₁: ${percent(changed[i], all)} changed`);
    const options = model.get("names").map((name, k) => [k, changed[k] ? `changed – ${name}` : name]);
    [first, second].forEach((row) => row.offer(options));
    const fate = (k) => (changed[k] ? `${percent(changed[k], all)} of its pixels` : "as it was");
    status.textContent = `${inWords(model.get("level"))}: ${changed.filter(Boolean).length} of ${n} maps changed. `
      + `x₁: ${fate(i)}; x₂: ${fate(j)}.`;
  };

  return follow(model, STATE, () => {
    const at = levels.indexOf(JSON.stringify(model.get("level")));
    if (at < 0) return; // set from Python, to what is not offered
    const [i, j, box, source] = ["first", "second", "box", "source"].map((name) => model.get(name));
    choose(at, i, j);
    [clean, noisy].forEach((maps, way) => paste(mixtures[way], maps[0], maps[1], box, source, width));
    showMaps(mixed, ...mixtures);
    const apart = differing(...mixtures);
    mixed[3].entitle(`mixture: ${percent(apart, all)} changed`);
    [...x1, ...mixed.slice(1)].forEach((cell) => cell.show(box));
    mixed[0].show(patch());

    const pixels = mixtures.map((bits) => count(bits, classes.length));
    const [truth, found] = pixels.map((counts) => counts.map((many) => many > model.get("min_pixels")));
    const shown = classes.map((_, l) => l).filter((l) => pixels[0][l] || pixels[1][l]);
    labels.fill(shown.map((l) => [
      { text: classes[l], kind: "rsbook-swatch", colour: model.get("colours")[l] },
      String(pixels[0][l]), String(pixels[1][l]),
      truth[l] ? "1" : { text: "0", kind: "absent" },
      found[l]
        ? truth[l] ? { text: "1", kind: "right" } : { text: "1 wrongly added", kind: "added" }
        : truth[l] ? { text: "0 wrongly removed", kind: "lost" } : { text: "0", kind: "absent" },
    ]));
    const added = classes.filter((_, l) => found[l] && !truth[l]);
    const lost = classes.filter((_, l) => !found[l] && truth[l]);
    const wrong = mistakes(added, lost);
    if (wrong) {
      verdict.textContent = `Because of the noise: ${wrong}.`;
    } else if (apart) {
      verdict.textContent = `The noise changed ${percent(apart, all)} of the mixture's pixels, and not its label.`;
    } else verdict.textContent = "No pixel of this mixture changed, so its label is the same.";
    level.show();
    [first.show(i), second.show(j)];
  });
}

export default { render };
