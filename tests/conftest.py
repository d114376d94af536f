"""What several test files share."""

import contextlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator

from rsbook import batch, report, scenes

ROOT = Path(__file__).parents[1]

torch.set_num_threads(1)  # as runs do: the same bytes on any number of cores, and no slower on networks this small


@pytest.fixture
def tiny_scenes():
    """Sixteen random scenes of 3 bands and 12 × 16 pixels with three classes and maps, in three splits."""
    generator = Generator().manual_seed(0)
    maps = torch.randint(3, (16, 12, 16), generator=generator)
    maps[:8, :, :10] = 0  # so that labels differ between scenes
    maps[:4] = 1
    bits, labels = scenes.from_maps(maps, 3, min_pixels=5)
    return scenes.Scenes(
        name="tiny",
        images=torch.randint(256, (16, 3, 12, 16), generator=generator, dtype=torch.uint8),
        labels=labels,
        positions=bits,
        classes=("one", "two", "three"),
        splits={"train": torch.arange(8), "val": torch.arange(8, 12), "test": torch.arange(12, 16)},
        mean=torch.full((3,), 128.0),
        std=torch.full((3,), 64.0),
        min_pixels=5,
        checksum="c" * 64,
    )


@pytest.fixture(scope="session")
def smoke_store(tmp_path_factory):
    """The records of the notebooks in the smoke preset: a store of its own, so that it trains, whatever ran before."""
    return str(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def smoke_notebooks(tmp_path_factory, smoke_store):
    """The folder with every notebook executed in the smoke preset."""
    folder = tmp_path_factory.mktemp("executed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSBOOK_STORE", smoke_store)
        assert batch.run([], {"preset": "smoke"}, ROOT, folder) == []
    return folder


@pytest.fixture(scope="session")
def html_folder(smoke_notebooks, smoke_store, tmp_path_factory):
    """The book, built from these in a folder of its own, warnings as errors."""
    root = tmp_path_factory.mktemp("root")
    ignored = shutil.ignore_patterns("_executed", "_generated", "vendor")
    shutil.copytree(ROOT / "book", root / "book", ignore=ignored)
    shutil.copytree(smoke_notebooks, root / "book" / "_executed")
    shutil.copy(ROOT / "_config.yml", root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSBOOK_STORE", smoke_store)  # or a page that lists the records would be stale
        return report.render(root, project=ROOT)


@pytest.fixture(scope="session")
def chromium():
    """A browser, started once for all tests that look at pages."""
    from browser import launch

    with launch() as started:
        yield started


@pytest.fixture
def opened(chromium, tmp_path):
    """Opens an explorer on a page of its own, 900 pixels wide and high; what goes wrong there fails the test."""
    from browser import offline_page
    from explorer_page import write_page

    found = []
    with contextlib.ExitStack() as stack:

        def open_(made, theme="light", width=900, **options):
            viewport = {"width": width, "height": 900}
            page, problems = stack.enter_context(offline_page(chromium, viewport=viewport, **options))
            found.append(problems)
            page.goto(write_page(made, tmp_path / f"{len(found)}.html", theme))
            page.wait_for_function("window.explorer")
            return page

        yield open_
        assert [problem for problems in found for problem in problems] == []


@pytest.fixture
def square_scenes(tiny_scenes, monkeypatch):
    """The tiny scenes, larger and square, whatever data set is loaded."""
    images = tiny_scenes.images[:, :, :, :12].repeat_interleave(2, 2).repeat_interleave(2, 3)
    maps = tiny_scenes.positions[:, :, :12].repeat_interleave(2, 1).repeat_interleave(2, 2)
    made = replace(tiny_scenes, images=images, positions=maps)
    monkeypatch.setattr(scenes, "load", lambda name, root=None: made)
    return made


@pytest.fixture
def weak_place(tmp_path):
    """Where a run of Part V keeps its checkpoint, by its function and a name."""

    def place(function, name="x"):
        module = "weak_uses" if function in ("segment", "propagate") else "weak_runs"
        return tmp_path / f"{module}.{function}" / f"{name}.safetensors"

    return place
