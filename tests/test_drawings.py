import re

import pytest
import torch
from torch import Generator

from rsbook import drawings, mixing, scenes


def alt_texts(page):
    return re.findall(r'alt="([^"]+)"', page.html)


def test_every_drawing_has_two_themes_alt_text_and_data(tiny_scenes):
    indices = list(range(len(tiny_scenes.labels)))
    options = {"area_range": (0.1, 0.7), "probability": 1.0}
    images, labels, bits = tiny_scenes.images, tiny_scenes.labels, tiny_scenes.positions
    area, propagated = (
        mixing.cutmix(images, labels, where, **options, generator=Generator().manual_seed(1)) for where in (None, bits)
    )
    boxes = {r: mixing.sample_boxes(50, 12, 16, r, Generator().manual_seed(1)) for r in [(0.1, 0.3), (0.3, 0.7)]}
    pages = [
        drawings.draw_gallery(tiny_scenes, indices[:3], columns=2),
        drawings.draw_mixing(tiny_scenes, indices, area, propagated, shown=2),
        drawings.draw_boxes(boxes, 12, 16),
        drawings.draw_class_frequencies(tiny_scenes),
        drawings.draw_world(scenes.location("bluemarble"), step=20),
    ]
    for page in pages:
        assert len(alt_texts(page)) == 2
        assert page.html.count("text/csv") == 1


def test_the_coverage_of_boxes_equals_a_count():
    boxes = mixing.sample_boxes(200, 7, 9, (0.05, 1.0), Generator().manual_seed(3))
    counted = torch.zeros(7, 9)
    for top, left, bottom, right in boxes.tolist():
        counted[top:bottom, left:right] += 1
    assert drawings._coverage(boxes, 7, 9) == pytest.approx((counted / 200).numpy())
