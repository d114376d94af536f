"""The pages of the book as a reader sees them: in a browser, with no network, in light and dark, on a wide and a narrow
screen, with and without scripts.
"""

import functools
import http.server
import re
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pandas as pd
import pytest
from browser import offline_page
from explorer_page import drag, shown_rows, wait_two_frames

from rsbook import presets, report, scenes, widgets

NAMES = [*report.listed_pages(), "search"]
METHOD = "_executed/label_propagation/3_method"
WIDE, PHONE = {"width": 1300, "height": 900}, {"width": 390, "height": 844}
WEIGHT = 3_000_000  # bytes of a page itself, without what is vendored
THEME = "localStorage.setItem('mode', '{0}'); localStorage.setItem('theme', '{0}')"
# Explorers, MathJax and the pictures of a page are there.
SETTLED = """() => document.readyState === 'complete'
    && [...document.images].every((image) => image.complete || image.loading === 'lazy')
    && document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]').length
        === document.querySelectorAll('.rsbook-explorer').length
    && [...document.querySelectorAll('.math')].every((math) => math.querySelector('mjx-container'))"""


def opened(page, folder, name):
    page.goto(name if name.startswith("http") else (folder / f"{name}.html").as_uri())
    page.wait_for_function(SETTLED, timeout=20_000)
    return page


@pytest.fixture(scope="module")
def server(html_folder):
    """The address of the pages on a server of this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(html_folder)))
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{found.server_port}"
    found.shutdown()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_page_is_whole_accessible_and_fits_a_phone(name, theme, html_folder, chromium):
    axe = html_folder.parents[1] / "book/assets/vendor/tools/axe.min.js"
    with offline_page(chromium, viewport=WIDE, reduced_motion="reduce") as (page, problems):
        page.add_init_script(THEME.format(theme))
        opened(page, html_folder, name)
        assert page.evaluate("document.documentElement.dataset.theme") == theme
        page.evaluate(axe.read_text("utf-8"))
        found = page.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")["violations"]
        violations = [
            f"{rule['id']}: {node['html'][:120]} {node['any'][:1]}" for rule in found for node in rule["nodes"]
        ]
        page.set_viewport_size(PHONE)
        width = page.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")
        assert problems == []
        assert violations == []
        assert width <= PHONE["width"]


@pytest.mark.parametrize("name", NAMES)
def test_pictures_have_words_and_figures_their_data(name, html_folder, chromium):
    with offline_page(chromium, viewport=WIDE) as (page, problems):
        opened(page, html_folder, name)
        texts = page.eval_on_selector_all("article img", "(all) => all.map((image) => image.alt)")
        assert all(len(text.split()) >= 4 for text in texts)
        shown = page.locator("article figure.rsbook-figure")
        for i in range(shown.count()):
            link = shown.nth(i).locator("figcaption a[download]")
            assert link.get_attribute("href").startswith("data:text/csv;base64,")
        assert problems == []


@pytest.mark.parametrize("name", NAMES)
def test_pages_are_light(name, html_folder, chromium):
    """The page and all that it loads, without the scripts and fonts of the theme, MathJax and the widget manager."""
    loaded = []
    with offline_page(chromium, viewport=WIDE) as (page, problems):
        page.on("request", lambda request: loaded.append(request.url))
        opened(page, html_folder, name)
        assert problems == []
    files = {Path(unquote(urlsplit(url).path)) for url in loaded if url.startswith("file:")}
    own = [path for path in files if "_static" not in path.parts or path.name.startswith("rsbook")]
    assert len(own) >= 3
    assert sum(path.stat().st_size for path in own) <= WEIGHT


@pytest.mark.parametrize("name", ["intro", "label_propagation", METHOD])
def test_page_from_a_server(name, html_folder, server, chromium):
    with offline_page(chromium, viewport=WIDE) as (page, problems):
        opened(page, html_folder, f"{server}/{name}.html")
        page.wait_for_load_state("networkidle")
        assert page.locator(".rsbook-explorer").count() == (2 if name == METHOD else 0)
        assert problems == []


@pytest.mark.parametrize("served", [False, True])
def test_search_finds_a_word(served, html_folder, server, chromium):
    start = server if served else html_folder.as_uri()
    with offline_page(chromium, viewport=WIDE) as (page, problems):
        page.goto(f"{start}/search.html?q=DeepLift")
        hits = page.locator("#search-results ul.search li a")
        hits.first.wait_for(timeout=20_000)
        assert any("5d_explanation_masks" in hit.get_attribute("href") for hit in hits.all())
        assert problems == []


def boxes_on(page):
    """Hole and patch of the CutMix explorer, as its labels for screen readers say."""
    found = [button.get_attribute("aria-label") for button in page.locator("button.rsbook-box").all()[:2]]
    numbers = [[int(n) for n in re.findall(r"\d+", text)] for text in found]
    return [[top, left, bottom, right] for top, bottom, left, right in numbers]


def test_the_explorer_on_its_page_says_what_python_says(html_folder, chromium):
    data = scenes.load("bluemarble")
    offered = widgets.various_scenes(data, data.split("train"))
    made = widgets.CutMixExplorer(data, offered)
    with offline_page(chromium, viewport=WIDE) as (page, problems):
        opened(page, html_folder, METHOD)
        shown = page.locator(".rsbook-explorer", has=page.get_by_label("First scene x₁")).first
        names = shown.get_by_label("First scene x₁").locator("option").all_inner_texts()
        assert names == made.names
        for step in range(3):
            if step == 1:
                shown.get_by_label("Second scene x₂").select_option(index=3)
                made.second = 3
            if step == 2:
                hole = shown.locator("button.rsbook-box").first
                drag(page, hole, -25, 30)
                page.keyboard.press("Shift+ArrowLeft")
            wait_two_frames(page)
            before = made.box
            made.box, patch = boxes_on(page)
            made.source = patch[:2]
            assert (made.box != before) == (step == 2)
            rows = shown_rows(shown)
            for row in made.read_out().to_dict("records"):
                if row["pixels"] or row["area"]:
                    pixels, area, by_map = rows[row["class"]][:3]
                    assert int(pixels) == row["pixels"]
                    assert float(area.split()[0]) == pytest.approx(row["area"], abs=0.005)
                    assert float(by_map.split()[0]) == row["reference_map"]
        assert problems == []


def explorer_on(page, control):
    """The explorer on a built page that has a control of this name."""
    return page.locator(".rsbook-explorer", has=page.get_by_label(control)).first


def test_the_box_sampler_on_its_page_says_what_python_says(html_folder, chromium):
    made = widgets.BoxSampler(32, 32)
    made.draws = 1000
    with offline_page(chromium, viewport=WIDE) as (page, problems):
        opened(page, html_folder, METHOD)
        shown = explorer_on(page, "Smallest area A_min")
        for smallest in (0.3, 0.35):
            made.area_range = [smallest, 0.7]
            rows = list(shown_rows(shown).values())
            found = made.read_out()
            assert [int(text.replace(",", "")) for text in rows[0]] == found.loc["boxes"].astype(int).tolist()
            assert [float(text) for text in rows[1]] == pytest.approx(found.loc["mean_area"].tolist(), abs=6e-5)
            shown.get_by_label("Smallest area A_min").press("ArrowRight")
            wait_two_frames(page)
        assert problems == []


def test_the_noise_laboratory_on_its_page_says_what_python_says(html_folder, chromium):
    data = scenes.load("bluemarble")
    seed = presets.load("label_propagation", "smoke")["seeds"][0]
    made = widgets.NoiseLaboratory(
        data, widgets.various_scenes(data, data.split("train")), kinds=["mask_shift"], seed=seed
    )
    with offline_page(chromium, viewport=WIDE) as (page, problems):
        opened(page, html_folder, "_executed/label_propagation/5b_mask_shift")
        shown = explorer_on(page, "Intensity")
        for fraction in (1.0, 0.5):
            made.level = ["mask_shift", fraction, made.level[2]]
            found = made.read_out().set_index("class")
            for name, texts in shown_rows(shown).items():
                row = found.loc[name]
                assert [int(text) for text in texts[:2]] == [row["clean_pixels"], row["noisy_pixels"]]
            changed = int((made.changed() > 0).sum())
            assert f"{changed} of 8 maps changed" in shown.locator(".rsbook-area").inner_text()
            shown.get_by_label("Fraction").press("ArrowLeft")
            wait_two_frames(page)
        assert problems == []


def test_the_mask_explorer_on_its_page_answers(html_folder, chromium):
    with offline_page(chromium, viewport=WIDE) as (page, problems):
        opened(page, html_folder, "_executed/label_propagation/5d_explanation_masks")
        shown = explorer_on(page, "Threshold t_cam")
        seen = []
        for _ in range(3):
            seen.append(int(next(iter(shown_rows(shown).values()))[0]))
            shown.get_by_label("Threshold t_cam").evaluate(
                "(slider) => { slider.value = +slider.value + 20; slider.dispatchEvent(new Event('input')); }"
            )
            wait_two_frames(page)
        assert seen[0] > seen[-1]  # the higher the threshold, the smaller the mask
        assert seen == sorted(seen, reverse=True)
        assert problems == []


def test_the_results_explorer_on_its_page_gives_its_runs(html_folder, chromium, smoke_notebooks):
    with offline_page(chromium, viewport=WIDE, accept_downloads=True) as (page, problems):
        opened(page, html_folder, "_executed/label_propagation/5a_reliable_maps")
        shown = explorer_on(page, "Metric")
        with page.expect_download() as download:
            shown.get_by_role("button", name=re.compile("Download")).click()
        found = pd.read_csv(download.value.path())
        said = re.search(r"(\d+) of (\d+) runs chosen", shown.inner_text())
        assert len(found) == int(said[1]) == int(said[2]) > 0
        assert set(found["method"]) >= {"none", "cutmix", "cutmix_lp_map"}
        assert found["seed"].nunique() == 2
        assert problems == []


def test_without_scripts_figures_stand_for_explorers(html_folder, chromium):
    with offline_page(chromium, viewport=WIDE, java_script_enabled=False) as (page, _):
        page.goto((html_folder / f"{METHOD}.html").as_uri())
        images = page.locator("noscript img.only-light")
        assert images.count() >= 2
        assert images.first.is_visible()
        assert page.locator("article figure.rsbook-figure img.only-dark").first.is_hidden()
