"""The parameters of a notebook: declared in a cell that is parsed, never executed, and checked before any kernel."""

import ast
import difflib
import io
import json
import shlex
import tokenize
from dataclasses import dataclass


class BatchError(RuntimeError):
    """A notebook cannot be run as it is; the message says why."""


class UsageError(BatchError):
    """What was asked for does not fit: a notebook's name, a parameter's name, a value."""


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell: name, default, type as Python writes it, choices of its comment."""

    name: str
    default: object
    type: str
    choices: tuple[str, ...] = ()

    def check(self, value, where="the notebook"):
        """The value as the declared type; raises UsageError when type or choices do not allow it."""
        expected = ast.parse(self.type, mode="eval").body
        what = f"parameter {self.name!r} of {where} is {value!r}"
        try:
            value = _fit(value, expected)
        except TypeError:
            example = shlex.quote(_example(expected, value))
            text = f"{what} ({type(value).__name__}), expected {self.type}: write for example -p {self.name}={example}"
            raise UsageError(text) from None
        for one in value if isinstance(value, list) else [value]:
            if self.choices and one is not None and not any(one in (text, _literal(text)) for text in self.choices):
                near = difflib.get_close_matches(str(one), self.choices, 1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                raise UsageError(f"{what}, expected {' · '.join(self.choices)}{hint}")
        return value


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


def _example(expected, value=None):
    """How a value of this type is written on the command line."""
    match expected:
        case ast.BinOp():
            return _example(expected.right if isinstance(expected.left, ast.Constant) else expected.left, value)
        case ast.Subscript():
            return f"[{_example(expected.slice)}, {_example(expected.slice)}]"
        case ast.Name(id="str") if type(value) in (int, float):
            return f'"{value}"'
    known = {"bool": "true", "int": "3", "float": "0.5", "str": '"text"', "dict": "{name: 1}"}
    return known.get(getattr(expected, "id", ""), "[1, 2]")


def _type_of(value):
    """The type a default declares where there is no annotation."""
    if not isinstance(value, list) or not value:
        return type(value).__name__
    kinds = sorted({_type_of(item) for item in value})
    return f"list[{'float' if kinds == ['float', 'int'] else ' | '.join(kinds)}]"


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
    except ValueError:
        raise ValueError("has a default that is no literal") from None
    choices = tuple(part.strip() for part in comment.split(" · ")) if " · " in comment else ()
    return Parameter(target.id, default, annotation or _type_of(default), choices)


def declared(notebook, name="the notebook"):
    """The parameters a notebook declares, by name: literals assigned in the one code cell tagged `parameters`.

    The type is the annotation (bool, int, float, str, dict, list, `list[…]`, None, `A | B`) or else the default's. A
    comment `# a · b · c` at the end of the line lists the values allowed; for a list, of its elements. Raises
    BatchError when there is no such cell, more than one, or anything else in it.
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
            raise BatchError(f"{problem} has a default outside its type (of {types}) or choices") from None
        if parameter.name in found:
            raise BatchError(f"{problem} declares a name for the second time")
        found[parameter.name] = parameter
    return found


def check_parameters(notebook, given, name="the notebook"):
    """All parameters of a notebook in its order: the given values, checked, and the defaults of the others.

    Raises UsageError for an unknown name or a value outside type or choices, BatchError as `declared` does.
    """
    known = declared(notebook, name)
    refuse_unknown(given, known, name)
    return {key: p.check(given[key], name) if key in given else p.check(p.default) for key, p in known.items()}


def refuse_unknown(given, known, where):
    """Raise UsageError, with the nearest known name, when `given` has a name that `known` has not."""
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.5)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UsageError(f"unknown parameter {key!r} of {where}; {hint}It takes: {', '.join(known) or 'none'}")


def tags(cell):
    """The tags of a notebook's cell."""
    return cell.get("metadata", {}).get("tags", [])
