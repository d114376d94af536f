"""The annotation tool, in Python and in a browser."""

import json

import pandas as pd
import pytest
from explorer_page import copy_state, wait_two_frames
from test_explorers import random_scenes

from rsbook import annotations
from rsbook.widgets import AnnotationTool

CLASSES = ("water", "forest", "road", "field", "city", "ice", "sand", "bog", "heath", "rock")
LUMINANCE = """(text) => { const part = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(part); return 0.2126 * r + 0.7152 * g + 0.0722 * b; }"""


@pytest.fixture(scope="module")
def data():
    return random_scenes(n=24, classes=CLASSES)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers" / "labels.csv"


def answer(scene, label, classes=CLASSES, seed=0, seconds=2.0):
    pages = annotations.candidates(classes, seed, scene)
    last = next((k for k, page in enumerate(pages) if label in page), 0)
    shown = [name for page in pages[: last + 1] for name in page]
    return {"scene": scene, "label": label, "seconds": seconds, "candidates": "; ".join(shown)}


def candidate_texts(page):
    return page.locator(".rsbook-candidates button:visible span").all_inner_texts()


def progress(page):
    wait_two_frames(page)
    return page.locator(".rsbook-progress").inner_text()


def test_answers_are_written_at_once_and_gone_on_from(data, path):
    made = AnnotationTool(data, range(5, 15), path=path, annotator="ann")
    assert made.answers == []
    assert not path.exists()
    for scene, label in ((5, "bog"), (6, ""), (7, "water")):
        made.answers = [*made.answers, answer(scene, label)]
        pd.testing.assert_frame_equal(annotations.read(path), made.table(), check_dtype=False)
        assert made.stored == made.answers
    other = AnnotationTool(data, range(5, 15), path=path, annotator="ben")
    assert other.answers == []
    other.answers = [answer(5, "rock")]
    again = AnnotationTool(data, [7, 6, 20], path=str(path), annotator="ann")
    assert again.answers == [answer(6, ""), answer(7, "water")]
    again.answers = again.answers[:-1]
    found = annotations.read(path, CLASSES)[["scene", "label", "annotator"]].to_numpy().tolist()
    assert found == [[5, "bog", "ann"], [5, "rock", "ben"], [6, "", "ann"]]
    everyone = again.everyone().groupby("annotator")["scene"].agg(list).to_dict()
    assert everyone == {"ann": [5, 6], "ben": [5]}
    assert AnnotationTool(data, [7]).everyone().empty


def test_what_cannot_be_saved_is_said_and_leaves_the_file(data, path):
    made = AnnotationTool(data, range(3), path=path)
    made.answers = [answer(0, "bog")]
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"line 3: label 'sea': expected one of water"):
        made.answers = [*made.answers, answer(1, "bog") | {"label": "sea"}]
    assert "label 'sea'" in made.problem
    assert (made.stored, path.read_bytes()) == ([answer(0, "bog")], before)
    with pytest.raises(ValueError, match="scene 99: expected one of the 24 scenes"):
        made.answers = [answer(99, "bog")]
    made.answers = [answer(0, "bog"), answer(1, "road")]
    assert (made.problem, made.stored) == ("", made.answers)


def test_what_it_refuses(data, path):
    for scenes in ([], [1, 1], [24], [-1]):
        with pytest.raises(ValueError, match=r"expected one or more of 0 … 23, each once"):
            AnnotationTool(data, scenes)
    with pytest.raises(ValueError, match="annotator=' ': expected a name"):
        AnnotationTool(data, [0], annotator=" ")
    path.parent.mkdir()
    path.write_text("scene,label\n")
    with pytest.raises(ValueError, match=r"labels\.csv, line 1: scene,label: expected the columns"):
        AnnotationTool(data, [0], path=path)


def test_a_page_does_not_say_what_the_archive_says(data):
    made = AnnotationTool(data, range(4))
    assert set(made.arrays) == {"images", "orders"}
    assert made.numbers == [0, 1, 2, 3]
    assert "<img" in made.fallback.html
    assert "above its first candidate classes" in made.fallback.html


def test_twenty_scenes_by_clicks_and_keys(data, path, opened):
    made = AnnotationTool(data, range(3, 23), path=path, annotator="ann", seed=7)
    page = opened(made)
    tool = page.get_by_role("group", name="Annotation tool")
    expected, orders = {}, {scene: annotations.candidates(CLASSES, 7, scene) for scene in range(3, 23)}

    def shows(scene, which=0):
        assert progress(page).startswith(f"scene {scene - 2} of 20")
        assert candidate_texts(page) == orders[scene][which]

    def saved():
        copy_state(page, made, ["answers"])
        table = annotations.read(path, CLASSES, range(3, 23))
        assert dict(zip(table["scene"], table["label"], strict=True)) == expected
        page.evaluate("([a, p]) => { explorer.set('stored', a); explorer.set('problem', p); }", [made.stored, ""])
        wait_two_frames(page)
        assert page.locator(".rsbook-kept").inner_text() == f"Saved in {path}."

    shows(3)
    assert "left" not in progress(page)
    for scene in range(3, 23):
        shows(scene)
        if scene % 5 == 0:  # by a click on the second
            page.locator(".rsbook-candidates button").nth(1).click()
            expected[scene] = orders[scene][0][1]
        elif scene % 5 == 1:  # the next four, by a key
            tool.press("n")
            shows(scene, 1)
            tool.press("4")
            expected[scene] = orders[scene][1][3]
        elif scene % 5 == 2:  # none of ten fits, by clicks: the last page has two, and the first comes again
            for which in (1, 2, 0, 1, 2):
                page.get_by_role("button", name="next four").click()
                shows(scene, which)
            tool.press("3")
            shows(scene, 2)
            page.get_by_role("button", name="skip").click()
            expected[scene] = ""
        elif scene % 5 == 3:  # a mistake, undone
            tool.press("1")
            assert progress(page).startswith(f"scene {scene - 1} of 20")
            tool.press("u")
            shows(scene)
            assert "is open again" in page.locator(".rsbook-done").inner_text()
            tool.press("2")
            expected[scene] = orders[scene][0][1]
        else:
            tool.press("s")
            expected[scene] = ""
            if scene == 14:  # and the other way round
                page.get_by_role("button", name="undo").click()
                shows(scene)
                tool.press("1")
                expected[scene] = orders[scene][0][0]
        if scene < 22:
            assert " left" in progress(page)
        assert page.evaluate("explorer.state.answers.length") == scene - 2
        saved()
    skipped = list(expected.values()).count("")
    assert progress(page) == f"All 20 scenes are answered: {20 - skipped} labelled, {skipped} skipped."
    tool.press("1")
    assert page.evaluate("explorer.state.answers.length") == 20
    table = annotations.read(path)
    for row in table.itertuples():
        pages = 2 if row.scene % 5 == 1 else 3 if row.scene % 5 == 2 else 1
        assert row.candidates == "; ".join(name for page in orders[row.scene][:pages] for name in page)
        assert row.seconds > 0
    pd.testing.assert_frame_equal(table, made.table(), check_dtype=False)


def test_it_goes_on_where_the_file_ends(data, path, opened):
    first = AnnotationTool(data, range(6), path=path)
    first.answers = [answer(0, "bog"), answer(1, "ice"), answer(3, "", seconds=20)]
    page = opened(AnnotationTool(data, range(6), path=path))
    assert progress(page) == "scene 3 of 6 · about 6 s left"  # three scenes, the median
    assert page.locator(".rsbook-kept").inner_text() == f"Saved in {path}."
    tool = page.get_by_role("group", name="Annotation tool")
    tool.press("1")
    assert progress(page).startswith("scene 5 of 6")
    assert "Not yet saved" in page.locator(".rsbook-kept").inner_text()
    for scene in (3, 4, 2, 1):
        tool.press("u")
        assert progress(page).startswith(f"scene {scene} of 6")
    tool.press("u")  # nothing is left to undo
    assert page.evaluate("explorer.state.answers") == []
    assert page.get_by_role("button", name="undo").get_attribute("aria-disabled") == "true"


def test_python_changes_what_is_shown(data, opened):
    page = opened(AnnotationTool(data, range(3)))
    page.evaluate("(answers) => explorer.set('answers', answers)", [answer(0, "bog"), answer(1, "ice")])
    assert progress(page).startswith("scene 3 of 3")
    assert candidate_texts(page) == annotations.candidates(CLASSES, 0, 2)[0]
    page.evaluate("explorer.set('problem', 'labels.csv: No space left on device')")
    wait_two_frames(page)
    assert "saved nowhere" in page.locator(".rsbook-kept").inner_text()  # a demonstration has no file


def test_the_next_image_is_drawn(opened):
    large = random_scenes(256, 256, 12, CLASSES)
    page = opened(AnnotationTool(large, range(12)))
    for k in range(10):
        page.locator(".rsbook-candidates button").first.click()
        wait_two_frames(page)
        assert page.locator(f'canvas[aria-label^="Scene {k + 2} of 12"]').count() == 1
    made = page.evaluate(
        "[...document.querySelector('.rsbook-annotating canvas').getContext('2d').getImageData(0, 0, 1, 1).data]"
    )
    assert made == [*large.images[10, :, 0, 0].tolist(), 255]


def test_keys_that_are_held_or_belong_to_the_browser(data, opened):
    page = opened(AnnotationTool(data, range(5)))
    page.get_by_role("group", name="Annotation tool").focus()
    page.keyboard.down("1")
    for _ in range(3):
        page.keyboard.down("1")  # repeats
    page.keyboard.up("1")
    page.keyboard.press("Alt+1")
    assert progress(page).startswith("scene 2 of 5")
    page.keyboard.press("S")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("1")  # outside the tool keys are not its own
    assert progress(page).startswith("scene 3 of 5")
    page.locator(".rsbook-annotating canvas").click()
    page.keyboard.press("1")
    page.keyboard.press("1")  # two keys before a frame
    assert progress(page).startswith("scene 5 of 5")


def test_keyboard_focus_and_what_screen_readers_hear(data, opened):
    page = opened(AnnotationTool(data, range(3)))
    pages = [annotations.candidates(CLASSES, 0, scene) for scene in range(3)]
    heard = page.locator(".rsbook-told[aria-live]")
    third = page.get_by_role("button", name=pages[0][0][2])
    third.focus()
    page.keyboard.press("n")
    page.keyboard.press("n")  # two candidates are left; the third is hidden and had the focus
    wait_two_frames(page)
    assert f"Candidates: 1 {pages[0][2][0]}, 2 {pages[0][2][1]}." in heard.inner_text()
    page.keyboard.press("1")
    wait_two_frames(page)
    assert f"Scene 1: {pages[0][2][0]}." in heard.inner_text()
    assert "scene 2 of 3" in heard.inner_text()
    page.keyboard.press("2")
    page.keyboard.press("s")
    assert progress(page) == "All 3 scenes are answered: 2 labelled, 1 skipped."
    page.keyboard.press("u")
    assert progress(page).startswith("scene 3 of 3")
    assert page.locator(".rsbook-annotating canvas").get_attribute("aria-label") == "Scene 3 of 3, to be labelled"
    assert page.get_by_role("progressbar", name="Scenes answered").evaluate("bar => bar.value") == 2


@pytest.mark.parametrize("theme", ["light", "dark", "jupyterlab-dark"])
def test_it_fits_a_phone_and_is_readable(data, opened, theme):
    page = opened(AnnotationTool(data, range(3)), theme, width=360)
    assert "saved nowhere" in page.locator(".rsbook-kept").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator(".rsbook-annotating canvas").bounding_box()["width"] > 280  # of 30 pixels
    for made in page.locator(".rsbook-annotating button:visible").all():
        box = made.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
        assert box["height"] >= 32
        ink, paper = made.evaluate(
            f"(it) => ['color', 'backgroundColor'].map((n) => ({LUMINANCE})(getComputedStyle(it)[n]))"
        )
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 4.5


def test_few_classes_and_names_that_run_nothing(opened):
    payload = '<img src=x onerror="window.__hit=1">'
    made = AnnotationTool(random_scenes(classes=("one", payload)), range(2), seed=1)
    page = opened(made)
    assert sorted(candidate_texts(page)) == sorted(["one", payload])
    assert page.get_by_role("button", name="next four").count() == 0
    page.locator(".rsbook-candidates button", has_text=payload).click()
    wait_two_frames(page)
    assert json.loads(page.evaluate("JSON.stringify(explorer.state.answers)"))[0]["label"] == payload
    assert page.evaluate("window.__hit") is None
