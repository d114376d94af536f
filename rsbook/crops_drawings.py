"""Series, pairs and encoders of Part III, drawn through `figures.show`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from torch import Generator, Tensor, nn
from torch.nn.functional import normalize

from rsbook import contrastive, figures
from rsbook.crops_findings import COLOURS, INPUT_NAMES
from rsbook.crops_tasks import held_out
from rsbook.figures import Html
from rsbook.series import SCALE, Pairs, Series

Theme = Mapping[str, str]

BANDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12")
WAVELENGTHS = (443, 492, 560, 665, 704, 741, 783, 833, 865, 945, 1614, 2202)  # nm, centres of Sentinel-2A's
BLUE, GREEN, RED, INFRARED = 1, 2, 3, 7  # positions in BANDS
CLEAR = 0.12  # blue reflectance: clouds and snow are brighter, fields rarely
CLEAR_FROM_ABOVE = {"brittany_2018": 0.2}  # at the top of the atmosphere, where the air adds to it
MONTHS = "JFMAMJJASOND"
MONTH_STARTS = (1, 32, 60, 91, 121, 152, 182, 213, 244, 274, 305, 335)


def ndvi(values: Tensor) -> Tensor:
    """NDVI of stored values (…,12) of Sentinel-2: (B8 − B4) / (B8 + B4), in −1 … 1; shape (…,)."""
    red, infrared = values[..., RED].float(), values[..., INFRARED].float()
    return (infrared - red) / (infrared + red).clamp_min(1)


def split_table(regions: Sequence[Series]) -> pd.DataFrame:
    """How many pixels of each class were drawn of each region, and from how many fields, for either split."""
    rows = []
    for data in regions:
        for k, name in enumerate(data.classes):
            row = {"region": data.region.replace("_", " "), "class": name}
            for split in ("train", "val"):
                mine = data.split(split)[data.labels[data.split(split)] == k]
                row |= {f"{split}: pixels": len(mine), f"{split}: fields": len(data.fields[mine].unique())}
            rows.append(row)
    return pd.DataFrame(rows)


def one_a_season(data: Pairs) -> list[int]:
    """Six pairs through the year: of each two months the middle one by brightness of what Sentinel-2 sees, and for the
    third the brightest, a cloud.
    """
    rows, bright = [], data.s2[:, BLUE].float()
    for k in range(6):
        mine = ((data.day - 1) * 6 // 366 == k).nonzero()[:, 0]
        order = mine[bright[mine].argsort()]
        rows.append(int(order[-1] if k == 2 else order[len(order) // 4]))
    return rows


def through_the_year(data: Pairs, count: int) -> Tensor:
    """The rows (count,) of held-out pairs through the year, the clearest of each of so many equal parts of it."""
    rows = held_out(len(data.day))
    rows = rows[data.day[rows].argsort(stable=True)]
    return torch.stack([part[data.s2[part, BLUE].float().argmin()] for part in rows.tensor_split(count)])


def is_clear(data: Series) -> Tensor:
    """Which pixels are clear on which dates (N,T) bool, by their blue reflectance; dark shadows count as clear."""
    return data.values[..., BLUE].float() < CLEAR_FROM_ABOVE.get(data.region, CLEAR) * SCALE


def calendar(data: Series) -> pd.DataFrame:
    """NDVI of each class by day, in long form: median and quartiles of the pixels that are clear that day.

    Days on which fewer than five pixels of the class are clear are left out.
    """
    index, clear = ndvi(data.values), is_clear(data)
    rows = []
    for k, name in enumerate(data.classes):
        mine = data.labels == k
        for t, day in enumerate(data.days.tolist()):
            found = index[mine, t][clear[mine, t]]
            if len(found) >= 5:
                low, middle, high = found.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
                rows.append({"class": name, "day": day, "ndvi": middle, "low": low, "high": high, "pixels": len(found)})
    return pd.DataFrame(rows)


def draw_calendar(data: Series) -> Html:
    """The year of each class: NDVI of clear pixels, median and middle half, the other classes in grey behind."""
    frame = calendar(data)
    columns = 3
    rows = -(-len(data.classes) // columns)

    def draw(theme: Theme) -> Figure:
        figure, axes = figures.axes(
            theme, height=1.7 * rows, nrows=rows, ncols=columns, sharex=True, sharey=True, squeeze=False
        )
        for ax, name in zip(axes.flat, data.classes, strict=False):
            for other, part in frame.groupby("class"):
                if other != name:
                    ax.plot(part["day"], part["ndvi"], color=theme["grid"], linewidth=0.8)
            part = frame[frame["class"] == name]
            ax.fill_between(part["day"], part["low"], part["high"], color="#009E73", alpha=0.25, linewidth=0)
            ax.plot(part["day"], part["ndvi"], color="#009E73", linewidth=1.6)
            ax.set_title(name)
            ax.set_xticks(MONTH_STARTS, MONTHS)
            ax.set_ylim(0, 1)
        for ax in axes.flat[len(data.classes) :]:
            ax.set_visible(False)
        for row in axes:
            row[0].set_ylabel("NDVI")
        return figure

    return figures.show(
        draw,
        alt=f"One panel for each of {len(data.classes)} crops: its NDVI through the year as a green line with a band, "
        "those of the others in grey.",
        caption=f"The crop calendar, {data.region.replace('_', ' ')}, of the archive {data.name}: median NDVI of clear "
        "pixels and the middle half of them; in grey the other crops.",
        data=frame.round(4),
        name="calendar",
    )


def draw_clouds(regions: Sequence[Series]) -> Html:
    """How many pixels are clear, by month, a line a region."""
    rows = []
    for data in regions:
        shares = is_clear(data).float().mean(dim=0)
        month = np.searchsorted(MONTH_STARTS, data.days.numpy(), side="right")
        rows += [
            {"region": data.region, "month": m, "clear": shares[torch.from_numpy(month == m)].mean().item()}
            for m in np.unique(month)
        ]
    frame = pd.DataFrame(rows)
    marks = (("#3C8FD9", "o", "-"), ("#D55E00", "s", "--"), ("#009E73", "^", ":"))

    def draw(theme: Theme) -> Figure:
        figure, ax = figures.axes(theme, height=2.8)
        for (region, part), (colour, marker, line) in zip(frame.groupby("region", sort=False), marks, strict=False):
            name = region.replace("_", " ")
            ax.plot(part["month"], 100 * part["clear"], color=colour, marker=marker, linestyle=line, label=name)
        ax.set_xticks(range(1, 13), MONTHS)
        ax.set(ylabel="clear pixels, %", ylim=(0, 100))
        figure.legend(loc="outside lower center", ncols=3)
        return figure

    return figures.show(
        draw,
        alt="Share of clear pixels by month, a line for each region, higher in summer than in winter.",
        caption=f"Share of pixels that are clear, by month: blue reflectance below {CLEAR}, and below 0.2 in Brittany, "
        "which is seen through the air. Clouds and snow are brighter; dark cloud shadows count as clear.",
        data=frame.round(4),
        name="clouds",
    )


def draw_pairs(data: Pairs, rows: Sequence[int]) -> Html:
    """Pairs as both sensors show them: true colours, and reflectance by wavelength."""
    rows = list(rows)
    s2 = data.s2[rows].float() / SCALE
    planet = data.planet[rows].float().view(-1, 4, 3, 3) / SCALE
    planet_nm = (485, 545, 630, 820)  # blue, green, red, near infrared

    def draw(theme: Theme) -> Figure:
        figure, axes = figures.axes(
            theme, 1.45 * len(rows), 4.4, nrows=3, ncols=len(rows), squeeze=False, height_ratios=[1, 1, 1.4]
        )
        for k in range(len(rows)):
            wide, fine, spectrum = axes[:, k]
            wide.imshow(_colours(s2[k, [RED, GREEN, BLUE]].view(3, 1, 1)))
            fine.imshow(_colours(planet[k, [2, 1, 0]]), interpolation="nearest")
            for ax in (wide, fine):
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_visible(True)
                ax.grid(False)
            wide.set_title(f"day {int(data.day[rows[k]])}")
            spectrum.plot(WAVELENGTHS, s2[k].numpy(), color="#3C8FD9", marker="o", markersize=3, linewidth=1)
            for pixel in planet[k].flatten(1).T.numpy():
                spectrum.plot(planet_nm, pixel, color="#D55E00", linewidth=0.6, alpha=0.8)
            spectrum.set_ylim(0, 1)
            spectrum.set_xticks([500, 1000, 2000], ["0.5", "1", "2 µm"])
            if k:
                spectrum.set_yticklabels([])
        axes[0, 0].set_ylabel("Sentinel-2\n10 m")
        axes[1, 0].set_ylabel("PlanetScope\n3 × 3 px")
        axes[2, 0].set_ylabel("reflectance")
        return figure

    columns = {name: s2[:, i].tolist() for i, name in enumerate(BANDS)}
    columns |= {f"planet_{i}": planet.flatten(1)[:, i].tolist() for i in range(36)}
    return figures.show(
        draw,
        alt=f"{len(rows)} pixels in columns: one square as Sentinel-2 sees it, nine as PlanetScope does, and the "
        "spectra of both below.",
        caption="Pairs: what both sensors see of one pixel on one day. Blue: the twelve bands of Sentinel-2; orange: "
        "the four of PlanetScope, a line for each of its nine pixels. A white square is a cloud, which only Sentinel-2 "
        "has.",
        data=pd.DataFrame({"row": rows, "day": data.day[rows].tolist()} | columns).round(4),
        name="pairs",
        vector=False,
    )


def draw_corruption(values: Tensor, rate: float, seed: int = 0, rows: int = 10) -> Html:
    """What corruption does to a batch (N,12): standardised features of its first rows, per sample and as released."""
    spoilt = {
        "clean": values,
        "per sample": contrastive.corrupt(values, rate, Generator().manual_seed(seed)),
        "as released": _released(values, rate, seed),
    }
    standard = {name: ((v - values.mean(dim=0)) / values.std(dim=0))[:rows] for name, v in spoilt.items()}
    changed = {name: (v != values)[:rows].numpy() for name, v in spoilt.items()}

    def draw(theme: Theme) -> Figure:
        figure, axes = figures.axes(theme, height=2.9, ncols=3, sharey=True)
        for ax, (name, shown) in zip(axes, standard.items(), strict=True):
            ax.imshow(shown.numpy(), cmap="cividis", vmin=-2, vmax=2, aspect="auto")
            for y, x in np.argwhere(changed[name]):
                ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="#D1495B", linewidth=1.1))
            ax.set_title(name)
            ax.set_xticks(range(len(BANDS)), BANDS, rotation=90, fontsize=7)
            ax.set_yticks([])
            ax.grid(False)
        axes[0].set_ylabel("pixels of a batch")
        return figure

    frame = pd.concat([pd.DataFrame(v.numpy(), columns=list(BANDS)).assign(batch=name) for name, v in standard.items()])
    return figures.show(
        draw,
        alt="Three matrices of pixels by bands: clean, corrupted in places that differ by row, and corrupted in the "
        "same columns everywhere; changed cells are framed.",
        caption=f"Corruption at {100 * rate:.0f} %: a changed feature (framed) has the value of another pixel of the "
        "batch. Per sample, each pixel has its own; as released, the whole batch shares them, in one of two batches.",
        data=frame.round(3),
        name="corruption",
        vector=False,
    )


def draw_similarities(before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor]) -> Html:
    """Cosines between the projections (N,D) of two views of the same pixels, at the start and at the end."""
    found = {name: normalize(a) @ normalize(b).T for name, (a, b) in (("start", before), ("end", after))}

    def draw(theme: Theme) -> Figure:
        figure, axes = figures.axes(theme, height=3.5, ncols=2, sharey=True)
        for ax, (name, cosines) in zip(axes, found.items(), strict=True):
            image = ax.imshow(cosines.numpy(), cmap="RdYlBu", vmin=-1, vmax=1)
            ax.set(title=f"at the {name} of training", xlabel="PlanetScope", xticks=[], yticks=[])
            ax.grid(False)
        axes[0].set_ylabel("Sentinel-2")
        figure.colorbar(image, ax=axes, label="cosine", shrink=0.8)
        return figure

    frame = pd.concat([pd.DataFrame(c.numpy().round(3)).assign(network=name) for name, c in found.items()])
    return figures.show(
        draw,
        alt="Two matrices of cosines between pixels seen by both sensors: all alike at the start, a diagonal that "
        "stands out at the end.",
        caption="Cosines of the projections of held-out pixels, the clearest of each part of the year: a row for what "
        "Sentinel-2 sees and a column for what PlanetScope sees; partners lie on the diagonal, which the loss pulls "
        "up, and all else it pushes down.",
        data=frame,
        name="similarities",
        vector=False,
    )


def draw_history(runs: pd.DataFrame) -> Html:
    """How pre-trainings go: loss, retrieval, alignment and uniformity on held-out pairs, by epoch."""
    shown = {"val_loss": "loss", "retrieval": "retrieval, %", "alignment": "alignment", "uniformity": "uniformity"}
    frame = pd.concat(
        [
            pd.DataFrame(run.history).assign(method=run.method, rate=run.rate, seed=run.seed)
            for run in runs.itertuples()
        ],
        ignore_index=True,
    )
    styles = dict(zip(sorted(frame["rate"].unique()), ("-", "--", ":"), strict=False))

    def draw(theme: Theme) -> Figure:
        figure, axes = figures.axes(theme, height=4.2, nrows=2, ncols=2, sharex=True)
        for ax, (column, title) in zip(axes.flat, shown.items(), strict=True):
            for (method, rate, seed), part in frame.groupby(["method", "rate", "seed"], sort=False):
                label = f"{INPUT_NAMES[method]}, {100 * rate:.0f} %" if seed == frame["seed"].iloc[0] else None
                scale = 100 if column == "retrieval" else 1
                ax.plot(part["epoch"], scale * part[column], color=COLOURS[method], linestyle=styles[rate], label=label)
            ax.set_title(title)
        for ax in axes[-1]:
            ax.set_xlabel("epoch")
            ax.xaxis.get_major_locator().set_params(integer=True)
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        return figure

    return figures.show(
        draw,
        alt="Four panels by epoch, a line a pre-training: loss, retrieval, alignment, uniformity.",
        caption="Pre-training on held-out pairs. Retrieval: how often the nearest of 2,048 second views is the right "
        "one. A uni-modal network only has to see through corruption. Losses of different methods cannot be compared.",
        data=frame.round(5),
        name="history",
    )


def draw_embedding(data: Series, day: int, encoders: Mapping[str, nn.Module]) -> Html:
    """Features that encoders give to the clear labelled pixels of one day: their two main axes, coloured by crop."""
    t = int((data.days - day).abs().argmin())
    values, clear = data.values[:, t].float(), is_clear(data)[:, t]
    labels = data.labels[clear]
    colours = figures.class_colours(data.classes)
    spread = {name: PCA(2, random_state=0).fit_transform(_features(e, values[clear])) for name, e in encoders.items()}

    def draw(theme: Theme) -> Figure:
        figure, axes = figures.axes(theme, height=3.9, ncols=len(spread), squeeze=False)
        for ax, (name, points) in zip(axes[0], spread.items(), strict=True):
            for k, crop in enumerate(data.classes):
                mine = (labels == k).numpy()
                ax.scatter(*points[mine].T, s=9, color=colours[k], marker="os^vDPX*<"[k % 9], label=crop, alpha=0.8)
            ax.set(title=name, xticks=[], yticks=[])
            ax.grid(False)
        handles, names = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=5, markerscale=1.5)
        return figure

    frame = pd.concat(
        [
            pd.DataFrame(points, columns=["first", "second"]).assign(
                encoder=name, crop=[data.classes[k] for k in labels.tolist()]
            )
            for name, points in spread.items()
        ]
    )
    return figures.show(
        draw,
        alt="Point clouds, a panel an encoder: features of single pixels on one day on their two main axes, coloured "
        "by crop.",
        caption=f"Features of the pixels that are clear on day {int(data.days[t])}, each panel on its own two main "
        "axes. No label was seen in pre-training.",
        data=frame.round(4),
        name="embedding",
    )


def neighbour_table(data: Series, encoders: Mapping[str, nn.Module], days: Sequence[int], k: int = 5) -> pd.DataFrame:
    """How often the k nearest training pixels of the same day vote for the right crop, in per cent of the validation
    pixels that are clear: from standardised bands and from the features of each encoder, a column a day.
    """
    train, val = data.split("train"), data.split("val")
    rows = {"bands": {}} | {name: {} for name in encoders}
    for day in days:
        t = int((data.days - day).abs().argmin())
        values, clear = data.values[:, t].float(), is_clear(data)[:, t]
        fit, test = train[clear[train]], val[clear[val]]
        bands = ((values - values[fit].mean(dim=0)) / values[fit].std(dim=0)).numpy()
        found = {"bands": bands} | {name: _features(encoder, values) for name, encoder in encoders.items()}
        for name, features in found.items():
            vote = KNeighborsClassifier(k).fit(features[fit], data.labels[fit])
            rows[name][f"day {int(data.days[t])}"] = f"{100 * vote.score(features[test], data.labels[test]):.1f}"
    return pd.DataFrame([{"features": name, **row} for name, row in rows.items()])


def _features(encoder: nn.Module, values: Tensor) -> np.ndarray:
    encoder.eval()
    with torch.inference_mode():
        return encoder(values).numpy()


def _released(values: Tensor, rate: float, seed: int) -> Tensor:
    """The first batch from this seed on that the released code would corrupt: it leaves every other one as it is."""
    for again in range(seed, seed + 64):
        found = contrastive.corrupt_as_released(values, rate, Generator().manual_seed(again))
        if not torch.equal(found, values):
            return found
    raise ValueError(f"rate={rate}: nothing is corrupted")


def _colours(reflectance: Tensor) -> np.ndarray:
    """Red, green and blue reflectance (3,H,W) as a picture, brightened as for the eye."""
    return (reflectance / 0.3).clamp(0, 1).pow(1 / 1.6).permute(1, 2, 0).numpy()
