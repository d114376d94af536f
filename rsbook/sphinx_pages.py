"""A Sphinx extension: stale pages say so under their titles (rsbook/pages.py knows which, and what), what the builders
write for screen readers is mended, and a book that is built again from the last one comes out as if built from nothing.

Sphinx goes by times, and knows neither badges nor glue, nor what a page shows of another. Here pages are read again
when what they are made of has changed, and all are written again when something has that other pages show or lead to.
"""

import hashlib
import json
from pathlib import Path

from docutils import nodes
from myst_nb.sphinx_ext import OUTPUT_FOLDER

from rsbook.pages import BADGES, FOLDER

READ = "rsbook-read"  # what a page was made of when it was read, in Sphinx's metadata of the page
MENDED = {  # what axe-core finds wrong in the HTML of docutils and MyST-NB → what is right
    ' role="doc-biblioentry"': "",  # deprecated
    '<div role="list" class="citation-list">': '<div class="citation-list">',  # its children are no list items
    '<summary aria-label="Toggle hidden content">': "<summary>",  # hides the text which people see
}


def setup(app):
    """Register the extension."""
    app.connect("env-get-outdated", to_read)
    app.connect("env-purge-doc", forget_glue)
    app.connect("source-read", note_read)
    app.connect("doctree-read", add_badge)
    app.connect("env-updated", to_write, priority=900)  # after the bibliography
    app.connect("html-page-context", mend)
    app.connect("html-collect-pages", forget_words)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def to_read(app, env, added, changed, removed):
    """The pages whose source or badge is not that which was read."""
    env.rsbook_shared = _shared(env)
    return [page for page in env.all_docs if env.metadata[page].get(READ) != _made_of(app, page)]


def forget_glue(app, env, page):
    """Remove what a page left for others: MyST-NB writes it when there is something, and never removes it."""
    _glue(env, page).unlink(missing_ok=True)


def note_read(app, page, source):
    """Remember what a page is made of."""
    app.env.metadata[page][READ] = _made_of(app, page)


def add_badge(app, doctree):
    """Put the badge of this page, if it has one, below its title."""
    badge = _badge(app, app.env.docname)
    title = next(doctree.findall(nodes.title), None)
    if badge and title is not None:
        title.parent.insert(title.parent.index(title) + 1, nodes.raw("", badge, format="html"))


def to_write(app, env):
    """All pages, if what they see of each other has changed: links to it are resolved, and missed, when pages are
    written.
    """
    return env.all_docs if env.__dict__.pop("rsbook_shared") != _shared(env) else []


def mend(app, page, template, context, doctree):
    """Replace what is wrong in the body of a page."""
    for wrong, right in MENDED.items():
        context["body"] = context.get("body", "").replace(wrong, right)


def forget_words(app):
    """Take words out of the search that no page has any more: Sphinx keeps them, with no page to lead to."""
    for words in (app.builder.indexer._mapping, app.builder.indexer._title_mapping):
        for word in [word for word, found in words.items() if not found]:
            del words[word]
    return []


def _made_of(app, page):
    source = Path(app.env.doc2path(page)).read_bytes()
    return hashlib.sha256(source + (_badge(app, page) or "").encode()).hexdigest()


def _badge(app, page):
    path = Path(app.srcdir, FOLDER, BADGES)
    return json.loads(path.read_text("utf-8")).get(page) if path.is_file() else None


def _shared(env):
    """What pages show of each other: titles, labels, headings, numbers of figures and equations, references, glue."""
    cited = env.domaindata.get("cite", {}).get("citations", [])
    return {
        "objects": {one for domain in env.domains.values() for one in domain.get_objects()},
        "headings": {
            (page, slug, *where)
            for page in env.all_docs
            for slug, (_line, *where) in env.metadata[page].get("myst_slugs", {}).items()
        },
        "equations": dict(env.domaindata["math"]["objects"]),
        "numbers": (dict(env.toc_secnumbers), dict(env.toc_fignumbers)),
        "references": [(one.key, one.citation_id, str(one.bibliography_key)) for one in cited],
        "glue": {page: path.read_bytes() for page in env.all_docs if (path := _glue(env, page)).is_file()},
    }


def _glue(env, page):
    return Path(env.app.outdir).parent / OUTPUT_FOLDER / f"{page}.glue.json"
