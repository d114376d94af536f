"""The parameters of a notebook: declared in a cell that is parsed, never executed, and checked before any kernel.

What a comment at the end of a line allows: `# a · b · c` the values listed, `# only a` that one · `# 0 … 1`, `# 0 …`,
`# … 1` numbers in a range, its ends included · `# folder` a folder. For a list, each of its elements. After a comma or
an opening parenthesis a comment says what it likes: `# 0 … 1, share of the scenes`. Any other comment is prose.
"""

import ast
import difflib
import io
import json
import math
import os
import re
import shlex
import tokenize
import unicodedata
from dataclasses import dataclass
from pathlib import Path

SIZE = 10_000  # characters of all texts and elements of all lists in a value: more than a page needs, no memory's end
DEPTH = 10  # lists and dicts in each other
BITS = 64  # of a whole number: what tensors and seeds hold


class BatchError(RuntimeError):
    """A notebook cannot be run as it is; the message says why."""


class UsageError(BatchError):
    """What was asked for does not fit: a notebook's name, a parameter's name, a value."""


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell: name, default, type as Python writes it, and what its comment allows.

    choices: the values allowed, as written · limits: lowest and highest number, None for no end · folder: names one.
    """

    name: str
    default: object
    type: str
    choices: tuple[str, ...] = ()
    limits: tuple[float | None, float | None] = (None, None)
    folder: bool = False

    def check(self, value, where="the notebook"):
        """The value as the declared type; raises UsageError when type or comment do not allow it.

        What is on the disk does not matter here: see `whole_folders`.
        """
        expected = ast.parse(self.type, mode="eval").body
        what = f"parameter {self.name!r} of {where}"
        held = _unfit_for_any(value)
        if held:
            raise UsageError(f"{what} holds {held}, expected {self.type}: {self._way_out()}")
        kind, what = type(value).__name__, f"{what} is {short(value)}"
        try:
            value = _fit(value, expected)
        except TypeError:
            raise UsageError(f"{what} ({kind}), expected {self.type}: {self._way_out(value)}") from None
        if self.limits != (None, None):
            self._check_range(value, what)
        if self.choices:
            self._check_choices(value, what)
        if self.folder and value is not None:
            self._check_folder(value, what)
        return value

    def _check_range(self, value, what):
        low, high = self.limits
        for one in _leaves(value):
            if one is not None and not ((low is None or low <= one) and (high is None or one <= high)):
                told = f"where {one} is outside" if isinstance(value, list) else "expected"
                raise UsageError(f"{what}, {told} {_range_text(self.limits)}: {self._way_out()}")

    def _check_choices(self, value, what):
        for one in value if isinstance(value, list) else [value]:
            if one is not None and not any(one in (text, _literal(text)) for text in self.choices):
                near = difflib.get_close_matches(str(one), self.choices, 1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                raise UsageError(f"{what}, expected {' · '.join(self.choices)}{hint}")

    def _check_folder(self, value, what):
        problem = None
        if not value.strip():
            problem = "it is empty"
        elif _control_character(value, allowed=""):
            problem = "it holds a control character"
        elif value.startswith("~") and not _in_home(value):
            problem = "only `~` and `~/…` stand for a home"
        elif not _in_home(value) and os.path.normpath(value).split("/")[0] == "..":
            problem = "a relative one must lie in the project, and this leads out of it"
        if problem:
            raise UsageError(f"{what}, expected a folder: {problem}; {self._way_out()}")

    def _whole(self, value, root, where):
        root = Path(root).resolve()
        whole = Path.home().joinpath(*Path(value).parts[1:]) if _in_home(value) else Path(value)
        relative = not whole.is_absolute()
        if relative:  # what is checked and what is opened are the same: no `..` is left for a link to turn elsewhere
            whole = Path(os.path.normpath(root / whole))
        try:
            if relative and not whole.resolve().is_relative_to(root):
                problem = "a relative one must lie in the project, and a symbolic link in it leads out"
            else:
                problem = None if whole.is_dir() else f"there is none at {short(str(whole))}"
        except (OSError, RuntimeError) as error:  # a name too long, no permission, links in a circle
            problem = f"{short(str(whole))} cannot be looked at ({getattr(error, 'strerror', None) or error})"
        if problem:
            what = f"parameter {self.name!r} of {where} is {short(value)}"
            raise UsageError(f"{what}, expected a folder: {problem}; {self._way_out()}")
        return str(whole)

    def _way_out(self, value=None):
        expected = ast.parse(self.type, mode="eval").body
        example = "/big/disk" if self.folder else _example(expected, value, self.limits)
        return f"write for example -p {self.name}={shlex.quote(example)}"


# Values


def short(value):
    """A value as one short line of a message, whatever it is."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:80]} … {text[-30:]}"


def _unfit_for_any(value):
    """What in a value no parameter may hold, whatever its type, in a few words; None when there is nothing."""
    size, left = 0, [(value, 0)]
    while left:
        part, depth = left.pop()
        size += len(part) if type(part) in (str, list, dict) else 0
        if size > SIZE:
            return f"more than {SIZE:,} characters and elements"
        if type(part) in (list, dict):
            if depth == DEPTH:
                return f"lists in each other, more than {DEPTH} deep"
            left += [(one, depth + 1) for one in (part if isinstance(part, list) else [*part, *part.values()])]
        elif problem := _unfit_leaf(part):
            return problem
    return None


def _unfit_leaf(part):
    match part:
        case str() if character := _control_character(part):
            return f"the character {character!r}, which no text may hold"
        case bool() | str() | None:
            return None
        case int():
            return None if -(2 ** (BITS - 1)) <= part < 2 ** (BITS - 1) else f"a whole number beyond {BITS} bits"
        case float():
            return None if math.isfinite(part) else f"{part}, which is no finite number"
    return f"a {type(part).__name__}"


def _control_character(text, allowed="\t\n\r"):
    """The first control character, null byte or half of a surrogate pair in a text, None when there is none."""
    return next((c for c in text if unicodedata.category(c) in ("Cc", "Cs") and c not in allowed), None)


def _leaves(value):
    for one in value if isinstance(value, list) else [value]:
        yield from _leaves(one) if isinstance(one, list) else [one]


def _in_home(folder):
    return folder.split("/")[0] == "~"


def _literal(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _fit(value, expected):
    """The value as the type that the syntax tree `expected` spells; raises TypeError when it is none."""
    kind = type(value).__name__
    match expected:
        case ast.BinOp(op=ast.BitOr()):
            try:
                return _fit(value, expected.left)
            except TypeError:
                return _fit(value, expected.right)
        case ast.Constant(value=None) if value is None:
            return None
        case ast.Name(id="float") if kind in ("int", "float") and abs(value) < 1e300:
            return float(value)  # so that 1 and 1.0 are one parameter
        case ast.Name(id="bool" | "int" | "str" as name) if kind == name:
            return value
        case ast.Name(id="list" | "dict" as name) if kind == name and json.loads(json.dumps(value)) == value:
            return value  # what JSON keeps, papermill injects unchanged
        case ast.Subscript(value=ast.Name(id="list")) if kind == "list":
            return [_fit(item, expected.slice) for item in value]
    raise TypeError


def _example(expected, value=None, limits=(None, None)):
    """How a value of this type is written on the command line."""
    match expected:
        case ast.BinOp():
            one = expected.right if isinstance(expected.left, ast.Constant) else expected.left
            return _example(one, value, limits)
        case ast.Subscript():
            item = _example(expected.slice, None, limits)
            return f"[{item}, {item}]"
        case ast.Name(id="str") if type(value) in (int, float):
            return f'"{value}"'
        case ast.Name(id="int" | "float" as name):
            low, high = limits
            number = 3 if name == "int" else 0.5
            number = number if low is None or low <= number else low
            return str(number if high is None or number <= high else high)
    known = {"bool": "true", "str": '"text"', "dict": "{name: 1}"}
    return known.get(getattr(expected, "id", ""), "[1, 2]")


# The parameters cell


def _type_of(value):
    """The type a default declares where there is no annotation."""
    if not isinstance(value, list) or not value:
        return type(value).__name__
    kinds = sorted({_type_of(item) for item in value})
    return f"list[{'float' if kinds == ['float', 'int'] else ' | '.join(kinds)}]"


def _rule(comment):
    """What a comment allows, as keywords of Parameter; raises ValueError for a range that is none."""
    rule = re.split(r", | \(", comment, maxsplit=1)[0].strip()
    if "…" in rule or "..." in rule:  # a range that is not understood must not pass for prose
        return {"limits": _limits(rule)}
    if " · " in rule or rule.startswith("only "):
        return {"choices": tuple(part.strip() for part in rule.removeprefix("only ").split(" · "))}
    return {"folder": True} if rule == "folder" else {}


def _limits(rule):
    ends = [_literal(text.strip()) if text.strip() else None for text in rule.split("…")]
    numbers = [end for end in ends if end is not None]
    if len(ends) != 2 or not numbers or not all(type(n) in (int, float) and math.isfinite(n) for n in numbers):
        raise ValueError("has a comment that is no range: write # 0 … 1, # 0 … or # … 1")
    if numbers != sorted(numbers):
        raise ValueError("has a range that ends before it begins")
    return tuple(ends)


def _range_text(limits):
    return " ".join(str(part) for part in (limits[0], "…", limits[1]) if part is not None)


def _parameter(line, comment):
    """The parameter that one statement declares; raises ValueError when it is no assignment of a literal to a name."""
    if isinstance(line, ast.Assign) and len(line.targets) == 1:
        target, annotation = line.targets[0], None
    elif isinstance(line, ast.AnnAssign) and line.value:
        target, annotation = line.target, ast.unparse(line.annotation)
    else:
        raise ValueError("is not `name = value`")
    if not isinstance(target, ast.Name):
        raise ValueError("is not `name = value`")
    try:
        default = ast.literal_eval(line.value)
    except (ValueError, TypeError):
        raise ValueError("has a default that is no literal") from None
    parameter = Parameter(target.id, default, annotation or _type_of(default), **_rule(comment))
    kinds = {node.id for node in ast.walk(ast.parse(parameter.type)) if isinstance(node, ast.Name)}
    if parameter.limits != (None, None) and kinds - {"list"} not in ({"int"}, {"float"}, {"int", "float"}):
        raise ValueError(f"has a range, and its type {parameter.type} holds more than numbers")
    if parameter.folder and kinds != {"str"}:
        raise ValueError(f"is a folder by its comment, and its type {parameter.type} is no text")
    return parameter


def declared(notebook, name="the notebook"):
    """The parameters a notebook declares, by name: literals assigned in the one code cell tagged `parameters`.

    The type is the annotation (bool, int, float, str, dict, list, `list[…]`, None, `A | B`) or else the default's; the
    comment at the end of the line may allow less (see above). Raises BatchError when there is no such cell, more than
    one, anything else in it, or a default that its own line does not allow.
    """
    cells = [cell for cell in notebook["cells"] if "parameters" in tags(cell)]
    if len(cells) != 1 or cells[0]["cell_type"] != "code":
        raise BatchError(f"{name} needs exactly one code cell tagged 'parameters' and has {len(cells)} cells tagged so")
    source, found = "".join(cells[0]["source"]), {}
    try:
        lines = ast.parse(source).body
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (SyntaxError, ValueError) as error:
        raise BatchError(f"the parameters cell of {name} is not plain Python: {error}") from None
    comments = {token.start[0]: token.string.strip("# ") for token in tokens if token.type == tokenize.COMMENT}
    for line in lines:
        problem = f"the parameters cell of {name}: `{ast.get_source_segment(source, line)}`"
        try:
            parameter = _parameter(line, comments.get(line.end_lineno, ""))
            parameter.check(parameter.default)
        except ValueError as error:
            raise BatchError(f"{problem} {error}") from None
        except UsageError:
            types = "bool, int, float, str, dict, list, list[…], None, A | B"
            text = f"{problem} has a default outside its type (of {types}), range, folder or choices"
            raise BatchError(text) from None
        if parameter.name in found:
            raise BatchError(f"{problem} declares a name for the second time")
        found[parameter.name] = parameter
    return found


def check_parameters(notebook, given, name="the notebook"):
    """All parameters of a notebook in its order: the given values, checked, and the defaults of the others.

    Raises UsageError for an unknown name or a value outside type, range or choices, BatchError as `declared` does.
    """
    known = declared(notebook, name)
    refuse_unknown(given, known, name)
    return {key: p.check(given[key], name) if key in given else p.check(p.default) for key, p in known.items()}


def whole_folders(notebook, parameters, root, name="the notebook"):
    """Checked parameters with each folder as a whole path: `~` is the home, and a relative one lies in `root`.

    To be called before a kernel starts, and not for the record of a page, whose folders may be on another machine.
    Raises UsageError for a folder that is not there, and for a relative one that a symbolic link leads out of `root`.
    """
    folders = {key: p for key, p in declared(notebook, name).items() if p.folder and parameters.get(key) is not None}
    return parameters | {key: p._whole(parameters[key], root, name) for key, p in folders.items()}


def refuse_unknown(given, known, where):
    """Raise UsageError, with the nearest known name, when `given` has a name that `known` has not."""
    lower = {key.lower(): key for key in known}
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key.lower(), lower, 1, 0.5)
            hint = f"did you mean {lower[near[0]]!r}? " if near else ""
            text = f"unknown parameter {short(key)} of {where}"
            raise UsageError(f"{text}; {hint}It takes: {', '.join(known) or 'none'}")


def tags(cell):
    """The tags of a notebook's cell."""
    return cell.get("metadata", {}).get("tags", [])


def read_yaml(text):
    """The value of a YAML text; raises ValueError, ArithmeticError or RecursionError when it is none."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads 1e-3 as a number, which YAML 1.1 takes for text, and neither tags nor aliases."""

        def compose_node(self, parent, index):
            # an alias repeats its anchor, and a few lines of them fill any memory
            if self.check_event(yaml.AliasEvent):
                raise ValueError("it holds a YAML alias (*): put it in quotes")
            if tag := getattr(self.peek_event(), "tag", None):
                raise ValueError(f"it holds a YAML tag ({tag}): put it in quotes")
            return super().compose_node(parent, index)

    exponent = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", exponent, list("-+0123456789"))
    if len(text) > SIZE:
        raise ValueError(f"it is longer than {SIZE:,} characters")
    try:
        return yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        raise ValueError(getattr(error, "problem", None) or error) from None
