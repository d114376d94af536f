"""Explorers: what a reader moves to understand. A Python class and a JavaScript module each, see `explorer`."""

from rsbook.widgets.annotation_tool import AnnotationTool
from rsbook.widgets.box_sampler import BoxSampler
from rsbook.widgets.cam_explorer import CamExplorer
from rsbook.widgets.contrast_explorer import ContrastExplorer
from rsbook.widgets.crop_explorer import CropExplorer
from rsbook.widgets.cutmix_explorer import CutMixExplorer
from rsbook.widgets.explorer import various_scenes
from rsbook.widgets.gradient_explorer import GradientExplorer
from rsbook.widgets.mask_explorer import MaskExplorer
from rsbook.widgets.noise_laboratory import NoiseLaboratory
from rsbook.widgets.results_explorer import ResultsExplorer
from rsbook.widgets.selection_explorer import SelectionExplorer

__all__ = [
    "AnnotationTool",
    "BoxSampler",
    "CamExplorer",
    "ContrastExplorer",
    "CropExplorer",
    "CutMixExplorer",
    "GradientExplorer",
    "MaskExplorer",
    "NoiseLaboratory",
    "ResultsExplorer",
    "SelectionExplorer",
    "various_scenes",
]
