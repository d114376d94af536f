import pandas as pd
import pytest

from rsbook import charts


@pytest.fixture
def runs():
    history = [{"epoch": e, "loss": 1 / e, "map_macro": 0.5 + 0.1 * e} for e in (1, 2)]
    rows = [("none", None), ("cutmix", [0.3, 0.7]), ("cutmix_lp_map", [0.3, 0.7])]
    return pd.DataFrame(
        {
            "method": method,
            "area_range": area_range,
            "seed": seed,
            "map_macro": 0.7 + seed / 1000,
            "average_precision": [0.5, 0.6, None],
            "history": history,
        }
        for method, area_range in rows
        for seed in (42, 43)
    )


def test_every_chart_has_two_themes_alt_text_and_data(runs):
    for page in (
        charts.draw_scores(runs),
        charts.draw_scores(runs.rename(columns={"map_macro": "map_micro"}), "map_micro"),
        charts.draw_learning_curves(runs),
        charts.draw_class_scores(runs, ["a", "b", "never there"]),
    ):
        assert page.html.count('<img class="only-') == 2
        assert page.html.count("text/csv") == 1


def test_captions_name_the_boxes_and_the_classes_that_are_absent(runs):
    page = charts.draw_class_scores(runs, ["a", "b", "never there"])
    assert "boxes of 0.3–0.7" in page.html
    assert "No test scene holds never there" in page.html
    assert "boxes of" not in charts.draw_learning_curves(runs[runs["method"] == "none"]).html
