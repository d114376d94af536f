"""Maps of classes and the legend of their colours, as all parts draw them."""

import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from rsbook import figures, map_drawings, segmentation

THEME = {"muted": "#8a8f98", "ink": "#111111"}


@pytest.fixture
def classes(tiny_scenes):
    """A map (H,W) with pixels of all classes and two of none."""
    found = segmentation.maps_of(tiny_scenes, torch.tensor([5]))[0]
    found[0, 3], found[4, 4] = -1, -1
    return found


def test_each_pixel_has_the_colour_of_its_class_and_none_has_none(tiny_scenes, classes):
    ax = Figure().subplots()
    map_drawings.show_map(ax, tiny_scenes, classes)
    [image] = ax.images
    assert (image.get_array().mask == (classes < 0).numpy()).all()
    shown, colours = image.cmap(image.norm(image.get_array())), figures.class_colours(tiny_scenes.classes)
    for row, column in (classes >= 0).nonzero().tolist():
        assert to_hex(shown[row, column]) == to_hex(colours[classes[row, column]])


def test_wrong_pixels_are_hatched_where_there_are_any(tiny_scenes, classes):
    for wrong, expected in ((classes == 1, True), (classes > 9, False)):
        ax = Figure().subplots()
        map_drawings.show_map(ax, tiny_scenes, classes, wrong)
        assert bool(ax.collections) == expected


@pytest.mark.parametrize(("held", "names"), [(None, ["one", "two", "three"]), ([2], ["three"])])
def test_the_legend_names_classes_in_their_colours_and_what_else_there_is(tiny_scenes, held, names):
    figure = Figure()
    map_drawings.class_legend(figure, tiny_scenes, THEME, held, [Patch(label="not sure")])
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [*names, "not sure"]
    colours = dict(zip(tiny_scenes.classes, figures.class_colours(tiny_scenes.classes), strict=True))
    for name, patch in zip(names, legend.get_patches(), strict=False):
        assert to_hex(patch.get_facecolor()) == to_hex(colours[name])
