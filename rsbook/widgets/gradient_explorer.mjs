// What gradient calibration leaves of a gradient: strength, target and score; the curve by score, and what entries get.
import { clamp, element, follow, frame, percent, put, slider, table, unpack } from "./common.mjs";

const STATE = ["strength", "target", "score"];
const STEPS = 200; // of a curve, smaller towards p = 1, where it is steep
const GROUPS = [["positives", "hidden positives", 1, "#D55E00"], ["absences", "true absences", 0, "#3C8FD9"]];

const gradientOf = (p, t, strength) => p * (1 - strength * t * (1 - p) / (1 - p * t));

// The score at which the gradient is zero, where there is one between 0 and 1; lower scores are pushed up.
function crossing(t, strength) {
  return strength * t > 1 + 1e-9 ? (strength * t - 1) / (t * (strength - 1)) : null;
}

const signed = (value, digits) => value.toFixed(digits).replace("-", "−");
const thousands = (n) => n.toLocaleString("en-US");
const inWords = (strength) => strength.toFixed(2).replace(/0$/, "");

// A gradient with three digits; in words where they would all be zeros.
function written(gradient) {
  if (Math.abs(gradient) >= 0.0005) return signed(gradient, 3);
  return gradient ? `barely ${gradient < 0 ? "below" : "above"} zero` : "zero";
}

function sentence(p, t, strength) {
  const [gradient, zero] = [gradientOf(p, t, strength), crossing(t, strength)];
  const instead = `${written(gradient)} instead of ${p.toFixed(3)}`;
  const what = gradient === p ? `${written(p)}, that of an assumed negative`
    : gradient < 0 ? `${instead}: the entry is pushed up` : `${instead}: ${percent(gradient, p)} of an assumed negative's is left`;
  return `At p = ${p.toFixed(2)}, t = ${t.toFixed(2)} and strength ${inWords(strength)} the gradient is ${what}. `
    + (zero === null ? "No score is pushed up."
      : `The curve crosses zero at p = ${zero.toFixed(3)}: lower scores are pushed up, higher ones down.`);
}

// A plot of gradients by score, 1000 × 100 units; lines: names of paths, drawn in this order. `.reach(depth)` is how far
// it goes below zero; gradients are above 1 − λ.
function plot(lines) {
  const paths = Object.fromEntries(lines.map((name) => [name, element("path", { class: name })]));
  const svg = element("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true" }, ...Object.values(paths));
  const up = element("div", { class: "rsbook-plot-y" });
  const below = [0, 0.25, 0.5, 0.75, 1].map((p) => element("span", { style: `left: ${100 * p}%` }, String(p)));
  const value = element("span", { class: "value" });
  const words = element("div", { class: "rsbook-plot-words" },
    element("span", {}, "above zero: pushed down"), element("span", { class: "below" }, "below zero: pushed up"), value);
  const made = element("div", { class: "rsbook-plot rsbook-gradients", role: "img" },
    up, svg, element("div", { class: "rsbook-plot-x" }, ...below), words);
  let depth;
  const level = (gradient) => (100 * (1 - gradient)) / (1 + depth);
  const at = (p, gradient) => `${(1000 * p).toFixed(3)},${level(gradient).toFixed(3)}`;
  made.draw = (name, d) => paths[name].setAttribute("d", d);
  made.reach = (wanted) => {
    if (depth === wanted) return;
    depth = wanted;
    const ticks = [1, 0.5, 0, -0.5, -1, -2].filter((tick) => tick >= -depth && (depth < 2 || tick === Math.round(tick)));
    up.replaceChildren(...ticks.map((tick) => element("span", { style: `top: ${level(tick)}%` }, signed(tick, 1))));
    made.draw("grid", ticks.map((tick) => `M0,${level(tick)}h1000`).join(""));
    made.draw("zero", `M0,${level(0)}h1000`);
    made.draw("assumed", `M${at(0, 0)} L${at(1, 1)}`);
  };
  made.mark = (p, gradient) => {
    made.draw("chosen", `M${at(p, gradient)}h0.01`); // its caps are round
    made.draw("cursor", `M${at(p, p)} L${at(p, gradient)}`); // what calibration takes
    value.textContent = signed(gradient, 2).replace("−0.00", "0.00");
    value.style.left = `${100 * clamp(p, 0.05, 0.95)}%`;
    value.style.top = `${level(gradient)}%`;
    value.classList.toggle("above", level(gradient) > 85);
  };
  return Object.assign(made, { at, level });
}

// Entries of a group, their p and t: `.under(strength)` → their gradients, and what the table says of them.
function group({ p, t, hidden }, kind) {
  const own = Array.from(hidden.keys()).filter((i) => hidden[i] === kind).map((i) => [p[i], t[i]]);
  const mean = (values) => (values.length ? values.reduce((sum, one) => sum + one, 0) / values.length : NaN);
  const assumed = mean(own.map(([score]) => score));
  const under = (strength) => {
    const gradients = own.map(([score, target]) => gradientOf(score, target, strength));
    return { gradients, assumed, mean: mean(gradients), up: gradients.filter((one) => one < 0).length };
  };
  return { n: own.length, scores: own.map(([score]) => score), under };
}

async function render({ model, el }) {
  const arrays = await unpack(model);
  const groups = arrays.p ? GROUPS.map(([name, text, kind, colour]) => ({ name, text, colour, ...group(arrays, kind) })) : [];

  const knob = (name, text, format) => {
    const [min, max, step] = model.get("sliders")[name];
    return slider(text, { min, max, step, format }, model.get(name), (value) => put(model, { [name]: value }));
  };
  const two = (value) => value.toFixed(2);
  const knobs = [knob("strength", "Strength λ", inWords), knob("target", "Stored target t", two), knob("score", "Score p", two)];

  const curve = plot(["grid", "zero", "cursor", "points absences", "points positives", "assumed", "calibrated", "crossing", "chosen"]);
  const said = element("p", { class: "rsbook-said", "data-told": true });
  const legend = element("div", { class: "rsbook-lines" }, element("span", { class: "assumed" }, "assumed negative"),
    element("span", { class: "calibrated" }, "calibrated, for this t"),
    ...groups.map(({ name, text }) => element("span", { class: `points ${name}` }, text)));
  const pushed = element("p", { class: "rsbook-said", "data-told": true });
  const numbers = table(["entries", "number", "assumed negative", "cali\u00adbrated", "pushed up, %"],
    "Mean gradients of entries, as assumed negatives and calibrated");
  numbers.classList.add("rsbook-bands"); // five columns on a phone

  frame(el, model,
    element("div", { class: "rsbook-knobs", role: "group", "aria-label": "Gradient explorer" }, ...knobs),
    said,
    element("div", { class: "rsbook-cell" }, element("div", { class: "rsbook-head" }, "gradient of the logit by score p"), curve),
    legend, ...(groups.length ? [pushed, element("div", { class: "rsbook-title" }, "Mean gradients"), numbers] : []));

  let drawn; // the strength for which entries are
  const showEntries = (strength) => {
    const found = groups.map((one) => ({ ...one, ...one.under(strength) }));
    for (const { name, scores, gradients } of found) {
      const mark = name === "positives" ? "m0,-1.2v2.4" : "h0.01"; // upright strokes, and dots
      curve.draw(`points ${name}`, gradients.map((one, i) => `M${curve.at(scores[i], one)}${mark}`).join(""));
    }
    numbers.fill(found.map(({ text, colour, n, assumed, mean, up }) => [{ text, kind: "rsbook-swatch", colour }, thousands(n),
      ...[assumed, mean].map((one) => (n ? signed(one, 3).replace("−0.000", "0.000") : "–")), n ? ((100 * up) / n).toFixed(2) : "–"]));
    pushed.textContent = `Pushed up: ${found.map(({ text, n, up }) => `${thousands(up)} of ${thousands(n)} ${text}`).join(", ")}.`;
    drawn = strength;
  };

  return follow(model, STATE, () => {
    const [strength, t, p] = STATE.map((name) => model.get(name));
    const [gradient, zero] = [gradientOf(p, t, strength), crossing(t, strength)];
    curve.reach([0.5, 1].find((depth) => strength <= 1 + depth) ?? 2);
    const points = Array.from({ length: STEPS + 1 }, (_, i) => 1 - (1 - i / STEPS) ** 2);
    curve.draw("calibrated", `M${points.map((one) => curve.at(one, gradientOf(one, t, strength))).join(" L")}`);
    curve.draw("crossing", zero === null ? "" : `M${curve.at(zero, 0)}m0,-2v4`);
    curve.mark(p, gradient);
    if (groups.length && drawn !== strength) showEntries(strength);
    said.textContent = sentence(p, t, strength);
    curve.setAttribute("aria-label", `Gradient by score for t = ${t.toFixed(2)} and strength ${inWords(strength)}, below the line of an assumed `
      + `negative${zero === null ? "" : `, below zero up to p = ${zero.toFixed(3)}`}; marked at p = ${p.toFixed(2)}, where it is ${written(gradient)}`);
    STATE.forEach((name, i) => knobs[i].show(model.get(name)));
  });
}

export default { render };
