"""What several test files share."""

import shutil
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
def smoke_notebooks(tmp_path_factory):
    """The folder with every notebook executed in the smoke preset."""
    folder = tmp_path_factory.mktemp("executed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSBOOK_STORE", str(tmp_path_factory.mktemp("runs")))  # so that it trains, whatever ran before
        assert batch.run([], {"preset": "smoke"}, ROOT, folder) == []
    return folder


@pytest.fixture(scope="session")
def html_folder(smoke_notebooks, tmp_path_factory):
    """The book, built from these in a folder of its own, warnings as errors."""
    root = tmp_path_factory.mktemp("root")
    ignored = shutil.ignore_patterns("_executed", "_generated", "vendor")
    shutil.copytree(ROOT / "book", root / "book", ignore=ignored)
    shutil.copytree(smoke_notebooks, root / "book" / "_executed")
    shutil.copy(ROOT / "_config.yml", root)
    return report.render(root, project=ROOT)


@pytest.fixture(scope="session")
def chromium():
    """A browser, started once for all tests that look at pages."""
    from browser import launch

    with launch() as started:
        yield started
