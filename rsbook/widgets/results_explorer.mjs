// Runs of a study: filters, groups with a point a run, differences by seed, classes of two groups, the selection as CSV.
import { button, choice, element, follow, frame, listed, put, table, unpack } from "./common.mjs";

const STATE = ["filters", "metric", "group_by", "order", "reference", "pair"];
const DIGITS = 6; // of a score in the CSV

async function render({ model, el }) {
  await unpack(model);
  const data = study(model);
  const offered = data.columns.filter((column) => column.offered);
  const classColours = model.get("colours");
  const metricNames = Object.fromEntries(model.get("metrics"));
  const [, classScore] = model.get("per_class");

  // What the reader chooses
  const filters = offered.map((column) => {
    const cells = column.levels.map((level) => level.cell);
    const set = (chosen) => {
      const { [column.name]: _, ...others } = model.get("filters");
      put(model, { filters: chosen.length === cells.length ? others : { ...others, [column.name]: chosen } });
    };
    const chosen = () => cells.filter((cell) => (model.get("filters")[column.name] ?? cells).includes(cell));
    return several(column.words, column.levels.map((level) => [level.cell, level.text]), chosen, set);
  });
  const groupable = offered.filter((column) => column.name !== "seed");
  const grouping = several("Group by", groupable.map((column) => [column.name, column.words]),
    () => model.get("group_by"),
    (names) => put(model, { group_by: data.columns.map((c) => c.name).filter((name) => names.includes(name)) }));
  const metric = choice("Metric", model.get("metrics"), model.get("metric"), (value) => put(model, { metric: value }));
  const orders = [["study", "order of the study"], ["score", "best first"]];
  const order = choice("Order", orders, model.get("order"), (value) => put(model, { order: value }));
  const reference = choice("Compare with", [], [], (key) => put(model, { reference: key }));
  const pair = ["First group", "Second group"].map((text, i) => choice(text, [], [], (key) => {
    put(model, { pair: model.get("pair").map((other, k) => (k === i ? key : other)) });
  }));
  const download = button("Download the selection (CSV)", () => {
    save(`${model.get("name")}.csv`, csv(data, model.get("head"), data.chosen(model.get("filters"))));
  });

  // What is shown
  const status = element("p", { class: "rsbook-area", "data-told": true });
  const title = element("p", { class: "rsbook-title" });
  const strips = element("ol", { class: "rsbook-strips" });
  const seeds = data.columns.find((column) => column.name === "seed").levels;
  const numbers = table(["group", ...seeds.map(({ text }) => `seed ${text}`), "mean ± sd"], "Numbers of the chart");
  const bars = element("ol", { class: "rsbook-bars" });
  const legend = element("p", { class: "rsbook-legend" });

  frame(el, model,
    element("div", { class: "rsbook-controls" }, metric, order, reference),
    element("div", { class: "rsbook-controls rsbook-filters", role: "group", "aria-label": "Filters" },
      ...filters, ...(groupable.length > 1 ? [grouping] : [])),
    status, title, strips,
    element("details", { class: "rsbook-numbers" }, element("summary", {}, "Numbers of the chart"), numbers),
    element("p", {}, download),
    element("p", { class: "rsbook-title" }, `${classScore.charAt(0).toUpperCase()}${classScore.slice(1)} of each class, %`),
    element("div", { class: "rsbook-controls" }, ...pair),
    legend, bars);

  return follow(model, STATE, () => {
    const [by, wanted] = [model.get("metric"), model.get("reference")];
    const chosen = data.chosen(model.get("filters"));
    const groups = data.groups(chosen, model.get("group_by"));
    const against = wanted.length ? groups.find((group) => same(group.key, wanted)) : undefined;
    for (const group of groups) Object.assign(group, measured(data, group, by, against));
    const sorted = model.get("order") === "score"
      ? [...groups].sort((a, b) => (a.mean === null) - (b.mean === null) || b.mean - a.mean) : groups;

    for (const one of [...filters, grouping]) one.show();
    metric.show(by);
    order.show(model.get("order"));
    const options = groups.map(({ key, label }) => [key, label]);
    reference.offer([[[], "nothing: show the scores"], ...options.filter(([key]) => key.length)]);
    reference.show(against ? against.key : []);
    status.textContent = `${chosen.length} of ${data.runs} runs chosen, in ${groups.length} `
      + `group${groups.length === 1 ? "" : "s"}. ${data.made(chosen)}`.trimEnd();
    download.disabled = !chosen.length;

    title.textContent = against
      ? `${metricNames[by]}, difference to ${against.label}, in points; pairs with the same seed`
      : `${metricNames[by]}, %`;
    drawStrips(strips, sorted, against);
    numbers.fill(sorted.map((group) => [
      group.label,
      ...seeds.map(({ cell }) => {
        const values = group.points.filter((point) => point.seed === cell).map(({ value }) => written(value, against));
        return values.length ? values.join(", ") : "–";
      }),
      summary(group, against),
    ]));

    const both = model.get("pair").map((key, i) => groups.find((group) => same(group.key, key)) ?? groups.at(i ? -1 : 0));
    pair.forEach((select, i) => {
      select.offer(options);
      select.show(both[i]?.key);
    });
    drawBars(legend, bars, data, model.get("classes"), classColours, groups.length ? both : []);
  });
}

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const mean = (values) => (values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null);

function deviation(values) { // of a sample
  if (values.length < 2) return null;
  const middle = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1));
}

// The runs in the state, each a number from 0, with what can be asked of them.
function study(model) {
  const [columns, codes, records, origins, origin] = ["columns", "codes", "records", "origins", "origin"]
    .map((name) => model.get(name));
  const [metrics, scores, classScores] = ["metrics", "scores", "class_scores"].map((name) => model.get(name));
  const [method, colours] = ["method", "method_colours"].map((name) => model.get(name));
  const at = Object.fromEntries(columns.map(({ name }, i) => [name, i]));
  const level = (name, run) => columns[at[name]].levels[codes[at[name]][run]];
  const every = origin.map((_, run) => run);

  const chosen = (filters) => every.filter((run) => Object.entries(filters)
    .every(([name, cells]) => cells.includes(level(name, run).cell)));
  const groups = (runs, names) => {
    const found = new Map();
    for (const run of runs) {
      const levels = names.map((name) => level(name, run));
      const id = JSON.stringify(levels.map(({ cell }) => cell));
      if (!found.has(id)) {
        const named = columns.filter(({ name }) => names.includes(name)).map(({ name }) => level(name, run));
        const telling = named.filter(({ silent }) => !silent);
        const label = (telling.length ? telling : named.slice(0, 1)).map((one) => one.label).join(" · ") || "all runs";
        found.set(id, { key: JSON.parse(id), label, runs: [], method: new Set() });
      }
      found.get(id).runs.push(run);
      found.get(id).method.add(codes[at[method]][run]);
    }
    return [...found.values()].map((group) => ( // one colour where there is one method
      { ...group, colour: group.method.size === 1 ? colours[[...group.method][0]] : null }));
  };
  const made = (runs) => {
    if (!runs.length) return "";
    const [dates, devices, commits] = ["date", "device", "commit"].map((name) => (
      [...new Set(runs.map((run) => origins[origin[run]][name]))].filter(Boolean).sort()));
    if (!dates.length && !devices.length && !commits.length) return "No record says what made them.";
    const when = dates.length > 1 ? ` from ${dates[0]} to ${dates.at(-1)}` : dates.length ? ` ${dates[0]}` : "";
    return `Made${when}${devices.length ? ` on ${some(devices)}` : ""}; `
      + (commits.length ? `commit ${some(commits)}.` : "the commit is unknown.");
  };
  return { columns, codes, metrics, scores, classScores, records, level, chosen, groups, made, runs: every.length };
}

function some(names) {
  return listed(names.length <= 3 ? names : [...names.slice(0, 3), `${names.length - 3} others`]);
}

// The points of a group, by run or, against another group, by seed; their mean and spread.
function measured(data, group, metric, against) {
  const score = (run) => data.scores[metric][run];
  const runsBySeed = (runs) => {
    const found = new Map();
    for (const run of runs.filter((one) => score(one) !== null)) {
      const { cell } = data.level("seed", run);
      found.set(cell, [...(found.get(cell) ?? []), score(run)]);
    }
    return found;
  };
  let points;
  if (against) {
    const [ours, theirs] = [group.runs, against.runs].map(runsBySeed);
    points = [...ours].filter(([seed]) => theirs.has(seed))
      .map(([seed, values]) => ({ seed, value: mean(values) - mean(theirs.get(seed)) }));
  } else {
    points = group.runs.filter((run) => score(run) !== null)
      .map((run) => ({ seed: data.level("seed", run).cell, value: score(run) }));
  }
  const values = points.map(({ value }) => value);
  return { points, mean: mean(values), sd: deviation(values), above: values.filter((value) => value > 0).length };
}

// A fraction in per cent; a difference in points, with its sign.
function written(value, signed) {
  if (value === null || value === undefined) return "–";
  const text = (100 * value).toFixed(2);
  if (Number(text) === 0) return "0.00";
  return signed && value > 0 ? `+${text}` : text.replace("-", "−");
}

function summary(group, against) {
  return group.sd === null ? written(group.mean, against) : `${written(group.mean, against)} ± ${written(group.sd)}`;
}

// A button that opens a list of boxes to tick.
function several(text, options, chosen, set) {
  const boxes = options.map(([value]) => element("input", {
    type: "checkbox", onchange: () => set(options.map(([one]) => one).filter((_, i) => boxes[i].checked)),
  }));
  const shown = element("span");
  const made = element("details", { class: "rsbook-several" },
    element("summary", {}, `${text}: `, shown),
    element("div", { role: "group", "aria-label": text },
      ...options.map(([, name], i) => element("label", {}, boxes[i], " ", String(name))),
      element("div", { class: "rsbook-all" },
        button("all", () => set(options.map(([value]) => value))), button("none", () => set([])))));
  made.show = () => {
    const now = chosen();
    options.forEach(([value], i) => { boxes[i].checked = now.includes(value); });
    const names = options.filter(([value]) => now.includes(value)).map(([, name]) => name);
    shown.textContent = names.length === options.length ? "all"
      : names.length <= 2 ? listed(names) : `${names.length} of ${options.length}`;
  };
  return made;
}

// Round numbers from `low` to `high`, about six.
function ticks(low, high) {
  const rough = (high - low) / 6;
  const power = 10 ** Math.floor(Math.log10(rough));
  const away = (step) => Math.abs(Math.log(step / rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).sort((a, b) => away(a) - away(b))[0];
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k += 1) found.push((k * step).toFixed(digits));
  return found.map((text) => (Number(text) === 0 ? (0).toFixed(digits) : text));
}

// A row a group: its label, its points on a common scale in per cent, its mean and spread.
function drawStrips(list, groups, against) {
  const differences = Boolean(against);
  const values = groups.flatMap(({ points }) => points.map(({ value }) => 100 * value)).concat(differences ? [0] : []);
  if (!values.length) return list.replaceChildren(element("li", {}, "No run is chosen."));
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const margin = (most - least || 1) * 0.05;
  const [low, high] = [least - margin, most + margin];
  const place = (value) => `left: ${(100 * (value - low)) / (high - low)}%`;
  const marks = ticks(low, high);
  const axis = () => element("li", { class: "rsbook-axis", "aria-hidden": "true" }, element("span"),
    element("div", { class: "rsbook-strip" }, ...marks.map((text) => element("span", { style: place(Number(text)) },
      differences && Number(text) > 0 ? `+${text}` : text.replace("-", "−")))), element("span"));
  const rows = groups.map((group) => {
    const text = summary(group, differences);
    const seeds = group.points.map(({ seed, value }) => `seed ${seed}: ${written(value, differences)}`);
    const strip = element("div", { class: "rsbook-strip", role: "img", "aria-label": `${group.label}: ${text}; ${seeds.join(", ")}` },
      ...marks.map((mark) => element("span", {
        class: differences && Number(mark) === 0 ? "rsbook-tick zero" : "rsbook-tick", style: place(Number(mark)),
      })));
    if (group.sd !== null) {
      const [from, to] = [-1, 1].map((side) => Math.max(low, Math.min(high, 100 * (group.mean + side * group.sd))));
      strip.append(element("span", { class: "rsbook-spread", style: `${place(from)}; width: ${(100 * (to - from)) / (high - low)}%` }));
    }
    for (const [i, { value }] of group.points.entries()) {
      strip.append(element("span", { class: "rsbook-point", style: place(100 * value), title: seeds[i] }));
    }
    if (group.mean !== null) strip.append(element("span", { class: "rsbook-mean", style: place(100 * group.mean) }));
    if (group.colour) strip.style.setProperty("--method-colour", group.colour);
    const n = group === against ? "" : differences ? `${group.above} of ${group.points.length} above` : `${group.runs.length} ${group.runs.length > 1 ? "runs" : "run"}`;
    return element("li", { class: "rsbook-group" }, element("span", { class: "rsbook-label" }, group.label), strip,
      element("span", { class: "rsbook-value" }, element("b", {}, group === against ? "reference" : text), " ", element("small", {}, n)));
  });
  return list.replaceChildren(axis(), ...rows, ...(rows.length > 8 ? [axis()] : []));
}

// A row a class: a filled bar for the first group, a hatched one for the second, and by how much they differ.
function drawBars(legend, list, data, classes, colours, both) {
  legend.replaceChildren(...both.map(({ label }, i) => element("span", { class: ["first", "second"][i] }, label)));
  list.replaceChildren(...(both.length ? classes : []).map((name, l) => {
    const found = both.map(({ runs }) => {
      const values = runs.map((run) => data.classScores[run][l]).filter((value) => value !== null);
      return { mean: mean(values), sd: deviation(values) };
    });
    const [first, second] = found.map((one) => one.mean);
    const difference = first === null || second === null ? "–" : written(second - first, true);
    const row = element("li", {}, element("span", { class: "rsbook-label rsbook-swatch" }, name),
      element("div", { class: "rsbook-pair" }, ...found.flatMap((one, i) => [
        element("span", { class: "rsbook-track", "aria-hidden": "true" },
          element("span", { class: ["first", "second"][i], style: `width: ${100 * (one.mean ?? 0)}%` })),
        element("span", { class: "rsbook-value" }, summary(one)),
      ])),
      element("span", { class: "rsbook-difference" }, difference));
    row.style.setProperty("--class-colour", colours[l]);
    return row;
  }));
}

// Python has made the text of all cells but the scores.
function csv(data, head, runs) {
  const score = (value) => (value === null ? "" : value.toFixed(DIGITS));
  const lines = runs.map((run) => [
    ...data.columns.map((column, i) => column.levels[data.codes[i][run]].csv),
    ...data.metrics.map(([metric]) => score(data.scores[metric][run])),
    ...data.classScores[run].map(score),
    ...data.records.slice(run, run + 1),
  ].join(","));
  return [head, ...lines, ""].join("\n");
}

function save(name, text) {
  const href = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  element("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60000);
}

export default { render };
