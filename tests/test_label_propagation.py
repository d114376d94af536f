"""The runs of the label-propagation study: the grid, what each method does to a batch, and a training in miniature."""

import functools
import json
from dataclasses import replace

import pytest
import torch
from torch import Generator

from rsbook import (
    augmentations,
    checkpoints,
    explain,
    label_propagation,
    mixing,
    models,
    noise,
    positions,
    runs,
    scenes,
    thematic,
    training,
)
from rsbook.label_propagation import METHODS, WITHOUT_BOX

SETTINGS = {
    "dataset": "bluemarble",
    "network": "narrow_resnet",
    "epochs": 2,
    "batch_size": 32,
    "learning_rate": 2e-3,
    "weight_decay": 0.01,
    "evaluate_every": 1,
    "probability": 0.5,
    "train_scenes": 64,
    "device": "cpu",
}


def test_study_is_every_method_with_every_range_and_seed_but_no_range_without_a_box():
    grid = label_propagation.study(["none", "cutmix", "random_rotate"], iter([(0.1, 0.3), (0.3, 0.7)]), iter([42, 43]))
    assert [(row["method"], row["area_range"], row["seed"]) for row in grid] == [
        ("none", None, 42),
        ("none", None, 43),
        ("cutmix", (0.1, 0.3), 42),
        ("cutmix", (0.1, 0.3), 43),
        ("cutmix", (0.3, 0.7), 42),
        ("cutmix", (0.3, 0.7), 43),
        ("random_rotate", None, 42),
        ("random_rotate", None, 43),
    ]
    assert len(label_propagation.study(METHODS, [(0.1, 0.3), (0.3, 0.7)], [42])) == 3 + 2 * 7


def test_with_noise_is_every_run_at_every_level():
    rows = label_propagation.study(["cutmix", "cutmix_lp_map"], [(0.3, 0.7)], [42])
    found = label_propagation.with_noise(iter(rows), "mask_shift", iter([(0.5, 6), (1.0, 10)]))
    levels = [(row["method"], row["noise"], row["noise_fraction"], row["noise_intensity"]) for row in found]
    assert levels == [
        ("cutmix", "mask_shift", 0.5, 6),
        ("cutmix_lp_map", "mask_shift", 0.5, 6),
        ("cutmix", "mask_shift", 1.0, 10),
        ("cutmix_lp_map", "mask_shift", 1.0, 10),
    ]
    assert all(row["area_range"] == (0.3, 0.7) and row["seed"] == 42 for row in found)
    assert "noise" not in rows[0]


def test_with_masks_gives_each_run_the_weights_of_its_seed():
    rows = label_propagation.study(["cutmix_lp_xai"], [(0.1, 0.3), (0.3, 0.7)], [42, 43])
    first = [{"seed": 43, "weights": "b"}, {"seed": 42, "weights": "a"}, {"seed": 44, "weights": "c"}]
    found = label_propagation.with_masks(iter(rows), iter(first))
    assert [(row["seed"], row["stage_one"]) for row in found] == [(42, "a"), (43, "b")] * 2
    assert [{name: row[name] for name in rows[0]} for row in found] == rows
    with pytest.raises(
        ValueError, match=r"stage_one: no run without augmentation with seed \[42\]; expected one for each"
    ):
        label_propagation.with_masks(rows, first[:1])


# What each method does to a batch


@pytest.fixture
def batch(tiny_scenes):
    """Images (B,C,H,W), labels (B,L) and area tables of a whole archive."""
    images = tiny_scenes.normalise(tiny_scenes.images)
    return images, tiny_scenes.labels, positions.AreaTables(tiny_scenes.positions, len(tiny_scenes.classes))


WEIGHTS = torch.tensor([1.0, 4.0, 20.0])
WITH_BOX = [method for method in METHODS if method not in WITHOUT_BOX]
PROPAGATED = [method for method in METHODS if "_lp_" in method]


def augmented(batch, method, area_range=(0.3, 0.7), probability=1.0, min_pixels=5, seed=0):
    area_range = None if method in WITHOUT_BOX else area_range
    augment = label_propagation.augmentation(method, area_range, probability, min_pixels, WEIGHTS)
    images, labels, where = batch
    return augment(images.clone(), labels, where, Generator().manual_seed(seed))  # it may overwrite what it is given


def test_the_methods_are_those_of_the_paper_and_ours():
    assert METHODS[:3] == WITHOUT_BOX == ("none", "random_resized_crop", "random_rotate")
    assert set(WITH_BOX) == {"cutout", "cutmix", "fmix", *PROPAGATED}
    assert PROPAGATED == ["cutmix_lp_map", "cutmix_lp_map_rare", "fmix_lp_map", "cutmix_lp_xai"]


@pytest.mark.parametrize("method", ["random_resized_crop", "random_rotate"])
def test_crops_and_rotations_change_every_image_and_no_label(batch, method):
    images, labels = augmented(batch, method, probability=0.0)
    assert torch.equal(images, getattr(augmentations, method)(batch[0], Generator().manual_seed(0)))
    assert (images != batch[0]).flatten(1).any(dim=1).all()
    assert labels.dtype == torch.float32
    assert torch.equal(labels, batch[1].float())


@pytest.mark.parametrize("method", METHODS)
def test_bit_masks_do_what_area_tables_do(batch, tiny_scenes, method):
    expected, found = augmented(batch, method), augmented((batch[0], batch[1], tiny_scenes.positions), method)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("method", ["fmix", "fmix_lp_map", "cutmix_lp_map_rare"])
def test_our_methods_mix_blobs_or_favour_rare_classes(batch, tiny_scenes, method):
    images, labels = augmented(batch, method)
    draws = {"area_range": (0.3, 0.7), "probability": 1.0, "generator": Generator().manual_seed(0)}
    if method == "cutmix_lp_map_rare":
        mixed = mixing.cutmix(*batch[:2], tiny_scenes.positions, min_pixels=5, class_weights=WEIGHTS, **draws)
    else:
        mixed = mixing.fmix(*batch[:2], tiny_scenes.positions, min_pixels=5, **draws)
    assert torch.equal(images, mixed.images)
    if method == "fmix":
        share = mixed.masks.flatten(1).float().mean(dim=1, keepdim=True)
        torch.testing.assert_close(labels, (1 - share) * batch[1].float() + share * batch[1][mixed.partner].float())
        assert ((labels > 0) & (labels < 1)).any()
    else:
        assert torch.equal(labels, positions.to_labels(mixed.positions, 3, 5).float())


def test_none_changes_nothing(batch):
    images, labels = augmented(batch, "none", area_range=None)
    assert torch.equal(images, batch[0])
    assert labels.dtype == torch.float32
    assert torch.equal(labels.bool(), batch[1])


def test_cutout_empties_a_box_and_keeps_the_labels(batch):
    images, labels = augmented(batch, "cutout")
    changed = (images != batch[0]).any(dim=1)
    assert (images.movedim(1, -1)[changed] == 0).all()
    share = changed.flatten(1).float().mean(dim=1)
    assert ((share >= 0.3) & (share <= 0.7)).all()
    assert torch.equal(labels, batch[1].float())


def test_cutmix_averages_labels_by_area(batch):
    images, labels = augmented(batch, "cutmix")
    mixed = mixing.cutmix(
        batch[0], batch[1], area_range=(0.3, 0.7), probability=1.0, generator=Generator().manual_seed(0)
    )
    assert torch.equal(images, mixed.images)
    top, left, bottom, right = mixed.boxes.T
    share = ((bottom - top) * (right - left) / (12 * 16)).unsqueeze(1)
    expected = (1 - share) * batch[1].float() + share * batch[1][mixed.partner].float()
    torch.testing.assert_close(labels, expected)
    assert ((labels > 0) & (labels < 1)).any()


@pytest.mark.parametrize("min_pixels", [0, 5, 60])
@pytest.mark.parametrize("method", ["cutmix_lp_map", "cutmix_lp_xai"])
def test_label_propagation_reads_labels_from_the_mixed_map(batch, tiny_scenes, method, min_pixels):
    images, labels = augmented(batch, method, min_pixels=min_pixels)
    mixed = mixing.cutmix(
        batch[0],
        batch[1],
        tiny_scenes.positions,
        area_range=(0.3, 0.7),
        probability=1.0,
        generator=Generator().manual_seed(0),
    )
    assert torch.equal(images, mixed.images)
    assert torch.equal(labels, positions.to_labels(mixed.positions, 3, min_pixels).float())
    assert set(labels.unique().tolist()) == {0, 1}


def test_both_cutmix_methods_mix_the_same_images(batch):
    plain, propagated = augmented(batch, "cutmix"), augmented(batch, "cutmix_lp_map")
    assert torch.equal(plain[0], propagated[0])
    assert not torch.equal(plain[1], propagated[1])


@pytest.mark.parametrize("method", WITH_BOX)
def test_probability_zero_changes_nothing(batch, method):
    images, labels = augmented(batch, method, probability=0.0)
    assert torch.equal(images, batch[0])
    assert torch.equal(labels, batch[1].float())


@pytest.mark.parametrize("method", METHODS)
def test_label_propagation_without_positions_is_an_error(batch, method):
    if method in PROPAGATED:
        with pytest.raises(ValueError, match=rf"method='{method}': these scenes have no class positions"):
            augmented((batch[0], batch[1], None), method)
    else:
        assert augmented((batch[0], batch[1], None), method)[1].shape == batch[1].shape  # the others need none


def test_rarity_is_the_inverse_of_the_share_of_scenes():
    labels = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]], dtype=torch.bool)
    assert label_propagation.rarity(labels).tolist() == [1, 4, 4]  # an absent class is not rarer than a scene


@pytest.mark.parametrize(
    ("method", "area_range", "message"),
    [
        ("mixup", (0.1, 0.3), "method='mixup': expected one of none, random_resized_crop, .*, cutmix_lp_xai"),
        ("none", (0.1, 0.3), "'none', 'random_resized_crop', 'random_rotate' take no area range, all others need one"),
        ("random_rotate", (0.1, 0.3), r"area_range=\(0.1, 0.3\) with method='random_rotate'"),
        ("fmix", None, "area_range=None with method='fmix'"),
        ("cutmix", None, "area_range=None with method='cutmix'"),
    ],
)
def test_unknown_methods_and_ranges_that_do_not_fit_are_errors(method, area_range, message):
    with pytest.raises(ValueError, match=message):
        label_propagation.augmentation(method, area_range, 0.5, 0)


# A whole run on the embedded scenes


LOAD = scenes.load


@functools.cache
def embedded():
    """The embedded scenes with fewer to validate and test on, which is where a run in miniature spends its time."""
    whole = LOAD("bluemarble")
    return replace(whole, splits={"train": whole.split("train"), **{n: whole.split(n)[::5] for n in ("val", "test")}})


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch):
    def load(name, root=None):
        return embedded() if (name, root) == ("bluemarble", None) else LOAD(name, root)

    monkeypatch.setattr(scenes, "load", load)


def train(**changes):
    row = {"method": "cutmix_lp_map", "area_range": [0.3, 0.7], "seed": 42} | changes
    return label_propagation.train(**SETTINGS | row | ({"area_range": None} if row["method"] in WITHOUT_BOX else {}))


@pytest.fixture
def task_of(monkeypatch):
    """What a run would train: the task, without the training."""

    def task_of(**changes):
        with monkeypatch.context() as patch:
            given = {}
            patch.setattr(training, "fit", lambda model, task, **settings: given.update(task=task) or HISTORY)
            train(**changes)
        return given["task"]

    return task_of


HISTORY = [{"epoch": 1, "map_macro": 0.5}]
TRAIN = slice(0, 64)


def given():
    """Labels and positions of the scenes that the runs of this file train on."""
    index = embedded().split("train")[TRAIN]
    return embedded().labels[index], embedded().positions[index], index


def test_a_run_gives_the_same_results_twice_as_json_holds_them():
    results = train()
    assert list(results) == ["map_macro", "map_micro", "average_precision", "best_epoch", "history"]
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert train() == results
    assert train(seed=43) != results
    assert len(results["average_precision"]) == 7
    present = [value for value in results["average_precision"] if value is not None]
    assert results["map_macro"] == pytest.approx(sum(present) / len(present))
    assert 0 < results["map_micro"] < 1
    assert [row["epoch"] for row in results["history"]] == [1, 2]
    assert max(results["history"], key=lambda row: row["map_macro"])["epoch"] == results["best_epoch"]


def test_every_method_gives_results_of_its_own(tmp_path):
    found, first = {}, train(method="none", epochs=1, checkpoint=tmp_path / "run.safetensors")["weights"]
    for method in METHODS:
        stage = {"stage_one": first, "checkpoint": tmp_path / "run.safetensors"} if method == "cutmix_lp_xai" else {}
        found[method] = train(method=method, epochs=1, **stage)["map_macro"]
        assert 0 < found[method] < 1
    assert len(set(found.values())) == len(METHODS)


def test_stops_after_so_many_epochs():
    whole, part = train(epochs=3), train(epochs=3, stop_after=2)
    assert part["history"] == whole["history"][:2]


def test_tests_the_best_epoch_on_the_test_split(monkeypatch):
    data = scenes.load("bluemarble")
    given = {}

    def fit(model, task, **settings):
        given.update(model=model, task=task, settings=settings)
        return [{"epoch": e, "map_macro": m} for e, m in [(1, 0.2), (2, 0.5), (3, 0.5), (4, 0.1)]]

    monkeypatch.setattr(training, "fit", fit)
    results = train(min_pixels=3, stop_after=2)
    assert results["best_epoch"] == 2  # the first of equals, whose weights `fit` leaves in the model
    given["task"].to(torch.device("cpu"))
    assert torch.equal(given["task"].images, data.images[data.split("train")[:64]])
    assert torch.equal(given["task"].val, data.split("val"))
    expected = training.score(
        training.predict(given["model"], data, data.split("test")), data.labels[data.split("test")]
    )
    assert {name: results[name] for name in expected} == expected
    same = models.classifier("narrow_resnet", 3, 7, Generator().manual_seed(42)).state_dict()
    assert all(torch.equal(same[name], value) for name, value in given["model"].state_dict().items())
    passed = {name: given["settings"][name] for name in ("epochs", "batch_size", "learning_rate", "evaluate_every")}
    assert passed == {name: SETTINGS[name] for name in passed}
    assert given["settings"]["stop_after"] == 2


def test_the_network_has_the_output_stride_that_is_asked_for(monkeypatch):
    asked = []
    classifier = models.classifier
    monkeypatch.setattr(models, "classifier", lambda *arguments: asked.append(arguments[-1]) or classifier(*arguments))
    monkeypatch.setattr(training, "fit", lambda *_, **__: HISTORY)
    train()
    train(output_stride=8)
    assert asked == [None, 8]


@pytest.mark.parametrize(("min_pixels", "expected"), [(None, "the data's"), (3, 3), (0, 0)])
def test_read_out_follows_the_data_unless_told(monkeypatch, min_pixels, expected):
    given = []
    monkeypatch.setattr(label_propagation, "augmentation", lambda *arguments: given.append(arguments))
    monkeypatch.setattr(training, "fit", lambda *_, **__: HISTORY)
    train(min_pixels=min_pixels)
    own = scenes.load("bluemarble").min_pixels
    assert given[0][:4] == ("cutmix_lp_map", [0.3, 0.7], 0.5, own if expected == "the data's" else expected)
    assert own not in (0, 3)


def test_rare_classes_are_those_of_the_labels_to_train_on(monkeypatch):
    given_weights = []
    monkeypatch.setattr(label_propagation, "augmentation", lambda *arguments: given_weights.append(arguments[4]))
    monkeypatch.setattr(training, "fit", lambda *_, **__: HISTORY)
    train(method="cutmix_lp_map_rare")
    train(method="cutmix_lp_map_rare", noise="class_swap", noise_fraction=0.3)
    assert torch.equal(given_weights[0], label_propagation.rarity(given()[0]))
    assert not torch.equal(*given_weights)


@pytest.mark.parametrize("method", METHODS[:-1])
def test_only_methods_that_propagate_from_maps_are_given_positions(task_of, method):
    task = task_of(method=method)
    labels, bits, _ = given()
    assert torch.equal(task.labels, labels)
    assert torch.equal(task.positions, bits) if method in PROPAGATED else task.positions is None


# A thematic product in place of the maps


def test_a_product_gives_the_positions_and_leaves_the_labels(task_of):
    labels, bits, index = given()
    task = task_of(maps="product")
    assert torch.equal(task.positions, thematic.thematic_product(embedded(), index))
    assert not torch.equal(task.positions, bits)
    assert torch.equal(task.labels, labels)
    with pytest.raises(ValueError, match="maps='prodct': expected one of given, product"):
        task_of(maps="prodct")


def test_maps_that_a_data_set_does_not_have_are_an_error():
    without = replace(embedded(), positions=None)
    index = torch.arange(4)
    with pytest.raises(ValueError, match="bluemarble: these scenes have no class positions to propagate labels from"):
        label_propagation.class_positions(without, index)
    with pytest.raises(ValueError, match="bluemarble: these scenes have no reference maps"):
        label_propagation.class_positions(without, index, "product")


# Map noise


INTENSITIES = {"mask_shift": 6, "dilation_erosion": 6, "rectify_borders": 4, "border_deformation": 10}


def noise_of(kind, fraction=0.5):
    return {"noise": kind, "noise_fraction": fraction, "noise_intensity": INTENSITIES.get(kind)}


@pytest.mark.parametrize("kind", noise.KINDS)
def test_noise_changes_the_maps_and_class_swap_the_labels_as_well(task_of, kind):
    labels, bits, _ = given()
    task = task_of(**noise_of(kind))
    changed = (task.positions != bits).flatten(1).any(dim=1)
    assert changed.sum() > 20 if kind == "class_swap" else 20 < changed.sum() <= 32  # half of 64, where they can change
    assert (positions.to_reference_maps(task.positions, 7) >= 0).all()
    if kind == "class_swap":
        assert torch.equal(task.labels, positions.to_labels(task.positions, 7, embedded().min_pixels))
        assert 0.1 < (task.labels != labels).float().mean() < 0.5
    else:
        assert torch.equal(task.labels, labels)
    assert torch.equal(task_of(**noise_of(kind)).positions, task.positions)
    assert torch.equal(task_of(method="fmix_lp_map", **noise_of(kind)).positions, task.positions)  # paired by seed
    assert not torch.equal(task_of(seed=43, **noise_of(kind)).positions, task.positions)
    assert torch.equal(task_of(**noise_of(kind, fraction=0.0)).positions, bits)


@pytest.mark.parametrize("method", [method for method in METHODS if method not in PROPAGATED])
def test_labels_after_class_swap_are_the_same_for_every_method(task_of, method):
    swapped = noise_of("class_swap", 0.3)
    task = task_of(method=method, **swapped)
    assert torch.equal(task.labels, task_of(**swapped).labels)
    assert task.positions is None
    assert torch.equal(task_of(method=method, **noise_of("class_swap", 0.0)).labels, given()[0])


def test_noise_comes_on_top_of_a_product(task_of):
    product = task_of(maps="product").positions
    found = task_of(maps="product", **noise_of("mask_shift", 0.25)).positions
    assert (found != product).flatten(1).any(dim=1).sum() == 16


def test_noise_draws_from_a_stream_that_no_epoch_draws_from(monkeypatch):
    seeds, simulate = [], noise.simulate

    def spy(*arguments, generator, **keywords):
        seeds.append(generator.initial_seed())
        return simulate(*arguments, generator=generator, **keywords)

    monkeypatch.setattr(noise, "simulate", spy)
    monkeypatch.setattr(training, "fit", lambda *_, **__: HISTORY)
    for seed in (42, 43):
        train(seed=seed, **noise_of("mask_shift"))
    orders = {training.seeded(seed, epoch).initial_seed() for seed in (42, 43) for epoch in range(200)}
    batches = {training.seeded(seed, epoch, 0, 1).initial_seed() for seed in (42, 43) for epoch in range(200)}
    assert len(set(seeds)) == 2
    assert not set(seeds) & (orders | batches)


def test_an_intensity_that_yaml_made_a_float_is_an_integer(task_of):
    levels = {"noise": "dilation_erosion", "noise_fraction": 0.5}
    found = task_of(**levels, noise_intensity=6.0)
    assert torch.equal(found.positions, task_of(**levels, noise_intensity=6).positions)
    with pytest.raises(ValueError, match=r"intensity=6\.5"):
        task_of(**levels, noise_intensity=6.5)


@pytest.mark.parametrize("kind", [kind for kind in noise.KINDS if kind != "class_swap"])
@pytest.mark.parametrize("method", ["none", "cutmix"])
def test_noise_that_a_method_does_not_look_at_is_an_error(kind, method):
    with pytest.raises(ValueError, match=f"noise='{kind}': method='{method}' does not look at the maps"):
        train(method=method, **noise_of(kind))


def test_a_run_with_noise_gives_other_results():
    results = [train(epochs=1, **more) for more in ({}, noise_of("class_swap"), noise_of("mask_shift", 1.0))]
    assert len({result["map_macro"] for result in results}) == 3


# Two stages: explanation masks in place of the maps


@pytest.fixture
def stage_one(tmp_path):
    """Where the runs are kept, and the results of one without augmentation."""
    checkpoint = tmp_path / "store" / "run.safetensors"
    return checkpoint, train(method="none", epochs=1, checkpoint=checkpoint)


def test_a_run_without_augmentation_keeps_the_weights_that_it_was_tested_with(stage_one):
    checkpoint, results = stage_one
    assert list(results)[-1] == "weights"
    found = label_propagation.stage_one_network(embedded(), SETTINGS, checkpoint, results["weights"])
    test = embedded().split("test")
    scores = training.predict(found, embedded(), test)
    assert training.score(scores, embedded().labels[test])["map_macro"] == results["map_macro"]
    assert "weights" not in train(method="none", epochs=1)  # nobody has said where
    assert "weights" not in train(method="cutout", epochs=1, checkpoint=checkpoint)


@pytest.mark.parametrize("how", [{}, {"t_cam": 0.6}, {"explainer": "input_x_gradient"}])
def test_positions_of_stage_two_are_what_the_network_of_stage_one_explains(task_of, stage_one, how):
    checkpoint, results = stage_one
    chosen = {"method": "cutmix_lp_xai", "stage_one": results["weights"], "checkpoint": checkpoint}
    task = task_of(**chosen, **how)
    labels, _, index = given()
    first = models.classifier("narrow_resnet", 3, 7, Generator().manual_seed(7))
    checkpoints.load_weights(first, checkpoint.parent, results["weights"])
    assert torch.equal(task.positions, explain.explain_positions(first, embedded(), index, **how))
    assert torch.equal(task.labels, labels)
    masks = positions.to_masks(task.positions, 7)
    assert not masks[~labels].any()
    assert masks[labels].any(dim=(1, 2)).float().mean() > 0.9
    if how:
        assert not torch.equal(task.positions, task_of(**chosen).positions)


def test_explanation_masks_are_read_out_by_t_map_unless_told(stage_one, monkeypatch):
    checkpoint, results = stage_one
    found = []
    monkeypatch.setattr(label_propagation, "augmentation", lambda *arguments: found.append(arguments[3]))
    monkeypatch.setattr(training, "fit", lambda *_, **__: HISTORY)
    for more in ({}, {"min_pixels": 0}):
        train(method="cutmix_lp_xai", stage_one=results["weights"], checkpoint=checkpoint, **more)
    assert found == [label_propagation.T_MAP, 0] == [10, 0]


def test_two_stages_from_end_to_end(tmp_path):
    fixed = {**SETTINGS, "epochs": 2}
    del fixed["device"]
    where = {"store": tmp_path, "device": "cpu", "workers": 0, "progress": False}

    def table(rows, **more):
        return runs.table(label_propagation.train, rows, **fixed, **where, **more)

    first = table(label_propagation.study(["none"], [(0.3, 0.7)], [42, 43]), stop_after=1)
    second = label_propagation.study(["cutmix_lp_xai"], [(0.3, 0.7)], [42, 43])
    rows = label_propagation.with_masks(second, first.to_dict("records"))
    found = table(rows)
    assert found["stage_one"].tolist() == first["weights"].tolist()
    assert first["weights"].nunique() == 2
    assert ((found["map_macro"] > 0) & (found["map_macro"] < 1)).all()
    swapped = table([{**row, "stage_one": other} for row, other in zip(rows, first["weights"][::-1], strict=True)])
    assert set(swapped["map_macro"]).isdisjoint(found["map_macro"])  # the masks do matter

    folder = tmp_path / "label_propagation.train"
    checkpoints.weights_path(folder, first["weights"][0]).unlink()
    again = table(label_propagation.study(["none"], [(0.3, 0.7)], [42, 43]), stop_after=1)
    assert again["weights"].tolist() == first["weights"].tolist()  # done again, to the same bytes
    assert checkpoints.weights_path(folder, first["weights"][0]).is_file()
    assert sorted(path.suffix for path in folder.iterdir()) == ["", *[".json"] * 6]  # weights, records, no checkpoint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stage_one": None}, "stage_one=None: cutmix_lp_xai needs the weights that a run of 'none' has kept"),
        ({"checkpoint": None}, "cutmix_lp_xai needs the weights"),
        ({"stage_one": "0" * 32}, r"0{32}\.safetensors is missing: run what wrote these weights again"),
        ({"network": "resnet18"}, "holds the weights of another network"),
        ({"explainer": "cma"}, "explainer='cma'"),
        ({"t_cam": 1.5}, "t_cam=1.5"),
        ({"noise": "mask_shift"}, "noise='mask_shift': method='cutmix_lp_xai' does not look at the maps"),
        ({"noise": "class_swap"}, "noise='class_swap': method='cutmix_lp_xai' does not look at the maps"),
    ],
)
def test_a_second_stage_that_cannot_be_run_is_an_error(stage_one, change, message):
    checkpoint, results = stage_one
    with pytest.raises(ValueError, match=message):
        train(method="cutmix_lp_xai", **{"stage_one": results["weights"], "checkpoint": checkpoint} | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_scenes": 0}, "train_scenes=0: bluemarble has 1 to"),
        ({"train_scenes": -5}, "train_scenes=-5: bluemarble has 1 to"),
        ({"train_scenes": 10**6}, "None takes all"),
        ({"train_scenes": 16}, "batch_size=32: only 16 training samples"),
        ({"dataset": "blumarble"}, "dataset='blumarble'"),
        ({"network": "narow_resnet"}, "near: narrow_resnet"),
        ({"method": "nnoe"}, "method='nnoe': expected one of none"),
        ({"stop_after": 3}, "stop_after=3: expected at most epochs=2"),
        ({"output_stride": 16}, "output_stride=16"),
        ({"noise": "mask_sihft", "noise_fraction": 0.5}, "kind='mask_sihft': expected one of mask_shift"),
        ({"noise": "mask_shift", "noise_intensity": 6, "noise_fraction": 1.5}, "fraction=1.5"),
        ({"probability": 2.0}, "probability=2.0"),
        ({"area_range": [0.5, 0.1]}, "area_range="),
    ],
)
def test_settings_that_cannot_be_run_are_errors(change, message):
    with pytest.raises(ValueError, match=message):
        train(**change)
