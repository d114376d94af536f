"""The crop explorer, in Python and in a browser."""

import copy
import re
import shutil

import numpy as np
import pytest
import traitlets
from explorer_page import THEMES, copy_state, drag, shown_rows, wait_two_frames

from rsbook import figures, report, scenes
from rsbook.archives import crop_fields, crop_optics, crop_sensors, crops
from rsbook.archives.crop_optics import PLANET, S2
from rsbook.widgets import CropExplorer

FOLDER = scenes.location("crops")
STATE = ("crop", "other", "region", "date", "changes", "cloudy", "opacity", "composite")
CLOSE = 1e-5  # of reflectance and NDVI: single precision in Python, double in the page
CHANGES = {
    "shift": 9,
    "fade": -12,
    "leaf_area": 2.7,
    "chlorophyll": 31,
    "drought": 0.55,
    "soil_brightness": 0.83,
    "days": -3,
    "gradient": 3.1,
}


def explorer(**state):
    made = CropExplorer()
    for name, value in state.items():
        setattr(made, name, value)
    return made


def ndvi(values, red=3, infrared=7):
    return (values[..., infrared] - values[..., red]) / (values[..., infrared] + values[..., red])


@pytest.fixture(scope="module")
def archive():
    return crops.read(FOLDER)


@pytest.mark.parametrize("region", crops.REGIONS)
def test_unchanged_it_is_the_mean_field_as_the_simulator_has_it(region, archive):
    parameters, optics = archive
    days = crop_sensors.dates(parameters)
    for crop in parameters["crops"]:
        made = explorer(crop=crop, other=crop, region=region, changes={"gradient": 1}, date=70)
        field = crop_fields.mean_field(crop, region, parameters)
        expected = crop_sensors.undisturbed(field, days, region, optics, parameters)[0]
        fine = crop_sensors.undisturbed(field, days, region, optics, parameters, bands=PLANET)[0, 70]
        year, day = made.year(), made.read_out()
        assert np.abs(day["s2"][:12] - expected[70]).max() < 0.0001  # weights are rounded
        assert np.abs(made.pixels() - fine[:, None, None]).max() < 0.0001
        assert np.abs(year["ndvi"] - ndvi(expected)).max() < 0.0005
        assert np.abs(year["ndvi"] - year["other"]).max() < CLOSE
        assert year["leaf_area"].to_numpy() == pytest.approx(
            crop_optics.state(field, days, crop_sensors.calm_weather(region, parameters), parameters)["lai"][0]
        )


def test_what_a_slider_moves(archive):
    parameters, _ = archive
    days = np.arange(1, 366, dtype=np.float32)
    for crop in ("wheat", "corn", "meadow"):
        mean = crop_fields.mean_field(crop, "brandenburg_2018", parameters)
        later = explorer(crop=crop, changes={"shift": 12}).field()
        assert crop_fields.lai(later, days + 12) == pytest.approx(crop_fields.lai(mean, days), abs=1e-4)
        assert later["harvest"] == pytest.approx(mean["harvest"] + 12)
        thin = explorer(crop=crop, changes={"leaf_area": 2}).field()
        assert thin["peak"][0, 1] == pytest.approx(2)
        assert explorer(crop=crop, changes=CHANGES).field()["drought"] == pytest.approx(0.55)
    again = mean["peak"][0, 2] / mean["peak"][0, 1]  # a meadow's canopy after the first cut
    assert thin["peak"][0, 2] == pytest.approx(2 * again)
    yellow = explorer(changes={"fade": -12}).field()
    mean = crop_fields.mean_field("wheat", "brandenburg_2018", parameters)
    assert yellow["fade"][0].tolist() == (mean["fade"][0] + [-12, -12, 0, 0, 0, 0]).tolist()


def test_what_a_change_does_is_what_one_knows_of_plants():
    made = explorer(changes={"gradient": 1})
    may, august = 56, 87

    def seen(date, **changes):
        made.date, made.changes = date, {"gradient": 1} | changes
        return made.read_out().set_index("band")["s2"]

    assert seen(may, chlorophyll=20)["B05"] > seen(may)["B05"] + 0.02  # the red edge
    assert seen(may, leaf_area=1)["B08"] < seen(may)["B08"] - 0.05
    assert seen(august, soil_brightness=0.9)["B11"] > seen(august)["B11"] + 0.02
    made.crop = "corn"
    assert seen(august, drought=0.9)["NDVI"] < seen(august)["NDVI"] - 0.1
    made.crop = "wheat"
    early, ahead = seen(40, shift=-10)["NDVI"], seen(40, days=5)["NDVI"]
    assert early > ahead > seen(40)["NDVI"]


def test_the_nine_pixels_have_a_gradient_and_sentinel_2_their_mean(archive):
    parameters, optics = archive
    made = explorer(date=45, changes={"gradient": 4, "leaf_area": 3})
    infrared = made.pixels()[3]
    assert (np.diff(infrared, axis=0) > 0).all()
    assert (np.diff(infrared, axis=1) > 0).all()
    assert infrared == pytest.approx(infrared.T)
    field = crop_fields.take(made.field(), np.zeros(9, int))
    factors = [4 ** ((row + column) / 4) for row in (-1, 0, 1) for column in (-1, 0, 1)]
    assert max(factors) / min(factors) == pytest.approx(4)
    same = np.ones(9, np.float32)
    pixels = {"leaf_area": np.log(factors), "days": 0 * same, "chlorophyll": same, "soil": same}
    day = np.array(made.days[45:46])
    weather = crop_sensors.calm_weather("brandenburg_2018", parameters)
    now = crop_optics.state(field, day, weather, parameters, pixels)
    angles = crop_sensors.sentinel2_angles(day, 52.4, parameters)
    found = crop_optics.reflectance(now, *angles, optics, parameters, S2)[:, 0]
    assert made.read_out()["s2"][:12].to_numpy() == pytest.approx(found.mean(axis=0), abs=0.0001)


@pytest.mark.parametrize("opacity", [0, 0.3, 1])
def test_a_cloud_is_what_the_simulator_makes_of_it(opacity, archive):
    made = explorer(opacity=opacity, date=56)
    clear = made.read_out()
    made.cloudy = True
    parameters = copy.deepcopy(archive[0])
    parameters["sentinel2"] |= {"pixel_gain": 0, "aerosol": 0, "aerosol_sd": 0, "noise": 0}
    clouds = {"opacity": np.full((1, 1), opacity), "light": made.cloud[None, None], "shadow": np.ones((1, 1, 12))}
    weather = {"aerosol": np.zeros(1), "s2_gain": np.ones((1, 12))}
    surface = clear["s2"][:12].to_numpy()[None, None]
    region, generator = "brandenburg_2018", np.random.default_rng(0)
    expected = crop_sensors.see_sentinel2(surface, None, weather, clouds, region, parameters, generator)[0, 0]
    found = made.read_out()
    assert found["s2"][:12].to_numpy() == pytest.approx(expected, abs=1e-6)
    assert made.year()["cloudy"][made.date] == pytest.approx(found["s2"][12], abs=1e-6)
    others = ["other", "planet", "planet_low", "planet_high"]
    assert found[others].equals(clear[others])
    assert (made.cloud > 0.3).all()
    assert (made.cloud < 0.67).all()


def test_what_it_refuses():
    made = explorer()
    for name, value, said in (
        ("crop", "rice", "expected one of wheat, rye"),
        ("other", "", "expected one of wheat, rye"),
        ("region", "bavaria", "expected one of brandenburg_2018"),
        ("date", 144, "expected 0 … 143"),
        ("changes", {"leaf_area": 9}, "expected some of shift -30 … 30"),
        ("changes", {"leaf_area": float("nan")}, "expected some of"),
        ("changes", {"leaf_area": "3"}, "expected some of"),
        ("changes", {"height": 1}, "expected some of"),
        ("opacity", 1.5, "opacity"),
        ("composite", "radar", "composite"),
    ):
        before = getattr(made, name)
        with pytest.raises(traitlets.TraitError, match=re.escape(said)):
            setattr(made, name, value)
        assert getattr(made, name) == before
    with pytest.raises(traitlets.TraitError, match="crop='rice'"):
        CropExplorer(crop="rice")


def test_all_of_it_is_small_and_crops_have_the_colours_of_their_classes(archive):
    made = explorer()
    assert sum(len(array["data"]) for array in made.arrays.values()) * 4 / 3 < 80_000  # in a page: base64
    classes = archive[0]["classes"]
    colours = dict(zip(classes, figures.class_colours(classes), strict=True))
    of_crop = dict(zip(made.crops, made.colours, strict=True))
    assert of_crop["rapeseed"] == of_crop["sunflower"] == colours["oil seeds"]
    assert of_crop["winter barley"] == of_crop["spring barley"] == colours["barley"]


def test_where_scripts_are_off_a_figure_stands_for_it():
    made = explorer(crop="rye", date=40)
    assert "NDVI through the year of rye as a solid line and of corn as a dashed one" in made.fallback.text
    assert "on day 102" in made.fallback.text


# In a browser


def agree(page, made):
    """What the page says and draws is what Python computes for the page's state."""
    copy_state(page, made, STATE)
    found, year, shown = made.read_out(), made.year(), shown_rows(page)
    for row in found.to_dict("records"):
        scale, half = (1, 0.00051) if row["band"] == "NDVI" else (100, 0.051)
        nm, s2, other, planet, nine = shown[row["band"]]
        texts = [s2, other, planet, *(nine.split("–") if planet != "–" else ["nan", "nan"])]
        assert (nm == "") == np.isnan(row["nm"])
        for text, name in zip(texts, ("s2", "other", "planet", "planet_low", "planet_high"), strict=True):
            number = float(text.replace("–", "nan"))
            assert number == pytest.approx(scale * row[name], abs=half + scale * CLOSE, nan_ok=True), name
    for name, column in (("first", "ndvi"), ("other", "other"), ("cloudy", "cloudy")):
        drawn = points(page, f".rsbook-year path.{name}:not(.case)")
        if name == "cloudy" and not made.cloudy:
            assert len(drawn) == 0
            continue
        assert drawn[:, 0] == pytest.approx((year["day"] - 1) * 1000 / 364, abs=0.01)
        assert 1 - drawn[:, 1] / 100 == pytest.approx(year[column].to_numpy(), abs=CLOSE)
    said = page.locator(".rsbook-said").inner_text()
    numbers = re.search(rf": {made.crop} with a leaf area of (\S+) has NDVI (\S+) in Sentinel-2", said)
    assert float(numbers[1]) == pytest.approx(year["leaf_area"][made.date], abs=0.0501)
    assert float(numbers[2].strip(",;")) == pytest.approx(year["ndvi"][made.date], abs=0.00501)
    assert ("through a cloud" in said) == made.cloudy
    colours = made.pixels()[[2, 1, 0]] if made.composite == "true" else made.pixels()[[3, 2, 1]]
    white = np.array([0.3 if made.composite == "true" else 0.6, 0.3, 0.3])[:, None, None]
    painted = pixels(page, "PlanetScope, nine pixels").reshape(3, 3, 3).transpose(2, 0, 1)
    assert np.abs(painted - 255 * (colours / white).clip(0, 1) ** (1 / 1.6)).max() < 0.6


def points(page, selector):
    """The corners (n, 2) of a line on the page."""
    return np.array(re.findall(r"(-?[\d.]+),(-?[\d.]+)", page.locator(selector).get_attribute("d") or ""), float)


def pixels(page, name):
    """Red, green and blue (n, 3) of a picture."""
    found = page.get_by_label(name).evaluate(
        "(one) => [...one.getContext('2d').getImageData(0, 0, one.width, one.height).data]"
    )
    return np.array(found).reshape(-1, 4)[:, :3]


def slide(page, name, value):
    page.get_by_label(name, exact=True).evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", value
    )


@pytest.mark.parametrize("region", crops.REGIONS)
@pytest.mark.parametrize("changes", [{}, CHANGES, CHANGES | {"shift": -23, "days": 5, "fade": 17, "gradient": 1}])
def test_all_crops_in_all_regions_agree_with_python(opened, region, changes):
    made = explorer(region=region, changes=changes, cloudy=bool(changes))
    page = opened(made)
    for i, crop in enumerate(made.crops):
        state = {"crop": crop, "other": made.crops[i - 1], "date": (13 * i + len(region)) % 144}
        page.evaluate("(state) => Object.entries(state).forEach(([name, value]) => explorer.set(name, value))", state)
        agree(page, made)


def test_sliders_lists_and_buttons_change_what_python_computes_too(opened):
    made = explorer()
    page = opened(made, width=390)
    agree(page, made)
    page.get_by_label("Crop", exact=True).select_option("forage")
    page.get_by_label("Compare with").select_option("rapeseed")
    page.get_by_label("Region").select_option("Brittany 2018")
    page.get_by_label("Picture").select_option("infrared")
    agree(page, made)
    assert (made.crop, made.other, made.region) == ("forage", "rapeseed", "brittany_2018")
    assert page.get_by_label("Yellow leaves later by").is_hidden()  # of grass
    texts = {made.sliders[i][0]: made.sliders[i][1] for i in range(len(made.sliders))}
    for name, value in CHANGES.items():
        slide(page, texts[name], value)
    slide(page, "Day", 77)
    agree(page, made)
    assert made.changes == CHANGES
    assert (made.date, made.cloudy) == (77, False)
    page.get_by_role("button", name="Cloud").click()
    agree(page, made)
    slide(page, "Opacity of the cloud", 0.35)
    agree(page, made)
    assert (made.cloudy, made.opacity) == (True, 0.35)
    page.get_by_role("button", name="Cloud").click()
    page.get_by_role("button", name="Back to the mean field").click()
    agree(page, made)
    assert (made.cloudy, made.changes) == (False, {})
    slide(page, "Opacity of the cloud", 0.9)  # who moves it wants to see the cloud
    agree(page, made)
    assert made.cloudy


def test_what_is_not_changed_follows_the_crop(opened):
    page = opened(explorer())
    value = page.get_by_label("Largest leaf area")
    assert float(value.input_value()) == 4.6
    slide(page, "Chlorophyll of leaves", 33)
    page.get_by_label("Crop", exact=True).select_option("sunflower")
    wait_two_frames(page)
    assert float(value.input_value()) == 3.3
    assert float(page.get_by_label("Chlorophyll of leaves").input_value()) == 33


def test_dragging_along_the_year_chooses_the_day_and_keys_go_on_from_there(opened):
    made = explorer(date=0)
    page = opened(made)
    plot = page.locator(".rsbook-year svg")
    box = plot.bounding_box()
    drag(page, plot, 0, round(box["width"] / 4))
    agree(page, made)
    assert abs(made.days[made.date] - (1 + 364 * 0.75)) <= 3
    page.mouse.move(box["x"] + 10, box["y"] + 10)  # the hand is off
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    before = made.date
    agree(page, made)
    assert made.date == before - 2
    drag(page, plot, 300, -3000)
    agree(page, made)
    assert made.date == 0


def test_everything_is_done_with_keys_too(opened):
    made = explorer()
    page = opened(made)
    for i, (name, text, _, low, _, step, _) in enumerate(made.sliders):
        page.get_by_label(text, exact=True).press("ArrowRight")
        agree(page, made)
        assert (len(made.changes), name in made.changes) == (i + 1, True)
        assert (made.changes[name] - low) / step == pytest.approx(round((made.changes[name] - low) / step))
    page.get_by_label("Crop", exact=True).press("ArrowDown")
    page.get_by_label("Day", exact=True).press("Home")
    again = page.get_by_role("button", name="Back to the mean field")
    again.press("Enter")
    agree(page, made)
    assert (made.crop, made.date, made.changes) == ("rye", 0, {})
    assert again.evaluate("(one) => one === document.activeElement")  # the focus is not lost


def test_screen_readers_hear_what_is_seen_once_a_key_is_up(opened):
    page = opened(explorer(date=56))
    wait_two_frames(page)
    told, said = page.locator(".rsbook-told"), page.locator(".rsbook-said")
    assert told.text_content() == ""
    page.get_by_label("Day", exact=True).press("ArrowRight")
    wait_two_frames(page)
    assert told.text_content() == said.text_content()
    assert said.text_content().startswith("25 May, Brandenburg 2018: wheat")
    assert page.get_by_label("Day", exact=True).evaluate("(one) => one.ariaValueText") == "25 May"
    page.get_by_label("Compare with").select_option("sugar beet")
    wait_two_frames(page)
    assert "sugar beet has" in told.text_content()
    label = page.locator(".rsbook-year").get_attribute("aria-label")
    assert label == "NDVI through the year of wheat, solid, and of sugar beet, dashed; 25 May is marked"


@pytest.mark.parametrize("width", [390, 900])
def test_neither_the_page_nor_its_table_scrolls_sideways(opened, width):
    made = explorer(crop="winter barley", other="spring barley", cloudy=True, opacity=1, changes=CHANGES)
    page = opened(made, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".rsbook-bands").evaluate("(one) => one.scrollWidth - one.clientWidth") == 0


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing(theme, opened):
    axe = report.fetch_assets() / "tools" / "axe.min.js"
    page = opened(explorer(cloudy=True), theme)
    page.evaluate(axe.read_text("utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")["violations"]
    assert [f"{rule['id']}: {node['html'][:120]} {node['any'][:1]}" for rule in found for node in rule["nodes"]] == []


def test_markup_in_names_stays_text(opened, tmp_path):
    folder = tmp_path / "crops"
    folder.mkdir()
    shutil.copy(FOLDER / "optics.npz", folder)
    text = (FOLDER / "parameters.yaml").read_text("utf-8")
    (folder / "parameters.yaml").write_text(text.replace("oats", '"<img src=x onerror=alert(1)>"'), "utf-8")
    name = "<img src=x onerror=alert(1)>"
    page = opened(CropExplorer(folder, crop=name))
    assert page.locator(".rsbook-explorer img").count() == 0
    assert page.locator(".rsbook-lines .first").first.inner_text() == name
