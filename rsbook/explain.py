"""Class explanation masks: where a network sees each class of a scene's label, thresholded.

Where there is no reference map, label propagation takes class positions from these masks: Burgert et al. (arXiv
2405.13451), sections III-D and V-D.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from rsbook import positions
from rsbook.scenes import Scenes, take

CAPTUM = {"deeplift": "DeepLift", "input_x_gradient": "InputXGradient"}  # name → class of captum.attr
EXPLAINERS = ("cam", *CAPTUM)
SAME_HEAD = 1e-4  # logits closer than this, relative to the largest, come from the same head; float32 is good to 1e-6


def activation_maps(model: nn.Module, images: Tensor) -> Tensor:
    """Grad-CAM maps (B,L,h,w) float32 ≥ 0 of every class at the last convolutional block, for images (B,C,H,W).

    images: float32, normalised, on the model's device. A map is the ReLU of the sum of the block's feature maps, each
    weighted by the spatial mean of the gradient of the class's logit (Selvaraju et al., arXiv 1610.02391, eqs. 1–2;
    section III-D). One forward pass serves all classes, in evaluation mode: where the head is global average pooling
    and a linear layer, the gradient is the layer's weight over h·w; through any other head it is differentiated, from
    the features on. The model is left as it was found. Raises ValueError for images of another shape or type, and for
    a model that is not a convolutional network of timm.
    """
    _check_images(images)
    if not all(hasattr(model, part) for part in ("forward_features", "forward_head", "get_classifier", "num_features")):
        raise ValueError(f"model: expected a convolutional network of timm, got {type(model).__name__}")
    with _evaluating(model):
        with torch.no_grad():
            features = model.forward_features(images)
        if features.ndim != 4 or features.shape[1] != model.num_features:
            raise ValueError(
                f"model: features of {type(model).__name__} have shape {tuple(features.shape)}, expected "
                f"(B,{model.num_features},h,w); networks of tokens or with channels last have no feature maps to weight"
            )
        if _averages_into_one_layer(model, features):
            weights = model.get_classifier().weight.detach() / features[0, 0].numel()
            return torch.einsum("bdhw,ld->blhw", features, weights).relu()
        return torch.einsum("bdhw,bld->blhw", features, _mean_gradients(model, features)).relu()


def attributions(model: nn.Module, images: Tensor, explainer: str) -> Tensor:
    """Maps (B,L,h,w) float32 ≥ 0 of every class by any of EXPLAINERS, for images (B,C,H,W) as in `activation_maps`.

    "cam" gives `activation_maps`, at the size of the last convolutional block. The others are captum's and have the
    images' size: their attributions to each pixel, summed over the bands, the positive part. "deeplift" (Shrikumar et
    al., arXiv 1704.02685, rescale rule) compares with the mean image, which is zero once normalised; "input_x_gradient"
    is its linear approximation. Each costs at least a forward and a backward pass a class. DeepLift's own rules are for
    ReLU, sigmoid and their like, as modules (captum refuses one used twice); through any other activation it takes the
    gradient. The model is left as it was found. Raises ValueError for an unknown explainer or
    images of another shape or type.
    """
    if explainer not in EXPLAINERS:
        raise ValueError(f"explainer={explainer!r}: expected one of {', '.join(EXPLAINERS)}")
    if explainer == "cam":
        return activation_maps(model, images)
    _check_images(images)
    from captum import attr  # slow to import, and class activation maps do without it

    network = copy.deepcopy(model).eval()  # captum hangs hooks and values on its modules
    with torch.no_grad():
        classes = network(images[:1]).shape[1]
    method = getattr(attr, CAPTUM[explainer])(network)
    leaf = images.detach().requires_grad_()
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Setting forward, backward hooks", category=UserWarning)
        maps = [method.attribute(leaf, target=layer).detach().sum(dim=1) for layer in range(classes)]
    return torch.stack(maps, dim=1).relu()


def explanation_masks(activations: Tensor, labels: Tensor, size: tuple[int, int], t_cam: float = 0.1) -> Tensor:
    """Explanation masks (B,L,H,W) bool of activations (B,L,h,w) for the classes in labels (B,L) bool; size is (H,W).

    Each map is upsampled bilinearly and scaled from its own minimum and maximum to 0 … 1; the class is where it is
    more than t_cam (section III-D; the paper does not state the scaling, this is the usual one). Classes absent from
    the label are nowhere. A constant map cannot be scaled: a positive one, such as any of 1×1, is everywhere, zero is
    nowhere. Raises ValueError for a wrong shape or type, activations that are not finite, and t_cam outside [0, 1).
    """
    if activations.ndim != 4 or not activations.is_floating_point():
        raise ValueError(
            f"activations: expected floats of shape (B,L,h,w), got {activations.dtype} of {tuple(activations.shape)}"
        )
    if labels.dtype != torch.bool or labels.shape != activations.shape[:2]:
        raise ValueError(
            f"labels: expected bool of shape {tuple(activations.shape[:2])}, got {labels.dtype} of "
            f"{tuple(labels.shape)}"
        )
    if not 0 <= t_cam < 1:
        raise ValueError(f"t_cam={t_cam}: expected a share of the map's range in [0, 1)")
    maps = activations[labels]  # (pairs,h,w): the others are not worth upsampling
    if not maps.isfinite().all():
        raise ValueError("activations: not finite; has the training diverged?")
    low, high = maps.flatten(1).aminmax(dim=1)
    constant = (low == high)[:, None, None]  # to be asked before upsampling, which rounds
    positive = (low > 0)[:, None, None]
    maps = interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    low, high = (bound[:, None, None] for bound in maps.flatten(1).aminmax(dim=1))
    masks = torch.zeros(*labels.shape, *size, dtype=torch.bool, device=activations.device)
    masks[labels] = torch.where(constant, positive, maps - low > t_cam * (high - low))
    return masks


def explain_positions(
    model: nn.Module,
    data: Scenes,
    index: Tensor,
    *,
    explainer: str = "cam",
    t_cam: float = 0.1,
    labels: Tensor | None = None,
    batch_size: int = 256,
) -> Tensor:
    """Class positions (n,H,W) int32, on the CPU, that the model sees in the scenes `index` (n,) int64 (section III-D).

    Bit masks of the explanation masks of the classes in each scene's label, or in `labels` (n,L) bool. It runs on the
    model's device, batch by batch, so that maps of all classes exist for one batch only. Raises ValueError for a
    batch_size below 1, a model whose classes are not the scenes', and whatever `attributions` and `explanation_masks`
    refuse.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: expected a whole number ≥ 1")
    device, size = next(model.parameters()).device, tuple(data.images.shape[2:])
    bits = torch.empty(len(index), *size, dtype=torch.int32)
    for start in range(0, len(index), batch_size):
        part = index[start : start + batch_size]
        images = data.normalise(take(data.images, part).to(device)).contiguous(memory_format=torch.channels_last)
        maps = attributions(model, images, explainer)
        chosen = data.labels[part] if labels is None else labels[start : start + batch_size]
        masks = explanation_masks(maps, chosen.to(device), size, t_cam)
        bits[start : start + batch_size] = positions.from_explanation_masks(masks).cpu()
    return bits


def agreement(bits: Tensor, reference_bits: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Intersection over union (L,) float64, in 0 … 1, of each class's positions with reference positions.

    bits, reference_bits: (N,H,W) int32 bit masks. Pixels are summed over the scenes whose label (N,L) bool holds the
    class. NaN for a class in no label or with no pixel in either; `.nanmean()` is the mean over classes. Raises
    ValueError when shapes or types do not fit.
    """
    if bits.shape != reference_bits.shape:
        raise ValueError(f"reference_bits: has shape {tuple(reference_bits.shape)}, expected {tuple(bits.shape)}")
    if labels.dtype != torch.bool or labels.shape != (len(bits), num_classes):
        raise ValueError(
            f"labels: expected bool of shape {(len(bits), num_classes)}, got {labels.dtype} of {tuple(labels.shape)}"
        )
    both, either = (
        (positions.count(found, num_classes) * labels).sum(dim=0, dtype=torch.float64)
        for found in (bits & reference_bits, bits | reference_bits)
    )
    return both / either


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; then every module, frozen ones too, is back in the mode it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@torch.no_grad()
def _averages_into_one_layer(model: nn.Module, features: Tensor) -> bool:
    """Whether the head is global average pooling and one linear layer, by what it does to these features.

    timm names and nests heads in dozens of ways, and some put a normalisation or a convolution between, so structure
    misleads both ways. A head that agrees on the logits of all images has the same gradients there.
    """
    layer = model.get_classifier()
    if not isinstance(layer, nn.Linear) or layer.in_features != features.shape[1]:
        return False
    expected = layer(features.mean(dim=(2, 3)))
    without_bias = expected if layer.bias is None else expected - layer.bias  # a large bias must not hide differences
    difference = model.forward_head(features.clone()) - expected  # a copy, for heads may begin in place
    return bool(difference.abs().max() <= SAME_HEAD * without_bias.abs().max())


def _mean_gradients(model: nn.Module, features: Tensor) -> Tensor:
    """Spatial means (B,L,D) of the gradients of all logits with respect to features (B,D,h,w).

    Class by class through the head alone: as fast as all at once (vmap), in 1/L of the memory, for any head.
    """
    leaf = features.detach().requires_grad_()
    with torch.enable_grad():
        totals = model.forward_head(leaf.clone()).sum(dim=0)  # over the images, which do not meet in a head
        gradients = [torch.autograd.grad(total, leaf, retain_graph=True)[0] for total in totals]
    return torch.stack([gradient.mean(dim=(2, 3)) for gradient in gradients], dim=1)


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.dtype != torch.float32:
        raise ValueError(
            f"images: expected normalised float32 of shape (B,C,H,W), got {images.dtype} of {tuple(images.shape)}"
        )
