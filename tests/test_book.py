"""The book, built from the notebooks that ran in the smoke preset, warnings as errors."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from rsbook import planning, report

ROOT = Path(__file__).parents[1]


class Page(HTMLParser):
    """What a page has and points to."""

    def __init__(self, path):
        super().__init__()
        self.path, self.ids, self.links, self.images = path, set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids.add(attrs.get("id"))
        if tag == "a" and "href" in attrs:
            self.links.append(attrs["href"])
        if tag == "img":
            self.images.append(attrs)


@pytest.fixture(scope="module")
def pages(html_folder):
    """The pages of the book, by their path in it."""
    return {path.relative_to(html_folder).as_posix(): Page(path) for path in html_folder.rglob("*.html")}


def articles(pages):
    return {name: page for name, page in pages.items() if not name.startswith(("_static", "genindex", "search"))}


def test_every_listed_page_is_there(pages):
    for name in report.listed_pages(ROOT):
        assert f"{name}.html" in pages


def test_internal_links_lead_somewhere(pages):
    broken = []
    for name, page in articles(pages).items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
            other = next((p for p in pages.values() if p.path == target), None)
            if not target.exists() or (parts.fragment and other and unquote(parts.fragment) not in other.ids):
                broken.append((name, link))
    assert not broken


def test_every_image_says_what_it_shows(pages):
    for name, page in articles(pages).items():
        for image in page.images:
            text = image.get("alt") or ""
            is_logo = "logo" in image.get("class", "")
            assert is_logo or len(text.split()) >= 4, f"{name}: {image.get('src', '')[:60]}"
    assert sum(len(page.images) for page in articles(pages).values()) >= 12


def test_figures_come_in_light_and_dark(pages):
    for page in articles(pages).values():
        kinds = [image.get("class", "") for image in page.images]
        assert kinds.count("only-light") == kinds.count("only-dark")


def test_nothing_is_asked_of_other_hosts(pages):
    folder = pages["index.html"].path.parent
    assert report.external_requests(folder) == []


def test_maths_and_references_are_set(pages):
    part = pages["label_propagation.html"].path.read_text(encoding="utf-8")
    assert "tex-mml-chtml.js" in part
    assert 'class="math' in part
    assert "[?]" not in part
    references = pages["references.html"].path.read_text(encoding="utf-8")
    assert "2405.13451" in references


def test_training_progress_does_not_show(pages):
    text = pages["_executed/label_propagation/5a_reliable_maps.html"].path.read_text(encoding="utf-8")
    assert "run/s]" not in re.sub(r"base64,[^\"]+", "", text)
    assert "Traceback" not in text


def test_light_and_dark_versions_say_the_same(pages):
    for name, page in articles(pages).items():
        said = {
            kind: [i.get("alt") for i in page.images if i.get("class") == f"only-{kind}"] for kind in ("light", "dark")
        }
        assert said["light"] == said["dark"], name


def test_the_status_page_and_the_claims_page_lead_to_every_notebook_they_are_made_from(pages, smoke_notebooks):
    every = {f"../_executed/{name}.html" for name in planning.find([], ROOT)}
    assert every <= set(pages["_generated/status.html"].links)
    texts = {path.relative_to(smoke_notebooks): path.read_text("utf-8") for path in smoke_notebooks.glob("*/*.ipynb")}
    with_claims = {
        f"../_executed/{p.with_suffix('.html')}" for p, text in texts.items() if '"rsbook": "claims"' in text
    }
    assert len(with_claims) >= 10
    assert with_claims <= set(pages["_generated/claims.html"].links)
    text = pages["_generated/status.html"].path.read_text(encoding="utf-8")
    assert f"{len(every)} fresh" in text
    assert "rsbook-badge" not in "".join(page.path.read_text(encoding="utf-8") for page in articles(pages).values())


def test_facts_for_programs_do_not_show(pages):
    text = pages["_executed/label_propagation/5a_reliable_maps.html"].path.read_text(encoding="utf-8")
    assert "rsbook-receipt" in text
    assert "uncommitted_changes" not in text
