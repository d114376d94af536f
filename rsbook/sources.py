"""Which sources can change a number: the modules of rsbook that code can reach through imports."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
ASSETS = ("*.mjs", "*.css")  # what explorers are made of besides Python


def reachable(
    module: str, path: Path, found: Mapping[str, str] | None = None, root: Path | None = None
) -> dict[str, str]:
    """`found` and the sha256 of the module at `path` and of all of rsbook that it imports, directly or not.

    Comments, docstrings and layout do not count: they cannot change a number.
    """
    return _reachable([(module, path)], dict(found or {}), root)


def of_notebook(cells: Iterable[str], dataset: str | None = None, root: Path | None = None) -> dict[str, str]:
    """The sha256 of each module that a notebook's code cells can reach, with the reader of its data set and the
    scripts and styles of explorers.

    Lines that only a notebook understands (%, !, ?) import nothing; a cell that is no Python counts as one without
    imports.
    """
    names = [name for cell in cells for name in _imports_of(cell)]
    if dataset:
        names.append(f"rsbook.archives.{dataset}")  # scenes imports it by name
    found = _reachable([(name, path) for name in names if (path := module_path(name, root))], {}, root)
    for folder in sorted({module_path(name, root).parent for name in found}):
        for path in sorted(path for pattern in ASSETS for path in folder.glob(pattern)):
            found[path.relative_to(root or ROOT).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def module_path(name: str, root: Path | None = None) -> Path | None:
    """The file of a module or package of the project, None where there is none."""
    path = Path(root or ROOT, *name.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def _reachable(pending: list[tuple[str, Path]], found: dict[str, str], root: Path | None) -> dict[str, str]:
    while pending:
        module, path = pending.pop()
        if module not in found:
            found[module], imports = understand(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")
            pending += [(name, where) for name in imports if (where := module_path(name, root)) is not None]
    return found


@functools.cache
def understand(source: str, module: str, is_package: bool) -> tuple[str, tuple[str, ...]]:
    """The sha256 of a module's code without comments, docstrings and layout, and what it imports of rsbook."""
    tree = ast.parse(source)
    imports = _imports(tree, module, is_package)
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imports


def _imports(tree: ast.Module, module: str, is_package: bool) -> tuple[str, ...]:
    names, package = [], module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(name for name in names if name.startswith("rsbook."))


def _imports_of(cell: str) -> tuple[str, ...]:
    lines = ["pass" if line.lstrip().startswith(("%", "!", "?")) else line for line in cell.splitlines()]
    try:
        return _imports(ast.parse("\n".join(lines)), "__main__", False)
    except SyntaxError:
        return ()
