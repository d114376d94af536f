"""A Sphinx extension: stale pages say so under their titles (rsbook/pages.py knows which, and what)."""

import json
from pathlib import Path

from docutils import nodes

from rsbook.pages import BADGES, FOLDER


def setup(app):
    """Register the extension."""
    app.connect("doctree-read", add_badge)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def add_badge(app, doctree):
    """Put the badge of this page, if it has one, below its title."""
    path = Path(app.srcdir, FOLDER, BADGES)
    badge = json.loads(path.read_text("utf-8")).get(app.env.docname) if path.is_file() else None
    title = next(doctree.findall(nodes.title), None)
    if badge and title is not None:
        title.parent.insert(title.parent.index(title) + 1, nodes.raw("", badge, format="html"))
