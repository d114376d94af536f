// CutMix and label propagation: two scenes, a box to drag, and what three ways of labelling say of the mixture.
import {
  asClasses, asImage, button, choice, count, element, follow, frame, holeAndPatch, mistakes, part, paste, picture, put,
  random, rgbOf, sampleBox, stage, table, unpack,
} from "./common.mjs";

const STATE = ["first", "second", "box", "source", "area_range"];

async function render({ model, el }) {
  const arrays = await unpack(model);
  const [, height, width] = arrays.images.shape;
  const classes = model.get("classes");
  const colours = model.get("colours").map(rgbOf);
  const uniform = random(7);

  // What is mixed, a row of pictures each: name, array, values a pixel, how it is painted.
  const rows = [["images", arrays.images, 3, asImage], ["reference maps", arrays.maps, 1, (bits) => asClasses(bits, colours)]];
  if (arrays.masks) rows.push(["explanation masks", arrays.masks, 1, (bits) => asClasses(bits, colours)]);

  const pair = holeAndPatch(model, height, width);
  const titles = ["x₁ with its hole", "x₂ with its patch", "mixture"];
  const stages = rows.map(([name]) => titles.map((title, column) => {
    const canvas = picture(height, width, `${title}: ${name}`);
    const move = name === "images" ? [pair.moveHole, pair.movePatch][column] : undefined;
    return Object.assign(stage(canvas, { name: column ? "Patch in the second scene" : "Hole in the first scene", move }), { canvas });
  }));
  const mixtures = rows.map(([, array, bands]) => new array.constructor(height * width * bands));

  const options = model.get("names").map((name, i) => [i, name]);
  const first = choice("First scene x₁", options, model.get("first"), (i) => put(model, { first: i }));
  const second = choice("Second scene x₂", options, model.get("second"), (i) => put(model, { second: i }));
  const ranges = model.get("area_ranges").map(([low, high]) => [[low, high], `${low}–${high} of the scene`]);
  const range = choice("Area range", ranges, model.get("area_range"), (chosen) => put(model, { area_range: chosen }));
  const draw = button("Draw a box by Algorithm 1", () => {
    const box = sampleBox(height, width, model.get("area_range"), uniform);
    if (!box) return;
    const source = [height - box[2] + box[0], width - box[3] + box[1]].map((free) => Math.floor(uniform() * (free + 1)));
    put(model, { box, source });
  });

  const area = element("p", { class: "rsbook-area" });
  const verdict = element("p", { class: "rsbook-verdict", "data-told": true });
  const columns = ["class", "pixels left", "by area", "by map", ...(arrays.masks ? ["by mask"] : [])];
  const labels = table(columns, "Labels of the mixture");

  frame(el, model,
    element("div", { class: "rsbook-controls" }, first, second, range, draw),
    element("div", { class: "rsbook-split" },
      element("div", { class: "rsbook-stages" },
        ...titles.map((title) => element("div", { class: "rsbook-head" }, title)),
        ...rows.flatMap(([name], row) => (row ? [element("div", { class: "rsbook-row" }, name)] : []).concat(stages[row]))),
      element("div", {}, area, labels, verdict)));

  let painted = []; // the two scenes that the left columns show
  return follow(model, STATE, () => {
    const [i, j, box, source] = ["first", "second", "box", "source"].map((name) => model.get(name));
    const patch = pair.patch();
    rows.forEach(([, array, bands, writer], row) => {
      const scenes = [part(array, i), part(array, j)];
      scenes.forEach((scene, column) => {
        if (painted[column] !== [i, j][column]) stages[row][column].canvas.paint(writer(scene));
      });
      paste(mixtures[row], scenes[0], scenes[1], box, source, width, bands);
      stages[row][2].canvas.paint(writer(mixtures[row]));
      [box, patch, box].forEach((where, column) => stages[row][column].show(where));
    });
    painted = [i, j];

    const share = ((box[2] - box[0]) * (box[3] - box[1])) / (height * width);
    const [low, high] = model.get("area_range");
    const fit = share < low - 1e-9 ? "below" : share > high + 1e-9 ? "above" : "within";
    area.textContent = `Box of ${box[2] - box[0]} × ${box[3] - box[1]} pixels: ${share.toFixed(3)} of the scene, `
      + `${fit} the range ${low}–${high}.`;

    const scene = [i, j].map((k) => part(arrays.labels, k));
    const weights = classes.map((_, l) => (1 - share) * scene[0][l] + share * scene[1][l]);
    const pixels = count(mixtures[1], classes.length);
    const truth = pixels.map((n) => n > model.get("min_pixels"));
    const ways = [["area", weights.map((w) => w > 0), weights.map((w) => w.toFixed(2))]];
    ways.push(["reference map", truth, pixels.map(() => "1")]);
    if (arrays.masks) {
      const present = count(mixtures[2], classes.length).map((n) => n > model.get("t_map"));
      ways.push(["explanation mask", present, present.map(() => "1")]);
    }
    const shown = classes.map((_, l) => l).filter((l) => pixels[l] || scene[0][l] || scene[1][l] || ways.some(([, has]) => has[l]));
    labels.fill(shown.map((l) => [
      { text: classes[l], kind: "rsbook-swatch", colour: model.get("colours")[l] },
      String(pixels[l]),
      ...ways.map(([, has, text]) => {
        if (has[l]) return truth[l] ? { text: text[l], kind: "right" } : { text: `${text[l]} wrongly added`, kind: "added" };
        return truth[l] ? { text: "0 wrongly removed", kind: "lost" } : { text: "0", kind: "absent" };
      }),
    ]));
    verdict.textContent = ways.filter(([way]) => way !== "reference map").map(([way, has]) => {
      const [added, lost] = [classes.filter((_, l) => has[l] && !truth[l]), classes.filter((_, l) => !has[l] && truth[l])];
      return `Label by ${way}: ${mistakes(added, lost) || "nothing wrong"}.`;
    }).join(" ");
    [first.show(i), second.show(j), range.show(model.get("area_range"))];
  });
}

export default { render };
