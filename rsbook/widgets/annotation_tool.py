"""One class a scene, by a person: an image, four candidate classes at a time, and a file of the answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import traitlets
from matplotlib.figure import Figure

from rsbook import annotations, figures, files
from rsbook.figures import Html
from rsbook.scenes import Scenes
from rsbook.widgets.explorer import Explorer, rgb


class AnnotationTool(Explorer):
    """Scenes one after another, each to be given one of four shuffled candidate classes, the next four, or a skip.

    answers: scene, an index into the dataset, label, "" for a skipped one, seconds, and candidates shown, joined by
    "; " · numbers: the scenes to be labelled, in their order · place: the file, "" for none · stored: the answers that
    are in it · problem: why the latest ones are not. What Python or a reader does to `answers` is written at once.
    """

    answers = traitlets.List(traitlets.Dict()).tag(sync=True)
    classes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    numbers = traitlets.List(traitlets.Int()).tag(sync=True)
    place = traitlets.Unicode().tag(sync=True)
    stored = traitlets.List(traitlets.Dict()).tag(sync=True)
    problem = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        data: Scenes,
        scenes: Sequence[int],
        *,
        path: Path | str | None = None,
        annotator: str = "annotator",
        seed: int = 0,
    ) -> None:
        """Offer the `scenes` of `data`, from the first that this annotator has not answered in the file at `path`.

        Other answers of the file stay in it; annotators who work at the same time need a file each. Without a path it
        is a demonstration. Raises ValueError for no scene, one twice or outside the dataset, no name of an annotator,
        classes that cannot be told apart, and a damaged file.
        """
        scenes = [int(i) for i in scenes]
        if not scenes or len(set(scenes)) != len(scenes) or not 0 <= min(scenes) <= max(scenes) < len(data.images):
            raise ValueError(f"scenes={scenes}: expected one or more of 0 … {len(data.images) - 1}, each once")
        if not annotator.strip():
            raise ValueError(f"annotator={annotator!r}: expected a name")
        place = {name: position for position, name in enumerate(data.classes)}
        orders = [
            [place[name] for page in annotations.candidates(data.classes, seed, i) for name in page] for i in scenes
        ]
        self.data, self.scenes, self.annotator, self.seed = data, scenes, annotator, seed
        self.path = None if path is None else files.location(path)
        self._known = data.classes, range(len(data.images))  # what answers may name
        known = self._file()[0].drop(columns="annotator").to_dict("records")
        super().__init__(
            arrays={
                "images": rgb(data, scenes),
                "orders": np.array(orders, dtype="int32"),
            },
            answers=known,
            stored=known,
            classes=list(data.classes),
            numbers=scenes,
            place="" if self.path is None else str(self.path),
            caption="Give each scene the one class that fits best, as quickly as you are sure. Candidates come four at "
            "a time, in an order that is shuffled anew for each scene. Keys, once you have clicked in the tool: "
            "1 to 4 for a class, n for the next four, u to undo, s to skip.",
        )
        self.observe(self._save, "answers")

    @cached_property
    def fallback(self) -> Html:
        """The first of the scenes and the candidates of each, so that a reader without scripts sees the question."""
        shown = self.scenes[:4]
        pixels = rgb(self.data, shown).numpy()
        orders = [annotations.candidates(self.data.classes, self.seed, scene)[0] for scene in shown]

        def draw(theme: Any) -> Figure:
            figure = Figure(figsize=(1.8 * len(shown), 2.7), layout="constrained")
            for ax, image, order in zip(figure.subplots(1, len(shown), squeeze=False)[0], pixels, orders, strict=True):
                ax.imshow(image)
                ax.set(xticks=[], yticks=[])
                ax.set_xlabel("\n".join(f"{k} {name}" for k, name in enumerate(order, 1)), fontsize=7)
            return figure

        return figures.show(
            draw,
            alt=f"{len(shown)} satellite scenes in a row, each above the classes that it could be given.",
            caption="Scenes to be labelled, each above its first candidate classes. Labelling them needs scripts.",
            data=pd.DataFrame({"scene": shown, "candidates": [annotations.SEPARATOR.join(order) for order in orders]}),
            name="annotation-tool",
            vector=False,
        )

    def table(self) -> pd.DataFrame:
        """The answers as `annotations.read` would give them."""
        rows = [answer | {"annotator": self.annotator} for answer in self.answers]
        return pd.DataFrame(rows, columns=list(annotations.COLUMNS))

    def everyone(self) -> pd.DataFrame:
        """All answers of the file, of all annotators; none without a file."""
        ours, others = self._file()
        return pd.concat([others, ours]) if len(others) else ours

    def _file(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """What the file has of this annotator for the offered scenes, and what else it has."""
        there = self.path is not None and self.path.exists()
        table = annotations.read(self.path, *self._known) if there else pd.DataFrame(columns=list(annotations.COLUMNS))
        ours = (table["annotator"] == self.annotator) & table["scene"].isin(self.scenes)
        return table[ours], table[~ours]

    def _save(self, change: Any) -> None:
        if self.path is None:
            return
        try:
            others, own = self._file()[1], self.table()
            rows = pd.concat([others, own], ignore_index=True) if len(others) else own
            annotations.write(self.path, rows, *self._known)
        except (ValueError, OSError) as error:
            self.problem = str(error)
            raise
        self.problem, self.stored = "", list(self.answers)
