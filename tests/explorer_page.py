"""One explorer alone on a page, in the state that Python left it in: a saved page without Jupyter's parts."""

import base64
import json

# The model is to a module what anywidget's is: traits, listeners, bytes as DataView. Tests read `explorer.state`.
PAGE = """<!doctype html>
<html lang="en" data-theme="THEME"><head><meta charset="utf-8"><title>An explorer</title><style>STYLE
:root { --pst-color-text-base: INK; --pst-color-text-muted: MUTED; --pst-color-background: BACKGROUND; GOODBAD }
body { margin: 1rem; background: BACKGROUND; color: INK; }</style></head>
<body><main><h1>An explorer</h1><div id="place"></div></main>
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
DARK = "--rsbook-good: #6fc796; --rsbook-bad: #ff9a9f; --rsbook-open: #e8bd6b;"
# paper, ink, muted ink and verdicts, as in the book
COLOURS = {"light": ("#ffffff", "#1f2328", "#48566b", ""), "dark": ("#121212", "#ced6dd", "#9ca4af", DARK)}


def write_page(explorer, path, theme="light"):
    """Write the page of an explorer, which sets `window.explorer` once it is shown."""

    def plain(value):
        return {"base64": base64.b64encode(value).decode()}

    names = [name for name in explorer.keys if not name.startswith("_")]
    state = {name: getattr(explorer, name) for name in names if name not in ("layout", "comm", "tooltip", "tabbable")}
    text = json.dumps(state | {"esm": explorer._esm}, default=plain).replace("<", "\\u003c")
    background, ink, muted, others = COLOURS[theme]
    filled = {"THEME": theme, "STYLE": explorer._css, "BACKGROUND": background, "INK": ink, "MUTED": muted}
    filled |= {"GOODBAD": others, "STATE": text}
    page = PAGE
    for name, value in filled.items():
        page = page.replace(name, value)
    path.write_text(page, encoding="utf-8")
    return path.as_uri()
