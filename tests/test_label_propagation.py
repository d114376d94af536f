"""The runs of the label-propagation study: the grid, what each method does to a batch, and a training in miniature."""

import json

import pytest
import torch
from torch import Generator

from rsbook import label_propagation, mixing, models, positions, scenes, training

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
    grid = label_propagation.study(["none", "cutmix"], iter([(0.1, 0.3), (0.3, 0.7)]), iter([42, 43]))
    assert [(row["method"], row["area_range"], row["seed"]) for row in grid] == [
        ("none", None, 42),
        ("none", None, 43),
        ("cutmix", (0.1, 0.3), 42),
        ("cutmix", (0.1, 0.3), 43),
        ("cutmix", (0.3, 0.7), 42),
        ("cutmix", (0.3, 0.7), 43),
    ]


# What each method does to a batch


@pytest.fixture
def batch(tiny_scenes):
    """Images (B,C,H,W), labels (B,L) and area tables of a whole archive."""
    images = tiny_scenes.normalise(tiny_scenes.images)
    return images, tiny_scenes.labels, positions.AreaTables(tiny_scenes.positions, len(tiny_scenes.classes))


def augmented(batch, method, area_range=(0.3, 0.7), probability=1.0, min_pixels=5, seed=0):
    augment = label_propagation.augmentation(method, area_range, probability, min_pixels)
    return augment(*batch, Generator().manual_seed(seed))


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
def test_label_propagation_reads_labels_from_the_mixed_map(batch, tiny_scenes, min_pixels):
    images, labels = augmented(batch, "cutmix_lp_map", min_pixels=min_pixels)
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


@pytest.mark.parametrize("method", ["cutout", "cutmix", "cutmix_lp_map"])
def test_probability_zero_changes_nothing(batch, method):
    images, labels = augmented(batch, method, probability=0.0)
    assert torch.equal(images, batch[0])
    assert torch.equal(labels, batch[1].float())


def test_label_propagation_without_positions_is_an_error(batch):
    with pytest.raises(ValueError, match=r"method='cutmix_lp_map': these scenes have no class positions"):
        augmented((batch[0], batch[1], None), "cutmix_lp_map")
    assert augmented((batch[0], batch[1], None), "cutmix")[1].shape == batch[1].shape  # area labels need none


@pytest.mark.parametrize(
    ("method", "area_range", "message"),
    [
        ("mixup", (0.1, 0.3), "method='mixup': expected one of none, cutout, cutmix, cutmix_lp_map"),
        ("none", (0.1, 0.3), "'none' takes no area range"),
        ("cutmix", None, "area_range=None with method='cutmix'"),
    ],
)
def test_unknown_methods_and_ranges_that_do_not_fit_are_errors(method, area_range, message):
    with pytest.raises(ValueError, match=message):
        label_propagation.augmentation(method, area_range, 0.5, 0)


# A whole run on the embedded scenes


def train(**changes):
    return label_propagation.train(
        **{"method": "cutmix_lp_map", "area_range": [0.3, 0.7], "seed": 42} | SETTINGS | changes
    )


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


@pytest.mark.parametrize(("method", "area_range"), [("none", None), ("cutout", (0.3, 0.7)), ("cutmix", (0.3, 0.7))])
def test_every_method_gives_results_of_its_own(method, area_range):
    results = train(method=method, area_range=area_range, epochs=1)
    assert results["map_macro"] != train(epochs=1)["map_macro"]
    assert 0 < results["map_macro"] < 1


def test_tests_the_best_epoch_on_the_test_split(monkeypatch):
    data = scenes.load("bluemarble")
    given = {}

    def fit(model, task, **settings):
        given.update(model=model, task=task, settings=settings)
        return [{"epoch": e, "map_macro": m} for e, m in [(1, 0.2), (2, 0.5), (3, 0.5), (4, 0.1)]]

    monkeypatch.setattr(training, "fit", fit)
    results = train(min_pixels=3)
    assert results["best_epoch"] == 2  # the first of equals, whose weights `fit` leaves in the model
    assert torch.equal(given["task"].images, data.images[data.split("train")[:64]])
    assert torch.equal(given["task"].val_images, data.images[data.split("val")])
    expected = training.score(
        training.predict(given["model"], data, data.images[data.split("test")]), data.labels[data.split("test")]
    )
    assert {name: results[name] for name in expected} == expected
    same = models.classifier("narrow_resnet", 3, 7, Generator().manual_seed(42)).state_dict()
    assert all(torch.equal(same[name], value) for name, value in given["model"].state_dict().items())
    passed = {name: given["settings"][name] for name in ("epochs", "batch_size", "learning_rate", "evaluate_every")}
    assert passed == {name: SETTINGS[name] for name in passed}


@pytest.mark.parametrize(("min_pixels", "expected"), [(None, "the data's"), (3, 3), (0, 0)])
def test_read_out_follows_the_data_unless_told(monkeypatch, min_pixels, expected):
    given = []
    monkeypatch.setattr(label_propagation, "augmentation", lambda *arguments: given.append(arguments))
    monkeypatch.setattr(training, "fit", lambda *_, **__: [{"epoch": 1, "map_macro": 0.5}])
    train(min_pixels=min_pixels)
    own = scenes.load("bluemarble").min_pixels
    assert given == [("cutmix_lp_map", [0.3, 0.7], 0.5, own if expected == "the data's" else expected)]
    assert own not in (0, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_scenes": 0}, "train_scenes=0: bluemarble has 1 to"),
        ({"train_scenes": -5}, "train_scenes=-5: bluemarble has 1 to"),
        ({"train_scenes": 10**6}, "None takes all"),
        ({"train_scenes": 16}, "batch_size=32: only 16 training samples"),
        ({"dataset": "blumarble"}, "dataset='blumarble'"),
        ({"network": "narow_resnet"}, "near: narrow_resnet"),
        ({"method": "none"}, "'none' takes no area range"),
        ({"probability": 2.0}, "probability=2.0"),
        ({"area_range": [0.5, 0.1]}, "area_range="),
    ],
)
def test_settings_that_cannot_be_run_are_errors(change, message):
    with pytest.raises(ValueError, match=message):
        train(**change)
