"""One notebook through papermill, on the worker that was given it, and the executed notebook as it is kept."""

import json
import logging
import os
import re
import signal
import socket
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rsbook import cluster, planning
from rsbook.files import replacing
from rsbook.parameters import BatchError, tags

BANNER = "papermill-error-cell-tag"  # papermill's own tag
START = 300  # seconds for a kernel to start: many at once on a busy machine are slow


class NotebookFailed(BatchError):
    """A notebook did not run to its end; the message says where and why."""


@dataclass(frozen=True)
class Executed:
    """What papermill left: the notebook as JSON text as far as it came, when it began, the seconds it took.

    failure: in which cell and why it stopped, None for success; died: the kernel did, and may do better elsewhere.
    """

    text: str
    started: str
    seconds: float
    failure: str | None = None
    died: bool = False


def execute(job, expected, root=None, store=None, timeout=None, topic=None):
    """Run the notebook of a job from its first cell to its last; returns what is `Executed`.

    expected: the components of the fingerprint that it was planned with, but for `records`, which others add to. root:
    the project, None for that of this worker. store: where its runs go. timeout: seconds after which its kernel is
    ended. topic: under which Dask is told of its progress; None in the process of the batch.
    Raises BatchError when this machine's rsbook, data or notebook are others than those that it was planned with.
    """
    root = Path(root or planning.ROOT)
    if planning.changes(planning.fingerprint(job.name, job.parameters, root)["components"], expected):
        raise BatchError("rsbook, its lock file, the data or the notebook are not those that it was planned with")
    started, begin = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    source = Path(root, "notebooks", f"{job.name}.ipynb")
    with tempfile.TemporaryDirectory(prefix="rsbook-") as folder:
        temporary = Path(folder, "executed.ipynb")
        environment = {"RSBOOK_WORKERS": "0"} if topic is None else {}
        environment |= {} if store is None else {"RSBOOK_STORE": str(store)}
        run = _papermill if topic is None else _beside_other_calls
        try:
            failure, died = run(source, temporary, job, environment, timeout, *([] if topic is None else [topic]))
            text = temporary.read_text("utf-8") if temporary.is_file() else source.read_text("utf-8")
        except OSError as error:
            why = f"{error.strerror or error}; TMPDIR can name another folder for what is temporary"
            raise OSError(error.errno, why, str(error.filename or folder)) from error
    return Executed(text, started, round(time.perf_counter() - begin, 2), failure, died)


def _beside_other_calls(source, temporary, job, environment, timeout, topic):
    """Papermill in a thread of its own, while this one does what the notebook says through its channel: it leaves the
    worker to other calls when the notebook waits, and comes back when it goes on.
    """
    from distributed import get_worker, rejoin, secede

    ours, theirs = socket.socketpair()
    worker, found = get_worker(), []
    # Dask does not write into our environment, and papermill's kernel inherits the channel by its number
    environment = environment | {cluster.ADDRESS: worker.scheduler.address, cluster.CHANNEL: str(theirs.fileno())}

    def work():
        try:
            found.append(_papermill(source, temporary, job, environment, timeout, theirs.fileno()))
        except BaseException as error:
            found.append(error)
        finally:
            with suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)  # whatever else has inherited the other end

    thread = threading.Thread(target=work, daemon=True)
    with ours, theirs:
        thread.start()
        with ours.makefile("r", encoding="utf-8") as lines:
            for line in lines:
                match line.split():
                    case ["wait"]:
                        secede()
                    case ["ready"]:
                        rejoin()
                        with suppress(OSError):
                            ours.send(b"\n")
                    case ["runs", done, total]:
                        worker.log_event(topic, {"job": job.label, "runs": [int(done), int(total)]})
        thread.join()
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def _papermill(source, temporary, job, environment, timeout=None, channel=None):
    """Execute `source` into `temporary`: in which cell and why it stopped, or None, and whether its kernel died."""
    import papermill
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient.exceptions import DeadKernelError

    kernels, late = [], threading.Event()

    class ThisInterpreter(AsyncKernelManager):
        """Starts the ipykernel of sys.executable: what a machine calls "python3" may be another Python."""

        def __init__(self, **options):
            super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), **options)
            kernels.append(self)

        async def start_kernel(self, **options):
            inherited = {} if channel is None else {"pass_fds": (channel,)}
            await super().start_kernel(env=os.environ | environment, **inherited, **options)
            if late.is_set():  # before there was a process to end
                _kill(self)

    def end():
        late.set()
        for kernel in kernels:
            _kill(kernel)

    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    logging.getLogger("traitlets").setLevel(logging.CRITICAL)  # nbclient: what kills a kernel is said below
    paths = [str(path).replace("{", "{{").replace("}", "}}") for path in (source, temporary)]  # papermill formats paths
    options = {"kernel_name": "python3", "kernel_manager_class": ThisInterpreter, "start_timeout": START}
    options["extra_arguments"] = ["--log-level=CRITICAL"]  # the console is for the batch
    timer = threading.Timer(timeout or 0, end)
    if timeout:
        timer.daemon = True
        timer.start()
    try:
        executed = papermill.execute_notebook(*paths, job.parameters, progress_bar=False, **options)
    except papermill.PapermillExecutionError as error:
        last = (error.evalue.strip().splitlines() or ["(no message)"])[-1]
        return f"cell {_last_cell(temporary.read_text('utf-8'))} raised {error.ename}: {last}", False
    except OSError:
        raise
    except Exception as error:  # a kernel that does not start, an invalid notebook: the rest of the batch still runs
        if not isinstance(error, DeadKernelError) and "Kernel died" not in str(error):  # as it started: a RuntimeError
            return f"{type(error).__name__}: {error}", False
        where = f"in cell {_last_cell(temporary.read_text('utf-8'))}"
        if late.is_set():
            return f"took longer than {timeout:g} seconds, and was ended {where}; its runs so far are kept", False
        return f"the kernel died {where} (killed, out of memory, or a crash in native code)", True
    finally:
        timer.cancel()
    if executed.metadata.papermill["exception"]:  # papermill lets sys.exit(0) pass, and with it all cells that follow
        return f"cell {_last_cell(temporary.read_text('utf-8'))} ended the notebook early (SystemExit)", False
    return None, False


def _kill(kernel):
    with suppress(OSError, AttributeError, TypeError):  # it has ended already, or has not begun
        os.killpg(os.getpgid(kernel.provisioner.pid), signal.SIGKILL)


def _last_cell(text):
    """Which cell ran last, counted from 1 in the source notebook."""
    cells = json.loads(text)["cells"]
    own = [cell for cell in cells if not {BANNER, "injected-parameters"} & set(tags(cell))]
    return max((i for i, cell in enumerate(own, 1) if cell["metadata"]["papermill"]["start_time"]), default=1)


# What is kept


def keep(job, executed, record, root=planning.ROOT):
    """Write what came out, stamped with its record: a success to its target; raises NotebookFailed for a failure, after
    its partial notebook was kept, and when the executed one cannot be written. An older executed notebook stays then.
    """
    try:
        if executed.failure:
            raise NotebookFailed(f"{job.label}: {executed.failure}; {_keep_partial(job, executed.text, record, root)}")
        _write(job.target, stamp(executed.text, job.target, record, root))
        job.failed.unlink(missing_ok=True)
    except OSError as error:
        why = error.strerror or error
        raise NotebookFailed(f"{job.label}: cannot write the executed notebook {job.target}: {why}") from error


def _keep_partial(job, text, record, root):
    """Keep the partial notebook, with a banner at its top, and say where, or why not."""
    where = _inside(job.failed, root) or job.failed
    try:
        partial = stamp(text, job.failed, record, root)
        if BANNER not in tags(partial["cells"][0]):  # papermill writes none when the kernel dies
            told = f"**The notebook stopped in cell {_last_cell(text)}.**"
            cell = {"cell_type": "markdown", "id": "stopped", "metadata": {"tags": [BANNER]}, "source": told}
            partial["cells"].insert(0, cell)
        partial["metadata"]["papermill"]["exception"] = True
        _write(job.failed, partial)
    except (OSError, ValueError) as error:
        return f"its partial notebook could not be kept ({where}: {getattr(error, 'strerror', None) or error})"
    return f"partial notebook: {where}"


def stamp(text, path, record, root=planning.ROOT):
    """The executed notebook with its record, and without the folders of this machine."""
    notebook, root = json.loads(text), Path(root).resolve()
    output = _inside(path, root) or f"{record['name']}.ipynb"
    places = {"input_path": f"notebooks/{record['name']}.ipynb", "output_path": output}
    notebook["metadata"]["papermill"] = notebook["metadata"].get("papermill", {}) | places
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


def _inside(path, root):
    path, root = Path(path).resolve(), Path(root).resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else None


def _write(path, notebook):
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        json.dump(notebook, file, ensure_ascii=False, indent=1)
