// What a contrastive loss pulls and pushes: epoch, temperature, loss and anchor; cosines, and who pushes how hard.
import {
  asScale, choice, clamp, element, follow, frame, part, picture, put, slider, table, unpack,
} from "./common.mjs";

const STATE = ["moment", "temperature", "loss", "anchor"];
const LOSSES = [["nt_xent", "symmetric NT-Xent"], ["one_sided", "one-sided, eq. 1a"]];
const CELL = 20; // pixels of the canvas a side, so that there is room for a dot
const SCALES = [0.05, 0.1, 0.2, 0.5, 1]; // shares of the push that a bar of full length may have
const KEYS = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, Home: -Infinity, End: Infinity };

// All cosines (2N,2N) from those above the diagonal.
function symmetric(upper) {
  const [rows] = upper.shape;
  const full = Float64Array.from(upper);
  for (let a = 0; a < rows; a += 1) for (let b = 0; b < a; b += 1) full[a * rows + b] = upper[b * rows + a];
  return full;
}

// Loss of one of 2N rows as anchor, the pull on its partner and the shares of its negatives in the push. With `gap`, the
// log of the sum over negatives less what the partner has, eq. (1a) is gap and NT-Xent is log(1 + exp(gap)), since the
// partner is in its sum too. So the derivative by the partner's cosine is −1/τ or −sigmoid(gap)/τ, and that by those of
// negatives the same, shared out by their softmax: shares do not depend on the loss.
function forces(cosines, rows, a, temperature, loss) {
  const partner = (a + rows / 2) % rows;
  const shares = new Float64Array(rows);
  let [top, sum, entropy] = [-Infinity, 0, 0];
  const own = (b) => b === a || b === partner;
  for (let b = 0; b < rows; b += 1) if (!own(b)) top = Math.max(top, cosines[a * rows + b] / temperature);
  for (let b = 0; b < rows; b += 1) if (!own(b)) sum += shares[b] = Math.exp(cosines[a * rows + b] / temperature - top);
  for (let b = 0; b < rows; b += 1) {
    shares[b] /= sum;
    if (shares[b]) entropy -= shares[b] * Math.log(shares[b]);
  }
  const gap = top + Math.log(sum) - cosines[a * rows + partner] / temperature;
  const coupled = loss === "nt_xent";
  return {
    loss: coupled ? Math.max(gap, 0) + Math.log1p(Math.exp(-Math.abs(gap))) : gap,
    pull: coupled ? 1 / (1 + Math.exp(-gap)) : 1, // times 1/τ
    negatives: Math.exp(entropy),
    shares,
  };
}

// The row of the second sensor that is nearest to row a of the first; of equally near ones the first.
function nearest(cosines, rows, a) {
  let best = rows / 2;
  for (let b = best + 1; b < rows; b += 1) if (cosines[a * rows + b] > cosines[a * rows + best]) best = b;
  return best - rows / 2;
}

// A writer for `paint`: a cell a cosine, a dot on partners.
function asCells(cosines, rows, heat) {
  const n = rows / 2;
  const scale = asScale(heat, (q) => q);
  return (q, out, at) => {
    const [y, x] = [Math.floor(q / (n * CELL)), q % (n * CELL)];
    const [row, column] = [Math.floor(y / CELL), Math.floor(x / CELL)];
    scale(Math.round(127.5 * (clamp(cosines[row * rows + n + column], -1, 1) + 1)), out, at);
    const away = Math.hypot((y % CELL) - (CELL - 1) / 2, (x % CELL) - (CELL - 1) / 2);
    if (row === column && away < 5) out.fill(away < 3.4 ? 0 : 255, at, at + 3);
  };
}

// The matrix with numbers beside it and a box on the anchor's row: click a row, or press arrow keys on the box.
function matrix(n, [first, second], move) {
  const canvas = picture(n * CELL, n * CELL, `Cosines of ${first}, in rows, with ${second}, in columns`);
  const box = element("button", { type: "button", class: "rsbook-box", "aria-roledescription": "movable row" });
  const holder = element("div", { class: "rsbook-matrix rsbook-fine" }, canvas,
    element("div", { role: "application", "aria-label": "Anchor in the matrix" }, box));
  const numbers = (side) => element("div", { class: `rsbook-numbering ${side}`, "aria-hidden": "true" },
    ...Array.from({ length: n }, (_, k) => element("span", {}, String(k + 1))));
  let anchor = 0;
  holder.addEventListener("click", (event) => {
    box.focus({ preventScroll: true });
    if (!event.detail) return; // Enter or space on the box
    const { top, height } = canvas.getBoundingClientRect();
    move(clamp(Math.floor(((event.clientY - top) / height) * n), 0, n - 1));
  });
  box.addEventListener("keydown", (event) => {
    if (!(event.key in KEYS)) return;
    event.preventDefault();
    anchor = clamp(anchor + KEYS[event.key], 0, n - 1); // at once: the next key may come before the next frame
    move(anchor);
  });
  const made = element("div", { class: "rsbook-numbered" }, numbers("above"), numbers("beside"), holder);
  made.show = (i, name) => {
    anchor = i;
    box.style.top = `${(100 * i) / n}%`;
    box.style.height = `${100 / n}%`;
    box.setAttribute("aria-label", `Anchor ${name}. Arrow keys choose another.`);
    made.querySelectorAll(".rsbook-numbering > span").forEach((one, k) => one.classList.toggle("chosen", k % n === i));
  };
  return Object.assign(made, { paint: canvas.paint });
}

async function render({ model, el }) {
  const arrays = await unpack(model);
  const [moments, rows] = arrays.cosines.shape;
  const n = rows / 2;
  const cosines = Array.from({ length: moments }, (_, e) => symmetric(part(arrays.cosines, e)));
  const [epochs, temperatures, names, sensors] = ["epochs", "temperatures", "names", "sensors"].map((name) => model.get(name));
  const inWords = (t) => t.toFixed(3).replace(/0$/, "");
  const number = (value, digits) => value.toFixed(digits).replace("-", "−");
  const share = (value) => `${(100 * value).toFixed(1)}\u00a0%`;

  const epoch = slider("Epoch", { min: 0, max: moments - 1, format: (i) => String(epochs[i]) }, 0, (i) => put(model, { moment: i }));
  const heat = slider("Temperature τ", { min: 0, max: temperatures.length - 1, format: (i) => inWords(temperatures[i]) }, 0,
    (i) => put(model, { temperature: temperatures[i] }));
  const loss = choice("Loss", LOSSES, LOSSES[0][0], (value) => put(model, { loss: value }));
  const choose = (i) => put(model, { anchor: i });
  const anchor = choice("Anchor", names.map((name, i) => [i, name]), 0, choose);

  const grid = matrix(n, sensors, choose);
  const bar = picture(1, 256, "Colour scale of cosines from −1, red, through yellow to 1, blue");
  bar.paint(asScale(arrays.heat, (p) => p));
  const scale = element("div", { class: "rsbook-colour-scale" }, bar, ...["−1", "cosine", "1"].map((text) => element("span", {}, text)));
  const strength = element("span", { class: "pull" });
  const strengthText = element("span", { class: "rsbook-value" });
  const pulled = element("div", { class: "rsbook-pull" }, element("span", {}, "Pull on the partner"), strengthText,
    element("span", { class: "rsbook-track", "aria-hidden": "true" }, strength));
  const pushes = table(["pair", "push, %", ...sensors], "What pushes the anchor");
  pushes.classList.add("rsbook-pushes");
  const reach = element("small");
  const legend = element("p", { class: "rsbook-legend" },
    ...sensors.map((name, k) => element("span", { class: ["first", "second"][k] }, name)), reach);
  const said = element("p", { class: "rsbook-contrast", "data-told": true });
  const summary = table(["measure", "batch", "anchor"], "Losses, pull, negatives and retrieval");
  summary.classList.add("rsbook-measures");

  frame(el, model,
    element("div", { class: "rsbook-controls" }, epoch, heat, loss, anchor),
    element("div", { class: "rsbook-split rsbook-contrasted" },
      element("div", {}, element("div", { class: "rsbook-title" }, `Cosines: ${sensors[0]} in rows, ${sensors[1]} in columns`), grid, scale, said),
      element("div", {}, element("div", { class: "rsbook-title" }, "What moves the anchor"), pulled, legend, pushes, summary)));

  pushes.fill(names.map((name) => [name, { text: "", kind: "rsbook-pair-bars" }, "", ""]));
  const bars = [...pushes.querySelectorAll(".rsbook-pair-bars")].map((cell) => {
    const both = ["first", "second"].map((kind) => element("span", { class: kind }));
    cell.append(element("div", { class: "rsbook-track" }, ...both)); // numbers beside them say the same
    return both;
  });
  [...pushes.querySelectorAll("thead th")].slice(2).forEach((cell, k) => cell.classList.add("rsbook-mark", ["first", "second"][k]));
  const pairRows = [...pushes.querySelectorAll("tbody tr")];
  let painted; // the moment whose cosines are

  return follow(model, STATE, () => {
    const [moment, t, kind, i] = STATE.map((name) => model.get(name));
    const now = cosines[moment];
    const anchors = Array.from({ length: kind === "nt_xent" ? rows : n }, (_, a) => forces(now, rows, a, t, kind));
    const mean = (name) => anchors.reduce((sum, one) => sum + one[name], 0) / anchors.length;
    const own = anchors[i];
    const found = Array.from({ length: n }, (_, a) => nearest(now, rows, a));
    const right = found.filter((b, a) => a === b).length;
    const hardest = own.shares.reduce((best, value, b) => (value > own.shares[best] ? b : best), 0);
    const longest = SCALES.find((one) => own.shares[hardest] <= one + 1e-9);
    const cosine = (b) => number(now[i * rows + b], 2);

    if (painted !== moment) grid.paint(asCells(now, rows, arrays.heat));
    painted = moment;
    grid.show(i, names[i]);
    strength.style.width = `${100 * own.pull}%`;
    strengthText.textContent = `${number(own.pull / t, 2)}, ${share(own.pull)} of 1/τ`;
    pushes.fill(names.map((name, k) => [name, { text: "", kind: "rsbook-pair-bars" },
      ...(k === i ? ["anchor", "partner"] : [k, n + k].map((b) => (100 * own.shares[b]).toFixed(1)))]));
    pairRows.forEach((row, k) => row.classList.toggle("chosen", k === i));
    bars.forEach((both, k) => both.forEach((one, m) => { one.style.width = `${(100 * own.shares[m * n + k]) / longest}%`; }));
    reach.textContent = `full length: ${100 * longest} %`;
    summary.fill([
      ["loss", number(mean("loss"), 3), number(own.loss, 3)],
      ["pull on the partner", number(mean("pull") / t, 2), number(own.pull / t, 2)],
      [`effective negatives, of ${rows - 2}`, mean("negatives").toFixed(1), own.negatives.toFixed(1)],
      ["the nearest is the partner", `${right} of ${n}`, found[i] === i ? "yes" : "no"],
    ]);
    said.textContent = `Epoch ${epochs[moment]}, τ = ${inWords(t)}, ${LOSSES.find(([value]) => value === kind)[1]}, anchor ${names[i]}. `
      + `The pull on the partner is ${number(own.pull / t, 2)}, ${share(own.pull)} of 1/τ. The hardest negative is `
      + `${sensors[Math.floor(hardest / n)]} row ${names[hardest % n]}, with ${share(own.shares[hardest])} of the push and a cosine of `
      + `${cosine(hardest)}; that of the partner is ${cosine(n + i)}. All ${rows - 2} negatives push like ${own.negatives.toFixed(1)} `
      + `equal ones. The nearest ${sensors[1]} row is ${found[i] === i ? "the partner" : `not the partner but row ${names[found[i]]}`}.`;

    const distance = (k) => Math.abs(temperatures[k] - t);
    const step = temperatures.reduce((best, _, k) => (distance(k) < distance(best) ? k : best), 0);
    [epoch.show(moment), heat.show(step), loss.show(kind), anchor.show(i)];
  });
}

export default { render };
