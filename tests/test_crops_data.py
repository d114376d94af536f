"""Simulated crops: formulas against slow ones, the emulator against the transfer of light, what fields look like."""

import math
import shutil

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier

from rsbook import scenes, series
from rsbook.archives import crop_fields, crop_optics, crop_sensors, crops

FOLDER = scenes.DATA / "crops"
FILES = ("README.md", "SHA256SUMS", "optics.npz", "parameters.yaml")
PARAMETERS, OPTICS = crops.read(FOLDER)
REGION = "brandenburg_2018"
CLASSES = {
    "brandenburg": ("wheat", "rye", "barley", "oats", "corn", "oil seeds", "root crops", "meadow", "forage"),
    "brittany": ("barley", "wheat", "rapeseed", "corn", "permanent meadow", "temporary meadow"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data folder with a copy of the archive, so that nothing is kept in the project's own."""
    root = tmp_path_factory.mktemp("data")
    (root / "crops").mkdir()
    for name in FILES:
        shutil.copy(FOLDER / name, root / "crops")
    return root


@pytest.fixture(scope="module")
def worlds():
    """World 0 of each region."""
    return {region: crops.draw_world(FOLDER, region) for region in crops.REGIONS}


def ndvi(values):
    """Of reflectance (…, 12)."""
    red, infrared = values[..., 3], values[..., 7]
    return (infrared - red) / (infrared + red)


def of_crop(world, name):
    return world.fields["crop"] == list(PARAMETERS["crops"]).index(name)


# Fields


def lai_by_hand(field, day):
    """The formula of the card, one canopy after the other."""
    total = 0
    for k in range(crop_fields.CYCLES):
        peak, rise, rise_days, end = (float(field[name][k]) for name in ("peak", "rise", "rise_days", "end"))
        if peak > 0:
            up = 1 / (1 + math.exp(min(-(day - rise) / rise_days, 700)))
            down = 1 / (1 + math.exp(max(min((day - end) / 0.8, 700), -700)))
            total += peak * up * down
    return total


def test_leaf_area_is_the_formula(worlds):
    days = np.array([3, 60, 99.5, 130, 171, 204, 240, 290, 364])
    for world in worlds.values():
        found = crop_fields.lai(world.fields, days)
        assert found.shape == (len(world.fields["crop"]), 9)
        for i in range(0, len(found), 83):
            field = {name: value[i] for name, value in world.fields.items()}
            assert found[i] == pytest.approx([lai_by_hand(field, day) for day in days], abs=2e-5)


def test_a_mean_field_has_the_numbers_of_the_table():
    wheat = crop_fields.mean_field("wheat", "brandenburg_2019", PARAMETERS)
    assert {len(value) for value in wheat.values()} == {1}
    # the shifts of the table are linear between their days
    assert wheat["rise"][0, 1] == pytest.approx(107 - 5.06, abs=0.01)
    assert wheat["peak"][0, 1] == pytest.approx(4.6 * 1.08)
    assert wheat["harvest"] == wheat["end"][0, 1] == pytest.approx(208 + 2.9)
    assert wheat["fade"][0, 1] == pytest.approx(187 + 1.844, abs=0.01)
    assert wheat["peak"][0, 0] == pytest.approx(0.7 * 0.65)
    assert (wheat["chlorophyll"], wheat["leaf_angle"], wheat["water"]) == pytest.approx((50, 58, 0.014))
    corn = crop_fields.mean_field("corn", REGION, PARAMETERS)
    assert corn["gaps"] == pytest.approx(0.105)
    assert corn["peak"][0, 0] == 0  # bare in winter
    meadow = crop_fields.mean_field("meadow", REGION, PARAMETERS)
    assert (meadow["peak"][0] > 0).tolist() == [True, True, True, True, False, False]  # two cuts
    # few cuts, so that they come later, and that of day 192 in a year that is 5.47 days early
    assert meadow["end"][0, :4] == pytest.approx([157 - 2.47, 157 - 2.47, 210 - 5.47, 9999], abs=0.01)


def test_fields_scatter_around_the_mean_field_as_the_table_says():
    crop = np.full(20_000, list(PARAMETERS["crops"]).index("rye"))
    fields = crop_fields.draw_fields(crop, REGION, PARAMETERS, np.random.default_rng(0))
    mean = crop_fields.mean_field("rye", REGION, PARAMETERS)
    for name, sd in (("chlorophyll", 6), ("leaf_angle", 6), ("structure", 0.12), ("hotspot", 0.04)):
        assert fields[name].mean() == pytest.approx(float(mean[name][0]), abs=sd / 20)
        assert fields[name].std() == pytest.approx(sd, rel=0.05)
    for name, sd in (("rise", 7), ("peak", 0.9)):
        assert fields[name][:, 1].mean() == pytest.approx(float(mean[name][0, 1]), abs=sd / 20)
        assert fields[name][:, 1].std() == pytest.approx(sd, rel=0.05)
    calm = PARAMETERS | {"spread": 0}
    still = crop_fields.draw_fields(crop[:50], REGION, calm, np.random.default_rng(0))
    assert (still["rise"][:, 1] == mean["rise"][0, 1]).all()


def test_calendars_stay_in_order(worlds):
    for world in worlds.values():
        fields = crop_fields.take(world.fields, np.flatnonzero(world.fields["grass"] == 0))
        assert (fields["harvest"] >= fields["rise"][:, 1] + 45 - 1e-3).all()
        assert (fields["fade"][:, 1] <= fields["harvest"] + 20 + 1e-3).all()
        assert (fields["rise"][:, 3] >= fields["harvest"] + 25 - 1e-3)[fields["peak"][:, 3] > 0].all()
        grass = crop_fields.take(world.fields, np.flatnonzero(world.fields["grass"] == 1))
        assert (np.diff(grass["end"][:, 1:], axis=1) >= 0).all()


def test_splits_have_separate_fields_and_their_shares(worlds):
    for region, world in worlds.items():
        about = PARAMETERS["regions"][region]
        shares = np.bincount(world.fields["split"]) / len(world.fields["split"])
        assert world.splits == tuple(about["splits"])
        assert shares == pytest.approx(list(about["splits"].values()), abs=0.003)
        for split in range(len(world.splits)):
            found = np.bincount(world.fields["label"][world.fields["split"] == split], minlength=len(world.classes))
            assert found.min() >= 1
        assert 0.02 < (world.fields["label"] != world.fields["class"]).mean() < 0.04
        assert np.bincount(world.fields["class"]).tolist() == list(about["fields"].values())
    assert list(about["splits"]) == ["train", "val"]
    assert sum(PARAMETERS["regions"][REGION]["fields"].values()) == 2531


# Optics


def test_the_emulator_says_what_the_transfer_of_light_says():
    """50 canopies over measured soils, band by band, of which the build script kept the model's own answers."""
    canopies, soils = OPTICS["check_canopies"], OPTICS["soils"][OPTICS["check_soils"]][:, None]
    state = {name: canopies[:, [i]] for i, name in enumerate(crop_optics.INPUTS)}
    a, b, r = crop_optics.emulate(state, *(canopies[:, [i]] for i in (10, 11, 12)), OPTICS)
    error = (a + b * soils / (1 - r * soils))[:, 0] - OPTICS["check_reflectance"]
    assert error.shape == (50, 16)
    assert np.sqrt((error**2).mean()) < 0.0015
    assert np.abs(error).max() < 0.006
    some = crop_optics.emulate(state, *(canopies[:, [i]] for i in (10, 11, 12)), OPTICS, crop_optics.PLANET)
    assert np.allclose(some[0], a[..., 12:], atol=1e-6)


def test_without_leaves_there_is_the_soil():
    world = crops.draw_world(FOLDER, REGION, 3)
    calm = crop_sensors.calm_weather(REGION, PARAMETERS)
    days = np.array([100, 200])
    now = crop_optics.state(world.fields, days, calm, PARAMETERS)
    now |= {"lai": 0 * now["lai"], "petals": 0 * now["petals"]}
    seen = crop_optics.reflectance(now, np.float32(40), np.float32(5), np.float32(90), OPTICS, PARAMETERS)
    ground = crop_optics.soil(now, OPTICS, PARAMETERS)
    assert np.abs(seen - np.clip(ground * (1 - 0.2 * now["gaps"][..., None]), 0.001, 1)).max() < 0.012
    wet = crop_optics.soil(now | {"moisture": 0 * now["moisture"] + 1}, OPTICS, PARAMETERS)
    dry = crop_optics.soil(now | {"moisture": 0 * now["moisture"]}, OPTICS, PARAMETERS)
    assert (wet < dry).all()


def test_the_files_hold_no_pickles():
    with np.load(FOLDER / "optics.npz", allow_pickle=False) as file:
        assert all(file[name].dtype.kind in "fi" for name in file.files)
        assert np.isfinite(np.concatenate([file[name].ravel() for name in file.files])).all()


# What fields look like


def test_crops_are_green_when_they_should_be(worlds):
    days = np.array([45, 75, 115, 135, 160, 196, 227, 258])
    for region, world in worlds.items():
        seen = ndvi(crop_sensors.undisturbed(world.fields, days, region, OPTICS, PARAMETERS))
        means = {
            name: seen[of_crop(world, name)].mean(axis=0) for name in PARAMETERS["crops"] if of_crop(world, name).any()
        }
        march, april, may, june, july, august = range(1, 7)
        for crop in ("wheat", "rye", "winter barley"):
            if crop in means:
                assert means[crop][may] > 0.85
                assert means[crop][august] < 0.35
        assert means["winter barley"][july] < means["wheat"][july] - 0.15
        assert means["corn"][may] < 0.4 < 0.8 < means["corn"][july]
        assert means["rapeseed"][march] > max(means["wheat"][march], 0.6)
        assert means["rapeseed"][april] < means["rapeseed"][june] - 0.05  # in flower it is yellow
        for crop in ("meadow", "forage"):
            assert means[crop].min() > 0.45
            assert seen[of_crop(world, crop)][:, 2:].min() > 0.1
        assert means["meadow"][august] > means["wheat"][august] + 0.3


def test_a_drought_yellows_grass_and_not_much_else():
    days = np.array([222])
    for crop, least, most in (("meadow", 0.05, 0.5), ("corn", -0.01, 0.15)):
        field = crop_fields.mean_field(crop, REGION, PARAMETERS)
        dry, moist = (
            ndvi(
                crop_sensors.undisturbed(
                    field | {"drought": field["drought"] * 0 + d}, days, REGION, OPTICS, PARAMETERS
                )
            )
            for d in ((0.6 if crop == "meadow" else 0.24), 0)
        )
        assert least < float((moist - dry)[0, 0]) < most


def test_petals_are_bright_and_snow_is_white():
    rape = crop_fields.mean_field("rapeseed", REGION, PARAMETERS)
    day = int(rape["flower_day"][0])
    green = crop_sensors.undisturbed(rape | {"petals": 0 * rape["petals"]}, [day], REGION, OPTICS, PARAMETERS)
    yellow = crop_sensors.undisturbed(rape, [day], REGION, OPTICS, PARAMETERS)
    assert (yellow - green)[0, 0, 2] > 0.08 > (yellow - green)[0, 0, 0]
    world = crops.draw_world(FOLDER, REGION)
    assert world.weather["snow"][36] > 0.5 > world.weather["snow"][30] == 0
    white = crop_sensors.undisturbed(rape, [36, 30], REGION, OPTICS, PARAMETERS, world.weather)
    assert white[0, 0, 1] > 0.4 > 0.1 > white[0, 1, 1]


def test_both_sensors_see_the_same_field():
    """Blue, green, red and near infrared of Planet lie close to those of Sentinel-2."""
    world = crops.draw_world(FOLDER, REGION)
    days = np.array([40, 130, 230])
    planet = crop_sensors.undisturbed(world.fields, days, REGION, OPTICS, PARAMETERS, bands=crop_optics.PLANET)
    s2 = crop_sensors.undisturbed(world.fields, days, REGION, OPTICS, PARAMETERS)
    assert np.abs(planet - s2[..., [1, 2, 3, 7]]).mean(axis=(0, 1)).max() < 0.02


# Sensors


def test_the_sun_is_where_it_should_be():
    """At noon on the equinox it is as far from the zenith as the place is from the equator, in June 23° higher."""
    for latitude in (48.2, 52.4):
        assert crop_sensors.sun_zenith(81, latitude, 12) == pytest.approx(latitude, abs=0.3)
        assert crop_sensors.sun_zenith(172, latitude, 12) == pytest.approx(latitude - 23.45, abs=0.3)
    days = crop_sensors.dates(PARAMETERS)
    morning = crop_sensors.sun_zenith(days, 52.4, 10.3)
    assert (morning >= crop_sensors.sun_zenith(days, 52.4, 10.6)).all()
    assert morning.max() == 72


def test_dates_are_those_of_the_paper():
    days = crop_sensors.dates(PARAMETERS)
    assert (len(days), days[0], days[-1]) == (144, 1, 363)
    assert set(np.diff(days)) == {2, 3}


def test_half_of_what_is_seen_is_cloud(worlds):
    generator = np.random.default_rng(0)
    shares = []
    for region in crops.REGIONS:
        for number in range(4):
            cover = crops.draw_world(FOLDER, region, number).weather["cover"]
            opacity = crop_sensors.draw_clouds(cover, 100, PARAMETERS, generator)["opacity"]
            shares.append([(opacity < 0.05).mean(), (opacity > 0.5).mean()])
    clear, thick = np.mean(shares, axis=0)
    assert 0.44 < clear < 0.54
    assert 0.36 < thick < 0.46


def test_clouds_are_white_and_shadows_dark():
    clouds = crop_sensors.draw_clouds(np.full(40, 0.5), 300, PARAMETERS, np.random.default_rng(1))
    cloudy = clouds["opacity"] > 0
    assert 0.45 < cloudy.mean() < 0.55
    assert (clouds["light"].min(), clouds["light"].max()) == pytest.approx((0.2, 0.95), abs=0.1)
    assert (clouds["shadow"][cloudy] == 1).all()
    assert ((clouds["shadow"] > 0.2) & (clouds["shadow"] <= 1)).all()
    assert 0.03 < (clouds["shadow"][..., 0] < 1).mean() < 0.08
    surface = np.full((300, 40, 12), 0.1, np.float32)
    world = crops.draw_world(FOLDER, REGION)
    weather = {name: value[:40] for name, value in world.weather.items()}
    seen = crop_sensors.see_sentinel2(
        surface.copy(), np.full(40, 40), weather, clouds, REGION, PARAMETERS, np.random.default_rng(2)
    )
    clear = ~cloudy & (clouds["shadow"][..., 0] == 1)
    assert np.abs(seen[clear] - 0.1).max() < 0.08
    assert np.median(seen[clouds["opacity"] > 0.6][:, 1]) > 0.4
    assert np.median(seen[clouds["shadow"][..., 0] < 1][:, 7]) < 0.07


def test_the_air_is_blue_and_water_vapour_dark():
    path, through = crop_sensors.atmosphere(np.array([30.0, 60.0]), np.array([0.0, 0.0]))
    assert (np.diff(path[:, :9], axis=1) < 0).all()
    assert (path[0] < path[1]).all()
    assert (through[0] > through[1]).all()
    assert (through[:, crop_sensors.B09] < 0.25).all()
    assert 0.05 < path[0, 1] < 0.12  # blue over a dark surface, in reflectance


# Series and pairs


@pytest.mark.parametrize("region", crops.REGIONS)
def test_series_are_balanced_and_from_separate_fields(root, worlds, region):
    data = series.load("crops", region, 20, 10, root)
    classes = CLASSES[region.split("_")[0]]
    assert data.classes == classes == worlds[region].classes
    assert (data.name, data.region, data.checksum) == ("crops", region, scenes.checksum("crops", root))
    assert data.values.shape == (30 * len(classes), 144, 12)
    assert (data.values.dtype, data.labels.dtype, data.days.dtype) == (torch.uint16, torch.int64, torch.int64)
    for split, count in (("train", 20), ("val", 10)):
        index = data.split(split)
        assert torch.bincount(data.labels[index]).tolist() == [count] * len(classes)
        inside = worlds[region].fields["split"][data.fields[index].numpy()]
        assert set(inside) == {worlds[region].splits.index(split)}
    assert (worlds[region].fields["label"][data.fields.numpy()] == data.labels.numpy()).all()
    values = data.values.numpy()
    assert (values.min() >= 1, 8_000 < values.max() < 13_000, 1_500 < values.mean() < 4_500) == (True, True, True)


def test_the_first_pixels_of_a_class_are_the_same_however_many_are_asked_for(root):
    small = series.load("crops", "brittany_2018", 3, 2, root)
    large = series.load("crops", "brittany_2018", 19, 9, root)
    for split, count in (("train", 3), ("val", 2)):
        few, many = small.split(split), large.split(split)
        for label in range(6):
            chosen = many[large.labels[many] == label][:count]
            assert torch.equal(small.values[few[small.labels[few] == label]], large.values[chosen])
            assert torch.equal(small.fields[few[small.labels[few] == label]], large.fields[chosen])


def test_a_world_is_always_the_same_and_another_is_another(root, tmp_path):
    shutil.copytree(root / "crops", tmp_path / "crops", ignore=shutil.ignore_patterns(".simulated"))
    before = torch.get_num_threads()
    first = [series.load("crops", REGION, 9, 2, root), series.load_pairs("crops", REGION, 1000, root)]
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    try:
        torch.set_num_threads(1 + before % 2)
        again = [series.load("crops", REGION, 9, 2, tmp_path), series.load_pairs("crops", REGION, 1000, tmp_path)]
        other = [series.load("crops", REGION, 9, 2, tmp_path, 1), series.load_pairs("crops", REGION, 1000, tmp_path, 1)]
    finally:
        torch.set_num_threads(before)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    for one, same, different in zip(first, again, other, strict=True):
        for name in ("values", "labels", "fields") if hasattr(one, "values") else ("s2", "planet", "day"):
            assert torch.equal(getattr(one, name), getattr(same, name))
            if name in ("values", "fields", "s2", "planet"):
                assert (getattr(one, name) != getattr(different, name)).float().mean() > 0.8


def test_pairs_show_one_pixel_of_a_field_to_pre_train_on(root, worlds):
    data = series.load_pairs("crops", REGION, 144 * 60 + 143, root)
    assert (len(data.day), data.s2.dtype, data.planet.shape) == (144 * 60, torch.uint16, (144 * 60, 36))
    assert torch.bincount(data.day).unique().tolist() == [0, 60]
    s2 = data.s2.numpy() / series.SCALE
    planet = data.planet.numpy().reshape(-1, 4, 9) / series.SCALE  # band by band, 3×3 pixels
    inside = planet.std(axis=2).mean(axis=0)
    assert (inside < 0.5 * planet.mean(axis=2).std(axis=0)).all()
    clear = np.abs(s2[:, 0] - planet[:, 0].mean(axis=1)) < 0.05
    assert 0.35 < clear.mean() < 0.75
    for band, other in enumerate((1, 2, 3, 7)):
        assert np.corrcoef(planet[clear, band].mean(axis=1), s2[clear, other])[0, 1] > 0.8
    assert planet.mean(axis=2)[:, 0].max() < 0.9  # no clouds, but snow
    fewer = series.load_pairs("crops", REGION, 144 * 7, root)
    assert torch.equal(fewer.s2[:7], data.s2[:7])
    assert torch.equal(fewer.planet[7:14], data.planet[60:67])


@pytest.mark.parametrize(("region", "least"), list(zip(crops.REGIONS, (0.45, 0.5, 0.62), strict=True)))
def test_a_random_forest_tells_crops_apart_but_not_all(root, region, least):
    data = series.load("crops", region, 60, 20, root)
    x = data.values.numpy().reshape(len(data.labels), -1)[:, ::2]
    train, val = data.split("train"), data.split("val")
    forest = RandomForestClassifier(60, random_state=0, n_jobs=1).fit(x[train], data.labels[train])
    right = (forest.predict(x[val]) == data.labels[val].numpy()).mean()
    assert least < right < 0.93


def test_what_cannot_be_had_is_refused(root):
    for region in crops.REGIONS[1:]:
        with pytest.raises(
            ValueError, match=f"{region}.*no fields to pre-train on there; those are in brandenburg_2018"
        ):
            series.load_pairs("crops", region, 144, root)
    with pytest.raises(
        ValueError, match="region='bavaria': crops has brandenburg_2018, brandenburg_2019, brittany_2018"
    ):
        series.load("crops", "bavaria", 1, 1, root)
    for train, val, world, what in ((-1, 1, 0, "train=-1"), (1, -2, 0, "val=-2"), (1, 1, -3, "world=-3")):
        with pytest.raises(ValueError, match=f"{what}: must not be negative"):
            series.load("crops", REGION, train, val, root, world)
    with pytest.raises(ValueError, match="count=-1: must not be negative"):
        series.load_pairs("crops", REGION, -1, root)


def test_none_at_all_is_no_error(root):
    data = series.load("crops", REGION, 0, 0, root)
    assert data.values.shape == (0, 144, 12)
    assert len(series.load_pairs("crops", REGION, 143, root).day) == 0


def test_the_table_has_the_regions():
    assert tuple(PARAMETERS["regions"]) == crops.REGIONS
    for about in PARAMETERS["regions"].values():
        assert sum(about["splits"].values()) == pytest.approx(1)
        assert set(about["fields"]) <= set(PARAMETERS["classes"])
    for shares in PARAMETERS["classes"].values():
        assert sum(shares.values()) == pytest.approx(1)
        assert set(shares) <= set(PARAMETERS["crops"])
