// What the explorers share: arrays from the saved state, elements that are safe to fill with anybody's text,
// painting, controls, and boxes that can be dragged by mouse, finger and keyboard.

const TYPES = {
  uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, int16: Int16Array, int32: Int32Array, float32: Float32Array,
};

// The arrays of the model by name, each with its `shape`.
export async function unpack(model) {
  const arrays = {};
  for (const [name, { dtype, shape, data }] of Object.entries(model.get("arrays"))) {
    const inflated = new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate"));
    arrays[name] = Object.assign(new TYPES[dtype](await new Response(inflated).arrayBuffer()), { shape });
  }
  return arrays;
}

// Part i of an array along its first axis, without a copy.
export function part(array, i) {
  const size = array.shape.slice(1).reduce((product, length) => product * length, 1);
  return Object.assign(array.subarray(i * size, (i + 1) * size), { shape: array.shape.slice(1) });
}

// An element with attributes (`onclick` and its like: listeners) and children; text stays text, whatever it holds.
export function element(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "rect", "circle", "line", "text", "title"].includes(tag);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false && value !== null) made.setAttribute(name, value === true ? "" : value);
  }
  // What has the focus keeps its keys: JupyterLab would take arrows for itself.
  if (["button", "input", "select", "summary"].includes(tag)) made.setAttribute("data-lm-suppress-shortcuts", "true");
  made.append(...children);
  return made;
}

let labels = 0; // ids of controls, unique on a page

function labelled(text, control, ...beside) {
  control.id = `rsbook-control-${Math.random().toString(36).slice(2, 8)}-${labels++}`;
  return element("div", { class: "rsbook-control" }, element("label", { for: control.id }, text), control, ...beside);
}

// A list to choose from; options: [value, text] pairs. `.show(value)` sets it without a call of `onchoose`.
export function choice(text, options, value, onchoose) {
  const select = element("select", { onchange: () => onchoose(options[select.selectedIndex][0]) });
  const row = labelled(text, select);
  row.offer = (list) => {
    options = list;
    select.replaceChildren(...list.map(([, name]) => element("option", {}, String(name))));
  };
  row.show = (wanted) => {
    select.selectedIndex = options.findIndex(([found]) => JSON.stringify(found) === JSON.stringify(wanted));
  };
  row.offer(options);
  row.show(value);
  return row;
}

// A slider whose value stands beside it, as `format` writes it; it grows for a value above `max`.
export function slider(text, { min, max, step = 1, format = String }, value, onslide) {
  const shown = element("output");
  const input = element("input", { type: "range", min, max, step, oninput: () => { write(); onslide(+input.value); } });
  const write = () => {
    shown.textContent = format(+input.value);
    input.setAttribute("aria-valuetext", shown.textContent);
  };
  const row = labelled(text, input, shown);
  row.show = (wanted) => {
    input.max = Math.max(input.max, wanted);
    input.value = wanted;
    write();
  };
  row.show(value);
  return row;
}

export function button(text, onclick) {
  return element("button", { type: "button", class: "rsbook-button", onclick }, text);
}

// Calls `draw` in the next frame after any of these traits has changed, from the page or from Python, and once now.
export function follow(model, names, draw) {
  let waiting = 0;
  const schedule = () => { waiting ||= requestAnimationFrame(() => { waiting = 0; draw(); }); };
  for (const name of names) model.on(`change:${name}`, schedule);
  draw();
  return () => {
    cancelAnimationFrame(waiting);
    for (const name of names) model.off(`change:${name}`, schedule);
  };
}

// Sets traits in one go and tells Python, where there is one.
export function put(model, changes) {
  for (const [name, value] of Object.entries(changes)) model.set(name, value);
  model.save_changes();
}

export function rgbOf(colour) {
  return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
}

// A picture of height × width pixels that is painted pixel by pixel; `write(p, rgba, at)` fills 4 bytes for pixel p.
export function picture(height, width, description) {
  const canvas = element("canvas", { width, height, role: "img", "aria-label": description });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  canvas.paint = (write) => {
    for (let p = 0, at = 0; p < height * width; p += 1, at += 4) write(p, image.data, at);
    context.putImageData(image, 0, 0);
  };
  return canvas;
}

// Writers for `paint`: for pixel p colour `which(p)` of a scale, 3 bytes each; an image of 3 bytes a pixel; class
// positions, the mean colour where several bits are set.
export function asScale(colours, which) {
  return (p, out, at) => {
    const from = 3 * which(p);
    out[at] = colours[from]; out[at + 1] = colours[from + 1]; out[at + 2] = colours[from + 2]; out[at + 3] = 255;
  };
}

export function asImage(rgb) {
  return asScale(rgb, (p) => p);
}

export function asClasses(bits, colours) {
  const known = new Map([[0, [0, 0, 0, 0]]]); // few combinations of classes, many pixels
  return (p, out, at) => {
    let colour = known.get(bits[p]);
    if (!colour) {
      const present = colours.filter((_, l) => (bits[p] >> l) & 1);
      colour = [0, 1, 2].map((band) => present.reduce((sum, c) => sum + c[band], 0) / present.length).concat(255);
      known.set(bits[p], colour);
    }
    out[at] = colour[0]; out[at + 1] = colour[1]; out[at + 2] = colour[2]; out[at + 3] = colour[3];
  };
}

// Pixels of each class in class positions.
export function count(bits, classes) {
  const pixels = new Array(classes).fill(0);
  for (let p = 0; p < bits.length; p += 1) {
    for (let rest = bits[p], l = 0; rest; rest >>>= 1, l += 1) pixels[l] += rest & 1;
  }
  return pixels;
}

// `base` with the box filled from `patch` at `source`, into `out`; `bands` values a pixel. CutMix, for images and maps.
export function paste(out, base, patch, [top, left, bottom, right], [row, column], width, bands = 1) {
  out.set(base);
  for (let y = 0; y < bottom - top; y += 1) {
    const from = ((row + y) * width + column) * bands;
    out.set(patch.subarray(from, from + (right - left) * bands), ((top + y) * width + left) * bands);
  }
  return out;
}

// A stage: a picture with a box on it. With `move` the box is a button: drag it, its corners, press arrow keys (with
// shift: resize). box: top, left, bottom, right, half-open, in pixels. `.show(box)` puts it in its place.
// Inside an application, screen readers leave arrow keys to the page; a button itself may not have that role.
export function stage(canvas, { name, move } = {}) {
  const { height, width } = canvas;
  const outline = move
    ? element("button", { type: "button", class: "rsbook-box", "aria-roledescription": "movable box" },
      ...["tl", "tr", "bl", "br"].map((corner) => element("span", { class: "rsbook-corner", "data-corner": corner })))
    : element("div", { class: "rsbook-box", "aria-hidden": "true" });
  const holder = element("div", { class: "rsbook-stage" }, canvas,
    move ? element("div", { role: "application", "aria-label": name }, outline) : outline);
  let box = [0, 0, 1, 1];
  holder.show = (wanted) => {
    box = wanted;
    const [top, left, bottom, right] = box;
    outline.style.top = `${(100 * top) / height}%`;
    outline.style.left = `${(100 * left) / width}%`;
    outline.style.height = `${(100 * (bottom - top)) / height}%`;
    outline.style.width = `${(100 * (right - left)) / width}%`;
    if (move) {
      const place = `rows ${top} to ${bottom}, columns ${left} to ${right}`;
      outline.setAttribute("aria-label", `${name}: ${place}. Arrow keys move it, with shift they resize it.`);
    }
  };
  if (!move) return holder;

  const at = (event) => {
    const { left, top, width: w, height: h } = canvas.getBoundingClientRect();
    return [((event.clientY - top) / h) * height, ((event.clientX - left) / w) * width];
  };
  const placed = (top, left) => {
    const [h, w] = [box[2] - box[0], box[3] - box[1]];
    const [t, l] = [clamp(Math.round(top), 0, height - h), clamp(Math.round(left), 0, width - w)];
    return [t, l, t + h, l + w];
  };
  const spanned = (from, to, size) => { // between a fixed edge and a moving one, at least one pixel
    const edge = clamp(Math.round(to), 0, size);
    if (edge === from) return from < size ? [from, from + 1] : [from - 1, from];
    return [Math.min(from, edge), Math.max(from, edge)];
  };
  const go = (wanted) => { box = wanted; move(wanted); }; // at once: the next key may come before the next frame
  let drag = null; // from a pointer's place (row, column) to a box
  holder.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    const [row, column] = at(event);
    const corner = event.target.dataset?.corner;
    if (corner) {
      const fixed = [corner[0] === "t" ? box[2] : box[0], corner[1] === "l" ? box[3] : box[1]];
      drag = (y, x) => {
        const [[t, b], [l, r]] = [spanned(fixed[0], y, height), spanned(fixed[1], x, width)];
        return [t, l, b, r];
      };
    } else {
      const inside = outline.contains(event.target);
      const grip = inside ? [row - box[0], column - box[1]] : [(box[2] - box[0]) / 2, (box[3] - box[1]) / 2];
      drag = (y, x) => placed(y - grip[0], x - grip[1]);
      if (!inside) go(drag(row, column));
    }
    holder.setPointerCapture(event.pointerId);
    outline.focus({ preventScroll: true });
    event.preventDefault();
  });
  holder.addEventListener("pointermove", (event) => { if (drag) go(drag(...at(event))); });
  for (const end of ["pointerup", "pointercancel"]) holder.addEventListener(end, () => { drag = null; });
  outline.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const [top, left, bottom, right] = box;
    go(event.shiftKey
      ? [top, left, clamp(bottom + step[0], top + 1, height), clamp(right + step[1], left + 1, width)]
      : placed(top + step[0], left + step[1]));
  });
  return holder;
}

export function clamp(value, low, high) {
  return Math.max(low, Math.min(high, value));
}

// Uniform numbers in [0, 1) from a seed (mulberry32).
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

// Algorithm 1: two rows and two columns, until the area fits; null where nothing fits within many tries.
export function sampleBox(height, width, [low, high], uniform) {
  for (let tries = 0; tries < 100000; tries += 1) {
    const rows = [0, 0].map(() => Math.floor(uniform() * (height + 1))).sort((a, b) => a - b);
    const columns = [0, 0].map(() => Math.floor(uniform() * (width + 1))).sort((a, b) => a - b);
    const area = ((rows[1] - rows[0]) * (columns[1] - columns[0])) / (height * width);
    if (area > 0 && area >= low - 1e-9 && area <= high + 1e-9) return [rows[0], columns[0], rows[1], columns[1]];
  }
  return null;
}

// What a label has wrong, in words; "" for nothing.
export function mistakes(added, removed) {
  return [["added", added], ["removed", removed]].filter(([, names]) => names.length)
    .map(([how, names]) => `wrongly ${how} ${listed(names)}`).join(", ");
}

// "a", "a and b", "a, b and c"; "none" for nothing.
export function listed(names) {
  if (!names.length) return "none";
  return names.length === 1 ? names[0] : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

// The frame of an explorer: its parts, then its caption.
export function frame(el, model, ...parts) {
  const caption = element("p", { class: "rsbook-explorer-caption" }, model.get("caption"));
  const made = element("div", { class: "rsbook-explorer" }, ...parts, caption);
  made.append(announcer(made));
  el.replaceChildren(made);
  return made;
}

// What screen readers are told: the paragraphs marked `data-told` that are others than before, once a drag is over, a
// key is up, or a control has changed. What is seen may change with every frame.
function announcer(made) {
  const seen = [...made.querySelectorAll("[data-told]")];
  const said = seen.map(() => element("p"));
  let [told, waiting] = [null, 0];
  const tell = () => {
    const texts = seen.map((one) => one.textContent);
    if (told) texts.forEach((text, i) => { if (text !== told[i]) said[i].textContent = text; });
    told = texts;
  };
  const soon = () => { // after the frame that `follow` draws
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(tell);
  };
  for (const end of ["pointerup", "pointercancel", "keyup", "click", "change"]) made.addEventListener(end, soon);
  soon();
  return element("div", { class: "rsbook-told", "aria-live": "polite" }, ...said);
}

// A table that is made once; `.fill(rows)` writes cells: text, or {text, kind} where kind becomes a class.
export function table(head, description) {
  const body = element("tbody");
  const cells = [];
  const made = element("div", { class: "rsbook-explorer-scroll", tabindex: 0, role: "region", "aria-label": description },
    element("table", { class: "rsbook-explorer-table" },
      element("thead", {}, element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text)))), body));
  made.fill = (rows) => {
    while (cells.length < rows.length) {
      const row = head.map((_, i) => element(i ? "td" : "th", i ? {} : { scope: "row" }));
      cells.push(row);
      body.append(element("tr", {}, ...row));
    }
    cells.forEach((row, y) => {
      row[0].parentElement.hidden = y >= rows.length;
      row.forEach((cell, x) => {
        const value = rows[y]?.[x] ?? "";
        const { text, kind = "", colour } = typeof value === "object" ? value : { text: value };
        if (cell.textContent !== String(text)) cell.textContent = text;
        if (cell.className !== kind) cell.className = kind;
        if (colour) cell.style.setProperty("--class-colour", colour);
      });
    });
  };
  return made;
}

// A box in the first scene and its source in the second have one size: what moves one resizes the other, at the same
// corner, or as near as it fits. For models with `box` (top, left, bottom, right) and `source` (top, left).
export function holeAndPatch(model, height, width) {
  const sized = ([top, left], rows, columns) => {
    const [t, l] = [Math.min(top, height - rows), Math.min(left, width - columns)];
    return [t, l, t + rows, l + columns];
  };
  const size = ([top, left, bottom, right]) => [bottom - top, right - left];
  return {
    patch: () => sized(model.get("source"), ...size(model.get("box"))),
    moveHole: (box) => put(model, { box, source: sized(model.get("source"), ...size(box)).slice(0, 2) }),
    movePatch: (patch) => put(model, { box: sized(model.get("box"), ...size(patch)), source: patch.slice(0, 2) }),
  };
}

// A canvas under its title: `.canvas`.
export function cell(canvas, title, kind = "") {
  const head = element("div", { class: "rsbook-head" }, title);
  return Object.assign(element("div", { class: `rsbook-cell ${kind}` }, head, canvas), { canvas });
}

// A scale of colours, 3 bytes each, over three words, with a mark that `.show(share)` puts in its place.
export function markedScale(colours, description, words) {
  const bar = picture(1, colours.length / 3, description);
  bar.paint(asImage(colours));
  const mark = element("span");
  const made = element("div", { class: "rsbook-colour-scale" }, element("div", { class: "rsbook-marked" }, bar, mark),
    ...words.map((text) => element("span", {}, text)));
  made.show = (share) => { mark.style.left = `${100 * share}%`; };
  return made;
}

// A picture on a stage under its title: `.canvas` is painted, `.show(box)` is the stage's, `.entitle(text)` changes the
// title. box: name and move of the stage.
export function view(height, width, title, box) {
  const canvas = picture(height, width, title);
  const shown = stage(canvas, box);
  const head = element("div", { class: "rsbook-head" }, title);
  const entitle = (text) => { if (head.textContent !== text) head.textContent = text; };
  return Object.assign(element("div", { class: "rsbook-cell" }, head, shown), { canvas, show: shown.show, entitle });
}

// Pixels as a share in words: "12.3 %", "below 0.1 %" rather than none.
export function percent(pixels, all) {
  return pixels && pixels < all / 1000 ? "below 0.1\u00a0%" : `${((100 * pixels) / all).toFixed(1)}\u00a0%`;
}
