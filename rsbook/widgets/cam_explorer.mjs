// Class activation maps: scales, mirrored or not, and a threshold; the segmentation, and how well it fits the map.
import {
  asImage, asScale, cell, choice, element, follow, frame, markedScale, part, percent, picture, put, rgbOf, slider, table,
  unpack,
} from "./common.mjs";

const STATE = ["scene", "class_name", "scales", "flip", "threshold"];
const STEPS = 100;
const HIGHEST = 90; // the largest threshold, in steps
const SMALLEST = 1e-5; // what a map's maximum is raised by, as in weak_segmentation.py
const PALE = 60; // of 255: classes other than the chosen one

// Where the middles of `to` pixels lie between those of `from` pixels that cover the same ground.
function between(from, to) {
  const [low, high, share] = [new Int32Array(to), new Int32Array(to), new Float64Array(to)];
  for (let k = 0; k < to; k += 1) {
    const at = Math.max(0, (k + 0.5) * (from / to) - 0.5);
    low[k] = Math.min(Math.floor(at), from - 1);
    high[k] = Math.min(low[k] + 1, from - 1);
    share[k] = at - low[k];
  }
  return { low, high, share };
}

// Adds a map, enlarged bilinearly, to `total`; its shape is its own, that of `total` is height × width.
function addEnlarged(total, map, height, width) {
  const [h, w] = map.shape;
  const [rows, columns] = [between(h, height), between(w, width)];
  for (let y = 0, p = 0; y < height; y += 1) {
    const [above, below, down] = [rows.low[y] * w, rows.high[y] * w, rows.share[y]];
    for (let x = 0; x < width; x += 1, p += 1) {
      const [left, right, over] = [columns.low[x], columns.high[x], columns.share[x]];
      total[p] += (1 - down) * ((1 - over) * map[above + left] + over * map[above + right])
        + down * ((1 - over) * map[below + left] + over * map[below + right]);
    }
  }
}

// The sum of maps, each enlarged, over its maximum + 1e-5.
function normalised(maps, height, width) {
  const total = new Float64Array(height * width);
  for (const map of maps) addEnlarged(total, map, height, width);
  const highest = total.reduce((most, value) => Math.max(most, value), 0) + SMALLEST;
  for (let p = 0; p < total.length; p += 1) total[p] /= highest;
  return total;
}

// The highest of some maps and whose it is, of equal ones the first.
function highestOf(maps, classes) {
  const [best, winner] = [Float64Array.from(maps[0]), new Int8Array(maps[0].length).fill(classes[0])];
  for (let k = 1; k < maps.length; k += 1) {
    for (let p = 0; p < best.length; p += 1) {
      if (maps[k][p] > best[p]) [best[p], winner[p]] = [maps[k][p], classes[k]];
    }
  }
  return { best, winner };
}

// The class of each pixel, `below` where none is above the threshold; 0 is no threshold.
function segment({ best, winner }, threshold, below) {
  return threshold ? winner.map((own, p) => (best[p] > threshold ? own : below)) : winner;
}

// Pixels by class in the reference map, a row each, and in the segmentation; those without a class in the map do not count.
function confusion(truth, found, count) {
  const pixels = new Int32Array(count * count);
  for (let p = 0; p < truth.length; p += 1) if (truth[p] >= 0) pixels[truth[p] * count + found[p]] += 1;
  return pixels;
}

// Of each class: pixels in the map, found, and IoU, null where the map has none.
function scores(pixels, count) {
  return Array.from({ length: count }, (_, l) => {
    let [map, found] = [0, 0];
    for (let k = 0; k < count; k += 1) {
      map += pixels[l * count + k];
      found += pixels[k * count + l];
    }
    const both = pixels[l * count + l];
    return { map, found, both, iou: map ? both / (map + found - both) : null };
  });
}

function mean(values) {
  const known = values.filter((value) => value !== null);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}

// A writer for `paint`: classes in their colours, what has none left empty; with a chosen class the others pale.
function asMap(map, colours, chosen) {
  return (p, out, at) => {
    const colour = colours[map[p]] ?? [0, 0, 0];
    out[at] = colour[0]; out[at + 1] = colour[1]; out[at + 2] = colour[2];
    out[at + 3] = colours[map[p]] ? (chosen < 0 || map[p] === chosen ? 255 : PALE) : 0;
  };
}

// Boxes to tick under one heading; options: [value, text] pairs. `.show(values)` ticks them without a call of `ontick`.
function ticks(heading, options, ontick) {
  const boxes = options.map(([value]) => element("input", {
    type: "checkbox", onchange: () => ontick(options.filter((_, k) => boxes[k].checked).map(([one]) => one), value),
  }));
  const made = element("fieldset", { class: "rsbook-checks" }, element("legend", {}, heading),
    ...options.map(([, text], k) => element("label", {}, boxes[k], text)));
  made.show = (values) => options.forEach(([value], k) => { boxes[k].checked = values.includes(value); });
  return made;
}

async function render({ model, el }) {
  const arrays = await unpack(model);
  const [count, height, width] = arrays.truth.shape;
  const objects = arrays.labels.shape[1];
  const [classes, offered, below] = ["classes", "offered", "below"].map((name) => model.get(name));
  const colours = model.get("colours").map(rgbOf);

  const labels = Array.from({ length: count }, (_, i) => {
    const label = part(arrays.labels, i);
    return classes.map((_, l) => l).filter((l) => l < objects && label[l]);
  });
  const first = labels.map((_, i) => labels.slice(0, i).reduce((sum, one) => sum + one.length, 0)); // of a scene's maps
  const mapsOf = (i) => labels[i].map((_, k) => normalised(offered.map((scale, s) => [scale, arrays[`maps_${s}`]])
    .filter(([scale]) => model.get("scales").includes(scale))
    .map(([, maps]) => part(part(maps, model.get("flip") ? 1 : 0), first[i] + k)), height, width));

  const shownClass = () => { // −1: all
    const l = classes.indexOf(model.get("class_name"));
    return labels[model.get("scene")].includes(l) ? l : -1;
  };
  const scene = choice("Scene", model.get("names").map((name, i) => [i, name]), 0, (i) => {
    const kept = labels[i].includes(shownClass());
    put(model, { scene: i, class_name: kept ? model.get("class_name") : "" });
  });
  const layer = choice("Class of its label", [], "", (name) => put(model, { class_name: name }));
  const scales = ticks("Scales, one or more", offered.map((scale) => [scale, String(scale)]), (values, last) => {
    put(model, { scales: values.length ? values : [last] });
    scales.show(model.get("scales"));
  });
  const flip = ticks("Each of them", [[true, "mirrored too"]], (values) => put(model, { flip: values.length > 0 }));
  const cut = slider("Threshold", { min: 0, max: HIGHEST, format: (k) => (k ? (k / STEPS).toFixed(2) : "none") }, 0,
    (k) => put(model, { threshold: k / STEPS }));
  const cells = ["scene", "map", "segmentation", "reference map"].map((title) => cell(picture(height, width, title), title));
  const legend = markedScale(arrays.heat, "Colour scale from 0, dark blue, through green to 1, yellow",
    ["0", "share of a map's maximum, cut at the threshold", "1"]);
  const said = [0, 1].map(() => element("p", { class: "rsbook-said", "data-told": true }));
  const counts = table(["class", "map, px", "found, px", "IoU", "IoU, all scenes"],
    "Pixels of each class, and how well segmentation and reference map agree");
  counts.classList.add("rsbook-cams-table");

  frame(el, model,
    element("div", { class: "rsbook-controls" }, scene, layer),
    element("div", { class: "rsbook-controls" }, scales, flip, cut),
    element("div", { class: "rsbook-quads rsbook-cams" }, ...cells), legend, ...said, counts);

  let added; // for which scales and directions these are: the highest maps of all scenes
  let highest = [];
  let own = { maps: [] }; // maps of the shown scene
  const add = (i) => {
    const key = JSON.stringify([model.get("scales"), model.get("flip")]);
    if (added !== key) highest = labels.map((present, j) => highestOf(mapsOf(j), present));
    if (added !== key || own.scene !== i) own = { scene: i, maps: mapsOf(i) };
    added = key;
  };
  const written = (value) => (value === null ? "–" : value.toFixed(3));

  const paint = (i, l, found) => {
    const heat = l < 0 ? highest[i].best : own.maps[labels[i].indexOf(l)];
    const title = l < 0 ? "highest map" : `map of ${classes[l]}`;
    cells[0].canvas.paint(asImage(part(arrays.images, i)));
    cells[1].canvas.paint(asScale(arrays.heat, (p) => Math.round(STEPS * heat[p])));
    cells[2].canvas.paint(asMap(found, colours, l));
    cells[3].canvas.paint(asMap(part(arrays.truth, i), colours, l));
    cells[1].canvas.setAttribute("aria-label", title);
    cells[1].firstChild.textContent = title;
  };

  const write = (i, threshold, found, pixels) => {
    const judged = [pixels[i], pixels.reduce((sum, one) => sum.map((value, k) => value + one[k]))]
      .map((one) => scores(one, objects + 1));
    const known = judged[0].reduce((sum, { map }) => sum + map, 0);
    const right = judged[0].reduce((sum, { both }) => sum + both, 0);
    const without = found.reduce((sum, l) => sum + (l === objects ? 1 : 0), 0);
    const present = (l) => l === objects || labels[i].includes(l);
    const [here, everywhere] = [judged[0].map(({ iou }, l) => (present(l) ? iou : null)), judged[1].map(({ iou }) => iou)];
    const [agreed, left] = [[right, known], [without, found.length]].map(([some, all]) => (some ? percent(some, all) : "nothing"));
    said[0].textContent = threshold
      ? `Threshold ${threshold.toFixed(2)}: ${left} of the scene is ${below}, and ${agreed} has the class that the reference map `
        + "has there."
      : `No threshold: every pixel has a class, and ${agreed} that of the reference map.`;
    said[1].textContent = `Mean IoU of this scene: ${written(mean(here))}. From the pixels of all scenes (${count}) together: `
      + `${written(mean(everywhere))}.`;

    const rows = classes.map((_, l) => l)
      .filter((l) => judged[1][l].map || labels.some((label) => label.includes(l)))
      .map((l) => {
        const kind = present(l) ? "" : "absent";
        const chosen = l === shownClass() ? " chosen" : "";
        return [{ text: classes[l], kind: `rsbook-swatch ${kind}${chosen}`, colour: model.get("colours")[l] },
          ...[judged[0][l].map, judged[0][l].found, written(here[l])].map((text) => ({ text: String(text), kind })),
          written(everywhere[l])];
      });
    counts.fill([...rows, ["mean", "", "", written(mean(here)), written(mean(everywhere))]]);
  };

  let listed; // the scene whose classes are offered
  return follow(model, STATE, () => {
    const [i, threshold] = [model.get("scene"), model.get("threshold")];
    const l = shownClass();
    add(i);
    const segments = highest.map((one) => segment(one, threshold, objects));
    paint(i, l, segments[i]);
    write(i, threshold, segments[i], segments.map((found, j) => confusion(part(arrays.truth, j), found, objects + 1)));

    if (listed !== i) layer.offer([["", "all classes: the highest map"], ...labels[i].map((k) => [classes[k], classes[k]])]);
    listed = i;
    [scene.show(i), layer.show(l < 0 ? "" : classes[l]), scales.show(model.get("scales")), flip.show([model.get("flip")])];
    [cut.show(Math.round(STEPS * threshold)), legend.show(threshold)];
  });
}

export default { render };
