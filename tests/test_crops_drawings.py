"""Figures and tables of series, pairs and encoders."""

import pandas as pd
import pytest
import torch
from made_up_crops import make_pairs, make_series
from torch import Generator, nn

from rsbook import contrastive, crops_drawings, crops_tasks


def test_ndvi_of_stored_values_by_hand():
    """0.05 in red and 0.45 in the near infrared; then 0.15 more in both, as under a thin cloud."""
    values = torch.zeros(2, 12, dtype=torch.uint16)
    values[:, crops_drawings.RED] = torch.tensor([500, 2000], dtype=torch.uint16)
    values[:, crops_drawings.INFRARED] = torch.tensor([4500, 6000], dtype=torch.uint16)
    assert crops_drawings.ndvi(values).tolist() == pytest.approx([0.8, 0.5])
    assert crops_drawings.BANDS[crops_drawings.INFRARED] == "B8"
    assert crops_drawings.BANDS[crops_drawings.RED] == "B4"


def test_the_calendar_is_of_clear_pixels_alone():
    data = make_series(train=20)
    before = crops_drawings.calendar(data)
    clouds = data.values.clone()
    clouds[::3, 4] = 6000  # every third pixel, on one date, in all bands: NDVI would be 0
    cloudy = crops_drawings.calendar(data.__class__(**{**vars(data), "values": clouds}))
    day = int(data.days[4])
    pixels = cloudy[(cloudy["class"] == "wheat") & (cloudy["day"] == day)]["pixels"].item()
    assert pixels == 16
    assert before[(before["class"] == "wheat") & (before["day"] == day)]["pixels"].item() == 24
    assert cloudy["ndvi"].min() > 0.1
    assert (cloudy["low"] <= cloudy["ndvi"]).all()
    assert (cloudy["ndvi"] <= cloudy["high"]).all()


def test_pixels_and_fields_of_each_split():
    found = crops_drawings.split_table([make_series(train=8, val=4), make_series(region="else_where")])
    assert len(found) == 6
    assert found.iloc[0].tolist() == ["somewhere", "wheat", 8, 8, 4, 4]
    assert found.iloc[-1]["region"] == "else where"


def test_pairs_through_the_year_are_held_out_and_rise_by_day():
    data = make_pairs(count=4000)
    rows = crops_drawings.through_the_year(data, 24)
    assert set(rows.tolist()) <= set(crops_tasks.held_out(4000).tolist())
    assert len(set(rows.tolist())) == 24
    assert (data.day[rows].diff() >= 0).all()


def test_six_pairs_one_of_each_two_months_and_one_of_them_a_cloud():
    data = make_pairs()
    rows = crops_drawings.one_a_season(data)
    assert [(int(data.day[row]) - 1) * 6 // 366 for row in rows] == list(range(6))
    third = data.s2[(data.day - 1) * 6 // 366 == 2, crops_drawings.BLUE].float()
    assert data.s2[rows[2], crops_drawings.BLUE].float() == third.max()


def test_neighbours_of_separate_classes_are_always_right():
    data = make_series(classes=2, train=20)
    values = data.values.clone()
    values[..., 8] = (1000 + 3000 * data.labels[:, None]).to(torch.uint16)
    data = data.__class__(**{**vars(data), "values": values})
    found = crops_drawings.neighbour_table(data, {"only one band": Pick(8), "none": Pick(9, 0)}, [100])
    column = found.columns[1]
    assert found.set_index("features").loc["only one band", column] == "100.0"
    assert float(found.set_index("features").loc["none", column]) == 50.0


class Pick(nn.Module):
    """One band, times a factor."""

    def __init__(self, band, factor=1):
        super().__init__()
        self.band, self.factor = band, factor

    def forward(self, values):
        return values[:, [self.band]] * self.factor


def test_the_released_corruption_that_is_shown_has_corrupted_something():
    values = make_pairs(count=64).s2.float()
    for seed in range(6):
        found = crops_drawings._released(values, 0.2, seed)
        assert (found != values).any(dim=0).sum() == contrastive.replaced_count(12, 0.2)
    with pytest.raises(ValueError, match="nothing is corrupted"):
        crops_drawings._released(values, 0.01, 0)


def made_up_history(method):
    found = {"val_loss": 7.0, "retrieval": 0.1, "alignment": 0.2, "uniformity": -1.0}
    return {"method": method, "rate": 0.2, "seed": 1, "history": [{"epoch": e, **found} for e in (1, 2)]}


def test_every_figure_is_drawn_with_its_data():
    data, pairs = make_series(train=20), make_pairs()
    task = crops_tasks.Contrast(pairs, "bi_modal", 0.2)
    network = crops_tasks.TwoViews(task.moments(), task.sensors, Generator().manual_seed(0)).eval()
    rows = crops_drawings.through_the_year(pairs, 8)
    with torch.inference_mode():
        views = network(pairs.s2[rows].float(), pairs.planet[rows].float())
    shown = [
        crops_drawings.draw_calendar(data),
        crops_drawings.draw_clouds([data, data]),
        crops_drawings.draw_pairs(pairs, crops_drawings.one_a_season(pairs)),
        crops_drawings.draw_corruption(pairs.s2[:64].float(), 0.2),
        crops_drawings.draw_similarities(views, views),
        crops_drawings.draw_history(pd.DataFrame([made_up_history("bi_modal"), made_up_history("uni_modal")])),
        crops_drawings.draw_embedding(data, 100, {"random": network.encoders["s2"]}),
    ]
    for one in shown:
        assert one.html.count("<img") == 2
