"""The front door: `python -m rsbook data` gets archives ready, `run` executes notebooks, `report` renders the book;
`slides` and `dist` make more of it.
"""

import argparse
import difflib
import re
import signal
import sys

from rsbook import batch

EXAMPLES = """\
examples:
  python -m rsbook run                                         every notebook that is not up to date
  python -m rsbook run label_propagation/5a_reliable_maps      one notebook
  python -m rsbook run "label_propagation/5*" --preset full    several, as in the paper
  python -m rsbook run "*/5a*" -p seeds="[1, 2, 3]" -p device=cuda
  python -m rsbook run --dry-run                               what would run, and why
  python -m rsbook report                                      the pages, in _build/html
  python -m rsbook slides label_propagation/3_method           a chapter as slides, in _build/slides
  python -m rsbook dist                                        the pages as one zip file, in _build
  python -m rsbook data --help                                 archives: list, card, prepare, check

exit codes: 0 all fine · 1 a notebook or the rendering failed · 2 wrong usage or parameters · 130 interrupted
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
    """The values of `name=value` texts, read as YAML (`[1, 2]`, `true`, `null`, `text`).

    Raises UsageError when one is malformed or a name is there twice.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads 1e-3 as a number, which YAML 1.1 takes for text."""

    exponent = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", exponent, list("-+0123456789"))
    given = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator or not name.isidentifier():
            raise batch.UsageError(f"-p {assignment!r} is not name=value, as in -p preset=full")
        if name in given:
            raise batch.UsageError(f"parameter {name!r} is given twice")
        try:
            # an alias repeats its anchor, and a few lines of them fill any memory
            if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=Loader)):
                raise batch.UsageError(f"the value of -p {name} holds a YAML alias (*): put it in quotes")
            given[name] = yaml.load(text, Loader=Loader)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            problem = getattr(error, "problem", None) or error
            raise batch.UsageError(f"the value of -p {assignment!r} is not YAML ({problem})") from None
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
    run.add_argument("--force", action="store_true", help="run what is up to date as well")
    run.add_argument("--dry-run", action="store_true", help="list what would run and why, run nothing")
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
    failed = batch.run(arguments.patterns, given, root, arguments.out, arguments.force, arguments.dry_run)
    if failed:
        print(f"rsbook: {len(failed)} failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


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
        raise batch.UsageError(f"no archive {arguments.name!r}; {hint}There are {', '.join(scenes.ARCHIVES)}")
    if arguments.action == "prepare" and arguments.name not in preparing.PREPARED:
        raise batch.UsageError(f"{arguments.name} needs no preparing: it comes with the repository")
    try:
        return {"list": _list, "card": _card, "prepare": _prepare, "check": _check}[arguments.action](arguments)
    except (scenes.DataError, OSError) as error:
        print(f"rsbook: {error}", file=sys.stderr)
        return 1


def _list(arguments):
    from rsbook import preparing, scenes

    for name, facts in preparing.catalogue().items():
        folder = scenes.location(name, arguments.root)
        here = f"{name:<12} {preparing.state(folder):<11} {facts['size']:>7}"
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


def main(argv=None, root=batch.ROOT):
    """Run one command and return its exit code; argparse leaves with code 2 by itself."""
    if argv is None:  # as a program: what ends us must end the kernel as well, and leave no temporary file
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    arguments = _parser().parse_args(argv)
    try:
        return {"run": _run, "data": _data}.get(arguments.command, _make)(arguments, root)
    except batch.BatchError as error:
        print(f"rsbook: {error}", file=sys.stderr)
        return 2 if isinstance(error, batch.UsageError) else 1
    except KeyboardInterrupt:
        print("rsbook: interrupted; the next run goes on with what is missing", file=sys.stderr)
        return 130
