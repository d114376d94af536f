"""The front door: `python -m rsbook run` executes notebooks, `python -m rsbook report` renders the book."""

import argparse
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

exit codes: 0 all fine · 1 a notebook or the rendering failed · 2 wrong usage or parameters · 130 interrupted
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
    return parser


def _run(arguments, root):
    preset = [f"preset={arguments.preset}"] if arguments.preset else []
    given = parse_parameters(preset + arguments.parameters)
    failed = batch.run(arguments.patterns, given, root, arguments.out, arguments.force, arguments.dry_run)
    if failed:
        print(f"rsbook: {len(failed)} failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _report(arguments, root):
    from rsbook import report

    try:
        print(report.render(root=root, out=arguments.out))
    except report.ReportError as error:
        print(f"rsbook: {error}", file=sys.stderr)
        return 1
    return 0


def main(argv=None, root=batch.ROOT):
    """Run one command and return its exit code; argparse leaves with code 2 by itself."""
    if argv is None:  # as a program: what ends us must end the kernel as well, and leave no temporary file
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    arguments = _parser().parse_args(argv)
    try:
        return {"run": _run, "report": _report}[arguments.command](arguments, root)
    except batch.BatchError as error:
        print(f"rsbook: {error}", file=sys.stderr)
        return 2 if isinstance(error, batch.UsageError) else 1
    except KeyboardInterrupt:
        print("rsbook: interrupted; the next run goes on with what is missing", file=sys.stderr)
        return 130
