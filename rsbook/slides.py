"""Executed notebooks → slides (reveal.js) that open from disk and ask nothing of any server.

A first or second heading starts a slide, a third one a slide below it. What follows is prose, code, figures, tables and
explorers, as many on a slide as fit. Parameters, set-up, hidden code and receipts stay out.
"""

import html
import math
import re
import shutil
import tempfile
from pathlib import Path

from rsbook import planning, report
from rsbook.files import replacing

TEMPLATE = Path(__file__).with_name("slides.html.j2")
LEFT_OUT = {"parameters", "injected-parameters", "remove-cell", "remove_cell"}
CODE_HIDDEN = {"hide-input", "remove-input", "hide-cell"}
WIDGET = "application/vnd.jupyter.widget-view+json"
SHOWN = {WIDGET, "text/html", "text/plain", "image/png", "image/jpeg", "image/svg+xml"}
# Sizes are in lines of text; measured on a screen of 1280 × 720.
ROOM = 14
CHARACTERS = 76
FIGURE = 12


def build(patterns=(), root=report.ROOT, out=None):
    """Write the slides of the chapters that match (all without a pattern) to `out`/<work>/<name>.html and return the
    paths; `out` is _build/slides by default.

    Raises UsageError for a pattern that matches nothing, ReportError when a chapter was not executed to its end.
    """
    root = Path(root)
    out = Path(out or root / "_build" / "slides")
    names = planning.find(patterns, root)
    report.check_notebooks(root, [report.EXECUTED + name for name in names])
    _put_assets(report.fetch_assets(root), out / "assets")
    written = []
    for name in names:
        page = _page(root, name)
        with replacing(out / f"{name}.html") as temporary:
            temporary.write_text(page, encoding="utf-8")
        written.append(out / f"{name}.html")
    return written


def _page(root, name):
    """The slides of a chapter as HTML; its assets are one folder up."""
    import nbformat
    from nbconvert import SlidesExporter
    from pygments.formatters import HtmlFormatter

    notebook = nbformat.read(root / "book" / "_executed" / f"{name}.ipynb", as_version=4)
    title, notebook.cells = arrange(notebook.cells, _parser(_citations(root / "book" / "references.bib")))
    style = (root / "book" / "assets" / "rsbook.css").read_text("utf-8")
    resources = {
        "rsbook": {"title": title or name, "style": style, "pygments": HtmlFormatter().get_style_defs(".code")}
    }
    exporter = SlidesExporter(
        template_file=str(TEMPLATE),
        extra_template_basedirs=[],  # the default, the working folder, may hold anything
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    return exporter.from_notebook_node(notebook, resources)[0]


def _put_assets(vendor, place):
    """Copy what slides load beside them, unless it is there."""
    stamp = place / "STAMP"
    if stamp.exists() and stamp.read_text() == (vendor / "STAMP").read_text():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".making-") as folder:
        made = Path(folder, "assets")
        shutil.copytree(vendor, made, ignore=shutil.ignore_patterns("axe.min.js"))
        if place.exists():
            place.rename(Path(folder, "replaced"))
        made.rename(place)


# Blocks: (html or cell, size); headings come as (level, html)


def arrange(cells, parser):
    """The title, as text, and the cells of the slides: prose as HTML in markdown cells, code and outputs one by one."""
    slides, heading, title, used, chapter_begun = [], "", "", math.inf, False
    for block in (block for cell in cells for block in _blocks(cell, parser)):
        kind, content, size = block
        if kind == "code" and not chapter_begun and re.search(r"^(import|from) ", content.source, re.MULTILINE):
            continue  # set-up
        if kind in ("h1", "h2", "h3"):
            starts = "subslide" if kind == "h3" and slides else "slide"
            if kind == "h1" and not title:
                title = html.unescape(re.sub(r"<[^>]+>", "", content))
            slides.append(_cell("markdown", f"<{kind}>{content}</{kind}>", starts))
            heading, used = content, 0
            chapter_begun |= kind == "h2"
        else:
            if used and used + size > ROOM:  # never a heading alone
                slides.append(_cell("markdown", f'<p class="running">{heading}</p>', "subslide" if slides else "slide"))
                used = 0
            slides.append(content)
            used += size
    return title, slides


def _cell(kind, source, starts="-", outputs=None):
    import nbformat

    metadata = {"slideshow": {"slide_type": starts}}
    if kind == "markdown":
        return nbformat.v4.new_markdown_cell(source, metadata=metadata)
    return nbformat.v4.new_code_cell(source, outputs=outputs or [], metadata=metadata)


def _blocks(cell, parser):
    tags = set(cell.metadata.get("tags", []))
    if cell.cell_type == "markdown" and not tags & LEFT_OUT:
        yield from _prose(cell.source, parser)
    elif cell.cell_type == "code" and not tags & LEFT_OUT:
        source = cell.source.strip()
        if source and not tags & CODE_HIDDEN:
            yield "code", _cell("code", source), 0.85 * len(source.splitlines()) + 1
        for output in cell.outputs:
            if "remove-output" not in tags and (size := _size(output)):
                yield "output", _cell("code", "", outputs=[output]), size


def _size(output):
    """How many lines of a slide an output needs; 0: it stays out."""
    if output.output_type == "stream":
        return len(output.text.splitlines()) + 1 if output.name == "stdout" else 0
    data = output.get("data", {})
    markup = data.get("text/html", "")
    if not SHOWN & set(data) or "rsbook-receipt" in markup or markup.startswith("<noscript>"):  # an explorer's figure
        return 0
    if WIDGET in data:
        return ROOM
    if "<img" in markup or any(kind.startswith("image/") for kind in data):
        return FIGURE
    text = markup or data["text/plain"]
    rows = text.count("<tr") if markup else len(text.splitlines())
    return 1.1 * rows + 2


def _prose(source, parser):
    """The blocks of a markdown cell."""
    for tokens in _top_level(parser.parse(source)):
        first = tokens[0]
        if first.type == "heading_open" and first.tag in ("h1", "h2", "h3"):
            yield first.tag, parser.renderer.render(tokens[1:-1], parser.options, {}), 0
        else:
            markup = parser.renderer.render(tokens, parser.options, {})
            yield "prose", _cell("markdown", markup), _lines(markup)


def _lines(markup):
    if markup.startswith("<details"):  # folded
        return 2
    if markup.startswith('<div class="math"'):
        return 3
    text = html.unescape(re.sub(r"<[^>]+>", "", markup))
    if markup.startswith("<pre"):
        return 0.85 * text.count("\n") + 1
    return math.ceil(len(text) / CHARACTERS) + 0.5 * len(re.findall(r"<(?:li|tr|dt)\b", markup)) + 0.6


def _top_level(tokens):
    """Tokens in groups that render by themselves; raw HTML goes with all that stands between its tags."""
    group, depth, open_tags = [], 0, 0
    for token in tokens:
        group.append(token)
        depth += token.nesting
        if token.type == "html_block":
            found = re.findall(r"<(/?)(?:details|div|section|figure|table)\b", token.content, re.IGNORECASE)
            open_tags += sum(-1 if slash else 1 for slash in found)
        if depth == 0 and open_tags <= 0:
            yield group
            group = []
    if group:
        yield group


# Markdown as Jupyter Book reads it


def _parser(citations):
    """A parser of MyST's Markdown whose HTML stands alone: no link within the book, no directive that needs Sphinx."""
    from markdown_it.renderer import RendererHTML
    from myst_parser.config.main import MdParserConfig
    from myst_parser.parsers.mdit import create_md_parser

    extensions = {"amsmath", "attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath"}
    parser = create_md_parser(MdParserConfig(enable_extensions=extensions), RendererHTML)
    parser.options.update(parser=parser, citations=citations)  # where the rules find them
    for name, rule in RULES.items():
        parser.add_render_rule(name, rule)
    parser.core.ruler.push("links_that_lead_out", _keep_outer_links)
    return parser


def _role(renderer, tokens, index, options, *__):
    name, text = tokens[index].meta["name"], tokens[index].content
    if name.startswith("cite"):
        return html.escape(_cited(text, options["citations"], textual=name == "cite:t"))
    if name == "math":
        return _inline_math(renderer, tokens, index)
    return html.escape(re.sub(r"\s*<[^<>]*>$", "", text))  # `text <target>`


def _directive(renderer, tokens, index, options, env):
    token, parser = tokens[index], options["parser"]
    found = re.match(r"\{([\w:-]+)\}\s*(.*)", token.info.strip())
    if not found:
        return type(renderer).fence(renderer, tokens, index, options, env)
    name, title = found.groups()
    if name in ("glue", "glue:figure", "bibliography", "image", "figure", "include", "tableofcontents"):
        return ""
    if name == "math":
        return _display_math(renderer, tokens, index)
    body = parser.render(re.sub(r"\A(:[\w-]+:.*\n|\s*\n)*", "", token.content))
    if name == "dropdown" or ":class: dropdown" in token.content:
        return f"<details><summary>{parser.renderInline(title or name.title())}</summary>{body}</details>"
    head = f'<p class="title">{parser.renderInline(title)}</p>' if title and name != "container" else ""
    return f'<div class="box">{head}{body}</div>'


def _inline_math(_, tokens, index, *__):
    return f'<span class="math">\\({html.escape(tokens[index].content)}\\)</span>'


def _display_math(_, tokens, index, *__):
    return f'<div class="math">\\[{html.escape(tokens[index].content.strip())}\\]</div>'


def _picture(_, tokens, index, *__):
    return html.escape(tokens[index].content)


def _nothing(*_):
    return ""


RULES = {"myst_role": _role, "fence": _directive, "colon_fence": _directive, "math_inline": _inline_math}
RULES |= dict.fromkeys(("math_block", "math_block_label", "math_inline_double", "amsmath"), _display_math)
RULES |= dict.fromkeys(("myst_target", "myst_line_comment", "myst_block_break"), _nothing) | {"image": _picture}


def _keep_outer_links(state):
    for token in state.tokens:
        kept, opened = [], []
        for child in token.children or []:
            if child.type == "link_open":
                opened.append(str(child.attrs.get("href", "")).startswith(("http://", "https://")))
                child.attrs |= {"target": "_blank", "rel": "noopener"}
            leads_out = opened[-1] if child.type in ("link_open", "link_close") else True
            kept += [child] if leads_out else []
            if child.type == "link_close":
                opened.pop()
        token.children = kept if token.children is not None else None


def _citations(path):
    """Authors and year of each entry of a BibTeX file, by key."""
    from pybtex.database import parse_file

    if not path.exists():
        return {}
    found = {}
    for key, entry in parse_file(str(path)).entries.items():
        people = entry.persons.get("author") or entry.persons.get("editor") or []
        names = [" ".join(map(str, person.rich_last_names)) for person in people]
        who = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
        found[key] = (who or key, entry.fields.get("year", "n.d."))
    return found


def _cited(keys, citations, textual):
    known = [citations.get(key.strip(), (key.strip(), "")) for key in keys.split(",")]
    if textual:
        return ", ".join(f"{who} ({year})" if year else who for who, year in known)
    return f"({'; '.join(f'{who}, {year}'.rstrip(', ') for who, year in known)})"
