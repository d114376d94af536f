"""How soon an explorer answers a hand, in a browser on this machine: see README.md for how it is measured.

python benchmarks/explorers.py --size 120 --moves 300
"""

import argparse
import csv
import datetime
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Generator

from rsbook import models, scenes, widgets

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))  # the page an explorer stands on alone, and the browser, are the tests' own
from browser import launch  # noqa: E402
from explorer_page import write_page  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "explorers.csv"
# Every frame of a drag: when it came, and how long the explorer's own work in it took.
RECORD = """() => {
  const native = window.requestAnimationFrame.bind(window);
  window.frames_ = []; window.work_ = [];
  window.requestAnimationFrame = (draw) => native((time) => {
    const begin = performance.now(); draw(time); window.work_.push(performance.now() - begin);
  });
  const tick = (time) => { window.frames_.push(time); native(tick); };
  native(tick);
}"""


def main() -> None:
    """Drag in every explorer, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=120, help="pixels a side of the scenes")
    parser.add_argument("--moves", type=int, default=300, help="moves of the hand")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = []
    with launch() as browser, tempfile.TemporaryDirectory() as folder:
        for made, what in explorers(random_scenes(arguments.size)):
            rows.append(measure(browser, made, what, Path(folder) / "page.html", arguments))
            print("  ".join(f"{name} {value}" for name, value in rows[-1].items()))
        rows.append(measure_clicks(browser, random_scenes(256, 24), Path(folder) / "page.html", rows[-1]))
        print("  ".join(f"{name} {value}" for name, value in rows[-1].items()))
    with arguments.output.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


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


def explorers(data: scenes.Scenes):
    """Every explorer with something to drag, and what is dragged."""
    offered, side = range(len(data.images)), data.images.shape[-1]
    activations = torch.rand(len(data.images), len(data.classes), 4, 4, generator=Generator().manual_seed(1))
    yield widgets.CutMixExplorer(data, offered, data.positions), "button.rsbook-box"
    yield widgets.NoiseLaboratory(data, offered, kinds=["mask_shift"]), "button.rsbook-box"
    yield widgets.MaskExplorer(data, offered, activations), "button.rsbook-box"
    yield widgets.BoxSampler(side, side), "input[type=range]"
    leaf_area = ".rsbook-control:has-text('Largest leaf area') input"  # the whole year anew
    yield widgets.CropExplorer(), leaf_area
    generator, temperature = Generator().manual_seed(2), ".rsbook-control:has-text('Temperature') input"
    projections = {epoch: torch.randn(2, 24, 256, generator=generator).unbind() for epoch in range(6)}
    yield widgets.ContrastExplorer(projections, range(24)), temperature
    entries = pd.DataFrame(np.random.default_rng(3).random((4000, 2)), columns=["p", "t"]).assign(
        hidden=[True, False] * 2000
    )
    yield widgets.GradientExplorer(entries), ".rsbook-control:has-text('Strength') input"
    network = models.classifier("narrow_resnet", 3, len(data.classes), generator)
    threshold = ".rsbook-control:has-text('Threshold') input"  # all scenes are judged anew
    yield widgets.CamExplorer(data, offered, network), threshold


def measure(browser, made, what: str, path: Path, arguments) -> dict[str, object]:
    """Move the hand in circles on one explorer; frames and work in milliseconds."""
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    page.goto(write_page(made, path))
    page.wait_for_function("window.explorer")
    page.evaluate(RECORD)
    target = page.locator(what).first
    target.scroll_into_view_if_needed()
    box = target.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(arguments.moves):
        angle = 2 * np.pi * step / 60
        page.mouse.move(x + 25 * np.cos(angle), y + 25 * np.sin(angle))
    page.mouse.up()
    work, frames = (np.asarray(page.evaluate(f"window.{name}_")) for name in ("work", "frames"))
    page.close()
    between = np.diff(frames)
    return {
        "explorer": type(made).__name__,
        "size": arguments.size,
        "moves": arguments.moves,
        "answers": len(work),
        "work_median_ms": round(float(np.median(work)), 2),
        "work_p95_ms": round(float(np.percentile(work, 95)), 2),
        "work_max_ms": round(float(work.max()), 2),
        "frames_per_second": round(1000 / float(between.mean()), 1),
        "frame_p95_ms": round(float(np.percentile(between, 95)), 1),
        "device": platform.processor() or platform.machine(),
        "browser": browser.version,
        "anywidget": version("anywidget"),
        "date": datetime.date.today().isoformat(),
    }


def measure_clicks(browser, data: scenes.Scenes, path: Path, other: dict[str, object]) -> dict[str, object]:
    """Annotate scenes: milliseconds from a click to the frame after the one that shows the next image, as `work`."""
    count = len(data.images)
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    page.goto(write_page(widgets.AnnotationTool(data, range(count)), path))
    page.wait_for_function("window.explorer")
    took = page.evaluate(
        """async (clicks) => {
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
        }""",
        count - 1,
    )
    page.close()
    return other | {
        "explorer": "AnnotationTool",
        "size": data.images.shape[-1],
        "moves": len(took),
        "answers": len(took),
        "work_median_ms": round(float(np.median(took)), 2),
        "work_p95_ms": round(float(np.percentile(took, 95)), 2),
        "work_max_ms": round(max(took), 2),
        "frames_per_second": None,
        "frame_p95_ms": None,
    }


if __name__ == "__main__":
    main()
