"""Series and pairs: shapes that fit, names that are known, and one reading for all runs of a process."""

import pytest
import torch
from made_up_crops import make_pairs, make_series

from rsbook import scenes, series


@pytest.mark.parametrize(
    ("part", "shape"), [("values", (36, 12, 11)), ("labels", (35,)), ("fields", (36, 1)), ("days", (13,))]
)
def test_parts_of_series_that_do_not_fit_are_named(part, shape):
    given = vars(make_series()) | {part: torch.zeros(shape)}
    with pytest.raises(ValueError, match=rf"made up: {part} has shape .*, expected"):
        series.Series(**given)


@pytest.mark.parametrize(("sensor", "shape"), [("s2", (3000, 13)), ("planet", (2999, 36))])
def test_sensors_of_pairs_that_do_not_fit_are_named(sensor, shape):
    with pytest.raises(ValueError, match=f"made up: {sensor} has shape"):
        series.Pairs(**vars(make_pairs()) | {sensor: torch.zeros(shape)})


def test_splits_go_by_name():
    data = make_series(classes=3, train=8, val=4)
    assert len(data.split("train")) == 24
    assert not set(data.split("train").tolist()) & set(data.split("val").tolist())
    with pytest.raises(ValueError, match="split='test': made up has train, val"):
        data.split("test")


def test_archives_of_scenes_and_of_series_are_told_apart():
    with pytest.raises(ValueError, match="dataset='bluemarble': holds scenes, not series"):
        series.load("bluemarble", "brandenburg_2018", 1, 1)
    with pytest.raises(ValueError, match=r"dataset='crop': known archives are .*did you mean 'crops'"):
        series.load_pairs("crop", "brandenburg_2018", 1)
    with pytest.raises(ValueError, match="region='berlin': crops has brandenburg_2018"):
        series.load("crops", "berlin", 1, 1)


def test_what_was_loaded_is_kept_until_the_archive_changes(monkeypatch, tmp_path):
    loaded = []

    def load(folder, checksum, region, *counts):
        loaded.append((checksum, *counts))
        return make_series()

    monkeypatch.setattr("rsbook.archives.crops.load_series", load)
    monkeypatch.setattr(scenes, "verify", lambda folder: current)
    current = "a" * 64
    first = series.load("crops", "brandenburg_2018", 8, 4, tmp_path, world=7)
    assert series.load("crops", "brandenburg_2018", 8, 4, tmp_path, world=7) is first
    current = "b" * 64
    series.load("crops", "brandenburg_2018", 8, 4, tmp_path, world=7)
    series.load("crops", "brandenburg_2018", 8, 4, tmp_path, world=8)
    assert loaded == [("a" * 64, 8, 4, 7), ("b" * 64, 8, 4, 7), ("b" * 64, 8, 4, 8)]
