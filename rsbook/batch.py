"""Which notebook runs with which parameters: papermill executes it, and what is up to date is skipped.

Sources are `notebooks/<work>/<name>.ipynb`, executed notebooks `book/_executed/<work>/<name>.ipynb`. A notebook is up
to date while its cells, its parameters, rsbook's sources, the data manifests and the lock file are what they were, and,
where it shows all stored runs, while there are the same records.
"""

import contextlib
import difflib
import fnmatch
import hashlib
import json
import logging
import os
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from rsbook.files import replacing
from rsbook.parameters import BatchError, UsageError, check_parameters, declared, refuse_unknown, tags

ROOT = Path(__file__).parents[1]
SHARED = {  # what every notebook depends on
    "sources": ("rsbook/**/*.py", "rsbook/**/*.mjs", "rsbook/**/*.css"),
    "data": ("data/*/SHA256SUMS", "data/published/**/*", "data/results/**/*.csv", "data/results/**/*.json"),
    "lock": ("requirements.lock",),
}
# They run and render pages, and prepare archives: no page depends on them.
NOT_IN_A_PAGE = {"__main__.py", "batch.py", "cli.py", "filling.py", "parameters.py", "preparing.py", "report.py"}
NOT_IN_A_PAGE |= {"dist.py", "pages.py", "slides.py", "sphinx_launch.py", "sphinx_pages.py"}
REASONS = {"sources": "rsbook sources", "lock": "lock file"}
BANNER = "papermill-error-cell-tag"  # papermill's own tag


class NotebookFailed(BatchError):
    """A notebook did not run to its end; the message says where and why."""


# Which notebooks, and whether they must run


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
    except (OSError, ValueError, KeyError, TypeError) as error:
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
    return {name: check_parameters(notebook, own[name], name) for name, notebook in notebooks.items()}


def _sha256(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def shared_hashes(root=ROOT):
    """One hash each of rsbook's sources, the data manifests and the lock file: what all notebooks depend on."""
    hashes = {}
    for part, patterns in SHARED.items():
        digest = hashlib.sha256()
        for path in sorted({path for pattern in patterns for path in Path(root).glob(pattern)}):
            name = path.relative_to(root).as_posix()
            hidden = "/." in f"/{name}"  # an editor's
            if path.is_file() and not hidden and name.removeprefix("rsbook/") not in NOT_IN_A_PAGE:
                content = path.read_bytes()
                digest.update(f"{name}\0{len(content)}\0".encode() + content)
        hashes[part] = digest.hexdigest()
    return hashes


def fingerprint(notebook, parameters, shared, root=ROOT):
    """The hash that decides whether a notebook is up to date, with the hashes of its components.

    `records`, those in the store, are one of them where the notebook reads them all.
    """
    cells = [(cell["cell_type"], "".join(cell["source"]), sorted(tags(cell))) for cell in notebook["cells"]]
    components = {"notebook": _sha256(cells), "parameters": _sha256(parameters), **shared}
    if parameters.get("data_root"):  # an archive outside the project has its manifest there
        manifest = Path(parameters["data_root"], str(parameters.get("dataset")), "SHA256SUMS")
        components["data"] = _sha256([shared["data"], manifest.read_text("utf-8") if manifest.is_file() else None])
    if any(kind == "code" and "runs.stored(" in source for kind, source, _ in cells):
        components["records"] = _records(root)
    return {"fingerprint": _sha256(components), "components": components}


def _records(root):
    """One hash of which training runs have a record; rsbook/runs.py names a record after all that made it."""
    store = Path(os.environ.get("RSBOOK_STORE", Path(root, "_runs")))
    return _sha256(sorted(path.relative_to(store).as_posix() for path in store.glob("[!.]*/[!.]*.json")))


def _paths(name, root, out):
    """Where the executed notebook goes, and where the partial one of a failure."""
    return Path(out or Path(root, "book", "_executed"), f"{name}.ipynb"), Path(
        root, "_build", "failed", f"{name}.ipynb"
    )


def _record(path):
    """The record in an executed notebook; None where there is no file, {} where there is no record."""
    try:
        return dict(json.loads(path.read_text("utf-8"))["metadata"]["rsbook"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def why_run(name, parameters, root=ROOT, out=None, shared=None):
    """Why this notebook must run with these parameters, in a few words; None when it is up to date.

    `shared` spares hashing sources and data again. Raises what `read` and `check_parameters` raise.
    """
    notebook = read(name, root)
    now = fingerprint(notebook, check_parameters(notebook, parameters, name), shared or shared_hashes(root), root)
    target, failed = _paths(name, root, out)
    then = _record(target)
    if (_record(failed) or {}).get("fingerprint") == now["fingerprint"]:
        return "failed before"
    if then is None:
        return "missing"
    if then.get("fingerprint") == now["fingerprint"]:
        return None
    old = then.get("components", {})
    changed = [REASONS.get(part, part) for part, value in now["components"].items() if old.get(part) != value]
    return f"{', '.join(changed)} changed" if old else "damaged"


# Execution


def execute(name, parameters, root=ROOT, out=None, console=None):
    """Run one notebook from its first cell to its last and return the seconds it took.

    What it writes to stderr appears on `console` at once. Raises NotebookFailed when a cell raises, the kernel dies or
    the result cannot be written: an older executed notebook stays, the partial one is kept in _build/failed/.
    """
    notebook = read(name, root)
    parameters = check_parameters(notebook, parameters, name)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    record = {"name": name, "parameters": parameters, "started": started}
    record |= fingerprint(notebook, parameters, shared_hashes(root), root)
    target, failed = _paths(name, root, out)
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}.json")  # papermill wants a suffix it knows
    begin = time.perf_counter()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        failure = _papermill(Path(root, "notebooks", f"{name}.ipynb"), temporary, parameters, console or sys.stderr)
        record["seconds"] = round(time.perf_counter() - begin, 2)
        if "records" in (components := record["components"]):  # its own cells may have added some
            components["records"] = _records(root)
            record["fingerprint"] = _sha256(components)
        if failure:
            raise NotebookFailed(f"{name}: {failure}; {_keep(temporary, failed, record, root)}")
        _write(target, _stamp(temporary, target, record, root))
        failed.unlink(missing_ok=True)
    except OSError as error:
        raise NotebookFailed(f"{name}: cannot write the executed notebook: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # it would hide the error that brought us here
            temporary.unlink()
    return record["seconds"]


def _papermill(source, temporary, parameters, console):
    """Execute `source` into `temporary`; None, or in which cell and why it stopped."""
    import papermill
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient.exceptions import DeadKernelError

    class ThisInterpreter(AsyncKernelManager):
        """Starts the ipykernel of sys.executable: what a machine calls "python3" may be another Python."""

        def __init__(self, **options):
            super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), **options)

    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    paths = [str(path).replace("{", "{{").replace("}", "}}") for path in (source, temporary)]  # papermill formats paths
    options = {"kernel_name": "python3", "kernel_manager_class": ThisInterpreter}
    options["extra_arguments"] = ["--log-level=CRITICAL"]  # the console is for what the notebook itself says
    try:
        executed = papermill.execute_notebook(*paths, parameters, progress_bar=False, stderr_file=console, **options)
    except papermill.PapermillExecutionError as error:
        last = (error.evalue.strip().splitlines() or ["(no message)"])[-1]
        return f"cell {_last_cell(temporary)} raised {error.ename}: {last}"
    except DeadKernelError:
        return f"the kernel died in cell {_last_cell(temporary)} (killed, out of memory, or a crash in native code)"
    except OSError:
        raise
    except Exception as error:  # a kernel that does not start, an invalid notebook: the rest of the batch still runs
        return f"{type(error).__name__}: {error}"
    if executed.metadata.papermill["exception"]:  # papermill lets sys.exit(0) pass, and with it all cells that follow
        return f"cell {_last_cell(temporary)} ended the notebook early (SystemExit)"
    return None


def _last_cell(temporary):
    """Which cell ran last, counted from 1 in the source notebook."""
    cells = json.loads(temporary.read_text("utf-8"))["cells"]
    own = [cell for cell in cells if not {BANNER, "injected-parameters"} & set(tags(cell))]
    return max((i for i, cell in enumerate(own, 1) if cell["metadata"]["papermill"]["start_time"]), default=1)


def _keep(temporary, failed, record, root):
    """Keep the partial notebook, with a banner at its top, and say where, or why not."""
    try:
        partial = _stamp(temporary, failed, record, root)
        if BANNER not in tags(partial["cells"][0]):  # papermill writes none when the kernel dies
            text = f"**The notebook stopped in cell {_last_cell(temporary)}.**"
            cell = {"cell_type": "markdown", "id": "stopped", "metadata": {"tags": [BANNER]}, "source": text}
            partial["cells"].insert(0, cell)
        partial["metadata"]["papermill"]["exception"] = True
        _write(failed, partial)
    except (OSError, ValueError) as error:
        return f"its partial notebook could not be kept ({error})"
    return f"partial notebook: {failed.relative_to(root).as_posix()}"


def _stamp(temporary, path, record, root):
    """The executed notebook with its record, and without the folders of this machine."""
    notebook = json.loads(temporary.read_text("utf-8"))
    root, inside = Path(root).resolve(), path.resolve().is_relative_to(Path(root).resolve())
    output = path.resolve().relative_to(root).as_posix() if inside else f"{record['name']}.ipynb"
    notebook["metadata"]["papermill"] |= {"input_path": f"notebooks/{record['name']}.ipynb", "output_path": output}
    notebook["metadata"]["rsbook"] = record
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":  # the page lies inside book/, its source beside it
            cell["source"] = "".join(cell["source"]).replace("](../../book/", "](../../")
    # the project first, as it may lie in the home folder; "/" as a home would match every path; never inside a longer
    # word, so that embedded pictures stay whole
    folders = {str(root): ".", str(Path.home()): "~"}
    known = "|".join(re.escape(folder) for folder in folders if len(Path(folder).parts) > 1)
    pattern = re.compile(rf"(?<![\w+/=.-])({known or '(?!)'})(?![\w.-])")

    def neutral(value):
        if isinstance(value, dict):
            return {key: part if key in ("widgets", "image/png") else neutral(part) for key, part in value.items()}
        if isinstance(value, list):
            return [neutral(part) for part in value]
        return pattern.sub(lambda match: folders[match[0]], value) if isinstance(value, str) else value

    return neutral(notebook)


def _write(path, notebook):
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        json.dump(notebook, file, ensure_ascii=False, indent=1)


# The batch


class _Line:
    """A notebook's line on stdout, which gives way to what the notebook writes to stderr meanwhile."""

    def __init__(self, text):
        self.text, self.last = text, ""
        print(text, end="", flush=True)

    def write(self, text):
        if text and not self.last:
            print(flush=True)
        self.last = text[-1:] or self.last
        sys.stderr.write(text)

    def flush(self):
        sys.stderr.flush()

    def end(self, text):
        if self.last not in ("", "\n"):
            print(file=sys.stderr, flush=True)
        print(self.text + text if self.last else text, flush=True)


def run(patterns=(), given=None, root=ROOT, out=None, force=False, dry_run=False):
    """Execute the chosen notebooks that are not up to date, one after the other; returns the names of the failed ones.

    Everything is checked before the first kernel starts: raises BatchError and UsageError as `plan` does.
    """
    jobs, shared, failed = plan(patterns, given, root), shared_hashes(root), []
    for name, parameters in jobs.items():
        why = why_run(name, parameters, root, out, shared) or ("forced" if force else None)
        if why is None or dry_run:
            print(f"run {name} ({why})" if why else f"{name} … up to date", flush=True)
            continue
        line = _Line(f"run {name} ({why}) … ")
        try:
            line.end(f"{execute(name, parameters, root, out, line):.1f} s")
        except NotebookFailed as error:
            failed.append(name)
            line.end("failed")
            print(f"rsbook: {error}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            line.end("interrupted")
            raise
    return failed
