"""Part IV, single-positive multi-labels: the runs of its studies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Generator, Tensor, nn

from rsbook import (
    checkpoints,
    explain,
    label_propagation,
    metrics,
    models,
    scenes,
    single_positive,
    training,
)
from rsbook.devices import resolve_device
from rsbook.scenes import Scenes
from rsbook.single_positive_tasks import Learner, Mixing, SinglePositive

SETTINGS = ("random", "dominant", "manual", "simulated", "all")  # "all": every class is known, the upper bound
ANSWERED = ("manual", "simulated")  # what people say, and what `annotations.simulate` does, which is nobody
METHODS = tuple(single_positive.LOSSES)
MASKS = ("none", "observed", "pseudo", "reference")
DRAW = 1200  # seed of the positives, as in the code that others build on: they stay the same for all seeds of training
STREAMS = {  # keep these draws apart from each other, and from all others of a seed (training._loop)
    **{"train": (0, 0, 4), "val": (0, 0, 5), "test": (0, 0, 6)},
    "labels": (0, 0, 7),
}
SHOWN = 256  # scenes whose entries are kept to look at

Answers = Sequence[tuple[int, int]]  # scene and class


def train(
    *,
    dataset: str,
    setting: str,
    method: str,
    seed: int,
    network: str,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    evaluate_every: int,
    train_scenes: int | None,
    options: Mapping[str, Any] | None = None,
    output_stride: int | None = None,
    pretrained: bool = False,
    draw: int = DRAW,
    answers: Answers | None = None,
    last: bool = False,
    keep: bool = False,
    root: str | Path | None = None,
    device: str = "auto",
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Train one network from one positive a scene and test the weights of its best validation epoch.

    setting: one of SETTINGS; "manual" and "simulated" are what `answers` say, (scene, class) each · method: one of
    METHODS; with "all" only "an" · options: of the method, see single_positive_tasks.OPTIONS · train_scenes: the first
    so many of the training split, None for all; with answers it must be None, as then their scenes are those that are
    trained on, in any setting · draw: seed of random positives · pretrained: begin with ImageNet's weights · last: the
    last epoch counts, else the best, the first with the highest mAP against the one positive of each validation scene ·
    keep: also keep the network, and entries to look at. The threshold of `f1_tuned` is chosen on validation scenes as
    well, by one rule for all.

    Returns map_macro, map_micro, average_precision (L), f1_fixed (at 0.5) and f1_tuned on the test split against all
    labels, of the network that counts (AdaGC: the teacher); of AdaGC's student, at the same epoch, student_map_macro
    and student_f1_fixed, and after how many epochs calibration began, −1 for never; map_observed, by which settings may
    be chosen; the threshold, the best epoch, the history. Raises ValueError for a setting, method or options that
    cannot be run.
    """
    _check(setting, method, answers)
    data = scenes.load(dataset, root)
    index, observed = _training(data, setting, train_scenes, draw, answers)
    val, val_observed = _validation(data, setting, draw)
    generator = Generator().manual_seed(seed)
    shape = data.images.shape[1], len(data.classes)
    made = models.classifier(network, *shape, generator, output_stride, pretrained)
    learner = Learner(made, method, observed, epochs, training.seeded(seed, *STREAMS["labels"]))
    task = SinglePositive(
        data, index, observed, val, val_observed, learner, method=method, epochs=epochs, options=options
    )
    if last:
        task.watch = None
    history = training.fit(
        learner,
        task,
        seed=seed,
        epochs=epochs,
        batch_size=min(batch_size, len(index)) if answers else batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        evaluate_every=evaluate_every,
        device=device,
        checkpoint=checkpoint,
        progress=False,
    )
    counts = history[-1] if last else max(history, key=lambda row: row["map_observed"])
    results = tested(learner.reported, data, val, val_observed, counts) | {"history": history}
    if learner.teacher is not None:
        scores, labels = _scores(learner.network, data, "test")
        results |= {f"student_{name}": results_of(scores, labels) for name, results_of in _MEANS.items()}
        results["begun"] = history[-1]["begun"]
    if keep:
        results["entries"] = _entries(learner, task)
        if checkpoint is not None:
            results["weights"] = checkpoints.save_weights(learner.reported, checkpoint.parent)
    return results


def train_with_masks(
    *,
    dataset: str,
    setting: str,
    masks: str,
    mix: str,
    seed: int,
    network: str,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    evaluate_every: int,
    train_scenes: int | None,
    area_range: tuple[float, float],
    stage_one: str | None = None,
    probability: float = 0.5,
    t_cam: float = 0.1,
    output_stride: int | None = None,
    pretrained: bool = False,
    draw: int = DRAW,
    root: str | Path | None = None,
    device: str = "auto",
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Train with assumed negatives and CutMix, its labels from explanation masks, where one positive a scene is known.

    Images are turned as in `train`, once they are mixed. mix: "none", "cutmix" (labels by area) or "cutmix_lp" (labels
    by masks) · masks: which classes a scene has, and has masks of: "observed", its one positive; "pseudo", also each
    class that the first network scores above its tuned threshold; "reference", all classes, from the reference maps,
    which nobody has here; "none": its one positive, and no masks · stage_one: weights of a run of `train` with `keep`,
    beside whose record they lie. Results as of `train`, and for "pseudo" the precision and recall of the classes that
    were added. Raises ValueError for settings that do not fit together.
    """
    _check(setting, "an", None)
    _check_masks(masks, mix, stage_one, checkpoint)
    data = scenes.load(dataset, root)
    index, observed = _training(data, setting, train_scenes, draw, None)
    val, val_observed = _validation(data, setting, draw)
    shape = data.images.shape[1], len(data.classes)
    labels, where, found = observed, None, {}
    if masks == "reference":
        labels, where = data.labels[index], label_propagation.class_positions(data, index)
    elif masks != "none":
        first = models.classifier(network, *shape, Generator(), output_stride)
        checkpoints.load_weights(first, stage_one_folder(checkpoint), stage_one)
        first = first.to(resolve_device(device))
        if masks == "pseudo":
            threshold = single_positive.tuned_threshold(training.predict(first, data, val), val_observed)
            labels = observed | (training.predict(first, data, index) > threshold)
            found = _quality(labels, observed, data.labels[index])
        where = explain.explain_positions(first, data, index, labels=labels, t_cam=t_cam)
    method = {"none": "none", "cutmix": "cutmix", "cutmix_lp": "cutmix_lp_xai"}[mix]
    least = data.min_pixels if masks == "reference" else label_propagation.T_MAP
    boxes = None if mix == "none" else area_range
    model = models.classifier(network, *shape, Generator().manual_seed(seed), output_stride, pretrained)
    task = Mixing(
        data,
        train=index,
        val=val,
        augment=label_propagation.augmentation(method, boxes, probability, least),
        labels=labels,
        positions=where if mix == "cutmix_lp" else None,
        val_observed=val_observed,
    )
    history = training.fit(
        model,
        task,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        evaluate_every=evaluate_every,
        device=device,
        checkpoint=checkpoint,
        progress=False,
    )
    best = max(history, key=lambda row: row[task.watch])
    return tested(model, data, val, val_observed, best) | {"history": history} | found


def observe(data: Scenes, split: str, setting: str, draw: int = DRAW) -> Tensor:
    """What is known of the scenes of a split, (n,L) bool, in one of the settings without answers.

    Raises ValueError for another word, and where "dominant" has no reference maps to look at.
    """
    index = data.split(split)
    labels = data.labels[index]
    match setting:
        case "random":
            return single_positive.random_positive(labels, training.seeded(draw, *STREAMS[split]))
        case "dominant":
            return single_positive.dominant_positive(label_propagation.class_positions(data, index), labels)
        case "all":
            return labels
    raise ValueError(f"setting={setting!r}: expected random, dominant or all; others have answers")


def tested(model: nn.Module, data: Scenes, val: Tensor, val_observed: Tensor, row: Mapping[str, Any]) -> dict[str, Any]:
    """What `train` returns of a network: scores on the test split, and how they were chosen; row: of its history."""
    threshold = single_positive.tuned_threshold(training.predict(model, data, val), val_observed)
    scores, labels = _scores(model, data, "test")
    return training.score(scores, labels) | {
        "f1_fixed": metrics.f1_macro(scores, labels),
        "f1_tuned": metrics.f1_macro(scores, labels, threshold),
        "threshold": threshold,
        "map_observed": row[SinglePositive.watch],
        "best_epoch": row["epoch"],
    }


def study(
    setting: str, chosen: Mapping[str, Mapping[str, Any]], seeds: Iterable[int], methods: Iterable[str] | None = None
) -> list[dict[str, Any]]:
    """The runs of a benchmark: each method (None: all that are chosen) with its settings, as of `tuned`, and each seed;
    "full" is the upper bound, AN where all labels are known.
    """
    seeds, methods = list(seeds), list(chosen if methods is None else methods)
    return [{**named(method, setting), "seed": seed, **chosen[method]} for method in methods for seed in seeds]


def named(method: str, setting: str) -> dict[str, str]:
    """The parameters of a method in a setting, where "full" is no method but the setting in which all is known."""
    return {"method": "an", "setting": "all"} if method == "full" else {"method": method, "setting": setting}


def candidates(setting: str, grids: Mapping[str, Sequence[Mapping[str, Any]]], seed: int) -> list[dict[str, Any]]:
    """The runs by which settings are chosen: each candidate of each method, with one seed.

    Raises ValueError where methods have unequal numbers of them: budgets must be equal.
    """
    counts = {method: len(grid) for method, grid in grids.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"grids={counts}: expected as many candidates for each method")
    return [{**named(method, setting), "seed": seed, **one} for method, grid in grids.items() for one in grid]


def ablation(settings: Mapping[str, Any], begin: int, epochs: int) -> dict[str, dict[str, Any]]:
    """AdaGC's settings, a learning rate and options, with one part of it changed at a time, by what is changed.

    begin: the epoch from which a fixed warm-up calibrates · epochs: of the training, after which nothing begins.
    """
    changed: dict[str, dict[str, Any]] = {
        "AdaGC, reconstructed": {},
        "fixed warm-up": {"begin": begin},
        "no warm-up": {"begin": 0},
        "no second stage": {"begin": epochs},
        "no calibration": {"strength": 0.0},
        "no EMA of weights": {"weights_memory": 0.0},
        "no EMA of scores": {"scores_memory": 0.0},
        "no Mixup": {"mixup": False},
    }
    return {name: {**settings, "options": settings["options"] | change} for name, change in changed.items()}


def tuned(runs: pd.DataFrame, grids: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The candidate of each method with the highest mAP against one positive a validation scene, the first of equals;
    "full" is judged against all labels. runs: of `candidates`, in its order.
    """
    scores, found = iter(runs["map_observed"]), {}
    for method, grid in grids.items():
        reached = [next(scores) for _ in grid]
        found[method] = dict(grid[reached.index(max(reached))])
    return found


def mask_study(
    ways: Iterable[tuple[str, str]], seeds: Iterable[int], stage_one: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The runs of `train_with_masks` for each (masks, mix) and seed, with the network of the same seed where masks or
    labels come from one. stage_one: results of `train` with `keep`. Raises ValueError when a seed has none.
    """
    ways, seeds = list(ways), list(seeds)
    kept = {run["seed"]: run["weights"] for run in stage_one}
    if missing := sorted(set(seeds) - set(kept)):
        raise ValueError(f"stage_one: no network with seed {missing}; expected one for each seed")
    return [
        {"masks": masks, "mix": mix, "seed": seed}
        | ({"stage_one": kept[seed]} if masks in ("observed", "pseudo") else {})
        for masks, mix in ways
        for seed in seeds
    ]


def stage_one_folder(record: Path) -> Path:
    """Where the weights lie that `train` kept, from the path of a record or checkpoint of `train_with_masks`."""
    return record.parent.with_name(f"{train.__module__.rpartition('.')[2]}.{train.__name__}")


def _training(
    data: Scenes, setting: str, train_scenes: int | None, draw: int, answers: Answers | None
) -> tuple[Tensor, Tensor]:
    """The scenes (n,) to train on, those of which something is known, and what that is (n,L) bool."""
    index = data.split("train")
    if train_scenes is not None and (answers or not 1 <= train_scenes <= len(index)):
        rule = "none beside answers" if answers else f"1 to {len(index)}; None takes all"
        raise ValueError(f"train_scenes={train_scenes}: {data.name} has {rule}")
    if not answers:
        return _known(index[:train_scenes], observe(data, "train", setting, draw)[:train_scenes])
    place, classes = {scene: k for k, scene in enumerate(index.tolist())}, range(len(data.classes))
    given = dict(answers)
    if len(given) < len(answers):
        raise ValueError(f"answers: {len(answers)} of {len(given)} scenes; expected one a scene")
    for scene, chosen in given.items():
        if scene not in place or chosen not in classes:
            raise ValueError(
                f"answers: ({scene}, {chosen}): expected a training scene of {data.name} and a class, 0 … {classes[-1]}"
            )
    rows = torch.tensor([place[scene] for scene in given])
    if setting not in ANSWERED:
        return _known(index[rows], observe(data, "train", setting, draw)[rows])
    return index[rows], torch.nn.functional.one_hot(torch.tensor(list(given.values())), len(classes)).bool()


def _validation(data: Scenes, setting: str, draw: int) -> tuple[Tensor, Tensor]:
    """Validation scenes and what is known of them; beside answers they have random ones."""
    return _known(data.split("val"), observe(data, "val", "random" if setting in ANSWERED else setting, draw))


def _known(index: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
    there = observed.any(dim=1)
    return index[there], observed[there]


def _scores(model: nn.Module, data: Scenes, split: str) -> tuple[Tensor, Tensor]:
    index = data.split(split)
    return training.predict(model, data, index), data.labels[index]


_MEANS = {"map_macro": metrics.map_macro, "f1_fixed": metrics.f1_macro}


def _entries(learner: Learner, task: SinglePositive) -> dict[str, list]:
    """Of unobserved entries of the first training scenes: score p, stored target t, whether they hide a positive."""
    rows = (learner.visits.cpu() > 0).nonzero()[:SHOWN, 0]
    index = task.index[rows]
    scores = training.predict(learner.network, task.scenes, index)
    targets = learner.targets[rows.to(learner.targets.device)].cpu()
    if "scores_memory" in task.options:
        visits = learner.visits.cpu()[rows]
        targets = single_positive.unbiased(targets, task.options["scores_memory"], visits)
    unobserved = ~task.observed[rows]
    hidden = task.scenes.labels[index]
    return {"p": scores[unobserved].tolist(), "t": targets[unobserved].tolist(), "hidden": hidden[unobserved].tolist()}


def _quality(labels: Tensor, observed: Tensor, true: Tensor) -> dict[str, float | None]:
    """How right the classes are that were added to what is observed, and how many of the hidden ones they are."""
    added, hidden = labels & ~observed, true & ~observed
    right = (added & hidden).sum().item()
    return {
        "pseudo_precision": right / added.sum().item() if added.any() else None,
        "pseudo_recall": right / hidden.sum().item() if hidden.any() else None,
    }


def _check(setting: str, method: str, answers: Answers | None) -> None:
    for name, value, known in (("setting", setting, SETTINGS), ("method", method, METHODS)):
        if value not in known:
            raise ValueError(f"{name}={value!r}: expected one of {', '.join(known)}")
    if setting == "all" and method != "an":
        raise ValueError(f"method={method!r}: with setting='all' nothing is unknown; expected 'an'")
    if setting in ANSWERED and not answers:
        raise ValueError(f"answers={answers}: setting={setting!r} needs some, (scene, class) each")


def _check_masks(masks: str, mix: str, stage_one: str | None, checkpoint: Path | None) -> None:
    # what changes nothing would still make a record of its own
    for name, value, known in (("masks", masks, MASKS), ("mix", mix, ("none", "cutmix", "cutmix_lp"))):
        if value not in known:
            raise ValueError(f"{name}={value!r}: expected one of {', '.join(known)}")
    fitting = MASKS[1:] if mix == "cutmix_lp" else ("none", "pseudo", "reference")
    if masks not in fitting:
        raise ValueError(f"masks={masks!r} with mix={mix!r}: expected one of {', '.join(fitting)}")
    needed = masks in ("observed", "pseudo")
    if needed != (stage_one is not None) or (needed and checkpoint is None):
        raise ValueError(
            f"stage_one={stage_one!r} with masks={masks!r}: expected weights for 'observed' and 'pseudo' only"
        )
