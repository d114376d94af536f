"""The papers' own tables, as CSV files under `data/published`, one file a table."""

import difflib
from pathlib import Path, PurePosixPath, PureWindowsPath

import pandas

FOLDER = Path(__file__).parents[1] / "data" / "published"

# Columns that look like numbers, or are empty in a whole file, and yet have one meaning in every table.
_TYPES = {
    "area_range": str,
    "fraction_percent": str,
    "page": "Int64",
    "section": str,
}


def names() -> list[str]:
    """List the published tables that exist, sorted, such as "label_propagation/table_ii"."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.csv"))


def table(name: str) -> pandas.DataFrame:
    """Read one published table, in tidy form: one row a printed number or statement.

    The columns are those of the file; `section` and `page` say where it is printed. Scores are in percent, as printed.
    `area_range` is text such as "0.3-0.7". An empty cell (a baseline has no area range; a page may be unknown) is
    missing, never zero. `data/published/README.md` describes every file.

    Args:
        name: paper and table, such as "label_propagation/table_ii"; `names` lists them all.

    Raises:
        ValueError: if the name points outside the folder, no such table exists (the message names the nearest), or its
            file is damaged.
    """
    parts = PurePosixPath(name).parts
    if "\0" in name or "\\" in name or ".." in parts or name.startswith("/") or PureWindowsPath(name).drive:
        raise ValueError(f"{name!r} is not the name of a published table: write 'paper/table', without a path")
    known = names()
    if name not in known:
        wanted = name.removesuffix(".csv")
        compared = {one if "/" in wanted else one.split("/")[-1]: one for one in reversed(known)}
        nearest = [compared[one] for one in difflib.get_close_matches(wanted, compared, n=1, cutoff=0.0)]
        hint = f"; did you mean {nearest[0]!r}? These exist: {', '.join(known)}" if nearest else f": {FOLDER} is empty"
        raise ValueError(f"there is no published table {name!r}{hint}")
    path = FOLDER / f"{name}.csv"
    try:  # "none" is a method, so only an empty cell may mean "missing"
        return pandas.read_csv(path, dtype=_TYPES, keep_default_na=False, na_values=[""], encoding="utf-8")
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): restore it with `git checkout -- {path}`") from error
