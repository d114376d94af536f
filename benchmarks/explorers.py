"""How soon an explorer answers a hand: beside the frame of the browser that shows the answer.

python benchmarks/explorers.py --size 120 --moves 60 --rounds 3

A round is one drag. Work is all that the explorer itself does in a frame, in a browser on this machine.

The crop explorer simulates a whole year anew in each frame.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import measuring
import numpy as np
import pandas as pd
import torch
from torch import Generator

from rsbook import models, scenes, widgets

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # the page of one explorer and the browser are the tests' own
from browser import launch
from explorer_page import write_page

FRAME = 16.7  # milliseconds
VIEWPORT = {"width": 1300, "height": 1000}
# Every frame of a drag: when it came, and how long the explorer's own work in it took.
RECORD = """() => {
  const native = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (draw) => native((time) => {
    const begin = performance.now(); draw(time); window.work_.push(performance.now() - begin);
  });
  const tick = (time) => { window.frames_.push(time); native(tick); };
  window.frames_ = []; window.work_ = [];
  native(tick);
}"""
# Milliseconds from each click to the second frame after it: the first one shows the next image.
CLICKS = """async (clicks) => {
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  const found = [];
  for (let k = 0; k < clicks; k += 1) {
    await new Promise((done) => setTimeout(done, 50));
    const before = performance.now();
    document.querySelector(".rsbook-candidates button").click();
    await frame();
    await frame();
    found.push(performance.now() - before);
  }
  return found;
}"""


def main() -> None:
    """Drag in every explorer, click in the tool that has nothing to drag, write."""
    parser = measuring.parser(__file__, __doc__, rounds=3, size=120, moves=60)
    parser.set_defaults(threads=[1])
    arguments = parser.parse_args()
    table = measuring.Table(arguments, ("anywidget", "playwright"))
    with launch() as browser, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        for explorer, dragged in explorers(random_scenes(arguments.size)):
            time_drags(table, open_page(browser, explorer, path), type(explorer).__name__, dragged)
        annotated = random_scenes(256, 24)
        page = open_page(browser, widgets.AnnotationTool(annotated, range(len(annotated.images))), path)
        found = page.evaluate(CLICKS, len(annotated.images) - 1)
        table.add("AnnotationTool, 256²", "from a click to the next image", found, unit="ms")
    table.write()


def random_scenes(size: int, n: int = 8, classes: int = 6) -> scenes.Scenes:
    """Scenes of random blocks."""
    generator = Generator().manual_seed(0)
    maps = torch.randint(classes, (n, -(-size // 10), -(-size // 10)), generator=generator)
    maps = maps.repeat_interleave(10, 1).repeat_interleave(10, 2)[:, :size, :size]
    bits, labels = scenes.from_maps(maps, classes, min_pixels=0)
    images = torch.randint(256, (n, 3, size, size), generator=generator, dtype=torch.uint8)
    return scenes.Scenes(
        name="random",
        images=images,
        labels=labels,
        positions=bits,
        classes=tuple(f"class {c}" for c in range(classes)),
        splits={"train": torch.arange(n), "val": torch.arange(0), "test": torch.arange(0)},
        mean=torch.full((3,), 128.0),
        std=torch.full((3,), 64.0),
        min_pixels=0,
        checksum="0" * 64,
    )


def explorers(data: scenes.Scenes) -> Iterator[tuple]:
    """Every explorer with something to drag, and what is dragged."""
    offered, side = range(len(data.images)), data.images.shape[-1]
    activations = torch.rand(len(data.images), len(data.classes), 4, 4, generator=Generator().manual_seed(1))
    yield widgets.CutMixExplorer(data, offered, data.positions), "button.rsbook-box"
    yield widgets.NoiseLaboratory(data, offered, kinds=["mask_shift"]), "button.rsbook-box"
    yield widgets.MaskExplorer(data, offered, activations), "button.rsbook-box"
    yield widgets.BoxSampler(side, side), "input[type=range]"
    yield widgets.CropExplorer(), slider("Largest leaf area")  # the whole year anew
    generator = Generator().manual_seed(2)
    projections = {epoch: torch.randn(2, 24, 256, generator=generator).unbind() for epoch in range(6)}
    yield widgets.ContrastExplorer(projections, range(24)), slider("Temperature")
    entries = pd.DataFrame(np.random.default_rng(3).random((4000, 2)), columns=["p", "t"])
    yield widgets.GradientExplorer(entries.assign(hidden=[True, False] * 2000)), slider("Strength")
    network = models.classifier("narrow_resnet", 3, len(data.classes), generator)
    yield widgets.CamExplorer(data, offered, network), slider("Threshold")  # all scenes are judged anew


def slider(name: str) -> str:
    """Where the slider of this name is."""
    return f".rsbook-control:has-text('{name}') input"


def open_page(browser, explorer, path: Path):
    """A page with one explorer, ready for a hand."""
    page = browser.new_page(viewport=VIEWPORT)
    page.goto(write_page(explorer, path))
    page.wait_for_function("window.explorer")
    return page


def time_drags(table: measuring.Table, page, case: str, dragged: str) -> None:
    """The rows of one explorer, in milliseconds."""
    page.evaluate(RECORD)
    drags = [drag(page, dragged, table.arguments.moves) for _ in range(table.arguments.rounds)]
    page.close()
    work, frames = zip(*drags, strict=True)
    table.add(case, "work in a frame", np.concatenate(work), unit="ms")
    slow = [np.percentile(one, 95) for one in work]
    table.add(case, "work in a frame, 95 of 100 of a drag", slow, unit="ms", at_most=FRAME)
    table.add(case, "frame", np.concatenate(frames), unit="ms", role="limit")


def drag(page, what: str, moves: int) -> tuple[np.ndarray, np.ndarray]:
    """Move the hand in circles; milliseconds of work in each frame that had some, and between frames."""
    target = page.locator(what).first
    target.scroll_into_view_if_needed()
    box = target.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.evaluate("window.work_ = []; window.frames_ = []")
    page.mouse.down()
    for angle in 2 * np.pi * np.arange(moves) / 60:
        page.mouse.move(x + 25 * np.cos(angle), y + 25 * np.sin(angle))
    page.mouse.up()
    work, frames = (np.asarray(page.evaluate(f"window.{name}_")) for name in ("work", "frames"))
    return work, np.diff(frames)


if __name__ == "__main__":
    main()
