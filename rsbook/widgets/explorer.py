"""What all explorers have in common.

The logic of an explorer is in its JavaScript module and its data in its state, so that a saved page needs neither
Python nor a network. In JupyterLab the state is shared: what a reader drags, Python can read, and the other way round.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets
from IPython.display import display
from torch import Tensor

from rsbook import figures
from rsbook.positions import AreaTables
from rsbook.scenes import Scenes

FOLDER = Path(__file__).parent
COMMON = re.compile(r'^import \{[^}]*\} from "\./common\.mjs";\n', re.M)
TYPES = {"uint8", "int8", "uint16", "int16", "int32", "float32"}  # a JavaScript array has them too


class Explorer(anywidget.AnyWidget):
    """A widget that works in a saved page: its module is `<name of the Python module>.mjs`, its data are `arrays`.

    arrays: name → array or tensor, packed by `packed` · caption: what it is, in a sentence or two · fallback, a
    property of each explorer: the figure that stands for it where scripts are off.
    """

    fallback: figures.Html

    _css = (FOLDER / "explorer.css").read_text(encoding="utf-8")
    caption = traitlets.Unicode().tag(sync=True)
    arrays = traitlets.Dict().tag(sync=True)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # what is in this file has no module; anywidget makes a subclass of its own, with a trait of this name
        if cls.__module__ != __name__ and "_esm" not in vars(cls):
            cls._esm = bundle(cls.__module__.rpartition(".")[2])
        super().__init_subclass__(**kwargs)

    def __init__(self, *, arrays: Mapping[str, np.ndarray | Tensor], **state: Any) -> None:
        super().__init__(arrays={name: packed(array) for name, array in arrays.items()}, **state)

    def _ipython_display_(self) -> None:
        picture = self.fallback
        display(figures.Html(f"<noscript>{picture.html}</noscript>", text=picture.text))
        data, metadata = self._repr_mimebundle_()
        display(data | {"text/plain": picture.text}, metadata=metadata, raw=True)


class SceneExplorer(Explorer):
    """An explorer of some of a dataset's scenes, `names` to choose from, with a box that is dragged in one of them.

    box: top, left, bottom, right, half-open · min_pixels: of a class, to be exceeded.
    """

    box = traitlets.List(traitlets.Int(), minlen=4, maxlen=4).tag(sync=True)
    classes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    colours = traitlets.List(traitlets.Unicode()).tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    min_pixels = traitlets.Int().tag(sync=True)

    def __init__(
        self, data: Scenes, scenes: Sequence[int], *, arrays: Mapping[str, np.ndarray | Tensor], **state: Any
    ) -> None:
        self.data, self.scenes = data, scenes
        super().__init__(
            arrays={"images": rgb(data, scenes), **arrays},
            classes=list(data.classes),
            colours=figures.class_colours(data.classes),
            names=scene_names(data, scenes),
            min_pixels=data.min_pixels,
            **state,
        )


class PairExplorer(SceneExplorer):
    """An explorer of a mixture: the box is a hole in x₁, filled with a patch of x₂; all scenes have reference maps.

    first, second: which of the offered scenes are x₁ and x₂ · source: top, left of the patch, as large as the hole.
    """

    first = traitlets.Int().tag(sync=True)
    second = traitlets.Int().tag(sync=True)
    source = traitlets.List(traitlets.Int(), minlen=2, maxlen=2).tag(sync=True)

    def __init__(self, data: Scenes, scenes: Sequence[int], **state: Any) -> None:
        height, width = data.images.shape[2:]
        super().__init__(
            data,
            scenes,
            first=0,
            second=1,
            box=[height // 4, width // 8, height - height // 8, width - width // 4],
            source=[height // 8, width // 4],
            **state,
        )

    def mixed_pixels(self, bits: Tensor) -> Tensor:
        """`mixed_pixels` of class positions of the offered scenes, in the mixture as it stands."""
        return mixed_pixels(bits, self.first, self.second, self.box, self.source, len(self.data.classes))


def bundle(name: str) -> str:
    """The module `name` with what it imports from common.mjs in front: browsers get one file a widget.

    Raises ValueError when the module does not import from common.mjs as the others do.
    """
    common, own = ((FOLDER / f"{part}.mjs").read_text(encoding="utf-8") for part in ("common", name))
    if not COMMON.search(own):
        raise ValueError(f'{name}.mjs: expected a line import {{ … }} from "./common.mjs";')
    return re.sub(r"^export ", "", common, flags=re.M) + COMMON.sub("", own)


def packed(array: np.ndarray | Tensor) -> dict[str, Any]:
    """An array as a page stores it: type, shape, and its bytes, deflated; `unpack` in common.mjs reads it.

    Raises ValueError for a type that JavaScript has no array of.
    """
    array = np.ascontiguousarray(array.cpu().numpy() if isinstance(array, Tensor) else array)
    if array.dtype.name not in TYPES:
        raise ValueError(f"array of {array.dtype}: expected one of {', '.join(sorted(TYPES))}")
    data = zlib.compress(array.astype(array.dtype.newbyteorder("<")).tobytes(), 9)
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def rgb(data: Scenes, index: Iterable[int]) -> Tensor:
    """The scenes `index` as a person sees them: (n,H,W,3) uint8."""
    bands = list(data.rgb)
    pixels = data.images[list(index)][:, bands].movedim(1, -1)
    if pixels.dtype != torch.uint8:  # reflectances: the training mean in the middle, three deviations to white
        top = data.mean[bands] + 3 * data.std[bands]
        pixels = (pixels.float() / top * 255).clamp(0, 255).to(torch.uint8)
    return pixels


def scene_names(data: Scenes, index: Iterable[int]) -> list[str]:
    """What a reader chooses a scene by: "scene 17: forest, water"."""
    names = []
    for i in index:
        present = [name for name, has in zip(data.classes, data.labels[i].tolist(), strict=True) if has]
        names.append(f"scene {i}: {', '.join(present) or 'no class'}")
    return names


def various_scenes(data: Scenes, index: Tensor, n: int = 8) -> list[int]:
    """Indices of n scenes of the given ones that together show many classes, two to four each where there are such."""
    labels = data.labels[index].double()
    fits = (labels.sum(dim=1) >= 2) & (labels.sum(dim=1) <= 4)
    index, labels = (index[fits], labels[fits]) if fits.sum() >= n else (index, labels)
    left = labels / labels.sum(dim=0).clamp(min=1)  # what showing a class is worth: more, the rarer it is
    chosen = []
    for _ in range(min(n, len(index))):
        best = int(left.sum(dim=1).argmax())
        chosen.append(int(index[best]))
        left[:, labels[best].bool()] *= 0.25  # less, once it was shown
        left[best] = -torch.inf
    return chosen


def check_box(box: Iterable[int], height: int, width: int, name: str = "box") -> tuple[int, int, int, int]:
    """The box as four integers; raises ValueError unless it is top, left, bottom, right, half-open, in the scene."""
    found = tuple(int(edge) for edge in box)
    if len(found) != 4 or not (0 <= found[0] < found[2] <= height and 0 <= found[1] < found[3] <= width):
        raise ValueError(f"{name}={list(found)}: expected top < bottom ≤ {height}, left < right ≤ {width}")
    return found


def pair_of(data: Scenes, scenes: Iterable[int]) -> list[int]:
    """The scenes, as integers; raises ValueError unless there are two or more, with reference maps."""
    found = [int(i) for i in scenes]
    if len(found) < 2 or data.positions is None:
        raise ValueError(f"{data.name}: the explorer needs two scenes or more, with reference maps")
    return found


def patch_of(box: Sequence[int], source: Sequence[int]) -> tuple[int, int, int, int]:
    """Top, left, bottom, right of the patch at `source` that fills the box."""
    top, left = source
    return top, left, top + box[2] - box[0], left + box[3] - box[1]


def mixed_pixels(
    bits: Tensor, first: int, second: int, box: Sequence[int], source: Sequence[int], num_classes: int
) -> Tensor:
    """Pixels (L,) of each class when the box in scene `first` of class positions (n,H,W) is filled from `second`.

    Raises ValueError for a box or source that leaves its scene.
    """
    height, width = bits.shape[1:]
    hole = check_box(box, height, width)
    patch = check_box(patch_of(hole, source), height, width, "source")
    tables = AreaTables(bits[[first, second]], num_classes)
    base, other = tables[torch.tensor([0])], tables[torch.tensor([1])]
    return (base.totals() - base.counts(torch.tensor([hole])) + other.counts(torch.tensor([patch])))[0]
