import json
from pathlib import Path

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


@pytest.mark.parametrize(
    ("line", "limits"),
    [
        ("a: float = 0.5  # 0 … 1", (0, 1)),
        ("a: float = 0.5  # 0…1", (0, 1)),
        ("a = 3  # 1 …", (1, None)),
        ("a = 3  # … 7", (None, 7)),
        ("a = 3  # 3 … 3", (3, 3)),
        ("a = -0.5  # -1 … 1e-3", (-1, 1e-3)),
        ("a = 0.5  # 0 … 1, share of the scenes", (0, 1)),
        ("a = 0.5  # 0 … 1 (a share, or … nothing)", (0, 1)),
        ("a: list[int] | None = None  # 0 …", (0, None)),
        ("a: list[list[float | None]] = [[0.5, None]]  # 0 …, [fraction, intensity] each", (0, None)),
        ("a: int | float = 1  # 0 …", (0, None)),
        ("a = 0.5  # share of the scenes", (None, None)),
        ("a = 0.5  # share, 0 … 1", (None, None)),
        ("a: list[list[float]] = []  # [fraction, intensity] each, 0 … 1", (None, None)),
        ('a = "x # 0 … 1"', (None, None)),
    ],
)
def test_a_comment_declares_a_range(line, limits):
    declared = parameters.declared(notebook(line))["a"]
    assert (declared.limits, declared.choices, declared.folder) == (limits, (), False)


@pytest.mark.parametrize(
    ("comment", "folder"),
    [
        ("folder", True),
        ("folder (of archives)", True),
        ("folder, where archives are", True),
        ("a folder", False),
        ("folders", False),
        ("", False),
    ],
)
def test_a_comment_declares_a_folder(comment, folder):
    for line in (f"a: str | None = None  # {comment}", f"a = 'x'  # {comment}"):
        declared = parameters.declared(notebook(line))["a"]
        assert (declared.folder, declared.choices, declared.limits) == (folder, (), (None, None))


def test_prose_may_follow_choices():
    declared = parameters.declared(notebook("a = 'x'  # x · y, whichever (x · y · z)"))["a"]
    assert declared.choices == ("x", "y")


def test_a_single_choice_is_said_to_be_the_only_one():
    declared = parameters.declared(notebook("a = 'x'  # only x (so far)"))["a"]
    assert declared.choices == ("x",)
    with pytest.raises(parameters.UsageError, match="expected x"):
        declared.check("y")
    assert parameters.declared(notebook("a = 'x'  # lonely x"))["a"].choices == ()


def test_every_notebook_says_what_its_shared_parameters_may_be():
    paths = list(Path(__file__).parents[1].glob("notebooks/[!.]*/[!.]*.ipynb"))
    assert paths
    for path in paths:
        found = parameters.declared(json.loads(path.read_text("utf-8")), path.stem)
        assert all(found[key].choices for key in ("preset", "dataset", "device")), path
        assert (found["seeds"].limits, found["data_root"].folder) == ((0, None), True), path


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
        (notebook("a = {[1]: 2}"), "no literal"),
        (notebook("a = 'x'  # smoke · quick"), "or choices"),
        (notebook("a = 2  # 0 … 1"), "`a = 2` has a default outside its type .* range"),
        (notebook("a = [[0.5, 1.5]]  # 0 … 1"), "has a default outside its type .* range"),
        (notebook("a = '../x'  # folder"), "has a default outside its type .* folder"),
        (notebook("a = 'x'  # 0 … 1"), "has a range, and its type str holds more than numbers"),
        (notebook("a: int | str = 1  # 0 …"), "has a range, and its type int | str holds"),
        (notebook("a = True  # 0 … 1"), "has a range, and its type bool holds"),
        (notebook("a = []  # 0 …"), "has a range, and its type list holds"),
        (notebook("a = {}  # 0 …"), "has a range, and its type dict holds"),
        (notebook("a = 1  # folder"), "is a folder by its comment, and its type int is no text"),
        (notebook("a = ['x']  # folder"), "its type list.str. is no text"),
        (notebook("a = 1  # 2 … 0"), "ends before it begins"),
        *(
            (notebook(f"a = 1  # {text}"), "has a comment that is no range: write # 0 … 1")
            for text in (
                "…",
                "0 ... 1",
                "0 … 1 … 2",
                "low … high",
                "0 … 1 share",
                "0 … 1e999",
                "0 … True",
                "0 … 1 · 2",
                "and so on…",
            )
        ),
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
share: float = 0.5  # 0 … 1, of the scenes
steps: list[int] | None = None  # 1 …
cold: int | None = None  # … -5
large = 10  # 10 …
levels: list[list[float | None]] | None = None  # 0 … 0.25, [fraction, intensity] each
data_root: str | None = None  # folder (of archives)
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
        ("share", 0, 0.0),
        ("share", 1, 1.0),
        ("steps", [1, 2**63 - 1], [1, 2**63 - 1]),
        ("steps", [], []),
        ("steps", None, None),
        ("cold", -5, -5),
        ("levels", [[0, 0.25], [0.1, None], []], [[0.0, 0.25], [0.1, None], []]),
        ("data_root", None, None),
        ("data_root", "archives", "archives"),
        ("data_root", "a/../b", "a/../b"),
        ("data_root", "./a", "./a"),
        ("data_root", ".", "."),
        ("data_root", "~", "~"),
        ("data_root", "~/a b/é", "~/a b/é"),
        ("data_root", "/nowhere/at/all", "/nowhere/at/all"),
        ("text", "\t\r\n é \U0001f6f0 \u202e", "\t\r\n é \U0001f6f0 \u202e"),
        ("text", "x" * 10_000, "x" * 10_000),
        ("options", {"a": [[[[[[[[[1]]]]]]]]]}, {"a": [[[[[[[[[1]]]]]]]]]}),
        ("seeds", [-(2**63)] * 10_000, [-(2**63)] * 10_000),
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
        (
            {"number": float("nan")},
            "'number' of w/n holds nan, which is no finite number, expected float: write for exam",
        ),
        ({"number": -float("inf")}, "holds -inf, which is no finite number"),
        ({"number": 10**400}, "holds a whole number beyond 64 bits, expected float: write for example -p number=0.5"),
        ({"number": 1.5e300}, "(float), expected float"),
        ({"whole": 2**63}, "holds a whole number beyond 64 bits"),
        ({"whole": -(2**63) - 1}, "holds a whole number beyond 64 bits"),
        ({"whole": 16**5000}, "holds a whole number beyond 64 bits"),
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
        ({"options": {"a": {1, 2}}}, "holds a set, expected dict: write for example -p options='{name: 1}'"),
        ({"options": {"a": [float("inf")]}}, "holds inf, which is no finite number"),
        ({"options": {"a": [16**5000]}}, "holds a whole number beyond 64 bits"),
        ({"options": {"a\0": 1}}, r"holds the character '\x00', which no text may hold"),
        ({"options": {"a": [[[[[[[[[[1]]]]]]]]]]}}, "holds lists in each other, more than 10 deep"),
        ({"options": {"a": [0] * 10_001}}, "holds more than 10,000 characters and elements"),
        (
            {"text": "a\0b"},
            r"'text' of w/n holds the character '\x00', which no text may hold, expected str: write for exa",
        ),
        ({"text": "\ud83d"}, r"holds the character '\ud83d', which no text may hold"),
        ({"text": "\x1b[2J"}, r"holds the character '\x1b'"),
        ({"text": "x" * 10_001}, "holds more than 10,000 characters and elements"),
        ({"text": b"a"}, "holds a bytes, expected str"),
        ({"seeds": [1] * 10_001}, "holds more than 10,000 characters and elements"),
        ({"methods": ["x" * 6_000, "y" * 6_000]}, "holds more than 10,000 characters and elements"),
        ({"either": 0.5}, "expected int | str"),
        ({"preset": "quik"}, "'quik', expected smoke · quick · full (did you mean quick?)"),
        ({"preset": "zzz"}, "'zzz', expected smoke · quick · full"),
        ({"preset": None}, "expected str"),
        ({"methods": ["lp", "cutmix"]}, "expected lp · area"),
        ({"methods": "lp"}, "expected list[str]"),
        ({"depth": 34}, "34, expected 18 · 50"),
        ({"limit": 0.7}, "expected 0.5 · 1"),
        ({"share": 1.5}, "'share' of w/n is 1.5, expected 0 … 1: write for example -p share=0.5"),
        ({"share": -1e-9}, "is -1e-09, expected 0 … 1"),
        ({"share": "half"}, "'half' (str), expected float: write for example -p share=0.5"),
        ({"steps": [3, 0]}, "'steps' of w/n is [3, 0], where 0 is outside 1 …: write for example -p steps='[3, 3]'"),
        ({"steps": [*range(1, 500), -7]}, "where -7 is outside 1 …"),
        ({"cold": -4}, "is -4, expected … -5: write for example -p cold=-5"),
        ({"large": 9}, "is 9, expected 10 …: write for example -p large=10"),
        ({"large": "9"}, "expected int: write for example -p large=10"),
        (
            {"levels": [[0.1, None], [0.1, 0.26]]},
            "where 0.26 is outside 0 … 0.25: write for example -p levels='[[0.25, 0",
        ),
        ({"data_root": 3}, "3 (int), expected str | None: write for example -p data_root=/big/disk"),
        ({"data_root": ["/"]}, "expected str | None"),
        (
            {"data_root": ""},
            "'data_root' of w/n is '', expected a folder: it is empty; write for example -p data_root=/",
        ),
        ({"data_root": " \t"}, "it is empty"),
        ({"data_root": "/a\nb"}, "it holds a control character"),
        ({"data_root": "/a\0b"}, "holds the character"),
        ({"data_root": ".."}, "a relative one must lie in the project, and this leads out of it"),
        ({"data_root": "../x"}, "this leads out of it"),
        ({"data_root": "a/../../x"}, "this leads out of it"),
        ({"data_root": "./../x"}, "this leads out of it"),
        ({"data_root": "~root/x"}, "only `~` and `~/…` stand for a home"),
        ({"data_root": "~x"}, "only `~` and `~/…` stand for a home"),
        ({"sedes": [1]}, "unknown parameter 'sedes' of w/n; did you mean 'seeds'? It takes: whole, number, flag"),
        ({"zzz": 1}, "unknown parameter 'zzz' of w/n; It takes: whole"),
        ({"Seeds": [1]}, "did you mean 'seeds'?"),
        ({"DATAROOT": "/"}, "did you mean 'data_root'?"),
        ({"x" * 100_000: 1}, "x … x"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_the_way_out(given, message):
    with pytest.raises(parameters.UsageError) as error:
        parameters.check_parameters(notebook(TYPES), given, "w/n")
    assert message in str(error.value)
    assert len(str(error.value).encode()) < 500
    assert str(error.value).isprintable()


def test_a_list_that_holds_itself_is_refused():
    endless = []
    endless.append(endless)
    with pytest.raises(parameters.UsageError, match="more than 10 deep"):
        parameters.check_parameters(notebook("a = []"), {"a": endless})


# Folders on the disk


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project and a home side by side, each with a folder `archives`, and links that lead out of the project."""
    for folder in ("project/archives", "home/archives", "elsewhere/archives"):
        (tmp_path / folder).mkdir(parents=True)
    project = tmp_path / "project"
    (project / "file").touch()
    (project / "out").symlink_to(tmp_path / "elsewhere")
    (project / "inside").symlink_to("archives")
    (project / "circle").symlink_to("circle")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    return project


def whole(project, folder):
    page = notebook("n = 1\nroot: str | None = None  # folder\ntext = 'x'")
    given = parameters.check_parameters(page, {"root": folder, "text": "../x"}, "w/n")
    found = parameters.whole_folders(page, given, project, "w/n")
    assert list(found.items())[::2] == [("n", 1), ("text", "../x")]
    return found["root"]


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        (None, None),
        ("archives", "project/archives"),
        ("./archives/", "project/archives"),
        ("file/../archives", "project/archives"),
        ("out/../archives", "project/archives"),
        ("inside", "project/inside"),
        (".", "project"),
        ("~", "home"),
        ("~/archives", "home/archives"),
        ("~//archives", "home/archives"),
    ],
)
def test_a_folder_becomes_whole(project, folder, expected):
    assert whole(project, folder) == (expected and str(project.parent / expected))


def test_a_whole_folder_stays_and_may_lie_anywhere(project):
    for folder in (project.parent / "elsewhere", project / "archives", project / "out" / "archives"):
        assert whole(project, str(folder)) == str(folder)


def test_a_record_of_a_page_gives_the_folder_it_was_made_with(project):
    """`batch._stamp` writes `./` for the project and `~/` for the home."""
    for folder, record in (("archives", "./archives"), ("~/archives", "~/archives")):
        assert whole(project, record) == whole(project, folder)


@pytest.mark.parametrize(
    ("folder", "problem"),
    [
        ("archive", "there is none at '"),
        ("/nowhere/at/all", "there is none at '/nowhere/at/all'"),
        ("~/nowhere", "home/nowhere'"),
        ("file", "there is none at '"),
        ("out", "a symbolic link in it leads out"),
        ("out/archives", "a symbolic link in it leads out"),
        ("inside/../out/archives", "a symbolic link in it leads out"),
        ("circle", "cannot be looked at"),
        ("x" * 5000, "cannot be looked at (File name too long)"),
        ("s3://bucket", "there is none at '"),
        ("$HOME", "there is none at '"),
    ],
)
def test_a_folder_that_is_none_is_refused(project, folder, problem):
    with pytest.raises(parameters.UsageError) as error:
        whole(project, folder)
    message = str(error.value)
    assert message.startswith("parameter 'root' of w/n is '")
    assert f"expected a folder: {problem}" in message or problem in message
    assert message.endswith("; write for example -p root=/big/disk")
    assert "\n" not in message
