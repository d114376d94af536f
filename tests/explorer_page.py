"""One explorer alone on a page, in the state that Python left it in: a saved page without Jupyter's parts."""

import base64
import json
import re
from pathlib import Path

# The model is to a module what anywidget's is: traits, listeners, bytes as DataView. Tests read `explorer.state`.
PAGE = """<!doctype html>
<html lang="en" ATTRIBUTE><head><meta charset="utf-8"><title>An explorer</title><style>STYLE
VARIABLES
body { margin: 1rem; background: BACKGROUND; color: INK; }</style></head>
<body ATTRIBUTE><main><h1>An explorer</h1><div id="place"></div></main>
<script type="application/json" id="state">STATE</script>
<script type="module">
  const read = (text) => JSON.parse(text, (_, value) => value && value.base64 !== undefined
    ? new DataView(Uint8Array.from(atob(value.base64), (c) => c.charCodeAt(0)).buffer) : value);
  const { esm, ...state } = read(document.getElementById("state").textContent);
  const listeners = {};
  const model = {
    state, saves: 0,
    get: (name) => state[name],
    set: (name, value) => {
      if (JSON.stringify(state[name]) === JSON.stringify(value)) return;
      state[name] = value;
      for (const listener of listeners[`change:${name}`] ?? []) listener();
    },
    on: (name, listener) => (listeners[name] ??= new Set()).add(listener),
    off: (name, listener) => listeners[name]?.delete(listener),
    save_changes: () => { model.saves += 1; },
  };
  const url = URL.createObjectURL(new Blob([esm], { type: "text/javascript" }));
  const { default: widget } = await import(url);
  await widget.render({ model, el: document.getElementById("place") });
  window.explorer = model;
</script></body></html>
"""
# The rules of the book's style that set its own colours, those of verdicts among them.
BOOK_CSS = (Path(__file__).parents[1] / "book" / "assets" / "rsbook.css").read_text("utf-8")
BOOK = "\n".join(re.findall(r"^[^\n{}]*\{[^{}]*--rsbook-bad:[^{}]*\}", BOOK_CSS, re.M))
THEME = (
    "--pst-color-text-base: {}; --pst-color-text-muted: {}; --pst-color-background: {}; --pst-color-surface: {};"
    "--pst-color-border: {};"
)
JUPYTERLAB = (
    "--jp-content-font-color1: {}; --jp-content-font-color2: {}; --jp-layout-color1: {}; --jp-layout-color2: {};"
    "--jp-border-color1: {}; --jp-brand-color1: #2196f3;"
)
# an attribute; colours: names, then ink, muted ink, paper, raised paper, lines; further rules
THEMES = {
    "light": ('data-theme="light"', THEME, ("#1f2328", "#48566b", "#ffffff", "#f3f4f5", "#d1d5da"), BOOK),
    "dark": ('data-theme="dark"', THEME, ("#ced6dd", "#9ca4af", "#121212", "#29313d", "#48566b"), BOOK),
    "jupyterlab-dark": (
        'data-jp-theme-light="false"',
        JUPYTERLAB,
        ("#ffffff", "#b3b3b3", "#212121", "#424242", "#616161"),
        "",
    ),
}
TWO_FRAMES = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def write_page(explorer, path, theme="light"):
    """Write the page of an explorer, which sets `window.explorer` once it is shown."""

    def plain(value):
        if not isinstance(value, bytes):  # numpy's scalars look like bytes to base64, and Jupyter refuses them
            raise TypeError(f"{value!r} of {type(value).__name__} cannot be in the state of an explorer")
        return {"base64": base64.b64encode(value).decode()}

    names = [name for name in explorer.keys if not name.startswith("_")]
    state = {name: getattr(explorer, name) for name in names if name not in ("layout", "comm", "tooltip", "tabbable")}
    text = json.dumps(state | {"esm": explorer._esm}, default=plain).replace("<", "\\u003c")
    attribute, variables, colours, rules = THEMES[theme]
    filled = {"ATTRIBUTE": attribute, "STYLE": explorer._css, "BACKGROUND": colours[2], "INK": colours[0]}
    filled |= {"VARIABLES": f":root {{ {variables.format(*colours)} }} {rules}", "STATE": text}
    page = PAGE
    for name, value in filled.items():
        page = page.replace(name, value)
    path.write_text(page, encoding="utf-8")
    return path.as_uri()


def wait_two_frames(page):
    """After the first of them an explorer has drawn what its state says."""
    page.evaluate(TWO_FRAMES)


def copy_state(page, made, names):
    """Give the explorer in Python these traits as they are on the page, once it shows them."""
    wait_two_frames(page)
    for name, value in page.evaluate("(names) => names.map((name) => [name, explorer.state[name]])", list(names)):
        setattr(made, name, value)


def shown_rows(page):
    """What the first table says: {first cell of a row: the others}."""
    rows = page.locator(".rsbook-explorer-table tbody tr:visible").all()
    return {row.locator("th").inner_text(): row.locator("td").all_inner_texts() for row in rows}


def drag(page, locator, down, right):
    """Drag the middle of what is located by so many pixels of the screen."""
    locator.scroll_into_view_if_needed()
    box = locator.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + right, y + down, steps=4)
    page.mouse.up()
