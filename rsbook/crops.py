"""Part III, crops (Patnala et al., 2024): encoders of single days from pairs of sensors, and their worth to series."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator

from rsbook import checkpoints, contrastive, series, series_models, training
from rsbook.crops_tasks import (
    METHODS,
    SCALINGS,
    SENSORS_OF,
    WIDTH,
    Classification,
    Contrast,
    EachDay,
    Standardise,
    TwoViews,
    calibrate,
    encoder,
)
from rsbook.files import location
from rsbook.series import SENSORS

INPUTS = ("bands", "random", *METHODS)


def pretrain(
    *,
    dataset: str,
    region: str,
    pairs: int,
    method: str,
    rate: float,
    seed: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    loss: str = "nt_xent",
    released: bool = False,
    temperature: float = 0.07,
    evaluate_every: int = 1,
    schedule: str = "constant",
    root: str | Path | None = None,
    device: str = "auto",
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Pre-train an encoder of Sentinel-2's twelve bands by contrast, and keep it; the last epoch counts.

    region, pairs: of `series.load_pairs`; a simulated data set is drawn anew for each seed · method: "bi_modal", where
    the other view of a pixel is what PlanetScope sees, both corrupted; "uni_modal", where it is the same Sentinel-2
    pixel, one view of the two corrupted; "uni_modal_released", with the error of the released code: corrupted in place,
    so that both views are one tensor · rate: share of the features that are corrupted, 0 for none · released: corrupt
    as the released code does, whole batches alike and every other one · loss: one of `contrastive.LOSSES`.

    Returns the history (on held-out pairs, uncorrupted where there are two sensors: val_loss, retrieval, alignment,
    uniformity); the names of the kept encoders of Sentinel-2, "s2" and, from before the training, "s2_start", and of
    the whole networks, "start" and "end"; mean and std of each band of Sentinel-2, in stored units, by which it
    standardises. At the start, batch normalisation has the statistics of pairs, as it does at the end. Raises
    ValueError for settings that cannot be run.
    """
    for name, value, known in (("method", method, METHODS), ("loss", loss, tuple(contrastive.LOSSES))):
        if value not in known:
            raise ValueError(f"{name}={value!r}: expected one of {', '.join(known)}")
    data = series.load_pairs(dataset, region, pairs, root, world=seed)
    task = Contrast(data, method, rate, loss=loss, temperature=temperature, released=released)
    moments = task.moments()
    model = TwoViews(moments, task.sensors, Generator().manual_seed(seed))
    calibrate(model, task)
    results: dict[str, Any] = {name: one.tolist() for name, one in zip(("mean", "std"), moments["s2"], strict=True)}
    if checkpoint is not None:
        results["weights"] = {"s2_start": checkpoints.save_weights(model.encoders["s2"], checkpoint.parent)}
        results["networks"] = {"start": checkpoints.save_weights(model, checkpoint.parent)}
    results["history"] = training.fit(
        model,
        task,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        evaluate_every=evaluate_every,
        schedule=schedule,
        device=device,
        checkpoint=checkpoint,
        progress=False,
    )
    if checkpoint is not None:
        results["weights"]["s2"] = checkpoints.save_weights(model.encoders["s2"], checkpoint.parent)
        results["networks"]["end"] = checkpoints.save_weights(model, checkpoint.parent)
    return results


def classify(
    *,
    dataset: str,
    region: str,
    inputs: str,
    model: str,
    configuration: Mapping[str, Any],
    seed: int,
    train_pixels: int,
    val_pixels: int,
    epochs: int,
    batch_size: int,
    weight_decay: float,
    mean: Sequence[float],
    std: Sequence[float],
    weights: str | None = None,
    rate: float | None = None,
    frozen: bool = True,
    adapting_statistics: bool = False,
    scaling: str = "deviation",
    every: int = 1,
    least_steps: int = 1,
    schedule: str = "linear",
    root: str | Path | None = None,
    device: str = "auto",
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Train a base model on the series of a region, from their bands or from an encoder's features of each day.

    inputs: "bands"; "random", the encoder before pre-training; or the method of the pre-training. The encoder has the
    `weights` that `pretrain` kept, beside `checkpoint`; `rate` says with what corruption ·
    model, configuration: of `series_models.base_model`, and learning_rate · train_pixels, val_pixels: a class · mean,
    std: by which bands are standardised, in stored units, as `pretrain` returns them · frozen: the encoder's weights
    stay as they are, and so do the statistics of its batch normalisation unless `adapting_statistics` (the released
    code) · scaling: of bands without encoder: by the standard deviation, by the variance as in the released code, or
    reflectance as it is · every: take every so manieth date · least_steps: train for more epochs, if it takes that.

    Returns accuracy on all validation pixels after the last epoch, the recall of each class, the confusion matrix and
    the history. Raises ValueError for settings that cannot be run.
    """
    for name, value, known in (("inputs", inputs, INPUTS), ("scaling", scaling, SCALINGS)):
        if value not in known:
            raise ValueError(f"{name}={value!r}: expected one of {', '.join(known)}")
    if (inputs == "bands") != (weights is None):
        raise ValueError(f"weights={weights!r} with inputs={inputs!r}: an encoder needs them, bands have none")
    data = series.load(dataset, region, train_pixels, val_pixels, root, world=seed)
    moments = torch.tensor(mean), torch.tensor(std)
    settings = dict(configuration)
    learning_rate = settings.pop("learning_rate")
    if inputs == "bands":
        front, width = Standardise(*moments, scaling), SENSORS["s2"]
    else:
        front, width = encoder(*moments, Generator().manual_seed(0)), WIDTH
        if checkpoint is None:
            raise ValueError(f"weights={weights!r}: they lie beside a checkpoint, and none is given")
        checkpoints.load_weights(front, pretrained_folder(checkpoint), weights)
    base = series_models.base_model(model, width, len(data.classes), training.seeded(seed, 1), **settings)
    network = EachDay(front, base, frozen and inputs != "bands", adapting_statistics)
    task = Classification(data, network, every)
    batch_size = min(batch_size, task.size)
    epochs = max(epochs, -(-least_steps // (task.size // batch_size)))
    history = training.fit(
        network,
        task,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        evaluate_every=epochs,
        schedule=schedule,
        device=device,
        checkpoint=checkpoint,
        progress=False,
    )
    confusion = torch.tensor(history[-1].pop("confusion"))
    return {
        "accuracy": history[-1]["accuracy"],
        "recall": (confusion.diagonal() / confusion.sum(dim=1)).tolist(),
        "confusion": confusion.tolist(),
        "history": history,
    }


def studies(methods: Iterable[str], rates: Iterable[float], seeds: Iterable[int]) -> list[dict[str, Any]]:
    """The pre-trainings of a study: every method with every rate of corruption and every seed."""
    return [{"method": m, "rate": r, "seed": s} for m in methods for r in rates for s in seeds]


def configurations(
    count: int, spaces: Mapping[str, series_models.Space] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """The first `count` random configurations of each base model, from these spaces or, without, the published ones."""
    return {
        name: series_models.configurations(name, count, space=None if spaces is None else spaces[name])
        for name in (series_models.BASE_MODELS if spaces is None else spaces)
    }


def trials(
    configurations: Mapping[str, Sequence[Mapping[str, Any]]],
    pretrained: Iterable[Mapping[str, Any]],
    baselines: Sequence[str] = ("bands",),
) -> list[dict[str, Any]]:
    """The trainings of base models: each configuration from the baselines, and from each of these pre-trainings.

    configurations: of `series_models.configurations`, by model · pretrained: results of `pretrain`; a baseline is
    trained once a seed, as it knows no corruption.
    """
    fronts, seen = [], set()
    for run in pretrained:
        common = {"seed": run["seed"], "mean": run["mean"], "std": run["std"]}
        if run["seed"] not in seen:
            seen.add(run["seed"])
            start = {"bands": {}, "random": {"weights": run["weights"]["s2_start"]}}
            fronts += [{**common, "inputs": name, **start[name]} for name in baselines]
        fronts.append({**common, "inputs": run["method"], "rate": run["rate"], "weights": run["weights"]["s2"]})
    return [
        {"model": model, "configuration": dict(one), **front}
        for model, ones in configurations.items()
        for one in ones
        for front in fronts
    ]


def kept_network(run: Mapping[str, Any], moment: str = "end") -> TwoViews:
    """The encoders and projectors of a pre-training at its "start" or "end", on the CPU, in evaluation mode.

    run: a row of `runs.table`. Raises ValueError when weights are missing or damaged.
    """
    sensors = SENSORS_OF[run["method"]]
    blank = {name: (torch.zeros(SENSORS[name]), torch.ones(SENSORS[name])) for name in sensors}
    network = TwoViews(blank, sensors, Generator().manual_seed(0))
    checkpoints.load_weights(network, location(run["record"]).parent, run["networks"][moment])
    return network.eval()


def pretrained_folder(record: Path) -> Path:
    """Where the weights lie that `pretrain` kept, from the path of a record or checkpoint of `classify`."""
    return record.parent.with_name("crops.pretrain")
