"""Which notebooks run with which parameters, and whether they must.

Sources are `notebooks/<work>/<name>.ipynb`, executed notebooks `book/_executed/<work>/<name>.ipynb`. A notebook is up
to date while its cells, its parameters, the sources of rsbook that it can reach, its data and the lock file are what
they were, and, where it shows all stored runs, while there are the same records.
"""

import difflib
import fnmatch
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from rsbook import sources
from rsbook.files import reached
from rsbook.parameters import BatchError, UsageError, check_parameters, declared, refuse_unknown, tags, whole_folders

ROOT = Path(__file__).parents[1]
ENGINE = {f"rsbook.{name}" for name in ("cluster", "locks", "parameters")}  # they change how, and not what
REASONS = {"sources": "rsbook sources", "lock": "lock file"}


@dataclass(frozen=True, eq=False)
class Job:
    """A notebook to execute with its parameters: how it is called, where the executed one goes, and a failed one."""

    label: str
    name: str
    parameters: dict
    target: Path
    failed: Path


def find(patterns=(), root=ROOT):
    """Names `<work>/<name>` of the notebooks that match any of the glob patterns, of all without a pattern.

    Raises UsageError when a pattern matches nothing, BatchError when there are no notebooks.
    """
    paths = Path(root, "notebooks").glob("[!.]*/[!.]*.ipynb")
    names = sorted(f"{path.parent.name}/{path.stem}" for path in paths)
    if not names:
        raise BatchError("there are no notebooks in notebooks/<work>/")
    chosen = set() if patterns else set(names)
    for pattern in patterns:
        glob = pattern.removeprefix("notebooks/").removesuffix(".ipynb")  # what the shell completes will do as well
        matches = {name for name in names if name == glob or fnmatch.fnmatchcase(name, glob)}
        if not matches:
            best = difflib.get_close_matches(glob, [*names, *(name.split("/")[1] for name in names)], 1, 0.5)
            near = [name for name in names if {name, name.split("/")[1]} & set(best)]
            raise UsageError(f"no notebook matches {pattern!r}; nearest: {', '.join(near or names)}")
        chosen |= matches
    return sorted(chosen)


def read(name, root=ROOT):
    """The source notebook as a dictionary.

    Raises UsageError when the name leaves notebooks/, BatchError when the file cannot be read as a notebook.
    """
    folder = Path(root, "notebooks").resolve()
    try:
        path = Path(folder, f"{name}.ipynb").resolve()
        if not path.is_relative_to(folder):
            raise UsageError(f"notebook {name!r} lies outside notebooks/")
        notebook = json.loads(path.read_text("utf-8"))
        [cell["cell_type"] + "".join(cell["source"]) for cell in notebook["cells"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BatchError(f"notebook {name!r} cannot be read ({type(error).__name__})") from None
    return notebook


def plan(patterns=(), given=None, root=ROOT):
    """Each chosen notebook with all its parameters; a given value goes to the notebooks that declare its name.

    Raises UsageError when none does or a value does not fit, and what `find`, `read` and `declared` raise.
    """
    given, notebooks = given or {}, {name: read(name, root) for name in find(patterns, root)}
    known = {name: declared(notebook, name) for name, notebook in notebooks.items()}
    every = dict.fromkeys(key for parameters in known.values() for key in parameters)
    refuse_unknown(given, every, " and ".join(known) if len(known) < 3 else f"the {len(known)} notebooks")
    own = {name: {key: given[key] for key in given if key in known[name]} for name in notebooks}
    checked = {name: check_parameters(notebook, own[name], name) for name, notebook in notebooks.items()}
    return {name: whole_folders(notebook, checked[name], root, name) for name, notebook in notebooks.items()}


def digest(value):
    """The sha256 of what JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def jobs(patterns=(), given=None, root=ROOT, out=None):
    """The Job of each chosen notebook; raises what `plan` raises. out: where executed notebooks go."""
    return [job(name, values, root, out) for name, values in plan(patterns, given, root).items()]


def job(name, parameters, root=ROOT, out=None):
    """The Job of a notebook with these parameters, which are not checked."""
    failed = Path(out, "failed") if out else Path(root, "_build", "failed")
    out = Path(out or Path(root, "book", "_executed"))
    return Job(name, name, parameters, out / f"{name}.ipynb", failed / f"{name}.ipynb")


def fingerprint(name, parameters, root=ROOT):
    """The hash that decides whether a notebook is up to date, with the hashes of its components.

    parameters: all of them. `records`, those in the store, are a component where the notebook reads them all. Raises
    what `read` raises.
    """
    cells = [(cell["cell_type"], "".join(cell["source"]), sorted(tags(cell))) for cell in read(name, root)["cells"]]
    code = [source for kind, source, _ in cells if kind == "code"]
    dataset = parameters.get("dataset")
    modules = sources.of_notebook(code, dataset if isinstance(dataset, str) else None, root)
    components = {
        "notebook": digest(cells),
        "parameters": digest(parameters),
        "sources": digest({name: sha256 for name, sha256 in modules.items() if name not in ENGINE}),
        "data": digest(_data_hashes(name.split("/")[0], dataset, parameters.get("data_root"), root)),
        "lock": _hash(Path(root, "requirements.lock")),
    }
    if shows_records(name, root):
        components["records"] = records(root)
    return {"fingerprint": digest(components), "components": components}


def shows_records(name, root=ROOT):
    """Whether a notebook shows all records that there are, whoever made them."""
    cells = read(name, root)["cells"]
    return any(cell["cell_type"] == "code" and "runs.stored(" in "".join(cell["source"]) for cell in cells)


def store(root=ROOT):
    """Where the records of training runs are: the environment's RSBOOK_STORE, else _runs in the project.

    Raises UsageError for an address that no installed library knows, BatchError for one that cannot be reached.
    """
    try:
        return reached(os.environ.get("RSBOOK_STORE") or Path(root, "_runs"))
    except ValueError as error:
        raise UsageError(f"the store {error}") from None
    except OSError as error:
        raise BatchError(f"the store {error.filename} cannot be used: {error.strerror}") from None


def records(root=ROOT):
    """One hash of which training runs have a record; rsbook/runs.py names a record after all that made it."""
    found = (path for path in store(root).glob("*/*.json") if not path.name.startswith("."))
    return digest(sorted(f"{path.parent.name}/{path.name}" for path in found))


def _data_hashes(work, dataset, data_root, root):
    """What a page of this work is made from besides runs: its data set, and the tables that are stored for the work."""
    folders = [Path(root, "data", kind, work) for kind in ("published", "results")]
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
    found = {path.relative_to(root).as_posix(): _hash(path) for path in files}
    return found | {"manifest": _hash(Path(data_root or Path(root, "data"), str(dataset), "SHA256SUMS"))}


def _hash(path):
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def record_of(path):
    """The record in an executed notebook; None where there is no file, {} where there is no record."""
    try:
        return dict(json.loads(path.read_text("utf-8"))["metadata"]["rsbook"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def why_run(job, root=ROOT):
    """Why a job must be done, in a few words; None when it is up to date. Raises what `read` raises."""
    now = fingerprint(job.name, job.parameters, root)
    then = record_of(job.target)
    if (record_of(job.failed) or {}).get("fingerprint") == now["fingerprint"]:
        return "failed before"
    if then is None:
        return "missing"
    if then.get("fingerprint") == now["fingerprint"]:
        return None
    old = then.get("components")
    changed = changes(old, now["components"]) if isinstance(old, dict) and old else []
    return f"{', '.join(changed)} changed" if changed else "damaged"


def stale(name, record, root=ROOT):
    """Why the executed notebook with this record is not up to date, with the parameters that it has; None if it is."""
    then, parameters = record.get("components"), record.get("parameters")
    if not (isinstance(then, dict) and then and isinstance(parameters, dict)):
        return "damaged"
    try:
        notebook = read(name, root)
    except BatchError:
        return "its notebook is gone"
    try:
        check_parameters(notebook, parameters, name)
    except BatchError:
        return "its parameters changed"
    try:
        whole = parameters | {"data_root": _whole(parameters.get("data_root"), root)}
        now = fingerprint(name, whole, root)["components"]
    except BatchError as error:  # a store that cannot be reached
        return str(error)
    # that others would be given now makes no page stale
    changed = changes(then, {part: value for part, value in now.items() if part != "parameters"})
    return f"{', '.join(changed)} changed" if changed else None


def shown(path, root=ROOT):
    """A path as readers see it: from the project on where it lies there, or from home."""
    for folder, sign in ((Path(root).resolve(), ""), (Path.home(), "~/")):
        if isinstance(path, os.PathLike) and Path(path).resolve().is_relative_to(folder):
            return sign + Path(path).resolve().relative_to(folder).as_posix()
    return str(path)


def _whole(folder, root):
    """A recorded folder with what the record left out of it: this machine's home and project."""
    if isinstance(folder, str) and folder.split("/")[0] in ("~", "."):
        return str(Path.home() if folder[0] == "~" else Path(root)) + folder[1:]
    return folder if isinstance(folder, str) else None


def changes(old, new):
    """Which components of a fingerprint differ, in words."""
    return [REASONS.get(part, part) for part, value in new.items() if old.get(part) != value]
