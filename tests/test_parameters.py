import pytest
from zoo import FIRST, notebook

from rsbook import parameters


@pytest.mark.parametrize(
    ("line", "kind", "choices"),
    [
        ('a: str = "x"', "str", ()),
        ("a = 3", "int", ()),
        ("a = -3", "int", ()),
        ("a = 0.5", "float", ()),
        ("a = True", "bool", ()),
        ("a = []", "list", ()),
        ("a = [1, 2]", "list[int]", ()),
        ("a = [1, 0.5]", "list[float]", ()),
        ('a = [1, "b"]', "list[int | str]", ()),
        ("a = [[0.1, 0.3], [0.1, 0.7]]", "list[list[float]]", ()),
        ('a = {"b": 1}', "dict", ()),
        ("a: str | None = None  # a folder", "str | None", ()),
        ('a = "quick"  # smoke · quick · full', "str", ("smoke", "quick", "full")),
        ("a: list[int] = [1]  # 1 · 2", "list[int]", ("1", "2")),
        ('a = "x # y · z"', "str", ()),
        ('a = [\n    "x",\n]  # x · y', "list[str]", ("x", "y")),
    ],
)
def test_a_line_declares_type_and_choices(line, kind, choices):
    declared = parameters.declared(notebook(line))["a"]
    assert (declared.type, declared.choices) == (kind, choices)


def test_the_order_of_the_cell_is_kept_and_all_defaults_are_there():
    assert parameters.check_parameters(notebook(FIRST), {"device": "cpu"}) == {
        "preset": "quick",
        "dataset": "bluemarble",
        "data_root": None,
        "seeds": [42, 43, 44],
        "device": "cpu",
    }
    assert list(parameters.check_parameters(notebook(FIRST), {"device": "cpu"}))[-1] == "device"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (notebook("a = 1", parameters=()), "exactly one code cell tagged 'parameters' and has 0"),
        (notebook("a = 1", "b = 1", parameters=(0, 1)), "has 2 cells"),
        (notebook("a = 1", kind="markdown"), "exactly one code cell"),
        (notebook("a = "), "not plain Python"),
        (notebook("%matplotlib inline\na = 1"), "not plain Python"),
        (notebook("import os"), r"`import os` is not `name = value`"),
        (notebook("a = b = 1"), "is not `name = value`"),
        (notebook("a, b = 1, 2"), "is not `name = value`"),
        (notebook("a: int"), "is not `name = value`"),
        (notebook("a.b = 1"), "is not `name = value`"),
        (notebook("a = 1\na = 2"), "`a = 2` declares a name for the second time"),
        (notebook("a = 6 * 7"), "no literal"),
        (notebook("a = open('x')"), "no literal"),
        (notebook("a = None"), "outside its type"),
        (notebook("a = (1, 2)"), "outside its type"),
        (notebook("a = {1: 2}"), "outside its type"),
        (notebook("a: int = 0.5"), "outside its type"),
        (notebook("a: Path = 'x'"), "outside its type"),
        (notebook("a: str = None"), "outside its type"),
        (notebook("a = 'x'  # smoke · quick"), "or choices"),
    ],
)
def test_a_parameters_cell_with_anything_else_is_refused(content, message):
    with pytest.raises(parameters.BatchError, match=message) as error:
        parameters.declared(content, "w/n")
    assert "w/n" in str(error.value)
    assert not isinstance(error.value, parameters.UsageError), "the fault is the notebook's, not the user's"


def test_a_parameters_cell_is_never_executed(tmp_path):
    trap = f"open({str(tmp_path / 'trap')!r}, 'w')"
    for source in (f"a = {trap}", f"a: {trap} = 1", trap, f"a: list[{trap}] = [1]"):
        with pytest.raises(parameters.BatchError):
            parameters.declared(notebook(source))
    assert not list(tmp_path.iterdir())


TYPES = """\
whole = 3
number = 0.5
flag = False
text = "a"
folder: str | None = None
seeds: list[int] = [1]
rates: list[float] = [0.5]
boxes = [[0.1, 0.3]]
options = {"a": 1}
either: int | str = 1
preset = "quick"  # smoke · quick · full
methods = ["lp"]  # lp · area
depth = 18  # 18 · 50
limit: float | None = 1.0  # 0.5 · 1
"""


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("whole", -7, -7),
        ("number", 2, 2.0),
        ("number", 0.25, 0.25),
        ("flag", True, True),
        ("text", "", ""),
        ("text", 'a "b"\n\\{c}', 'a "b"\n\\{c}'),
        ("folder", None, None),
        ("folder", "x", "x"),
        ("seeds", [], []),
        ("seeds", [1, 2], [1, 2]),
        ("rates", [1, 0.5], [1.0, 0.5]),
        ("boxes", [[0, 1]], [[0.0, 1.0]]),
        ("options", {"b": [1, {"c": None}]}, {"b": [1, {"c": None}]}),
        ("either", "x", "x"),
        ("preset", "full", "full"),
        ("methods", ["area", "lp"], ["area", "lp"]),
        ("depth", 50, 50),
        ("limit", 1, 1.0),
        ("limit", None, None),
    ],
)
def test_a_value_of_the_declared_type_is_taken(name, value, expected):
    taken = parameters.check_parameters(notebook(TYPES), {name: value})[name]
    assert repr(taken) == repr(expected)  # 1, 1.0 and True differ


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"whole": True}, "'whole' of w/n is True (bool), expected int: write for example -p whole=3"),
        ({"whole": 1.0}, "1.0 (float), expected int"),
        ({"whole": "3"}, "'3' (str), expected int"),
        ({"whole": None}, "None (NoneType), expected int"),
        ({"whole": [3]}, "[3] (list), expected int"),
        ({"number": "fast"}, "expected float: write for example -p number=0.5"),
        ({"number": False}, "expected float"),
        ({"number": float("nan")}, "nan (float), expected float"),
        ({"number": float("inf")}, "inf (float), expected float"),
        ({"number": 10**400}, "(int), expected float"),
        ({"flag": 1}, "expected bool: write for example -p flag=true"),
        ({"flag": "yes please"}, "expected bool"),
        ({"text": 2020}, "expected str: write for example -p text='\"2020\"'"),
        ({"text": None}, "expected str"),
        ({"text": ["a"]}, "expected str"),
        ({"folder": 3}, "expected str | None: write for example -p folder='\"3\"'"),
        ({"seeds": 42}, "42 (int), expected list[int]: write for example -p seeds='[3, 3]'"),
        ({"seeds": [1, True]}, "expected list[int]"),
        ({"seeds": [1, "2"]}, "expected list[int]"),
        ({"seeds": [1, None]}, "expected list[int]"),
        ({"seeds": {"a": 1}}, "expected list[int]"),
        ({"boxes": [0.1, 0.3]}, "expected list[list[float]]: write for example -p boxes='[[0.5, 0.5], [0.5, 0.5]]'"),
        ({"options": [1]}, "expected dict: write for example -p options='{name: 1}'"),
        ({"options": {1: 2}}, "expected dict"),
        ({"options": {"a": {1, 2}}}, "expected dict"),
        ({"either": 0.5}, "expected int | str"),
        ({"preset": "quik"}, "'quik', expected smoke · quick · full (did you mean quick?)"),
        ({"preset": "zzz"}, "'zzz', expected smoke · quick · full"),
        ({"preset": None}, "expected str"),
        ({"methods": ["lp", "cutmix"]}, "expected lp · area"),
        ({"methods": "lp"}, "expected list[str]"),
        ({"depth": 34}, "34, expected 18 · 50"),
        ({"limit": 0.7}, "expected 0.5 · 1"),
        ({"sedes": [1]}, "unknown parameter 'sedes' of w/n; did you mean 'seeds'? It takes: whole, number, flag"),
        ({"zzz": 1}, "unknown parameter 'zzz' of w/n; It takes: whole"),
        ({"Seeds": [1]}, "did you mean 'seeds'?"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_the_way_out(given, message):
    with pytest.raises(parameters.UsageError) as error:
        parameters.check_parameters(notebook(TYPES), given, "w/n")
    assert message in str(error.value)
