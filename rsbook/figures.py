"""One way to show things: figures in light and dark, with alt text and their data as CSV; tables in one style."""

from __future__ import annotations

import base64
import html
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import pandas as pd
from IPython.display import display
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

# Ink and paper of both themes; contrast of ink and muted ink on paper is above 4.5 : 1.
THEMES = {
    "light": {"ink": "#1f2328", "muted": "#59636e", "grid": "#d9dee3", "paper": "#ffffff"},
    "dark": {"ink": "#e6e9ec", "muted": "#9ba5af", "grid": "#3a414a", "paper": "#121212"},
}
# Colour-blind-safe (Okabe & Ito), the same method in the same colour on every page; readable on both papers.
METHOD_COLOURS = {
    "none": "#8a8f98",
    "cutout": "#009E73",
    "random_resized_crop": "#B8860B",
    "random_rotate": "#A05A2C",
    "cutmix": "#D55E00",
    "cutmix_lp_map": "#3C8FD9",
    "cutmix_lp_map_rare": "#7A6FD0",
    "cutmix_lp_xai": "#C2619D",
    "fmix": "#D1495B",
    "fmix_lp_map": "#2A9BA8",
}
# One colour a class across the whole book: they name the ground, and normal, protanope, deuteranope and tritanope eyes
# tell any two apart, on light and on dark pages (tests/test_bluemarble.py measures it).
CLASS_COLOURS = {
    "water": "#3D63AF",
    "forest": "#1D5B0C",
    "rangeland": "#737743",
    "grassland": "#B3D455",
    "agriculture and built-up": "#D78908",
    "barren": "#A99388",
    "snow and ice": "#9EE6F1",
    # DeepGlobe-ML, where it has other words
    "urban": "#F2B8E0",
    "agriculture": "#D78908",
    # BigEarthNet: the colours of CORINE Land Cover's own legend (nineteen are too many to be safe for all eyes, so that
    # every picture names its classes as well)
    "Urban fabric": "#FF0000",
    "Industrial or commercial units": "#CC4DF2",
    "Arable land": "#FFFFA8",
    "Permanent crops": "#E68000",
    "Pastures": "#E6E64D",
    "Complex cultivation patterns": "#FFE64D",
    "Land principally occupied by agriculture, with significant areas of natural vegetation": "#E6CC4D",
    "Agro-forestry areas": "#F2CCA6",
    "Broad-leaved forest": "#80FF00",
    "Coniferous forest": "#00A600",
    "Mixed forest": "#4DFF00",
    "Natural grassland and sparsely vegetated areas": "#CCF24D",
    "Moors, heathland and sclerophyllous vegetation": "#A6FF80",
    "Transitional woodland, shrub": "#A6F200",
    "Beaches, dunes, sands": "#E6E6E6",
    "Inland wetlands": "#A6A6FF",
    "Coastal wetlands": "#CCCCFF",
    "Inland waters": "#80F2E6",
    "Marine waters": "#E6F2FF",
    # SSL4EO-S12: Dynamic World's own palette, but for water, which is that of all archives
    "trees": "#397D49",
    "grass": "#88B053",
    "flooded vegetation": "#7A87C6",
    "crops": "#E49635",
    "shrub & scrub": "#DFC35A",
    "built": "#C4281B",
    "bare": "#A59B8F",
    "snow & ice": "#B39FE1",
    # DFC2020, where it has other words for the same
    "shrubland": "#DFC35A",
    "wetland": "#7A87C6",
    "cropland": "#E49635",
    # Crops of DENETHOR and BreizhCrops: after Paul Tol's muted scheme, lighter where it would vanish on dark pages;
    # figures have a mark for each as well
    "wheat": "#DDCC77",
    "rye": "#999933",
    "barley": "#88CCEE",
    "oats": "#CC6677",
    "corn": "#7A6FD0",
    "oil seeds": "#D55E00",
    "rapeseed": "#D55E00",
    "root crops": "#AA4499",
    "meadow": "#2E8B57",
    "permanent meadow": "#2E8B57",
    "forage": "#44AA99",
    "temporary meadow": "#44AA99",
}
METHOD_NAMES = {
    "none": "no augmentation",
    "cutout": "CutOut",
    "random_resized_crop": "RandomResizedCrop",
    "random_rotate": "RandomRotate",
    "cutmix": "CutMix w/o LP",
    "cutmix_lp_map": "CutMix with LP_map",
    "cutmix_lp_map_rare": "CutMix that looks, LP_map",
    "cutmix_lp_xai": "CutMix with LP_XAI",
    "fmix": "FMix w/o LP",
    "fmix_lp_map": "FMix with LP_map",
}
ENCODER_NAMES = {  # Part II
    "random": "random encoder",
    "moco": "MoCo",
    "dino": "DINO",
    "single_modal": "single-modal",
    "mid_fusion": "midF",
    "late_fusion": "lateF",
    "cromss_mid": "CromSS-midF",
    "cromss_late": "CromSS-lateF",
}
PROTOCOL_NAMES = {"frozen": "frozen", "fine_tuned": "fine-tuned"}
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # what spreadsheets take for one (OWASP)
VERDICTS = ("holds", "fails", "open")
RANGE = re.compile(r"(?<![\w.])\d[\d.]*–\d[\d.]*\d")  # "0.3–0.7" stays on one line
# Where an output's metadata hold the facts behind it. Not a form of its own: JupyterLab would show application/json in
# place of the HTML, and myst-nb warns of every form that it does not know.
FACTS = "rsbook"

# Where there is no book theme around (JupyterLab, other viewers) the wrong one of the two images must be hidden here.
_STYLE = (
    "<style>html:not([data-theme]) body:not([data-jp-theme-light=false]) .rsbook-figure .only-dark,"
    "body[data-jp-theme-light=false] .rsbook-figure .only-light{display:none}"
    ".rsbook-figure img{max-width:100%;height:auto}</style>"
)


@dataclass(frozen=True)
class Html:
    """A piece of page that a notebook shows as it is; where only text can be shown, its `text`.

    data: what programs read of it, kept in the executed notebook as the output's metadata; never shown.
    """

    html: str
    text: str
    data: Mapping[str, Any] | None = None

    def _repr_html_(self) -> str:
        return self.html

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """What IPython adds to the other two forms, and to the output's metadata."""
        return {}, {} if self.data is None else {FACTS: json.loads(json.dumps(self.data))}

    def __repr__(self) -> str:
        return self.text


def show(
    draw: Callable[[Mapping[str, str]], Figure],
    *,
    alt: str,
    caption: str,
    data: pd.DataFrame,
    name: str = "figure",
    vector: bool = True,
) -> Html:
    """Draw a figure twice, for light and dark pages, and return it with its caption, alt text and data.

    draw(theme) makes a matplotlib Figure with the colours of `theme` (ink, muted, grid, paper). vector: SVG, for lines
    and points; else WebP at two pixels a point, for images. data becomes the CSV behind the link. Raises ValueError
    when alt or caption says nothing, since a figure without them does not exist for some readers.
    """
    if len(alt.split()) < 4 or not caption.strip():
        raise ValueError(f"alt={alt!r}, caption={caption!r}: say in a sentence each what is seen, and what it is")
    images = "".join(
        f'<img class="only-{theme}" alt="{html.escape(alt)}" src="{_image(draw, theme, vector)}">' for theme in THEMES
    )
    caption = f"{html.escape(caption)} {_csv_link(data, name)}"
    return Html(
        f'{_STYLE}<figure class="rsbook-figure">{images}<figcaption>{caption}</figcaption></figure>',
        text=alt,
    )


def draw_table(
    frame: pd.DataFrame,
    *,
    caption: str,
    published: Iterable[str] = (),
    name: str = "table",
    data: pd.DataFrame | None = None,
) -> Html:
    """A table in the book's one style, numbers as given, with a link to `data` (default: the frame itself) as CSV.

    Columns named in `published` hold the paper's own numbers and are marked so. Cells that say "holds", "fails" or
    "open" are set as verdicts, those that are `Html` as they are; missing values are shown as –.
    """
    published = set(published)
    kinds = {
        column: " ".join(
            kind
            for kind, given in (("published", column in published), ("text", frame[column].map(_is_text).any()))
            if given
        )
        for column in frame.columns
    }
    head = "".join(f"<th{_class(kinds[column])}>{html.escape(str(column))}</th>" for column in frame.columns)
    body = "".join(
        "<tr>" + "".join(_cell(value, kinds[c], first=i == 0) for i, (c, value) in enumerate(row.items())) + "</tr>"
        for row in frame.to_dict("records")
    )
    link = _csv_link(frame if data is None else data, name)
    return Html(
        f'<div class="rsbook-scroll"><table class="rsbook-table"><caption>{html.escape(caption)} {link}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>",
        text=frame.to_string(index=False),
    )


def share(name: str, shown: Html) -> None:
    """Leave a piece of page in the executed notebook for other pages, which show it by {glue} and this name.

    It is stored as `myst_nb.glue` stores it, without a need for Sphinx where notebooks run.
    """
    prefix = "application/papermill.record/"
    record = {f"{prefix}text/html": shown.html, f"{prefix}text/plain": shown.text}
    display(record, raw=True, metadata={"scrapbook": {"name": name, "mime_prefix": prefix}})


def csv_text(frame: pd.DataFrame) -> str:
    """The frame as CSV, without its index; what a spreadsheet would take for a formula is text in it."""
    rows = itertools.chain([frame.columns], frame.itertuples(index=False, name=None))
    return "".join(",".join(map(csv_cell, row)) + "\n" for row in rows)


def csv_cell(value: Any) -> str:
    """A value as a cell of a CSV: "" for a missing one, an apostrophe in front of what looks like a formula."""
    text = "" if pd.api.types.is_scalar(value) and pd.isna(value) else str(value)
    if text.startswith(FORMULA) or text.lstrip().startswith(FORMULA):
        try:
            float(text)  # a number is no formula
        except ValueError:
            text = f"'{text}"
    return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in ',;"\t\r\n') else text


def class_colours(classes: Iterable[str]) -> list[str]:
    """The colour of each class; a class without one of its own gets the next of matplotlib's twenty."""
    others = itertools.cycle(matplotlib.color_sequences["tab20"])
    return [CLASS_COLOURS[name] if name in CLASS_COLOURS else to_hex(next(others)) for name in classes]


def listed(names: Sequence[str]) -> str:
    """Names as in a sentence: "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def mean_and_spread(values: Iterable[float], digits: int = 2) -> str:
    """Fractions as per cent: "76.52 ± 0.41" (sample standard deviation), "76.52" for a single one, "–" for none."""
    series = pd.Series(list(values), dtype=float) * 100
    if series.empty:
        return "–"
    return f"{series.mean():.{digits}f}" + (f"\u00a0±\u00a0{series.std():.{digits}f}" if len(series) > 1 else "")


def axes(theme: Mapping[str, str], width: float = 7.2, height: float = 3.6, **kwargs: Any) -> tuple[Figure, Any]:
    """A figure of width × height inches and its axes (an array for nrows, ncols > 1), without the frame that says
    nothing.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    found = figure.subplots(**kwargs)
    for ax in [found] if not hasattr(found, "flat") else found.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color=theme["grid"], linewidth=0.8)
        ax.set_axisbelow(True)
    return figure, found


def _image(draw: Callable[[Mapping[str, str]], Figure], name: str, vector: bool) -> str:
    theme = THEMES[name]
    settings = {
        "axes.edgecolor": theme["muted"],
        "axes.labelcolor": theme["ink"],
        "axes.titlecolor": theme["ink"],
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "font.size": 9.5,
        "legend.frameon": False,
        "legend.labelcolor": theme["ink"],
        "svg.fonttype": "path",
        "svg.hashsalt": "rsbook",  # the same figure is the same bytes
        "text.color": theme["ink"],
        "xtick.color": theme["muted"],
        "ytick.color": theme["muted"],
        "xtick.labelcolor": theme["ink"],
        "ytick.labelcolor": theme["ink"],
    }
    buffer = io.BytesIO()
    with matplotlib.rc_context(settings):
        figure = draw(theme)
        if vector:
            figure.savefig(buffer, format="svg", metadata={"Date": None})
        else:
            figure.savefig(buffer, format="webp", dpi=144, pil_kwargs={"quality": 90})
    kind = "svg+xml" if vector else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _csv_link(frame: pd.DataFrame, name: str) -> str:
    text = base64.b64encode(csv_text(frame).encode()).decode()
    return f'<a download="{html.escape(name)}.csv" href="data:text/csv;base64,{text}">Data (CSV)</a>'


def _cell(value: Any, kind: str, first: bool) -> str:
    text = "–" if pd.isna(value) else str(value)
    shown = (
        value.html
        if isinstance(value, Html)
        else RANGE.sub(r'<span class="rsbook-range">\g<0></span>', html.escape(text))
    )
    tag = "th" if first else "td"
    return f"<{tag}{_class(f'verdict-{text}' if text in VERDICTS else kind)}>{shown}</{tag}>"


def _is_text(value: Any) -> bool:
    text = value.text if isinstance(value, Html) else value
    return isinstance(text, str) and text not in VERDICTS and any(character.isalpha() for character in text)


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""
