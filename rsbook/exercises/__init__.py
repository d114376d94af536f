"""The code exercises of the book: each check says that an answer is right, or gives a hint that fits the mistake.

A hint never tells the solution. What is right is computed from the page's own data, and so is what comes out of each
typical mistake. A check takes any answer whatever and raises nothing for it.
"""

from rsbook.exercises.activations import (
    check_first_neighbours,
    check_fmix_mask,
    check_mask_iou,
    check_mean_iou,
    check_poly_rate,
    check_seeds_needed,
    check_segmented,
    check_walk,
)
from rsbook.exercises.maps import (
    check_border_growth,
    check_changed_pixels,
    check_changed_scenes,
    check_iou,
    check_kept_labels,
    check_lost_labels,
    check_overlap,
    check_rectified,
)
from rsbook.exercises.mixtures import (
    check_pixels_left,
    check_shared_scenes,
    check_small_crops,
    check_wrong_mixtures,
)
from rsbook.exercises.positives import (
    check_added,
    check_calibrated,
    check_hidden_share,
    check_kappa,
    check_mean_rank,
    check_most_hidden,
    check_stored,
)
from rsbook.exercises.scores import (
    check_blind_network,
    check_costliest,
    check_pairs_ahead,
    check_spread_of_gain,
)
from rsbook.exercises.segments import (
    check_average_accuracy,
    check_enhanced,
    check_kept_pixels,
    check_precision,
)
from rsbook.exercises.series import (
    check_hardest_class,
    check_learned,
    check_ndvi,
    check_nt_xent,
    check_relative_gain,
    check_win_share,
)

__all__ = [
    "check_added",
    "check_average_accuracy",
    "check_blind_network",
    "check_border_growth",
    "check_calibrated",
    "check_changed_pixels",
    "check_changed_scenes",
    "check_costliest",
    "check_enhanced",
    "check_first_neighbours",
    "check_fmix_mask",
    "check_hardest_class",
    "check_hidden_share",
    "check_iou",
    "check_kappa",
    "check_kept_labels",
    "check_kept_pixels",
    "check_learned",
    "check_lost_labels",
    "check_mask_iou",
    "check_mean_iou",
    "check_mean_rank",
    "check_most_hidden",
    "check_ndvi",
    "check_nt_xent",
    "check_overlap",
    "check_pairs_ahead",
    "check_pixels_left",
    "check_poly_rate",
    "check_precision",
    "check_rectified",
    "check_relative_gain",
    "check_seeds_needed",
    "check_segmented",
    "check_shared_scenes",
    "check_small_crops",
    "check_spread_of_gain",
    "check_stored",
    "check_walk",
    "check_win_share",
    "check_wrong_mixtures",
]
