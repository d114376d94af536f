// Simulated crops: a field, its canopy and what it reflects, computed here; NDVI through the year, a day's spectra.
import { asImage, button, choice, clamp, element, follow, frame, part, picture, put, slider, table, unpack } from "./common.mjs";

const STATE = ["crop", "other", "region", "date", "changes", "cloudy", "opacity", "composite"];
const [RED, INFRARED, BANDS, ALL] = [3, 7, 12, 16]; // bands of Sentinel-2, of both
const S2_BANDS = Array.from({ length: BANDS }, (_, b) => b);
const PLANET_BANDS = [12, 13, 14, 15]; // blue, green, red, near infrared
const HIDDEN = 128; // units a layer of the emulator
const LEVELS = [-1, -0.5, 0, 0.5, 1]; // of the gradient, from the upper left to the lower right of the nine pixels
const TIMES = [1, 2, 3, 2, 1]; // so many of the nine are there
const NINE = [0, 1, 2, 1, 2, 3, 2, 3, 4]; // level of each
const CYCLE = ["peak", "rise", "rise_days", "fade", "fade_days", "end"];
const DATED = ["rise", "fade", "end"];
const COMPOSITES = { // red, green and blue of a picture: bands of Sentinel-2 and of PlanetScope, and what is white
  true: [[3, 2, 0.3], [2, 1, 0.3], [1, 0, 0.3]],
  infrared: [[7, 3, 0.6], [3, 2, 0.3], [2, 1, 0.3]],
};
const MONTHS = [1, 32, 60, 91, 121, 152, 182, 213, 244, 274, 305, 335];

// The simulator: what crop_fields.py, crop_optics.py and crop_sensors.py compute

const logistic = (x) => 0.5 * Math.tanh(0.5 * x) + 0.5;
const rint = (x) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x)); // as numpy's: a half to the even

// An array as lists in lists: what is read often is found fast.
function nested(array) {
  return array.shape.length > 1 ? Array.from({ length: array.shape[0] }, (_, i) => nested(part(array, i))) : Array.from(array);
}

// A field's numbers by name, and its canopies, which follow each other.
function meanField(arrays, names, region, crop) {
  const [numbers, cycles] = ["numbers", "canopies"].map((name) => nested(part(part(arrays[name], region), crop)));
  const canopies = cycles[0].map((_, k) => Object.fromEntries(CYCLE.map((name, i) => [name, cycles[i][k]])));
  return { ...Object.fromEntries(names.map((name, i) => [name, numbers[i]])), canopies };
}

// The field that the sliders make of it.
function changedField(mean, value) {
  const field = { ...mean, canopies: mean.canopies.map((one) => ({ ...one })) };
  for (const name of ["harvest", "plough", "flower_day"]) field[name] += value("shift");
  const more = value("leaf_area") / mean.canopies[1].peak;
  field.canopies.forEach((one, k) => {
    for (const name of DATED) one[name] += value("shift");
    if (k < 2) one.fade += value("fade");
    if (k === 1 || (k > 1 && field.grass)) one.peak *= more;
  });
  for (const name of ["chlorophyll", "drought", "soil_brightness"]) field[name] = value(name);
  return field;
}

// Leaves, canopy and ground of a pixel: its leaf area is exp(denser) times that of its field. Snow there is none.
function stateOf(field, day, denser, rules, moisture) {
  let [leaves, yellow] = [0, 0];
  for (const { peak, rise, rise_days: width, fade, fade_days: slow, end } of field.canopies) {
    if (!peak) continue;
    const area = peak * logistic((day - rise) / width) * logistic((end - day) / 0.8);
    leaves += area;
    yellow += area * logistic((day - fade) / slow);
  }
  const drought = field.drought * Math.exp(-(((day - rules.drought[0]) / rules.drought[1]) ** 2));
  const winter = (0.5 + 0.5 * Math.cos((2 * Math.PI * (day - rules.winter_day)) / 365)) ** 3;
  const byWinter = field.grass ? rules.winter_yellow.grass : rules.winter_yellow.crops;
  yellow = yellow / Math.max(leaves, 1e-6) + field.brown + rules.drought_yellow * drought + byWinter * winter * field.winter_damage;
  yellow = clamp(yellow, 0, 1);
  const left = (1 - rules.winter_loss * winter) * (1 - rules.yellow_loss * yellow) * Math.exp(denser) * (1 - rules.drought_loss * drought);
  const since = day - field.harvest;
  return {
    structure: field.structure + 0.25 * yellow,
    chlorophyll: (field.chlorophyll * (1 - 0.92 * yellow) + 1) * (0.85 + 0.15 * Math.min(leaves / 2, 1)),
    carotenoids: 0.2 * field.chlorophyll * (1 - 0.6 * yellow) + 0.6,
    anthocyanins: 0.4 + 3 * yellow * (1 - yellow),
    brown: 1.05 * yellow,
    water: field.water * (1 - 0.82 * yellow),
    dry: field.dry_matter,
    lai: (leaves + rules.base * field.grass) * left,
    angle: field.leaf_angle + 5 * yellow,
    hotspot: field.hotspot,
    brightness: field.soil_brightness,
    moisture: clamp(moisture[clamp(rint(day), 1, moisture.length - 1)] * field.soil_wetness, 0, 1),
    straw: field.straw * logistic(since / 0.8) * (1 - logistic(day - field.plough)) * clamp(1 - rules.straw_decay * since, 0, 1),
    gaps: field.gaps,
    petals: field.petals * Math.exp(-(((day - field.flower_day) / rules.petal_days) ** 2) / 2) * Math.min(leaves / 2.5, 1),
  };
}

// Numbers of 16 bits, IEEE 754.
function halves(bits) {
  return Float64Array.from(bits, (h) => {
    const [exponent, fraction] = [(h >> 10) & 31, h & 1023];
    const size = exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : fraction * 2 ** -24;
    return h >> 15 ? -size : size;
  });
}

// A matrix (rows, columns) with its columns in sequence, so that products run along memory.
function transposed(matrix, rows, columns) {
  const found = new Float64Array(matrix.length);
  for (let i = 0; i < rows; i += 1) for (let j = 0; j < columns; j += 1) found[j * rows + i] = matrix[i * columns + j];
  return found;
}

// A function (a state, zenith of the sun, of the sensor, azimuth, bands) → a, b and r of each band, to be read at once.
function emulator({ w1, w2, w3, b1, b2, b3, x_mean: xMean, x_std: xStd, y_mean: yMean, y_std: yStd, box }) {
  const [asks, outputs] = [xMean.length, yMean.length];
  const [first, second, third] = [[w1, asks, HIDDEN], [w2, HIDDEN, HIDDEN], [w3, HIDDEN, outputs]]
    .map(([bits, rows, columns]) => transposed(halves(bits), rows, columns));
  const [x, h1, h2, terms] = [asks, HIDDEN, HIDDEN, outputs].map((n) => new Float64Array(n));
  const dot = (weights, at, values) => { // four sums, which do not wait for each other
    let p = 0, q = 0, r = 0, s = 0, i = 0; // one by one: a list here costs eight times as much
    for (; i + 3 < values.length; i += 4) {
      p += weights[at + i] * values[i];
      q += weights[at + i + 1] * values[i + 1];
      r += weights[at + i + 2] * values[i + 2];
      s += weights[at + i + 3] * values[i + 3];
    }
    for (; i < values.length; i += 1) p += weights[at + i] * values[i];
    return p + q + (r + s);
  };
  const silu = (value) => value / (1 + Math.exp(-value));
  const kept = (value, i) => clamp(value, box[2 * i], box[2 * i + 1]);
  return (now, sun, view, azimuth, bands) => {
    const [n, green, yellow, red, brown, water, dry, area, angle, hotspot, s, v, a] = [now.structure, now.chlorophyll,
      now.carotenoids, now.anthocyanins, now.brown, now.water, now.dry, now.lai, now.angle, now.hotspot, sun, view, azimuth].map(kept);
    [n, Math.sqrt(green), Math.sqrt(yellow), red, brown, Math.log(water), dry, Math.exp(-area / 2), area, angle / 30, hotspot,
      Math.cos((s * Math.PI) / 180), v / 10, Math.cos((a * Math.PI) / 180)]
      .forEach((value, i) => { x[i] = (value - xMean[i]) / xStd[i]; });
    for (let j = 0; j < HIDDEN; j += 1) h1[j] = silu(b1[j] + dot(first, j * asks, x));
    for (let j = 0; j < HIDDEN; j += 1) h2[j] = silu(b2[j] + dot(second, j * HIDDEN, h1));
    for (let term = 0; term < outputs; term += ALL) {
      for (const band of bands) {
        const at = term + band;
        terms[at] = (b3[at] + dot(third, at * HIDDEN, h2)) * yStd[at] + yMean[at];
      }
    }
    return terms;
  };
}

// A function (region, field, day as index, days ahead, denser, sensor, bands) → reflectance of each of these bands.
function simulator(arrays, rules, days) {
  const emulate = emulator(arrays);
  const [moisture, angles, [soils, straws, petals]] = ["moisture", "angles", "spectra"].map((name) => nested(arrays[name]));
  return (region, field, date, ahead, denser, sensor, bands) => {
    const now = stateOf(field, days[date] + ahead, denser, rules, moisture[region]);
    const [sun, view, azimuth] = angles[region][sensor];
    const terms = emulate(now, sun[date], view[date], azimuth[date], bands);
    const seen = bands.map((band) => {
      let soil = soils[band] * now.brightness * (1 - now.moisture * arrays.darkening[band]);
      soil += now.straw * (straws[band] * (1 - 0.3 * now.moisture) - soil);
      const plants = terms[band] + (terms[ALL + band] * soil) / (1 - terms[2 * ALL + band] * soil);
      const mixed = (1 - now.gaps) * plants + now.gaps * 0.8 * soil;
      return clamp(mixed + now.petals * (petals[band] - mixed), 0.001, 1);
    });
    return Object.assign(seen, { lai: now.lai });
  };
}

const ndvi = (red, infrared) => (infrared - red) / (infrared + red);
const meanOfNine = (levels) => levels[0].map((_, b) => levels.reduce((sum, one, k) => sum + TIMES[k] * one[b], 0) / 9);

// What is shown

// A plot of 1000 × 100 units with text around it; lines: names of paths, drawn in this order.
function plot(kind, lines, across) {
  const paths = Object.fromEntries(["grid", ...lines].map((name) => [name, element("path", { class: name })]));
  const svg = element("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true" }, ...Object.values(paths));
  const up = element("div", { class: "rsbook-plot-y" });
  const below = across.map(([x, text]) => element("span", { style: `left: ${x / 10}%` }, text));
  const made = element("div", { class: `rsbook-plot ${kind}`, role: "img" }, up, svg, element("div", { class: "rsbook-plot-x" }, ...below));
  made.draw = (name, d) => paths[name].setAttribute("d", d);
  made.paint = (name, colour) => paths[name].style.setProperty("--class-colour", colour);
  made.mark = (ticks) => up.replaceChildren(...ticks.map(([y, text]) => element("span", { style: `top: ${y}%` }, text)));
  return Object.assign(made, { svg });
}

const line = (points) => `M${points.map(([x, y]) => `${x.toFixed(2)},${y.toFixed(3)}`).join(" L")}`;
const dots = (points) => points.map(([x, y]) => `M${x.toFixed(2)},${y.toFixed(3)}h0.01`).join(""); // their caps are round

function legend(entries) {
  const spans = entries.map((kind) => element("span", { class: kind }));
  const made = element("div", { class: "rsbook-lines" }, ...spans);
  made.show = (texts, colours = []) => spans.forEach((span, i) => {
    span.textContent = texts[i];
    span.hidden = !texts[i];
    if (colours[i]) span.style.setProperty("--class-colour", colours[i]);
  });
  return made;
}

async function render({ model, el }) {
  const arrays = await unpack(model);
  const [days, crops, colours, regions, bands, sliders, numbers, rules] = ["days", "crops", "colours", "regions", "bands",
    "sliders", "numbers", "rules"].map((name) => model.get(name));
  const see = simulator(arrays, rules, days);
  const written = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "long", timeZone: "UTC" });
  const dated = (date) => written.format(new Date(Date.UTC(2018, 0, days[date])));
  const means = () => ["crop", "other"].map((name) => meanField(arrays, numbers,
    regions.findIndex(([region]) => region === model.get("region")), crops.indexOf(model.get(name))));
  const own = (field, name, given) => given ?? (name === "leaf_area" ? field.canopies[1].peak : field[name]);

  // What the reader chooses
  const named = crops.map((name) => [name, name]);
  const crop = choice("Crop", named, "", (name) => put(model, { crop: name }));
  const other = choice("Compare with", named, "", (name) => put(model, { other: name }));
  const region = choice("Region", regions, "", (name) => put(model, { region: name }));
  const knobs = sliders.map(([name, text, unit, min, max, step]) => {
    const digits = step < 0.1 ? 2 : step < 1 ? 1 : 0;
    const format = (value) => (name === "gradient" ? `${value.toFixed(1)} : 1` : `${value.toFixed(digits)} ${unit}`.trim().replace("-", "−"));
    return slider(text, { min, max, step, format }, min, (value) => put(model, { changes: { ...model.get("changes"), [name]: value } }));
  });
  const again = button("Back to the mean field", () => put(model, { changes: {} }));
  const cloud = button("Cloud", () => put(model, { cloudy: !model.get("cloudy") }));
  const opacity = slider("Opacity of the cloud", { min: 0, max: 1, step: 0.01, format: (value) => value.toFixed(2) }, 0,
    (value) => put(model, { cloudy: true, opacity: value }));
  const composite = choice("Picture", [["true", "true colours"], ["infrared", "infrared"]], "true",
    (name) => put(model, { composite: name }));
  const day = slider("Day", { min: 0, max: days.length - 1, format: dated }, 0, (date) => put(model, { date }));

  const across = (t) => (1000 * (t - 1)) / 364;
  const year = plot("rsbook-year", ["cursor", "case other", "other", "case first", "first", "cloudy", "chosen"],
    MONTHS.map((start, i) => [across(start + 15), "JFMAMJJASOND"[i]]));
  year.mark([0, 25, 50, 75, 100].map((y) => [y, (1 - y / 100).toFixed(2)]));
  year.draw("grid", [25, 50, 75].map((y) => `M0,${y}h1000`).join("") + MONTHS.slice(1).map((start) => `M${across(start)},100v-2`).join(""));
  const drag = (event) => {
    const { left, width } = year.svg.getBoundingClientRect();
    const wanted = 1 + (364 * (event.clientX - left)) / width;
    put(model, { date: days.reduce((best, one, i) => (Math.abs(one - wanted) < Math.abs(days[best] - wanted) ? i : best), 0) });
  };
  year.svg.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    year.svg.setPointerCapture(event.pointerId);
    drag(event);
    day.querySelector("input").focus({ preventScroll: true }); // so that keys go on from there
    event.preventDefault();
  });
  year.svg.addEventListener("pointermove", (event) => { if (year.svg.hasPointerCapture(event.pointerId)) drag(event); });
  const lines = legend(["first", "other", "cloudy"]);

  const along = (nm) => (1000 * Math.log(nm / 400)) / Math.log(2400 / 400);
  const centres = bands.map(([, nm]) => along(nm));
  const spectrum = plot("rsbook-spectrum", ["planet", "other", "first", "chosen"], [500, 700, 1000, 1600, 2200].map((nm) => [along(nm), `${nm}`]));
  spectrum.draw("grid", "M0,50h1000");
  const sensors = legend(["first", "other", "planet"]);
  const wide = picture(1, 1, "Sentinel-2, one pixel");
  const fine = picture(3, 3, "PlanetScope, nine pixels");
  const said = element("p", { class: "rsbook-said", "data-told": true });
  const counts = table(["band", "nm", "Sentinel-2", "other crop", "Planet\u00adScope", "its nine"], "Reflectance of the day in per cent, and NDVI");
  counts.classList.add("rsbook-bands");
  const titled = (text, ...shown) => element("div", { class: "rsbook-cell" }, element("div", { class: "rsbook-head" }, text), ...shown);

  frame(el, model,
    element("div", { class: "rsbook-knobs" }, crop, other, region, composite, ...knobs, opacity,
      element("div", { class: "rsbook-choices" }, cloud, again)),
    titled("NDVI through the year", year), lines,
    element("div", { class: "rsbook-day" }, day), said,
    element("div", { class: "rsbook-split" },
      element("div", {}, titled("reflectance of the day by wavelength in nm, %", spectrum), sensors),
      element("div", { class: "rsbook-twins" }, titled("Sentinel-2: 10 m", wide), titled("PlanetScope: 3 × 3", fine))),
    counts);

  const known = {}; // by whose year it is: what it was computed from, and the year
  const remembered = (name, from, compute) => {
    const key = JSON.stringify(from);
    if (known[name]?.key !== key) known[name] = { key, found: compute() };
    return known[name].found;
  };
  const colour = (reflectance, white) => 255 * clamp(reflectance / white, 0, 1) ** (1 / 1.6);

  return follow(model, STATE, () => {
    const [changes, date, cloudy, thick] = ["changes", "date", "cloudy", "opacity"].map((name) => model.get(name));
    const place = regions.findIndex(([name]) => name === model.get("region"));
    const [mean, compared] = means();
    const value = (name) => changes[name] ?? own(mean, name, sliders.find(([one]) => one === name)[6]);
    const field = changedField(mean, value);
    const levels = LEVELS.map((level) => (level * Math.log(value("gradient"))) / 2);
    const nine = (t, sensor, which) => { // of each level; one is all where there is no gradient
      const look = (denser) => see(place, field, t, value("days"), denser, sensor, which);
      return levels[4] ? levels.map(look) : Array(5).fill(look(0));
    };
    const veiled = (reflectance, band) => reflectance + thick * (arrays.cloud[band] - reflectance);

    const clear = remembered("crop", [model.get("crop"), place, changes], () => days.map((_, t) => meanOfNine(nine(t, 0, [RED, INFRARED]))));
    const beside = remembered("other", [model.get("other"), place], () => days.map((_, t) => see(place, compared, t, 0, 0, 0, [RED, INFRARED])));
    const all = nine(date, 0, S2_BANDS);
    const surface = meanOfNine(all);
    const s2 = cloudy ? surface.map(veiled) : surface;
    const theirs = see(place, compared, date, 0, 0, 0, S2_BANDS);
    const planet = nine(date, 1, PLANET_BANDS);
    const pixels = NINE.map((level) => planet[level]);

    // The year
    const at = (t, index) => [across(days[t]), 100 - 100 * index];
    const curves = { first: clear, other: beside };
    for (const [name, found] of Object.entries(curves)) {
      const d = line(found.map((one, t) => at(t, ndvi(...one))));
      year.draw(name, d);
      year.draw(`case ${name}`, d);
      year.paint(name, colours[crops.indexOf(model.get(name === "first" ? "crop" : "other"))]);
    }
    const through = (one) => ndvi(veiled(one[0], RED), veiled(one[1], INFRARED));
    year.draw("cloudy", cloudy ? line(clear.map((one, t) => at(t, through(one)))) : "");
    const now = ndvi(s2[RED], s2[INFRARED]);
    year.draw("chosen", dots([at(date, now)]));
    year.draw("cursor", `M${across(days[date])},0v100`);
    lines.show([model.get("crop"), `${model.get("other")}, mean field`, cloudy ? `${model.get("crop")} through the cloud` : ""],
      [model.get("crop"), model.get("other")].map((name) => colours[crops.indexOf(name)]));

    // The day
    const most = Math.max(...s2, ...theirs, ...pixels.flat());
    const top = [0.3, 0.6, 1].find((one) => most <= one);
    const points = (found, from) => found.map((one, i) => [centres[from + i], 100 - (100 * one) / top]);
    spectrum.mark([0, 50, 100].map((y) => [y, String(Math.round(top * (100 - y)))]));
    spectrum.draw("first", line(points(s2, 0)));
    spectrum.draw("chosen", dots(points(s2, 0)));
    spectrum.draw("other", line(points(theirs, 0)));
    spectrum.draw("planet", planet.map((one) => line(points(one, BANDS))).join(""));
    sensors.show([`Sentinel-2, ${model.get("crop")}`, `Sentinel-2, ${model.get("other")}`, "PlanetScope, nine pixels"]);
    const lights = COMPOSITES[model.get("composite")];
    wide.paint(asImage(lights.map(([band, , white]) => colour(s2[band], white))));
    fine.paint(asImage(pixels.flatMap((one) => lights.map(([, band, white]) => colour(one[band], white)))));

    const perCent = (reflectance) => (100 * reflectance).toFixed(1);
    const range = (values, write) => [values.reduce((sum, one) => sum + one, 0) / 9, Math.min(...values), Math.max(...values)].map(write);
    const indices = range(pixels.map(([, , red, infrared]) => ndvi(red, infrared)), (one) => one.toFixed(3));
    const theirIndex = ndvi(theirs[RED], theirs[INFRARED]);
    counts.fill([...bands.slice(0, BANDS).map(([name, nm, k], band) => {
      const [middle, least, largest] = k === null ? [] : range(pixels.map((one) => one[k]), perCent);
      return [name, nm, perCent(s2[band]), perCent(theirs[band]), middle ?? "–", middle ? `${least}–${largest}` : "–"];
    }), ["NDVI", "", now.toFixed(3), theirIndex.toFixed(3), indices[0], `${indices[1]}–${indices[2]}`]]);
    said.textContent = `${dated(date)}, ${regions[place][1]}: ${model.get("crop")} with a leaf area of ${planet[2].lai.toFixed(1)} has NDVI `
      + `${ndvi(surface[RED], surface[INFRARED]).toFixed(2)} in Sentinel-2`
      + `${cloudy ? `, and ${now.toFixed(2)} through a cloud of opacity ${thick.toFixed(2)}` : ""}; ${model.get("other")} has `
      + `${theirIndex.toFixed(2)}. NDVI of PlanetScope's nine pixels is ${Number(indices[1]).toFixed(2)} to ${Number(indices[2]).toFixed(2)}.`;
    year.setAttribute("aria-label", `NDVI through the year of ${model.get("crop")}, solid, and of ${model.get("other")}, dashed; ${dated(date)} is marked`);
    spectrum.setAttribute("aria-label", `Reflectance from 443 to 2202 nm on ${dated(date)}, at most ${perCent(most)} %`);

    [crop.show(model.get("crop")), other.show(model.get("other")), region.show(model.get("region")), day.show(date), opacity.show(thick),
      composite.show(model.get("composite"))];
    sliders.forEach(([name], i) => {
      knobs[i].show(value(name));
      knobs[i].hidden = name === "fade" && field.grass > 0; // grass is cut before
    });
    cloud.setAttribute("aria-pressed", String(cloudy));
  });
}

export default { render };
