import base64
import html
import io
import re

import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter

from rsbook import figures, label_propagation

PAYLOAD = '<img src=x onerror=alert(1)>"&'


def one_line(theme):
    figure, ax = figures.axes(theme)
    ax.plot([0, 1], [1, 2], color=theme["ink"])
    return figure


def show(**changes):
    given = {"alt": "A single line that rises.", "caption": "A line.", "data": pd.DataFrame({"x": [1]}), **changes}
    return figures.show(one_line, **given)


def images(page):
    return re.findall(r'<img class="only-(\w+)" alt="([^"]*)" src="data:image/([\w+]+);base64,([^"]+)">', page.html)


def csv_of(page):
    text = re.search(r'download="([^"]+)" href="data:text/csv;base64,([^"]+)"', page.html)
    return text[1], base64.b64decode(text[2]).decode()


def test_a_figure_is_drawn_light_and_dark_with_alt_text():
    found = images(show())
    assert [theme for theme, *_ in found] == ["light", "dark"]
    assert {alt for _, alt, *_ in found} == {"A single line that rises."}
    light, dark = (base64.b64decode(data).decode() for *_, data in found)
    assert figures.THEMES["light"]["ink"] in light
    assert figures.THEMES["dark"]["ink"] in dark


@pytest.mark.parametrize("vector", [True, False])
def test_the_same_figure_is_the_same_bytes(vector):
    assert show(vector=vector).html == show(vector=vector).html
    assert {kind for *_, kind, _ in images(show(vector=vector))} == {"svg+xml" if vector else "webp"}


@pytest.mark.parametrize("empty", [{"alt": ""}, {"alt": "a figure"}, {"caption": " "}])
def test_a_figure_without_words_is_refused(empty):
    with pytest.raises(ValueError, match="what is seen"):
        show(**empty)


def test_a_figure_without_its_numbers_is_refused():
    with pytest.raises(TypeError, match="data"):
        figures.show(one_line, alt="A single line that rises.", caption="A line.")


def test_the_data_behind_a_figure_is_its_csv():
    data = pd.DataFrame({"x": [1, 2], "name": ["a,b", 'c"d']})
    name, text = csv_of(show(data=data, name="numbers"))
    assert name == "numbers.csv"
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(text)), data)


def test_untrusted_text_cannot_become_markup():
    table = figures.draw_table(pd.DataFrame({PAYLOAD: [PAYLOAD]}), caption=PAYLOAD, name=PAYLOAD)
    figure = show(alt=f"A line with {PAYLOAD} inside.", caption=PAYLOAD, data=pd.DataFrame({"x": [1]}), name=PAYLOAD)
    for page in (table, figure):
        assert "<img src=x" not in page.html
        assert 'onerror=alert(1)>"' not in page.html


def test_a_table_marks_the_papers_numbers_verdicts_and_gaps():
    frame = pd.DataFrame({"method": ["a", "b"], "paper": ["80.0", None], "verdict": ["holds", "fails"]})
    page = figures.draw_table(frame, caption="Numbers.", published=["paper"])
    assert '<th class="published">paper</th>' in page.html
    assert '<td class="published">80.0</td>' in page.html
    assert '<td class="verdict-holds">holds</td>' in page.html
    assert '<td class="verdict-fails">fails</td>' in page.html
    assert ">–</td>" in page.html
    assert '<th class="text">a</th>' in page.html
    assert "80.0" in repr(page)
    assert "<" not in repr(page)


def test_a_cell_may_be_a_piece_of_page():
    link = figures.Html(f'<a href="a.html">{html.escape(PAYLOAD)}</a>', text=PAYLOAD)
    page = figures.draw_table(pd.DataFrame({"page": [link], "n": [3]}), caption="Pages.")
    assert '<th class="text"><a href="a.html">&lt;img' in page.html
    assert csv_of(page)[1] == 'page,n\n"<img src=x onerror=alert(1)>""&",3\n'


def test_facts_go_beside_what_is_shown_and_never_in_its_place():
    shown = figures.Html("<p>Receipt</p>", text="Receipt", data={"seeds": [42], "level": (0.1, None)})
    forms, metadata = DisplayFormatter().format(shown)
    assert forms == {"text/html": "<p>Receipt</p>", "text/plain": "Receipt"}
    assert metadata == {"rsbook": {"seeds": [42], "level": [0.1, None]}}
    assert DisplayFormatter().format(figures.Html("<p>", text="")) == ({"text/html": "<p>", "text/plain": ""}, {})


def test_a_table_may_link_to_other_data_than_it_shows():
    data = pd.DataFrame({"seed": [42, 43], "map_macro": [0.7, 0.8]})
    name, text = csv_of(figures.draw_table(pd.DataFrame({"mean": ["75.00"]}), caption="A.", name="runs", data=data))
    assert name == "runs.csv"
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(text)), data)


def test_what_is_shared_is_stored_as_glue_stores_it(monkeypatch):
    left = []
    monkeypatch.setattr(figures, "display", lambda data, **options: left.append((data, options)))
    figures.share("claim_1", figures.Html("<b>+1.00</b>", text="+1.00"))
    mime = "application/papermill.record/"
    data = {f"{mime}text/html": "<b>+1.00</b>", f"{mime}text/plain": "+1.00"}
    assert left == [(data, {"raw": True, "metadata": {"scrapbook": {"name": "claim_1", "mime_prefix": mime}}})]


@pytest.mark.parametrize(
    ("values", "text"),
    [([], "–"), ([0.5], "50.00"), ([0.7, 0.71, 0.72], "71.00 ± 1.00"), ([0.5, 0.5], "50.00 ± 0.00")],
)
def test_mean_and_spread(values, text):
    assert figures.mean_and_spread(values).replace("\u00a0", " ") == text


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", list(figures.THEMES))
def test_text_has_contrast_and_methods_can_be_seen(theme):
    colours = figures.THEMES[theme]
    assert contrast(colours["ink"], colours["paper"]) >= 4.5
    assert contrast(colours["muted"], colours["paper"]) >= 4.5
    for colour in figures.METHOD_COLOURS.values():
        assert contrast(colour, colours["paper"]) >= 2.9


def test_every_method_has_a_name_and_a_colour_of_its_own():
    for given in (figures.METHOD_NAMES, figures.METHOD_COLOURS):
        assert set(given) == set(label_propagation.METHODS)
        assert len(set(given.values())) == len(given)


def test_classes_have_their_colours_and_unknown_ones_get_others():
    colours = figures.class_colours(["urban", "water", "road"])
    assert colours[1] == figures.CLASS_COLOURS["water"]
    assert len(set(colours)) == 3
    assert all(re.fullmatch("#[0-9a-fA-F]{6}", colour) for colour in colours)
    assert len(figures.class_colours(map(str, range(19)))) == 19  # BigEarthNet has more than there are colours


@pytest.mark.parametrize(
    ("names", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_names_in_a_sentence(names, text):
    assert figures.listed(names) == text
