"""The front door: `python -m rsbook data` gets archives ready, `run` and `sweep` execute notebooks, `report` renders
the book, `status` and `doctor` say how things stand, `replay` does a run again; `slides` and `dist` make more of it.
"""

import argparse
import difflib
import os
import signal
import sys
import threading
from pathlib import Path

from rsbook import batch, planning, sweeps
from rsbook.cluster import ClusterError
from rsbook.parameters import BatchError, UsageError, read_yaml, short

EXAMPLES = """\
examples:
  python -m rsbook run                                         every notebook that is not up to date
  python -m rsbook run label_propagation/5a_reliable_maps      one notebook
  python -m rsbook run "label_propagation/5*" --preset full    several, as in the paper
  python -m rsbook run "*/5a*" -p seeds="[1, 2, 3]" -p device=cuda
  python -m rsbook run --dry-run                               what would run, and why
  python -m rsbook run --scheduler tcp://host:8786             on the workers of a Dask scheduler
  python -m rsbook run --scheduler slurm.yml                   on a cluster that a file describes
  python -m rsbook sweep seeds.yml                             one notebook over a grid of parameters
  python -m rsbook status                                      what is done, running, stale, failed
  python -m rsbook doctor                                      is all here that is needed, and what to do if not
  python -m rsbook replay _runs/FUNCTION/RECORD.json           a training run again, and what differs
  python -m rsbook report                                      the pages, in _build/html
  python -m rsbook slides label_propagation/3_method           a chapter as slides, in _build/slides
  python -m rsbook dist                                        the pages as one zip file, in _build
  python -m rsbook data --help                                 archives: list, card, prepare, check

exit codes: 0 all fine · 1 something failed or differs · 2 wrong usage or parameters · 130 interrupted
"""

SWEEP = """\
A sweep file, for example seeds.yml:

  notebook: label_propagation/5a_reliable_maps
  preset: quick                    # optional, as are the parameters that all have
  parameters: {device: cpu}
  grid:                            # every combination of these is one execution
    seeds: [[42], [43], [44]]
    area_ranges: [[[0.1, 0.3]], [[0.3, 0.7]]]

Executed notebooks go to _build/sweeps/seeds, with sweep.csv (what is executed) and runs.csv (every training run behind
them). Executions and runs that are done are not done again, here or on another machine with the same store.
"""

DATA_EXAMPLES = """\
examples:
  python -m rsbook data list                                   every archive in a line: what, licence, size, where
  python -m rsbook data card deepglobe                         where to get it and what to unpack where
  python -m rsbook data prepare deepglobe --root /big/disk     from /big/disk/deepglobe/raw, once
  python -m rsbook data check deepglobe --root /big/disk       hash every file

Notebooks find an archive elsewhere with -p dataset=deepglobe -p data_root=/big/disk.

exit codes: 0 all fine · 1 files are missing or damaged · 2 wrong usage · 130 interrupted: the next run goes on
"""


def parse_parameters(assignments):
    """The values of `name=value` texts, read as YAML (`[1, 2]`, `true`, `null`, `text`) without its tags and aliases.

    Raises UsageError, in one short line, when one is malformed or a name is there twice.
    """
    given = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator or not name.isidentifier():
            raise UsageError(f"-p {short(assignment)} is not name=value, as in -p preset=full")
        if name in given:
            raise UsageError(f"parameter {short(name)} is given twice")
        try:
            given[name] = read_yaml(text)
        # a month 13, a number beyond all floats: PyYAML passes on what Python says of them
        except (ValueError, ArithmeticError, RecursionError) as error:
            problem = short(str(error).split("\n")[0])[1:-1]
            raise UsageError(f"the value of -p {short(assignment)} is not YAML ({problem})") from None
    return given


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m rsbook",
        description="Learning from imperfect labels in remote sensing, as a book that runs.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    run = commands.add_parser(
        "run",
        help="execute notebooks that are not up to date",
        description="Execute the notebooks whose cells, parameters, data, lock file or rsbook have changed.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument(
        "patterns", nargs="*", metavar="PATTERN", help="<work>/<name> or a glob pattern of it; default: all"
    )
    run.add_argument("-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE", help="value as YAML")
    run.add_argument("--preset", choices=("smoke", "quick", "full"), help="the same as -p preset=…")
    run.add_argument("--out", metavar="DIR", help="where executed notebooks go; default: book/_executed")
    _add_how(run)
    sweep = commands.add_parser(
        "sweep",
        help="execute one notebook over a grid of parameters",
        description="Execute one notebook for every point of a grid.",
        epilog=SWEEP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sweep.add_argument("file", metavar="FILE.yml", help="what varies; see below")
    _add_how(sweep)
    status = commands.add_parser("status", help="what is done, running, stale, failed or missing")
    doctor = commands.add_parser("doctor", help="check installation, data, GPU, disk and store, and say what to do")
    for command in (status, doctor):
        command.add_argument(
            "--store", metavar="STORE", help="where the records are; default: RSBOOK_STORE, else _runs"
        )
    replay = commands.add_parser("replay", help="do a recorded training run again and compare")
    replay.add_argument("record", metavar="RECORD", help="the record's JSON, in _runs")
    replay.add_argument("--root", metavar="DIR", help="folder of the archives; default: data in the project")
    replay.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    replay.add_argument(
        "--within", type=float, default=0.0, metavar="D", help="by how much a number may differ; default: not at all"
    )
    report = commands.add_parser("report", help="render the book from the executed notebooks")
    report.add_argument("--out", metavar="DIR", help="where the pages go; default: _build/html")
    slides = commands.add_parser("slides", help="turn executed notebooks into slides")
    slides.add_argument(
        "patterns", nargs="*", metavar="CHAPTER", help="<work>/<name> or a glob pattern of it; default: all"
    )
    slides.add_argument("--out", metavar="DIR", help="where the slides go; default: _build/slides")
    commands.add_parser("dist", help="zip the rendered pages")
    _add_data(commands)
    return parser


def _add_how(command):
    command.add_argument("--force", action="store_true", help="run what is up to date as well")
    command.add_argument("--dry-run", action="store_true", help="list what would run and why, run nothing")
    command.add_argument(
        "--scheduler",
        metavar="WHERE",
        help="address of a Dask scheduler, its JSON file, or a YAML file that describes a cluster; default: "
        "RSBOOK_SCHEDULER, else this machine",
    )
    command.add_argument(
        "--workers", type=int, metavar="N", help="processes on this machine, 0 for this one; default: one a core or GPU"
    )
    command.add_argument(
        "--store",
        metavar="STORE",
        help="a folder or an address such as s3://bucket/folder for the records of training runs; default: "
        "RSBOOK_STORE, else _runs",
    )
    command.add_argument("--timeout", type=float, metavar="SECONDS", help="end a notebook that takes longer")


def _add_data(commands):
    data = commands.add_parser(
        "data",
        help="list, describe, prepare and check archives",
        description="Archives: what there is, where to get it, getting it ready, checking it.",
        epilog=DATA_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = data.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in (
        ("list", "every archive in a line: what, licence, size, where, ready or not"),
        ("card", "what an archive is, where to get it and what to unpack where"),
        ("prepare", "read DIR/NAME/raw once into arrays in DIR/NAME; goes on after an interruption"),
        ("check", "hash every file of a prepared archive"),
    ):
        action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if name != "list":
            action.add_argument("name", metavar="NAME", help="as `data list` shows it")
        if name != "card":
            action.add_argument("--root", metavar="DIR", help="folder of the archives; default: data in the project")


def _run(arguments, root):
    preset = [f"preset={arguments.preset}"] if arguments.preset else []
    given = parse_parameters(preset + arguments.parameters)
    how = _how(arguments, root)
    return 1 if _execute(planning.jobs(arguments.patterns, given, root, arguments.out), root, how) else 0


def _sweep(arguments, root):
    how, jobs = _how(arguments, root), sweeps.jobs(arguments.file, root)
    if not arguments.dry_run:
        sweeps.declare(jobs)
    failed = _execute(jobs, root, how)
    if not arguments.dry_run:
        print(f"runs behind it: {planning.shown(sweeps.collect(jobs, planning.store(root), failed), root)}")
    return 1 if failed else 0


def _how(arguments, root):
    """How notebooks are to be executed: what only a kernel would find out is refused here."""
    planning.store(root)
    if arguments.timeout is not None and not 0 < arguments.timeout < threading.TIMEOUT_MAX:
        raise UsageError(f"--timeout {arguments.timeout:g}: expected seconds above 0")
    if arguments.workers is not None and arguments.workers < 0:
        raise UsageError(f"--workers {arguments.workers}: expected a number of processes, 0 for this one")
    if not (asked := os.environ.get("RSBOOK_WORKERS", "0")).isdecimal():
        raise UsageError(f"RSBOOK_WORKERS={asked!r}: expected a number of processes, 0 for this one")
    if arguments.workers is not None and (arguments.scheduler or os.environ.get("RSBOOK_SCHEDULER")):
        raise UsageError(f"--workers {arguments.workers}: a scheduler has workers of its own; leave it out")
    return {name: getattr(arguments, name) for name in ("force", "dry_run", "scheduler", "workers", "timeout")}


def _execute(jobs, root, how):
    failed = batch.execute(jobs, root, **how)
    if failed:
        print(f"rsbook: {len(failed)} failed: {', '.join(failed)}", file=sys.stderr)
    return failed


def _status(arguments, root):
    from rsbook import status

    print(status.report(root))
    return 0


def _doctor(arguments, root):
    from rsbook import doctor

    findings = doctor.examine(root, arguments.store)
    print(doctor.report(findings))
    return 1 if any(one.state == "problem" for one in findings) else 0


def _replay(arguments, root):
    from rsbook import replaying

    if not arguments.within >= 0:  # which NaN is not either
        raise UsageError(f"--within {arguments.within:g}: expected a number, 0 or above")
    try:
        other, differences = replaying.replay(arguments.record, arguments.root, arguments.device, arguments.within)
    except replaying.ReplayError as error:
        raise BatchError(str(error)) from error
    for line in other:
        print(f"rsbook: not as it was recorded: {line}", file=sys.stderr)
    print("\n".join(differences) or "the same results")
    return 1 if differences else 0


def _make(arguments, root):
    from rsbook import dist, report, slides

    try:
        if arguments.command == "slides":
            print(*slides.build(arguments.patterns, root, arguments.out), sep="\n")
        else:
            print(dist.pack(root) if arguments.command == "dist" else report.render(root=root, out=arguments.out))
    except report.ReportError as error:
        print(f"rsbook: {error}", file=sys.stderr)
        return 1
    return 0


def _data(arguments, root):
    from rsbook import preparing, scenes

    if arguments.action != "list" and arguments.name not in scenes.ARCHIVES:
        near = difflib.get_close_matches(arguments.name, scenes.ARCHIVES, 1, 0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"no archive {arguments.name!r}; {hint}There are {', '.join(scenes.ARCHIVES)}")
    if arguments.action == "prepare" and arguments.name not in preparing.PREPARED:
        raise UsageError(f"{arguments.name} needs no preparing: it comes with the repository")
    try:
        return {"list": _list, "card": _card, "prepare": _prepare, "check": _check}[arguments.action](arguments)
    except (scenes.DataError, OSError) as error:
        print(f"rsbook: {error}", file=sys.stderr)
        return 1


def _list(arguments):
    from rsbook import preparing, scenes

    width = max(map(len, scenes.ARCHIVES))
    for name, facts in preparing.catalogue().items():
        folder = scenes.location(name, arguments.root)
        here = f"{name:<{width}} {preparing.state(folder):<11} {facts['size']:>7}"
        print(f"{here}  {facts['what']} · {facts['licence']} · {folder}")
    return 0


def _card(arguments):
    from rsbook import scenes

    print((scenes.DATA / arguments.name / "README.md").read_text("utf-8"), end="")
    return 0


def _prepare(arguments):
    from rsbook import preparing

    print(preparing.summary(preparing.prepare(arguments.name, arguments.root)))
    return 0


def _check(arguments):
    from rsbook import preparing, scenes

    files, size = preparing.check(scenes.location(arguments.name, arguments.root))
    print(f"{arguments.name}: {files} files, {size / 1e6:,.1f} MB, as SHA256SUMS says")
    return 0


def main(argv=None, root=planning.ROOT):
    """Run one command and return its exit code; argparse leaves with code 2 by itself."""
    if argv is None:  # as a program: what ends us must end the kernel as well, and leave no temporary file
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    arguments = _parser().parse_args(argv)
    commands = {"run": _run, "sweep": _sweep, "status": _status, "doctor": _doctor, "replay": _replay, "data": _data}
    try:
        if store := getattr(arguments, "store", None):  # in the environment, for the kernels of notebooks as well
            os.environ["RSBOOK_STORE"] = store if "://" in store else str(Path(store).resolve())
        return commands.get(arguments.command, _make)(arguments, root)
    except (ClusterError, BatchError) as error:
        print(f"rsbook: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print("rsbook: interrupted; the next run goes on with what is missing", file=sys.stderr)
        return 130
