// Algorithm 1: an area range to move, boxes to draw; where they lie and how large they are, against the theory.
import { asImage, asScale, button, element, follow, frame, picture, put, random, slider, table, unpack } from "./common.mjs";

const STATE = ["area_range", "seed", "draws"];
const LAST = 12; // boxes that are shown as outlines
const STEP = 0.05;

async function render({ model, el }) {
  const { colours } = await unpack(model);
  const [height, width, bins] = ["height", "width", "bins"].map((name) => model.get(name));
  const pixels = height * width;
  const theory = enumeration(height, width, bins);
  let source = { seed: null, boxes: null };
  const drawn = () => { // the draws of this seed, remembered
    if (source.seed !== model.get("seed")) source = { seed: model.get("seed"), boxes: draws(height, width, model.get("seed")) };
    return source.boxes;
  };

  const setRange = (low, high) => put(model, { area_range: [low, high].map((edge) => Math.round(edge * 100) / 100) });
  const share = { min: STEP, max: 1, step: STEP, format: (value) => value.toFixed(2) };
  const low = slider("Smallest area A_min", share, 0, (value) => setRange(value, Math.max(value, model.get("area_range")[1])));
  const high = slider("Largest area A_max", share, 1, (value) => setRange(Math.min(value, model.get("area_range")[0]), value));
  const ranges = model.get("area_ranges").map(([from, to]) => button(`${from}–${to}`, () => setRange(from, to)));
  const more = [1, 100, 1000].map((n) => button(`Draw ${thousands(n)} ${n > 1 ? "boxes" : "box"}`, () => {
    put(model, { draws: drawn().until(limits(model.get("area_range"), pixels), model.get("draws"), n, model.get("max_draws")) });
  }));
  const again = button("Start again", () => put(model, { seed: (model.get("seed") + 1) % 2 ** 31, draws: 0 }));

  const outlines = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const coverage = ["sampled", "theory"].map((way) => picture(height, width, `Coverage, ${way}`));
  const legend = picture(1, 256, "Colour scale from 0 %, dark blue, through green to 100 %, yellow");
  legend.paint(asImage(colours));
  const areas = histogram();
  const status = element("p", { class: "rsbook-area", "data-told": true });
  const numbers = table(["quantity", "sampled", "theory"], "Numbers, sampled and in theory");

  frame(el, model,
    element("div", { class: "rsbook-controls" }, low, high, group("Ranges of the paper", ranges)),
    element("div", { class: "rsbook-controls" }, ...more, again),
    status,
    element("div", { class: "rsbook-stages" },
      ...["last boxes", "coverage, sampled", "coverage, theory"].map((text) => element("div", { class: "rsbook-head" }, text)),
      ...[outlines, ...coverage].map((shown) => element("div", { class: "rsbook-shown" }, shown))),
    element("div", { class: "rsbook-colour-scale" }, legend,
      ...["0 %", "boxes that cover the pixel", "100 %"].map((text) => element("span", {}, text))),
    areas, numbers);

  return follow(model, STATE, () => {
    const range = model.get("area_range");
    const [smallest, largest] = limits(range, pixels);
    const expected = theory(smallest, largest);
    const found = tally(drawn().first(model.get("draws")), model.get("draws"), smallest, largest, height, width, bins);

    low.show(range[0]);
    high.show(range[1]);
    model.get("area_ranges").forEach((pair, i) => ranges[i].setAttribute("aria-pressed", `${pair}` === `${range}`));
    const fit = `${thousands(expected.boxes)} of ${thousands((pixels * (height + 1) * (width + 1)) / 4)} boxes in an image of `
      + `${height} × ${width} pixels have an area of ${range[0]} to ${range[1]}.`;
    const stuck = model.get("draws") >= model.get("max_draws") ? " No more draws here: start again." : "";
    status.textContent = expected.boxes
      ? `${fit} Algorithm 1 kept ${thousands(found.boxes)} of ${thousands(model.get("draws"))} draws.${stuck}`
      : `No box of whole pixels in ${height} × ${width} has an area of ${range[0]} to ${range[1]}: choose a wider range.`;
    for (const one of more) one.disabled = !expected.boxes || stuck !== "";

    outlines.replaceChildren(...found.last.map(([top, left, bottom, right], i, { length }) => element("rect", {
      x: left, y: top, width: right - left, height: bottom - top, class: i === length - 1 ? "newest" : "",
    })));
    outlines.setAttribute("aria-label", found.boxes
      ? `The last ${Math.min(found.boxes, LAST)} boxes as outlines, the newest in bold` : "No box drawn yet");
    [found, expected].forEach(({ boxes, covering }, i) => {
      coverage[i].paint(boxes
        ? asScale(colours, (p) => Math.round((255 * covering[p]) / boxes)) : (p, out, at) => out.fill(0, at, at + 4));
      const [centre, corner] = places(covering, boxes, height, width).map(inPercent);
      coverage[i].setAttribute("aria-label", `Coverage, ${["sampled", "in theory"][i]}: `
        + (boxes ? `${centre} in the centre, ${corner} in the corner` : "no box"));
    });
    areas.show(found, expected, smallest, largest, pixels);
    const both = [found, expected];
    const [middle, corner] = [0, 1].map((i) => both.map(({ covering, boxes }) => places(covering, boxes, height, width)[i]));
    const every = ((height + 1) * (width + 1)) ** 2;
    numbers.fill([
      ["boxes, drawn and possible", thousands(found.boxes), thousands(expected.boxes)],
      ["mean area, share of the image", ...both.map(({ area, boxes }) => (boxes ? (area / boxes / pixels).toFixed(4) : "–"))],
      ["draws that Algorithm 1 keeps", inPercent(found.boxes / model.get("draws")), inPercent((4 * expected.boxes) / every)],
      ["boxes that cover the centre", ...middle.map(inPercent)],
      ["boxes that cover the corner", ...corner.map(inPercent)],
    ]);
  });
}

function group(text, buttons) {
  return element("div", { class: "rsbook-choices", role: "group", "aria-label": text }, element("span", {}, text), ...buttons);
}

const thousands = (n) => n.toLocaleString("en-US");
const inPercent = (value) => (Number.isFinite(value) ? `${(100 * value).toFixed(2)} %` : "–");

// Coverage of the pixel in the centre and of the one in the corner.
function places(covering, boxes, height, width) {
  return [Math.floor(height / 2) * width + Math.floor(width / 2), 0].map((p) => (boxes ? covering[p] / boxes : NaN));
}

// The smallest and the largest area in pixels.
function limits([low, high], pixels) {
  return [Math.ceil(low * pixels - 1e-6), Math.floor(high * pixels + 1e-6)];
}

// Bins of equal width for the areas in pixels, each area inside one of them: their number, and which one an area is in.
function binned(smallest, largest, bins) {
  const span = largest - smallest + 1;
  const n = Math.max(0, Math.min(bins, span));
  return [n, (area) => Math.floor(((area - smallest) * n) / span)];
}

// The draws of Algorithm 1 from a seed, two rows and two columns each, whether they fit or not.
function draws(height, width, seed) {
  const uniform = random(seed);
  let [boxes, n] = [new Int16Array(4 * 4096), 0]; // top, left, bottom, right
  const first = (wanted) => {
    if (4 * wanted > boxes.length) {
      const longer = new Int16Array(Math.max(4 * wanted, 2 * boxes.length));
      longer.set(boxes);
      boxes = longer;
    }
    for (; n < wanted; n += 1) {
      for (const [axis, size] of [[0, height], [1, width]]) {
        const [a, b] = [Math.floor(uniform() * (size + 1)), Math.floor(uniform() * (size + 1))];
        boxes[4 * n + axis] = Math.min(a, b);
        boxes[4 * n + 2 + axis] = Math.max(a, b);
      }
    }
    return boxes;
  };
  const until = ([smallest, largest], from, boxesWanted, most) => { // how many draws until so many more boxes fit
    let [i, missing] = [from, boxesWanted];
    for (; missing && i < most; i += 1) {
      const at = 4 * i;
      const all = first(i + 1);
      const area = (all[at + 2] - all[at]) * (all[at + 3] - all[at + 1]);
      if (area >= smallest && area <= largest) missing -= 1;
    }
    return i;
  };
  return { first, until };
}

// What the boxes of a fitting area among the first n draws come to.
function tally(all, n, smallest, largest, height, width, bins) {
  const corners = new Float64Array((height + 1) * (width + 1)); // +1 and −1 where boxes begin and end
  const [parts, bin] = binned(smallest, largest, bins);
  const counts = new Array(parts).fill(0);
  const last = [];
  let [boxes, sum] = [0, 0];
  for (let i = 0; i < n; i += 1) {
    const [top, left, bottom, right] = [all[4 * i], all[4 * i + 1], all[4 * i + 2], all[4 * i + 3]];
    const area = (bottom - top) * (right - left);
    if (area < smallest || area > largest) continue;
    boxes += 1;
    sum += area;
    counts[bin(area)] += 1;
    corners[top * (width + 1) + left] += 1;
    corners[top * (width + 1) + right] -= 1;
    corners[bottom * (width + 1) + left] -= 1;
    corners[bottom * (width + 1) + right] += 1;
    last[boxes % LAST] = [top, left, bottom, right];
  }
  const covering = new Float64Array(height * width);
  for (let y = 0, p = 0; y < height; y += 1) {
    for (let x = 0, row = 0; x < width; x += 1, p += 1) {
      row += corners[y * (width + 1) + x];
      covering[p] = row + (y ? covering[p - width] : 0);
    }
  }
  const order = (boxes % LAST) + 1;
  return { boxes, area: sum, counts, covering, last: [...last.slice(order), ...last.slice(0, order)].filter(Boolean) };
}

// In how many places segments of each length up to `size` lie, and how many of them cover each pixel; summed up to each
// length, so that the segments from one length to another are a difference.
function segments(size) {
  const covers = (length, x) => Math.min(x, size - length) - Math.max(0, x - length + 1) + 1;
  const [number, lengths] = [new Float64Array(size + 1), new Float64Array(size + 1)];
  const covering = [new Float64Array(size)];
  for (let length = 1; length <= size; length += 1) {
    number[length] = number[length - 1] + size + 1 - length;
    lengths[length] = lengths[length - 1] + length * (size + 1 - length);
    covering.push(covering[length - 1].map((sum, x) => sum + covers(length, x)));
  }
  return { number, lengths, covering, covers };
}

// All boxes with an area from `smallest` to `largest`, counted: for each height the widths that fit are an interval.
function enumeration(height, width, bins) {
  const [down, across] = [segments(height), segments(width)];
  return (smallest, largest) => {
    const covering = new Float64Array(height * width);
    const [parts, bin] = binned(smallest, largest, bins);
    const counts = new Array(parts).fill(0);
    let [boxes, area] = [0, 0];
    const row = new Float64Array(width);
    for (let h = 1; h <= height; h += 1) {
      const [from, to] = [Math.ceil(smallest / h), Math.min(width, Math.floor(largest / h))];
      if (from > to) continue;
      const tops = height + 1 - h;
      boxes += tops * (across.number[to] - across.number[from - 1]);
      area += tops * h * (across.lengths[to] - across.lengths[from - 1]);
      for (let w = from; w <= to; w += 1) counts[bin(h * w)] += tops * (width + 1 - w);
      for (let x = 0; x < width; x += 1) row[x] = across.covering[to][x] - across.covering[from - 1][x];
      for (let y = 0; 2 * y < height; y += 1) { // what is below the middle mirrors what is above
        const times = down.covers(h, y);
        for (let x = 0, p = y * width; x < width; x += 1, p += 1) covering[p] += times * row[x];
      }
    }
    for (let y = Math.ceil(height / 2); y < height; y += 1) {
      covering.copyWithin(y * width, (height - 1 - y) * width, (height - y) * width);
    }
    return { boxes, area, counts, covering };
  };
}

// How areas are distributed: bars for what was sampled, a line for the theory. `.show(…)` draws both.
function histogram() {
  const plot = element("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true" });
  const [top, bottom] = [element("span"), element("span", {}, "0 %")];
  const axis = [0, 0.25, 0.5, 0.75, 1].map((value) => element("span", { style: `--at: ${100 * value}%` }, String(value)));
  const chart = element("div", { class: "rsbook-histogram-plot", role: "img" },
    element("div", { class: "rsbook-histogram-y" }, top, bottom), plot, element("div", { class: "rsbook-histogram-x" }, ...axis));
  const made = element("div", { class: "rsbook-histogram" },
    element("div", { class: "rsbook-head" }, "boxes by area, share of the image: ",
      element("span", { class: "rsbook-key sampled" }, "sampled"), " ", element("span", { class: "rsbook-key theory" }, "theory")),
    chart);
  made.show = (found, expected, smallest, largest, pixels) => {
    const n = expected.counts.length;
    const [sampled, exact] = [found, expected].map(({ counts, boxes }) => counts.map((count) => (boxes ? count / boxes : 0)));
    const most = Math.max(0.01, ...exact, ...sampled) * 1.05;
    const edge = (i) => (1000 * (smallest + (i * (largest - smallest + 1)) / n)) / pixels;
    const level = (value) => 100 - (100 * value) / most;
    const line = exact.flatMap((value, i) => [`${edge(i)},${level(value)}`, `${edge(i + 1)},${level(value)}`]);
    plot.replaceChildren(
      ...sampled.map((value, i) => element("rect", {
        class: "sampled", x: edge(i), y: level(value), width: edge(i + 1) - edge(i), height: (100 * value) / most,
      })),
      ...(expected.boxes ? [element("path", { class: "theory", d: `M${edge(0)},100 L${line.join(" ")} L${edge(n)},100` })] : []));
    top.textContent = `${(100 * most).toFixed(1)} %`;
    const ends = (shares) => `${(100 * shares[0]).toFixed(1)} % in the smallest of ${n} parts, ${(100 * shares.at(-1)).toFixed(1)} % in the largest`;
    chart.setAttribute("aria-label", expected.boxes
      ? `Histogram of areas. Theory: ${ends(exact)}. Sampled: ${found.boxes ? ends(sampled) : "nothing yet"}.` : "No box has such an area");
  };
  return made;
}

export default { render };
