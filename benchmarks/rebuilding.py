"""Rendering the book again: whole, with nothing changed, and after a change of prose in one notebook.

python benchmarks/rebuilding.py --rounds 1
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import measuring
import nbformat

from rsbook import execution, planning, report

GLUE = r"\{glue\}`_executed/(\S+)\.ipynb::(\w+)`|\{glue\} (\w+)\n:doc: _executed/(\S+)\.ipynb"  # what book/*.md shows
PREFIX = "application/papermill.record/"

PROSE = "after a change of prose in one notebook"


def main() -> None:
    """Render a copy of the book three times, check, write."""
    parser = measuring.parser(__file__, __doc__, rounds=1)
    parser.set_defaults(threads=[1])
    arguments = parser.parse_args()
    table = measuring.Table(arguments, report.BUILDERS)
    listed = report.listed_pages()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "book")  # Sphinx reads all pages again that it finds in another place
        shown = copy_book(root, listed)
        case = f"{len(listed)} pages, {shown}"
        seconds, found = {}, []
        for _ in range(arguments.rounds):
            shutil.rmtree(root / "_build", ignore_errors=True)
            for what, call in {
                "whole": lambda: render(root),
                "run --dry-run and report, nothing changed": lambda: (decide(), render(root)),
                PROSE: lambda: found.append(changed_pages(root, listed)),
            }.items():
                seconds.setdefault(what, []).append(measuring.timed(call))
            check(root)
    for what, values in seconds.items():
        table.add(case, what, values, at_most=20 if "nothing" in what else None, on=None)
    table.ratio(case, seconds, PROSE, "whole", on=None)
    read, written = zip(*found, strict=True)
    table.add(case, "pages read again", read, unit="pages", at_most=1, on=None)
    table.add(
        case, "pages written again, besides the first, which always is", written, unit="pages", at_most=1, on=None
    )
    table.write()


def copy_book(root: Path, listed: list[str]) -> str:
    """A copy of what is rendered; says whose pages: those that were executed here, or, unless all were, of sources."""
    report.fetch_assets()
    shutil.copytree(report.ROOT / "book", root / "book", ignore=shutil.ignore_patterns("_generated"))
    shutil.copy(report.ROOT / "_config.yml", root)
    try:
        report.check_notebooks(root, listed)
    except report.ReportError:
        make_up(root / "book")
        return "of notebooks without outputs"
    return "of executed notebooks"


def make_up(book: Path) -> None:
    """The notebooks as if executed, with nothing shown but what other pages take from them."""
    shutil.rmtree(book / "_executed", ignore_errors=True)
    taken = [found for page in book.glob("*.md") for found in re.findall(GLUE, page.read_text("utf-8"))]
    parameters = planning.plan()
    for name in planning.find():
        notebook = nbformat.read(report.ROOT / "notebooks" / f"{name}.ipynb", nbformat.NO_CONVERT)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for key in {key for at, key, _, _ in taken if at == name} | {key for _, _, key, at in taken if at == name}:
            data = {f"{PREFIX}text/plain": key, f"{PREFIX}text/html": f"<b>{key}</b>"}
            scrap = {"scrapbook": {"name": key, "mime_prefix": PREFIX}}
            code[-1].outputs.append(nbformat.v4.new_output("display_data", data, metadata=scrap))
        record = {"name": name, "parameters": parameters[name], **planning.fingerprint(name, parameters[name])}
        notebook.metadata["papermill"] = {"end_time": "now"}
        path = book / "_executed" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(execution.stamp(nbformat.writes(notebook), path, record)), "utf-8")


def render(root: Path) -> None:
    """As `python -m rsbook report` does."""
    command = "import sys; from rsbook import report; report.render(sys.argv[1], project=report.ROOT)"
    subprocess.run([sys.executable, "-c", command, str(root)], cwd=report.ROOT, check=True)


def decide() -> None:
    """What is to be executed."""
    command = [sys.executable, "-m", "rsbook", "run", "--dry-run"]
    subprocess.run(command, cwd=report.ROOT, check=True, stdout=subprocess.DEVNULL)


def changed_pages(root: Path, listed: list[str]) -> tuple[int, int]:
    """Change the prose of one notebook and render; how many pages were read, and how many written again."""
    page = next(page for page in listed if page.startswith(report.EXECUTED))
    path = root / "book" / f"{page}.ipynb"
    notebook = json.loads(path.read_text("utf-8"))
    prose = next(cell for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    prose["source"] = "".join(prose["source"]) + "\n\nOne sentence more."
    path.write_text(json.dumps(notebook), "utf-8")
    before = times(root, listed)
    render(root)
    after = times(root, listed)
    read, written = ({name for name in now if now[name] != then[name]} for then, now in zip(before, after, strict=True))
    return len(read), len(written - {listed[0]})


def times(root: Path, listed: list[str]) -> tuple[dict[str, int], dict[str, int]]:
    """When each page was read and when it was written, those of book/_generated left out."""
    places = (root / report.KEPT / ".doctrees", ".doctree"), (root / "_build" / "html", ".html")
    own = [page for page in listed if not page.startswith(f"{report.pages.FOLDER}/")]
    read, written = ({page: (at / f"{page}{kind}").stat().st_mtime_ns for page in own} for at, kind in places)
    return read, written


def check(root: Path) -> None:
    """Stop unless all pages, the changed one among them, are those of a whole build."""
    html, rebuilt = root / "_build" / "html", root / "rebuilt"
    shutil.rmtree(rebuilt, ignore_errors=True)
    html.rename(rebuilt)
    render(root)
    files = [
        {path.relative_to(at): path.read_bytes() for path in at.rglob("*") if path.is_file()} for at in (html, rebuilt)
    ]
    different = sorted(str(path) for path in files[0] | files[1] if files[0].get(path) != files[1].get(path))
    if different:
        raise SystemExit(f"not as in a whole build: {', '.join(different)}")


if __name__ == "__main__":
    main()
