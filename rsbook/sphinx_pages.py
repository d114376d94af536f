"""A Sphinx extension: stale pages say so under their titles (rsbook/pages.py knows which, and what), and what the
builders write for screen readers is mended.
"""

import json
from pathlib import Path

from docutils import nodes

from rsbook.pages import BADGES, FOLDER

MENDED = {  # what axe-core finds wrong in the HTML of docutils and MyST-NB → what is right
    ' role="doc-biblioentry"': "",  # deprecated
    '<div role="list" class="citation-list">': '<div class="citation-list">',  # its children are no list items
    '<summary aria-label="Toggle hidden content">': "<summary>",  # hides the text which people see
}


def setup(app):
    """Register the extension."""
    app.connect("doctree-read", add_badge)
    app.connect("html-page-context", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def add_badge(app, doctree):
    """Put the badge of this page, if it has one, below its title."""
    path = Path(app.srcdir, FOLDER, BADGES)
    badge = json.loads(path.read_text("utf-8")).get(app.env.docname) if path.is_file() else None
    title = next(doctree.findall(nodes.title), None)
    if badge and title is not None:
        title.parent.insert(title.parent.index(title) + 1, nodes.raw("", badge, format="html"))


def mend(app, page, template, context, doctree):
    """Replace what is wrong in the body of a page."""
    for wrong, right in MENDED.items():
        context["body"] = context.get("body", "").replace(wrong, right)
