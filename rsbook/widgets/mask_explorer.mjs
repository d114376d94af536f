// Explanation masks: what a network looks at for a class, cut at t_cam, and what a hole leaves of it for the label.
import {
  asImage, asScale, choice, element, follow, frame, markedScale, part, percent, put, rgbOf, slider, table, unpack, view,
} from "./common.mjs";

const STATE = ["scene", "class_index", "box", "t_cam", "t_map"];
const STEPS = 100; // thresholds 0.00 … 0.99: a pixel is in the mask of step k when it has passed more than k of them

// Pixels of mask and map, whole and outside the hole, and of both and either.
function counted(passed, step, bits, l, [top, left, bottom, right], width) {
  const found = { mask: 0, maskLeft: 0, map: 0, mapLeft: 0, both: 0, either: 0 };
  for (let p = 0; p < passed.length; p += 1) {
    const inMask = passed[p] > step ? 1 : 0;
    const inMap = bits ? (bits[p] >> l) & 1 : 0;
    if (!(inMask || inMap)) continue;
    const [row, column] = [Math.floor(p / width), p % width];
    const kept = row < top || row >= bottom || column < left || column >= right ? 1 : 0;
    found.mask += inMask;
    found.map += inMap;
    found.maskLeft += inMask & kept;
    found.mapLeft += inMap & kept;
    found.both += inMask & inMap;
    found.either += 1;
  }
  return found;
}

// A writer for `paint`: a class in its colour on the scene in grey, pale inside the hole.
function asOverlay(rgb, there, colour, [top, left, bottom, right], width) {
  return (p, out, at) => {
    const grey = 0.3 * rgb[3 * p] + 0.59 * rgb[3 * p + 1] + 0.11 * rgb[3 * p + 2];
    const weight = there(p) ? 0.8 : 0;
    for (let band = 0; band < 3; band += 1) out[at + band] = weight * colour[band] + (1 - weight) * grey;
    const [row, column] = [Math.floor(p / width), p % width];
    const gone = row >= top && row < bottom && column >= left && column < right;
    out[at + 3] = (weight ? 255 : 120) * (gone ? 0.3 : 1);
  };
}

async function render({ model, el }) {
  const arrays = await unpack(model);
  const [, height, width] = arrays.images.shape;
  const classes = model.get("classes");
  const all = height * width;

  const present = (i) => {
    const label = part(arrays.labels, i);
    return classes.map((_, l) => l).filter((l) => label[l]);
  };
  const shownClass = () => { // of the scene's label, whatever Python has set
    const offered = present(model.get("scene"));
    return offered.includes(model.get("class_index")) ? model.get("class_index") : offered[0];
  };
  const hole = { name: "Hole in the scene", move: (box) => put(model, { box }) };
  const titles = ["scene with its hole", "activation", "mask", ...(arrays.maps ? ["reference map"] : [])];
  const cells = titles.map((title, i) => view(height, width, title, i ? {} : hole));

  const scene = choice("Scene", model.get("names").map((name, i) => [i, name]), model.get("scene"), (i) => {
    const offered = present(i);
    put(model, { scene: i, class_index: offered.includes(shownClass()) ? shownClass() : offered[0] });
  });
  const layer = choice("Class of its label", [], 0, (l) => put(model, { class_index: l }));
  const hundredths = (k) => (k / STEPS).toFixed(2);
  const cam = slider("Threshold t_cam", { min: 0, max: STEPS - 1, format: hundredths }, 0, (k) => put(model, { t_cam: k / STEPS }));
  const map = slider("Threshold t_map", { min: 0, max: 100, format: (t) => `${t} px` }, 0, (t) => put(model, { t_map: t }));
  const legend = markedScale(arrays.heat, "Colour scale from the map's minimum, dark blue, through green to its maximum, yellow",
    ["0: minimum", "activation, cut at t_cam", "1: maximum"]);
  const readout = ["rsbook-psi", "rsbook-phi", "rsbook-area"].map((name) => element("p", { class: name, "data-told": true }));
  const labels = table(["class", "mask left, px", "ψ",
    ...(arrays.maps ? ["map left, px", "φ", "IoU"] : [])], "What is left of each class of the label");

  frame(el, model,
    element("div", { class: "rsbook-controls" }, scene, layer),
    element("div", { class: "rsbook-controls" }, cam, map),
    element("div", { class: "rsbook-quads" }, ...cells),
    legend, ...readout, labels);

  const write = (l, { mask, maskLeft, map: onMap, mapLeft, both, either }) => {
    const [tMap, least] = [model.get("t_map"), model.get("min_pixels")];
    const [psi, phi] = [maskLeft > tMap, mapLeft > least];
    const name = classes[l];
    readout[0].textContent = `${maskLeft} of ${mask} pixels of the mask are left outside the hole: ${psi ? "" : "not "}more than `
      + `t_map = ${tMap}, so ψ says ${name} is ${psi ? "present" : "absent"}.`;
    if (arrays.maps) {
      const judged = psi === phi ? "Both agree" : `ψ has wrongly ${psi ? "added" : "removed"} it`;
      readout[1].textContent = `Of ${onMap} pixels of the reference map ${mapLeft} are left: ${phi ? "" : "not "}more than ${least}, `
        + `so φ says ${phi ? "present" : "absent"}. ${judged}.`;
    }
    readout[2].textContent = `The mask covers ${percent(mask, all)} of the scene. `
      + (arrays.maps ? `IoU of mask and map in the whole scene: ${iou(both, either)}.` : "There is no map to compare it with.");
  };
  const iou = (both, either) => (either ? (both / either).toFixed(3) : "neither is there");

  let offered; // the scene whose classes the list holds
  return follow(model, STATE, () => {
    const [i, box, tMap] = ["scene", "box", "t_map"].map((name) => model.get(name));
    const l = shownClass();
    const step = Math.round(model.get("t_cam") * STEPS);
    const [rgb, passed] = [part(arrays.images, i), part(arrays.passed, i)];
    const bits = arrays.maps && part(arrays.maps, i);
    const [own, colour] = [part(passed, l), rgbOf(model.get("colours")[l])];
    cells[0].canvas.paint(asImage(rgb));
    cells[1].canvas.paint(asScale(arrays.heat, (p) => own[p]));
    cells[2].canvas.paint(asOverlay(rgb, (p) => own[p] > step, colour, box, width));
    if (bits) cells[3].canvas.paint(asOverlay(rgb, (p) => (bits[p] >> l) & 1, colour, box, width));
    for (const cell of cells) cell.show(box);

    const counts = present(i).map((k) => [k, counted(part(passed, k), step, bits, k, box, width)]);
    write(...counts.find(([k]) => k === l));
    labels.fill(counts.map(([k, { maskLeft, mapLeft, both, either }]) => {
      const [psi, phi] = [maskLeft > tMap, mapLeft > model.get("min_pixels")];
      const wrong = bits && psi !== phi;
      const kind = wrong ? (psi ? "added" : "lost") : psi ? (bits ? "right" : "") : "absent";
      return [
        { text: classes[k], kind: `rsbook-swatch${k === l ? " chosen" : ""}`, colour: model.get("colours")[k] },
        String(maskLeft), { text: `${+psi}${wrong ? ` wrongly ${psi ? "added" : "removed"}` : ""}`, kind },
        ...(bits ? [String(mapLeft), phi ? "1" : { text: "0", kind: "absent" }, either ? (both / either).toFixed(3) : "–"] : []),
      ];
    }));

    if (offered !== i) layer.offer(present(i).map((k) => [k, classes[k]]));
    offered = i;
    [scene.show(i), layer.show(l), cam.show(step), map.show(tMap), legend.show(model.get("t_cam"))];
  });
}

export default { render };
