"""What counts in a source, and what a module or a notebook can reach."""

import pytest

from rsbook import sources


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("x = 1", "x = 2", False),
        ("def f():\n    'Words.'\n    return 1", "def f():\n    return 1", True),
        ("class A:\n    'Words.'\n    x = 1", "class A:\n    '''Others.'''\n    x = 1", True),
        ("x = 'a'", 'x = ("a")  # b', True),
        ("'Words.'\nx = 'not a docstring'", "'Words.'\nx = 'nor this'", False),
        ("def f():\n    g()\n    'no docstring'", "def f():\n    g()\n    'as it is not first'", False),
        ("async def f():\n    'Words.'\n    await g()", "async def f():\n    await g()", True),
    ],
)
def test_what_counts_in_a_source(before, after, same):
    assert (sources.understand(before, "m", False)[0] == sources.understand(after, "m", False)[0]) == same


@pytest.mark.parametrize(
    ("source", "module", "is_package", "expected"),
    [
        ("import os, rsbook.scenes as s", "m", False, {"rsbook.scenes"}),
        ("from rsbook import mixing, models", "m", False, {"rsbook.mixing", "rsbook.models"}),
        (
            "def f():\n    from rsbook.positions import count",
            "m",
            False,
            {"rsbook.positions", "rsbook.positions.count"},
        ),
        ("from . import scenes", "rsbook.mixing", False, {"rsbook.scenes"}),
        ("from .positions import count", "rsbook.mixing", False, {"rsbook.positions", "rsbook.positions.count"}),
        ("from . import b", "rsbook.archives", True, {"rsbook.archives", "rsbook.archives.b"}),
        ("from .. import scenes", "rsbook.archives.bluemarble", False, {"rsbook.scenes"}),
        ("from ..scenes import load", "rsbook.archives.b", False, {"rsbook.scenes", "rsbook.scenes.load"}),
        ("import rsbookish, torch", "m", False, set()),
    ],
)
def test_what_a_source_imports_of_rsbook(source, module, is_package, expected):
    assert set(sources.understand(source, module, is_package)[1]) == expected


def test_a_notebook_reaches_what_its_cells_import_and_the_reader_of_its_data_set(tmp_path):
    for path, text in {
        "rsbook/__init__.py": "",
        "rsbook/a.py": "from rsbook import b\n",
        "rsbook/b.py": "",
        "rsbook/c.py": "",
        "rsbook/archives/__init__.py": "",
        "rsbook/archives/one.py": "from rsbook.archives import tiles\n",
        "rsbook/archives/two.py": "",
        "rsbook/archives/tiles.py": "",
        "rsbook/widgets/__init__.py": "",
        "rsbook/widgets/w.mjs": "let a",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    def reached(*cells, dataset=None):
        return set(sources.of_notebook(cells, dataset, tmp_path))

    assert reached("%load_ext x\nfrom rsbook import a\n!ls") == {"rsbook.a", "rsbook.b"}
    assert reached("import rsbook.c", "from rsbook import b") == {"rsbook.b", "rsbook.c"}
    assert reached("x = 1", dataset="one") == {"rsbook.archives.one", "rsbook.archives", "rsbook.archives.tiles"}
    assert reached("from rsbook import widgets") == {"rsbook.widgets", "rsbook/widgets/w.mjs"}
    assert reached("this is no Python", dataset="absent") == set()
