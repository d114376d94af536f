"""The second modality of the embedded data against its card, its recipe and the scenes that it adds to."""

import hashlib
import importlib.util
import warnings
import zipfile
from dataclasses import fields
from math import floor, isnan

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_bounds
from sklearn.ensemble import RandomForestClassifier

from rsbook import positions, preparing, scenes
from rsbook.archives import bluemarble

FOLDER = scenes.DATA / "bluemarble_vegetation"
CARD = (FOLDER / "README.md").read_text()
FILES = ("vegetation.tif", "../bluemarble/image.tif", "../bluemarble/igbp.tif", "../bluemarble/scenes.csv")
BANDS = {"optical": [0, 1, 2], "vegetation": [3, 4], "both": [0, 1, 2, 3, 4]}


@pytest.fixture(scope="module")
def data():
    return scenes.load("bluemarble_vegetation")


@pytest.fixture(scope="module")
def layers():
    """The two layers (2,2700,5400) as they are in the file."""
    with rasterio.open(FOLDER / "vegetation.tif") as file:
        return file.read()


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("bluemarble_vegetation_build", FOLDER / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table(*header):
    """Rows of the card's table whose first columns are these, as dictionaries."""
    lines = CARD[CARD.index(f"| {' | '.join(header)} |") :].split("\n\n")[0].splitlines()
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(header, row, strict=True)) for row in rows]


def number(text):
    return float(text.removesuffix("%").replace(",", "").replace("−", "-"))


def classes_of(data, index):
    """The class of every pixel (n,32,32) of these scenes."""
    return positions.to_masks(data.positions[index], len(data.classes)).int().argmax(dim=1)


# The card


def test_files_on_the_card_in_the_manifest_and_on_disk_are_the_same():
    [row] = table("file")
    content = (FOLDER / "vegetation.tif").read_bytes()
    assert row["file"] == "`vegetation.tif`"
    assert (number(row["bytes"]), row["sha256"]) == (len(content), f"`{hashlib.sha256(content).hexdigest()}`")
    assert len(content) < 6_000_000
    listed = scenes.listed(FOLDER)
    assert tuple(listed) == FILES
    assert all(scenes.sha256(FOLDER / name) == expected for name, expected in listed.items())
    of_bluemarble = scenes.listed(scenes.DATA / "bluemarble")
    assert {name.removeprefix("../bluemarble/"): listed[name] for name in FILES[1:]} == of_bluemarble


def test_the_scale_on_the_card_is_that_of_the_script_and_of_the_file(build, layers):
    rows = table("band", "layer")
    assert [row["layer"] for row in rows] == ["mean maximum fAPAR", "optimum temperature"]
    with rasterio.open(FOLDER / "vegetation.tif") as file:
        assert file.nodata == 0
        assert file.descriptions == tuple(build.LAYERS)
        for row, layer, (_, _, low, steps), scale, offset in zip(
            rows, layers, build.LAYERS.values(), file.scales, file.offsets, strict=True
        ):
            assert number(row["value 1 is"].removesuffix(" °C")) == low
            step = {"0.003": 0.003, "1/3 °C": 1 / 3}[row["a step is"]]
            assert (scale, 1 / steps) == (pytest.approx(step), pytest.approx(step))
            assert scale * 1 + offset == pytest.approx(low)
            lowest, highest = map(number, row["lowest and highest that occur"].split(" and "))
            assert (layer[layer > 0].min(), layer.max()) == (lowest, highest)


def test_what_is_missing_is_what_the_card_says(data):
    classes = classes_of(data, slice(None))
    rows = table("class", "no fAPAR")
    assert [row["class"] for row in rows] == [*data.classes, "all"]
    no_value = (data.images[:, 3:] == 0).movedim(1, 0)
    for i, row in enumerate(rows):
        here = classes == i if i < len(data.classes) else torch.ones_like(classes, dtype=torch.bool)
        shares = [100 * band[here].double().mean().item() for band in no_value]
        assert [number(row["no fAPAR"]), number(row["no temperature"])] == [round(share, 1) for share in shares]
    assert not (no_value[0] & ~no_value[1]).any()  # where fAPAR has none, temperature has none
    assert (no_value[0] & (classes != 0)).sum() == int(CARD.split("but for ")[1].split(" pixels")[0])
    without = no_value[1].flatten(1).all(dim=1).sum().item()
    assert f"{without} scenes have no temperature at all" in CARD
    temperature = data.images[:, 4][~no_value[1]].double().sub(1).div(3).sub(36)
    assert f"below 0 °C on {100 * (temperature < 0).double().mean():.0f} % of the pixels" in CARD
    assert temperature.min() == pytest.approx(-35, abs=0.5)


def test_temperature_ends_in_the_north_where_the_card_says(layers):
    first = [np.flatnonzero(layer.any(axis=1)).min() for layer in layers]
    assert f"North of {90 - first[1] / 15:.1f}° N there is no temperature" in CARD
    assert 90 - first[0] / 15 > 72


def test_mean_and_std_count_pixels_without_a_value_as_zero(data):
    training = data.images[data.split("train")]
    normalised = data.normalise(training)
    assert torch.allclose(normalised.mean(dim=(0, 2, 3)), torch.zeros(5), atol=1e-4)
    assert torch.allclose(normalised.std(dim=(0, 2, 3)), torch.ones(5), atol=1e-4)
    for row in table("band", "mean"):
        band = int(row["band"])
        there = training[:, band] > 0
        assert number(row["mean"]) == round(data.mean[band].item(), 1)
        assert number(row["std"]) == round(data.std[band].item(), 1)
        assert number(row["mean of values alone"]) == round(training[:, band][there].double().mean().item(), 1)
        [nothing] = normalised[:, band][~there].unique().tolist()
        assert number(row["no value is normalised to"]) == round(nothing, 2)
        lowest = np.percentile(normalised[:, band][there].numpy(), 1)
        assert number(row["the lowest 1 % of values lie below"]) == pytest.approx(lowest, abs=0.006)
        assert nothing < normalised[:, band][there].min()


def test_random_forests_find_in_single_pixels_what_the_card_says(data):
    """Of training scenes, tested on validation scenes."""

    def pixels(split):
        index = data.split(split)
        values, classes = data.images[index].movedim(1, -1).reshape(-1, 5).numpy(), classes_of(data, index).flatten()
        land = np.flatnonzero(classes != 0)
        chosen = np.random.default_rng(0).choice(land, 30_000, replace=False)
        return values[chosen], classes.numpy()[chosen]

    (values, classes), (unseen, expected) = pixels("train"), pixels("val")
    overall = {}
    rows = table("bands", "overall")
    assert [row["bands"] for row in rows] == list(BANDS)
    for row in rows:
        bands = BANDS[row["bands"]]
        forest = RandomForestClassifier(100, min_samples_leaf=5, random_state=0, n_jobs=2)
        right = forest.fit(values[:, bands], classes).predict(unseen[:, bands]) == expected
        overall[row["bands"]] = 100 * right.mean()
        assert number(row["overall"]) == pytest.approx(overall[row["bands"]], abs=0.3)  # other versions, other trees
        for i, name in enumerate(data.classes[1:], start=1):
            assert number(row[name]) == pytest.approx(100 * right[expected == i].mean(), abs=3), name
    assert overall["both"] > 7 + max(overall["optical"], overall["vegetation"])


# The scenes


def test_everything_but_two_bands_and_the_name_is_that_of_bluemarble(data):
    other = scenes.load("bluemarble")
    assert data.images.shape == (*other.images.shape[:1], 5, 32, 32)
    assert data.images.dtype == other.images.dtype == torch.uint8
    assert torch.equal(data.images[:, :3], other.images)
    for name in ("labels", "positions"):
        assert torch.equal(getattr(data, name), getattr(other, name))
    assert data.splits.keys() == other.splits.keys()
    assert all(torch.equal(data.split(name), other.split(name)) for name in scenes.SPLITS)
    for name in ("mean", "std"):
        assert torch.equal(getattr(data, name)[:3], getattr(other, name))
    checked = ("images", "labels", "positions", "splits", "mean", "std", "name", "checksum", "modalities")
    for one in fields(scenes.Scenes):
        assert one.name in checked or getattr(data, one.name) == getattr(other, one.name), one.name
    assert data.name == "bluemarble_vegetation"
    assert data.checksum == scenes.checksum("bluemarble_vegetation") != other.checksum
    assert (data.bands("vegetation"), data.bands("optical")) == ((3, 4), (0, 1, 2))
    assert (list(data.modalities), data.rgb, data.seasons) == (["vegetation", "optical"], (0, 1, 2), 1)


def test_layers_are_cut_where_the_table_says(data, layers):
    corners, _ = bluemarble.read_windows(scenes.DATA / "bluemarble" / "scenes.csv")
    for i in range(0, len(corners), 97):
        row, column = corners[i]
        assert np.array_equal(data.images[i, 3:], layers[:, row : row + 32, column : column + 32])


def test_the_layers_lie_on_the_grid_of_bluemarble():
    beside = scenes.DATA / "bluemarble" / "image.tif"
    with rasterio.open(FOLDER / "vegetation.tif") as file, rasterio.open(beside) as image:
        assert (file.crs, file.transform, file.shape) == (image.crs, image.transform, image.shape)
        assert (file.count, set(file.dtypes), set(file.block_shapes)) == (2, {"uint8"}, {(256, 256)})
        assert file.compression.name == "deflate"


def test_the_layers_end_where_the_land_ends(layers):
    with rasterio.open(scenes.DATA / "bluemarble" / "igbp.tif") as file:
        water = file.read(1) == 0
    north, south = (90 - 72) * 15, (90 + 56) * 15
    agreement = ((layers[0] == 0) == water)[north:south].mean()
    assert f"where `igbp.tif` has water on {100 * agreement:.1f} % of the pixels" in CARD
    for layer, least in zip(layers, (0.985, 0.976), strict=True):
        missing = layer[330:2100, 200:5200] == 0  # south of 68° N, where both layers have values
        agreement = {
            (down, right): (water[330 + down : 2100 + down, 200 + right : 5200 + right] == missing).mean()
            for down in (-2, -1, 0, 1, 2)
            for right in (-2, -1, 0, 1, 2)
        }
        assert max(agreement, key=agreement.get) == (0, 0)
        assert agreement[0, 0] > least
        assert missing[water[330:2100, 200:5200]].mean() > 0.97
        assert missing[~water[330:2100, 200:5200]].mean() < 0.01


# The build script


def resampled_by_hand(layer, missing):
    """The mean of what each pixel of three in four covers, one pixel after the other."""
    height, width = (size * 3 // 4 for size in layer.shape)
    result = np.full((height, width), np.nan)
    for row in range(height):
        for column in range(width):
            total = covered = 0.0
            for y in range(layer.shape[0]):
                for x in range(layer.shape[1]):
                    down = min(row + 1, (y + 1) * 3 / 4) - max(row, y * 3 / 4)
                    right = min(column + 1, (x + 1) * 3 / 4) - max(column, x * 3 / 4)
                    if down > 1e-9 and right > 1e-9 and layer[y, x] != missing:
                        covered += down * right
                        total += down * right * layer[y, x]
            if covered > 0.5 - 1e-9:
                result[row, column] = total / covered
    return result


def made_up(generator, height, width, low, high, missing):
    """A layer with gaps of all sizes."""
    layer = generator.integers(low, high + 1, (height, width), dtype=np.int16)
    layer[generator.random((height, width)) < 0.4] = missing
    layer[:4, :8] = missing
    return layer


def test_resampling_is_the_mean_of_what_a_pixel_covers(build):
    layer = made_up(np.random.default_rng(0), 16, 24, -3600, 4800, -9999)
    found, expected = build.resample(layer, -9999), resampled_by_hand(layer, -9999)
    assert found.shape == (12, 18)
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    assert 0.1 < np.isnan(found).mean() < 0.6
    assert np.allclose(found, expected, rtol=1e-12, equal_nan=True)


@pytest.mark.parametrize(("low", "steps"), [(0, 1000 / 3), (-36, 3)])
def test_scaling_is_linear_and_0_is_no_value(build, low, steps):
    values = low + np.random.default_rng(1).uniform(0, 254 / steps, (9, 11))
    values[::3, ::2] = np.nan
    values[1, 1], values[1, 3], values[1, 5] = low, low + 0.49 / steps, low + 254 / steps
    scaled = build.scale(values, low, steps)
    assert scaled.dtype == np.uint8
    for value, got in zip(values.ravel(), scaled.ravel(), strict=True):
        assert got == (0 if isnan(value) else 1 + floor((value - low) * steps + 0.5))
    assert (scaled[1, 1], scaled[1, 3], scaled[1, 5]) == (1, 1, 255)
    there = ~np.isnan(values)
    assert np.abs(low + (scaled[there].astype(float) - 1) / steps - values[there]).max() <= 0.5 / steps + 1e-9


@pytest.mark.parametrize("value", [-0.51, 254.51])
def test_what_does_not_fit_into_a_byte_is_refused(build, value):
    with pytest.raises(SystemExit, match="do not fit into 1 … 255"):
        build.scale(np.array([[1.0, np.nan, value]]), 0, 1)


def write(path, array, **options):
    """A GeoTIFF (C,H,W) of the whole Earth."""
    grid = {"crs": "EPSG:4326", "transform": from_bounds(-180, -90, 180, 90, *array.shape[:0:-1])}
    shape = dict(zip(("count", "height", "width"), array.shape, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of affine
        with rasterio.open(path, "w", driver="GTiff", dtype=array.dtype, **grid, **shape, **options) as file:
            file.write(array)


def seal(folder, names):
    sums = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(sums))


@pytest.fixture
def miniature(tmp_path, build, monkeypatch):
    """A data folder with both archives, 3×6 windows, the second made by the script from a small made-up wheel."""
    rng, root, wheels = np.random.default_rng(2), tmp_path / "data", tmp_path / "wheels"
    beside, folder = root / "bluemarble", root / "bluemarble_vegetation"
    for one in (beside, folder, wheels):
        one.mkdir(parents=True)
    write(beside / "image.tif", rng.integers(0, 256, (3, 96, 192), dtype=np.uint8))
    write(beside / "igbp.tif", np.kron(rng.integers(0, 17, (1, 6, 12), dtype=np.uint8), np.ones((16, 16), np.uint8)))
    corners = [(row, column) for row in (0, 32, 64) for column in range(0, 192, 32)]
    rows = [f"{row},{column},{'val' if column == 160 else 'train'}\n" for row, column in corners]
    (beside / "scenes.csv").write_text("row,column,split\n" + "".join(rows))
    seal(beside, ["image.tif", "igbp.tif", "scenes.csv"])

    fill_wheel(wheels, fapar(rng), temperature(rng))
    monkeypatch.setattr(build, "HERE", folder)
    monkeypatch.setattr(build, "GRID", (128, 256))
    build.main(wheels)
    return root


def fapar(rng, shape=(128, 256)):
    return made_up(rng, *shape, 92, 7405, -999)


def temperature(rng, shape=(128, 256)):
    return made_up(rng, *shape, -3582, 4676, -9999)


def fill_wheel(wheels, *made):
    names, missing = ("PTJPL/fAPARmax_mean_CMG_int16.tif", "PTJPL/Topt_mean_CMG_int16.tif"), (-999, -9999)
    with zipfile.ZipFile(wheels / "ptjpl-1.9.0-py3-none-any.whl", "w") as wheel:
        for name, layer, nodata in zip(names, made, missing, strict=True):
            write(wheels / "layer.tif", layer[None], nodata=nodata)
            wheel.write(wheels / "layer.tif", name)


def test_the_build_script_makes_an_archive_from_a_wheel(miniature, build):
    rng = np.random.default_rng(2)
    rng.integers(0, 256, (3, 96, 192), dtype=np.uint8), rng.integers(0, 17, (1, 6, 12), dtype=np.uint8)  # as above
    with rasterio.open(miniature / "bluemarble_vegetation" / "vegetation.tif") as file:
        found = file.read()
        assert file.bounds == (-180, -90, 180, 90)
    for layer, (source, missing, units, low, steps) in zip(
        found, [(fapar(rng), -999, 10_000, 0, 1000 / 3), (temperature(rng), -9999, 100, -36, 3)], strict=True
    ):
        part = resampled_by_hand(source[:32, :32], missing) / units
        expected = [[0 if isnan(v) else 1 + floor((v - low) * steps + 0.5) for v in line] for line in part]
        assert np.array_equal(layer[:24, :24], expected)
    data = scenes.load("bluemarble_vegetation", miniature)
    assert data.images.shape == (18, 5, 32, 32)
    assert np.array_equal(data.images[7, 3:], found[:, 32:64, 32:64])
    assert torch.equal(data.images[:, :3], scenes.load("bluemarble", miniature).images)
    assert tuple(scenes.listed(miniature / "bluemarble_vegetation")) == FILES
    training = data.normalise(data.images[data.split("train")])
    assert torch.allclose(training.mean(dim=(0, 2, 3)), torch.zeros(5), atol=1e-4)
    assert torch.allclose(training.std(dim=(0, 2, 3)), torch.ones(5), atol=1e-4)


def test_the_build_script_refuses_a_wheel_of_another_grid(miniature, build, tmp_path):
    rng = np.random.default_rng(0)
    before = scenes.checksum("bluemarble_vegetation", miniature)
    fill_wheel(tmp_path / "wheels", fapar(rng, (64, 256)), temperature(rng))
    with pytest.raises(SystemExit, match=r"fAPARmax_mean_CMG_int16.tif has shape \(64, 256\)"):
        build.main(tmp_path / "wheels")
    assert scenes.checksum("bluemarble_vegetation", miniature) == before


# Damage


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["damaged", "missing"])
def test_damage_in_either_folder_is_named_with_its_cure(miniature, name, damage):
    scenes.load("bluemarble_vegetation", miniature)  # that it was whole, and is kept in memory, is no excuse
    folder = "bluemarble" if "/" in name else "bluemarble_vegetation"
    path = miniature / folder / name.split("/")[-1]
    flip(path) if damage == "damaged" else path.unlink()
    cure = rf"restore it with `git checkout -- {folder}` in {miniature}, or see data/{folder}/README.md"
    for call in (scenes.load, lambda name, root: preparing.check(root / name, progress=False)):
        with pytest.raises(scenes.DataError) as error:
            call("bluemarble_vegetation", miniature)
        assert str(error.value).startswith(f"{path} is {damage}: ")
        assert str(error.value).endswith(cure)


def test_another_bluemarble_is_another_archive(miniature):
    before = scenes.load("bluemarble_vegetation", miniature)
    path = miniature / "bluemarble" / "scenes.csv"
    path.write_text(path.read_text().replace("0,0,train", "0,0,test"))
    seal(path.parent, ["image.tif", "igbp.tif", "scenes.csv"])
    with pytest.raises(scenes.DataError, match=r"bluemarble.scenes.csv is damaged: sha256 "):
        scenes.load("bluemarble_vegetation", miniature)
    seal(miniature / "bluemarble_vegetation", FILES)
    after = scenes.load("bluemarble_vegetation", miniature)
    assert after.checksum == scenes.checksum("bluemarble_vegetation", miniature) != before.checksum
    assert (len(before.split("test")), after.split("test").tolist()) == (0, [0])


@pytest.mark.parametrize("shape", [(1, 96, 192), (2, 96, 160), (2, 192, 96), (3, 96, 192)])
def test_layers_of_another_shape_are_refused_whatever_their_sha256(miniature, shape):
    folder = miniature / "bluemarble_vegetation"
    write(folder / "vegetation.tif", np.ones(shape, dtype=np.uint8))
    seal(folder, FILES)
    with pytest.raises(scenes.DataError) as error:
        scenes.load("bluemarble_vegetation", miniature)
    assert f"vegetation.tif is {shape} uint8, expected (2, 96, 192) uint8: " in str(error.value)
    assert str(error.value).endswith("`git checkout -- data/bluemarble_vegetation`")


def test_check_hashes_the_files_of_both_folders():
    size = sum((FOLDER / name).stat().st_size for name in FILES)
    assert preparing.check(FOLDER, progress=False) == (4, size)
