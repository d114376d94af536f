"""Hostile values at the front door: refused in a line before anything starts, or handed to the notebook as they are."""

import ast
import json
import multiprocessing.process
import os
import re
import subprocess
import time

import pytest
from zoo import executed, make_root, notebook

from rsbook import cli

PARAMETERS = """\
preset: str = "quick"  # smoke · quick · full
dataset: str = "bluemarble"  # bluemarble · deepglobe
data_root: str | None = None  # folder (of archives)
seeds: list[int] | None = None  # 0 …
share: float = 0.5  # 0 … 1, of the scenes
boxes: list[list[float]] | None = None  # 0 … 1
text = "x"
flag = True
options = {"a": 1}
anything = []
"""
BOMB = "anything=[&a [x, x, x, x], &b [*a, *a, *a, *a], &c [*b, *b, *b, *b], [*c, *c, *c, *c]]"
REFUSED = [
    # paths
    ("data_root=..", "this leads out of it"),
    ("data_root=../../etc", "this leads out of it"),
    ("data_root=a/../../etc", "this leads out of it"),
    ("data_root=./.././etc/passwd", "this leads out of it"),
    ("data_root=~root", "only `~` and `~/…` stand for a home"),
    ("data_root=''", "it is empty"),
    ('data_root=" "', "it is empty"),
    (r'data_root="/etc\0"', r"holds the character '\x00'"),
    (r'data_root="/etc\n/x"', "it holds a control character"),
    ("data_root=[/etc]", "expected str | None: write for example -p data_root=/big/disk"),
    ("data_root=3", "expected str | None"),
    ("dataset=/etc/passwd", "'/etc/passwd', expected bluemarble · deepglobe"),
    ("dataset=../bluemarble", "expected bluemarble · deepglobe (did you mean bluemarble?)"),
    ("dataset=bluemarble/../../x", "expected bluemarble · deepglobe"),
    # code and formats
    ("preset=__import__('os').system('touch trap')", "expected smoke · quick · full"),
    ("preset=quick; touch trap", "expected smoke · quick · full"),
    ("preset=$(touch trap)", "expected smoke · quick · full"),
    ("preset={0.__class__}", "expected str"),
    ('preset="{preset.__class__.__mro__}"', "expected smoke · quick · full"),
    (r'preset="quick\"\nopen(\"trap\", \"w\")#"', "expected smoke · quick · full"),
    ('preset="%s%n"', "expected smoke · quick · full"),
    ("seeds=__import__('os').system('touch trap')", "expected list[int] | None"),
    ("share=1 if open('trap', 'w') else 0", "expected float"),
    # YAML
    ("text=!!python/object/apply:os.system [touch trap]", "is not YAML"),
    ("text=!!python/object/new:os.system [touch trap]", "is not YAML"),
    ("text=!!python/name:os.system", "is not YAML"),
    ("text=!!python/module:antigravity", "is not YAML"),
    ('options={a: !!python/object/apply:eval [\'open("trap", "w")\']}', "is not YAML"),
    ("text=!x y", "is not YAML"),
    ("options=!!set {a, b}", ""),
    ("text=!!binary YQ==", ""),
    ("text=2020-01-01", "holds a date, expected str"),
    (BOMB, "holds a YAML alias"),
    ("anything=&a [*a]", "holds a YAML alias"),
    ("options={<<: [{a: 1}, 3]}", "is not YAML"),
    ("options={[1]: 2}", "is not YAML"),
    ("options={1: 2}", "expected dict"),
    ("anything=[1, 2", "is not YAML"),
    ("anything=" + "[" * 200 + "]" * 200, "holds lists in each other, more than 10 deep"),
    ("options=" + "{a: " * 40 + "1" + "}" * 40, "holds lists in each other, more than 10 deep"),
    # numbers
    ("share=1e999", "holds inf, which is no finite number"),
    ("share=-1e999", "holds -inf, which is no finite number"),
    ("share=.inf", "holds inf, which is no finite number"),
    ("share=.nan", "holds nan, which is no finite number"),
    ("share=1.0000001", "expected 0 … 1: write for example -p share=0.5"),
    ("share=-1e-300", "expected 0 … 1"),
    ("seeds=[9223372036854775808]", "holds a whole number beyond 64 bits"),
    ("seeds=[0x" + "f" * 900 + "]", "holds a whole number beyond 64 bits"),
    ("share=1" + "0" * 900, "holds a whole number beyond 64 bits"),
    ("seeds=[42, -1]", "where -1 is outside 0 …: write for example -p seeds='[3, 3]'"),
    ("boxes=[[0.1, 0.3], [0.1, 7]]", "where 7.0 is outside 0 … 1: write for example -p boxes='[[0.5, 0.5], "),
    ("anything=[.nan]", "holds nan, which is no finite number"),
    ("options={a: [[1e999]]}", "holds inf, which is no finite number"),
    # types
    ("seeds=42", "42 (int), expected list[int] | None"),
    ("seeds=[true]", "expected list[int] | None"),
    ("seeds=[1.5]", "expected list[int] | None"),
    ("seeds={0: 1}", "expected list[int] | None"),
    ("flag=1", "1 (int), expected bool: write for example -p flag=true"),
    ("flag='true'", "expected bool"),
    ("text=null", "expected str"),
    ("text=[]", "expected str"),
    ("preset=null", "expected str"),
    # texts
    (r'text="\0"', r"holds the character '\x00', which no text may hold"),
    (r'text="a\x1b[2Jb"', r"holds the character '\x1b', which no text may hold"),
    (r'text="\x07"', r"holds the character '\x07'"),
    (r'text="\ud800"', r"holds the character '\ud800'"),
    (r'options={"\0": 1}', r"holds the character '\x00'"),
    (r'anything=[{a: ["\e"]}]', r"holds the character '\x1b'"),
    # names
    ("sedes=[1]", "unknown parameter 'sedes' of w/a; did you mean 'seeds'? It takes: preset, dataset, data_root"),
    ("dataroot=/", "did you mean 'data_root'?"),
    ("PRESET=full", "did you mean 'preset'?"),
    ("pre_set=full", "did you mean 'preset'?"),
    ("x" * 100_000 + "=1", "unknown parameter 'xxx"),
    ("__class__=1", "unknown parameter '__class__' of w/a"),
    ("import=os", "unknown parameter 'import' of w/a"),
    ("os.system=x", "is not name=value"),
    ("text\n=1", "is not name=value"),
    ("text[0]=1", "is not name=value"),
    ("=1", "is not name=value"),
    ("text", "is not name=value"),
]
REFUSED_BY_YAML = [  # what PyYAML answers with an error of another kind, in two lines, or after a long time
    ("text=\x1b[2J", "is not YAML"),
    ("text=a\0b", "is not YAML"),
    ("text=\udcff", "is not YAML"),
    ("flag=!!bool perhaps", "is not YAML"),
    ("seeds=[!!int '']", "is not YAML"),
    ("share=!!float ''", "is not YAML"),
    ("text=!!timestamp soon", "is not YAML"),
    ("text=!!str 2020", "is not YAML"),
    ("share=" + ":".join(["59"] * 200) + ".5", "is not YAML"),
    ("share=1" + "0" * 5000, "is not YAML"),
    ("anything=" + "[" * 1000, "is not YAML"),
    ("seeds=[" + "1," * 60_000 + "1]", "is not YAML"),
    ("text=" + "x" * 10_001, "longer than 10,000 characters"),
    ("+" * 100_000, "is not name=value"),
]
NO_FOLDERS = [
    ("data_root=archives", "there is none at"),
    ("data_root=/nowhere/at/all", "there is none at '/nowhere/at/all'"),
    ("data_root=~/nowhere/at/all", "there is none at"),
    ("data_root=notebooks/w/a.ipynb", "there is none at"),
    ("data_root=out", "a symbolic link in it leads out"),
    ("data_root=out/etc", "a symbolic link in it leads out"),
    ("data_root=" + "x/" * 4000, "cannot be looked at"),
    ("data_root=https://example.org/data", "there is none at"),
]


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path / "root", w__a=notebook(PARAMETERS, "1"))


@pytest.fixture
def refuses(root, monkeypatch, capsys):
    """Give one value to `python -m rsbook run`: it must be refused at once, in one line, and leave nothing behind."""
    (root / "out").symlink_to("/")
    monkeypatch.chdir(root)
    started = []
    for where, name in ((subprocess.Popen, "__init__"), (multiprocessing.process.BaseProcess, "start"), (os, "system")):
        monkeypatch.setattr(where, name, lambda *given, **_: started.append(given) or 1 / 0)
    before = sorted(root.parent.rglob("*"))

    def check(argument, message):
        begin = time.process_time()  # others may be at work on this machine
        code = cli.main(["run", "w/a", "-p", argument], root)
        seconds = time.process_time() - begin
        said = capsys.readouterr()
        assert (code, said.out) == (2, "")
        assert said.err.startswith("rsbook: ")
        assert said.err.endswith("\n")
        assert said.err[:-1].isprintable(), "a second line, or what a terminal obeys"
        assert message in said.err
        assert len(said.err) < 1000
        assert seconds < 1
        assert started == []
        assert sorted(root.parent.rglob("*")) == before

    return check


def name_of(case):
    return ascii(case)[:40] if isinstance(case, str) else None


@pytest.mark.parametrize(("argument", "message"), REFUSED, ids=name_of)
def test_a_hostile_value_is_refused_before_anything_starts(refuses, argument, message):
    refuses(argument, message)


@pytest.mark.parametrize(("argument", "message"), REFUSED_BY_YAML, ids=name_of)
def test_what_yaml_stumbles_over_is_refused_too(refuses, argument, message):
    refuses(argument, message)


@pytest.mark.parametrize(("argument", "message"), NO_FOLDERS, ids=name_of)
def test_a_folder_that_is_none_is_refused_before_anything_starts(refuses, argument, message):
    refuses(argument, message)


TRAP = "__import__('pathlib').Path('trap').touch()"
ALLOWED = [
    TRAP,
    f'"; {TRAP}; "',
    f"'; {TRAP}; '",
    f'"""\n{TRAP}\n"""',
    f"'''\n{TRAP}\n'''",
    f'\\"; {TRAP} #',
    f"\\\n{TRAP}\n",
    f"x\r\n{TRAP}\r",
    f"{{{TRAP}}}",
    f"{{text!r:{{{TRAP}}}}} %(x)s %s $x ${{x}} `x` {{{{0.__class__}}}}",
    "# \t%%bash\n!touch trap\n%system touch trap\n?",
    "\\N{BULLET} \\x00 \\u0000 \\ud800 \\",
    "naïve \u202e \ufeff \u2028 \u2029 \U0001f6f0 日本 عربى",
    "</script><script>touch</script>",
    "../../etc/passwd",
    "null",
    "1e999",
    "",
]


def as_yaml(value):
    """JSON, which is YAML but for the line breaks that only YAML knows."""
    return json.dumps(value, ensure_ascii=False).replace("\u2028", r"\u2028").replace("\u2029", r"\u2029")


def test_a_text_that_looks_like_code_arrives_as_it_is_and_runs_nothing(root, monkeypatch):
    show = "import json\nprint(json.dumps([text, options, anything]))"
    make_root(root, w__a=notebook(PARAMETERS, show))
    monkeypatch.chdir(root)
    values = {"text": "\n".join(ALLOWED), "options": {text: [text] for text in ALLOWED}, "anything": ALLOWED}
    given = [f"{name}={as_yaml(value)}" for name, value in values.items()]
    assert cli.main(["run", "w/a", *(word for one in given for word in ("-p", one))], root) == 0
    cells = executed(root, "w/a")["cells"]
    printed = "".join("".join(output["text"]) for output in cells[-1]["outputs"])
    assert json.loads(printed) == list(values.values())
    assert not list(root.rglob("trap"))
    injected = ast.parse("".join(cells[1]["source"])).body
    assert [line.targets[0].id for line in injected] == re.findall(r"^\w+", PARAMETERS, re.M)
    for line in injected:
        ast.literal_eval(line.value)  # raises for whatever is no literal
