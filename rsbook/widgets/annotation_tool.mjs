// One class a scene, by a person: an image, four candidate classes at a time; what is answered goes to Python at once.
import { asImage, button, element, follow, frame, part, picture, put, unpack } from "./common.mjs";

const PAGE = 4; // candidates that are shown at a time
const SEPARATOR = "; ";

// Seconds that the scene has been looked at: the clock stands while the page or the tool is out of sight.
function stopwatch(seen) {
  let [passed, since, near] = [0, null, true];
  const turn = () => {
    if (since !== null) passed += performance.now() - since;
    since = near && document.visibilityState === "visible" ? performance.now() : null;
  };
  const observer = new IntersectionObserver((entries) => { near = entries.at(-1).isIntersecting; turn(); });
  observer.observe(seen);
  document.addEventListener("visibilitychange", turn);
  return {
    start: (seconds) => { since = null; passed = 1000 * seconds; turn(); },
    read: () => { turn(); return Math.round(passed) / 1000; },
    stop: () => { observer.disconnect(); document.removeEventListener("visibilitychange", turn); },
  };
}

// The middle of the values: one long break does not count.
function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function duration(seconds) {
  if (seconds < 90) return `about ${Math.max(1, Math.round(seconds))} s`;
  return `about ${Math.round(seconds / 60)} min`;
}

async function render({ model, el }) {
  const arrays = await unpack(model);
  const [n, height, width] = arrays.images.shape;
  const [classes, numbers] = [model.get("classes"), model.get("numbers")];
  const orders = numbers.map((_, i) => [...part(arrays.orders, i)].map((l) => classes[l]));
  const pages = Math.ceil(classes.length / PAGE);

  const pictures = new Map(); // painted before they are wanted: the one that is shown and the next
  const painted = (i) => {
    if (!pictures.has(i)) {
      const made = picture(height, width, `Scene ${i + 1} of ${n}, to be labelled`);
      made.paint(asImage(part(arrays.images, i)));
      pictures.set(i, made);
    }
    return pictures.get(i);
  };

  let again = null; // the scene that an undone answer was to, if not answered since
  let [shown, page, seen, said] = [null, 0, 1, ""]; // position, page of candidates, pages seen, what was done last
  const open = () => {
    const answered = new Set(model.get("answers").map(({ scene }) => scene));
    const left = numbers.map((_, i) => i).filter((i) => !answered.has(numbers[i]));
    return left.includes(again) ? [again, ...left.filter((i) => i !== again)] : left;
  };
  const offered = () => orders[shown].slice(page * PAGE, (page + 1) * PAGE);

  const answer = (label) => {
    settle(); // a second key may come before the next frame
    if (shown === null) return;
    const candidates = orders[shown].slice(0, seen * PAGE).join(SEPARATOR);
    const given = { scene: numbers[shown], label, seconds: clock.read(), candidates };
    said = label ? `Scene ${shown + 1}: ${label}.` : `Scene ${shown + 1} skipped.`;
    again = null;
    put(model, { answers: [...model.get("answers"), given] });
  };
  const choose = (k) => {
    settle();
    if (shown !== null && k < offered().length) answer(offered()[k]);
  };
  const turn = () => {
    settle();
    if (shown === null || pages < 2) return;
    page = (page + 1) % pages;
    seen = Math.max(seen, page + 1);
    said = "";
    draw();
  };
  const undo = () => {
    const answers = model.get("answers");
    const last = answers.at(-1);
    if (!last) return;
    again = numbers.indexOf(last.scene);
    said = `Scene ${again + 1} is open again, it was ${last.label || "skipped"}.`;
    put(model, { answers: answers.slice(0, -1) });
    settle();
    if (shown === null) return;
    seen = Math.max(1, Math.ceil(last.candidates.split(SEPARATOR).length / PAGE)); // they have been seen, and so long
    page = seen - 1;
    clock.start(last.seconds);
    draw();
  };

  const names = Array.from({ length: PAGE }, () => element("span"));
  const choices = names.map((name, k) => {
    const made = button("", () => choose(k));
    made.setAttribute("aria-keyshortcuts", k + 1);
    made.append(element("kbd", { "aria-hidden": "true" }, k + 1), name);
    return made;
  });
  const tools = [["n", "next four", turn], ["u", "undo", undo], ["s", "skip", () => answer("")]].map(([key, text, act]) => {
    const made = button("", act);
    made.setAttribute("aria-keyshortcuts", key);
    made.append(element("kbd", { "aria-hidden": "true" }, key), text);
    return made;
  });
  const [next, back, skip] = tools;
  const holder = element("div", { class: "rsbook-stage rsbook-fine" });
  const candidates = element("div", { class: "rsbook-candidates", role: "group", "aria-label": "Candidate classes" }, ...choices);
  const progress = element("p", { class: "rsbook-title rsbook-progress", "data-told": true });
  const bar = element("progress", { max: n, "aria-label": "Scenes answered" });
  const done = element("p", { class: "rsbook-done", "data-told": true });
  const heard = element("p", { class: "rsbook-told", "aria-hidden": "true", "data-told": true });
  const kept = element("p", { class: "rsbook-kept", "data-told": true });
  const made = frame(el, model, element("div", { class: "rsbook-annotating" },
    element("div", {}, progress, bar, holder),
    element("div", {}, candidates, element("div", { class: "rsbook-tools" }, ...tools), done, heard, kept)));
  Object.entries({ role: "group", tabindex: -1, "aria-label": "Annotation tool", "data-lm-suppress-shortcuts": "true" })
    .forEach(([name, value]) => made.setAttribute(name, value));
  const keys = { n: turn, u: undo, s: () => answer("") };
  made.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = keys[event.key.toLowerCase()] ?? (/^[1-4]$/.test(event.key) && (() => choose(event.key - 1)));
    if (!act) return;
    event.preventDefault();
    event.stopPropagation(); // the page has keys of its own
    if (!event.repeat) act(); // a key that is held down labels one scene
  });
  const clock = stopwatch(holder);

  // The scene that the answers say is next, from its first candidates.
  function settle() {
    const [first = null] = open();
    if (first === shown) return;
    [shown, page, seen] = [first, 0, 1];
    clock.start(0);
    draw();
  }

  function keep() {
    const [place, problem] = [model.get("place"), model.get("problem")];
    const same = JSON.stringify(model.get("answers")) === JSON.stringify(model.get("stored"));
    kept.classList.toggle("lost", Boolean(place) && (Boolean(problem) || !same));
    if (!place) return "A demonstration: your answers are saved nowhere, and are gone when the page is closed.";
    if (problem) return `Not saved: ${problem}`;
    return same ? `Saved in ${place}.` : `Not yet saved in ${place}: that needs Python, in a running notebook.`;
  }

  function draw() {
    const answers = model.get("answers");
    const left = open();
    const finished = shown === null;
    const focused = document.activeElement;
    for (const part of [holder, candidates, next, skip]) part.hidden = finished;
    const skipped = answers.filter(({ scene, label }) => numbers.includes(scene) && !label).length;
    if (finished) {
      progress.textContent = `All ${n} scenes are answered: ${n - skipped} labelled, ${skipped} skipped.`;
      heard.textContent = "";
    } else {
      const time = answers.length ? ` · ${duration(left.length * median(answers.map(({ seconds }) => seconds)))} left` : "";
      progress.textContent = `scene ${shown + 1} of ${n}${time}`;
      if (holder.firstChild !== painted(shown)) holder.replaceChildren(painted(shown));
      names.forEach((name, k) => {
        name.textContent = offered()[k] ?? "";
        choices[k].hidden = k >= offered().length;
      });
      next.hidden = pages < 2;
      heard.textContent = `Candidates: ${offered().map((name, k) => `${k + 1} ${name}`).join(", ")}.`;
    }
    back.setAttribute("aria-disabled", String(!answers.length)); // it keeps the focus, and keys their way to the tool
    bar.value = n - left.length;
    done.textContent = said;
    kept.textContent = keep();
    if (made.contains(focused) && focused.closest("[hidden]")) made.focus({ preventScroll: true });
    setTimeout(() => { // for the next click
      for (const i of pictures.keys()) if (!left.slice(0, 2).includes(i)) pictures.delete(i);
      left.slice(0, 2).forEach(painted);
    });
  }

  const stop = follow(model, ["answers", "stored", "problem"], () => { settle(); draw(); });
  return () => { stop(); clock.stop(); };
}

export default { render };
