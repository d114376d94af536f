"""The rendered book as one zip file, to read without a network or to put on any server."""

import importlib.metadata
import zipfile
from pathlib import Path

from rsbook.files import replacing
from rsbook.report import ROOT, ReportError

LEFT_OUT = {"STAMP", ".buildinfo", ".doctrees"}
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment a zip file knows: the same pages give the same bytes


def pack(root=ROOT, pages=None):
    """Zip the pages (default _build/html) into _build/rsbook-<version>-html.zip, under one folder; returns the path.

    Raises ReportError when there are no pages.
    """
    pages = Path(pages or Path(root, "_build", "html"))
    if not (pages / "index.html").is_file():
        raise ReportError(f"there are no pages in {pages}; make them with: python -m rsbook report")
    name = f"rsbook-{importlib.metadata.version('rsbook')}-html"
    files = {path.relative_to(pages).as_posix(): path for path in pages.rglob("*") if path.is_file()}
    target = Path(root, "_build", f"{name}.zip")
    with replacing(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for inside in sorted(files):
            if not LEFT_OUT & set(Path(inside).parts):
                entry = zipfile.ZipInfo(f"{name}/{inside}", EPOCH)
                entry.create_system, entry.external_attr = 3, 0o644 << 16  # as on Unix, wherever it is made
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, files[inside].read_bytes())
    return target
