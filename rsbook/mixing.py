"""CutOut, CutMix and FMix on batches, with area labels or label propagation (Burgert et al., arXiv 2405.13451).

Label propagation is written once, for any class positions: the labels of a mixed scene are read from how many pixels
of each class the hole leaves and the patch brings. Summed-area tables give these counts, so propagation costs next to
nothing on top of the paste, and no mixed map is made unless somebody looks at it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Generator, Tensor

from rsbook.positions import AreaTables, check_bits, check_min_pixels, to_labels
from rsbook.scenes import take

CANDIDATES = 8  # patches to choose from, where they are chosen by what they hold


@dataclass(frozen=True)
class Mixed:
    """A batch after CutOut, CutMix or FMix, with what was done to it.

    images (B,C,H,W) as given in type · labels (B,L) float32 · boxes (B,4), the hole in each scene, and sources (B,4),
    the patch in its partner: top, left, bottom, right, half-open; None after FMix, whose holes are masks (B,H,W) bool ·
    partner (B,) index of x₂ · applied (B,) bool: where False, the scene and its label are untouched and the others say
    only what was drawn.
    """

    images: Tensor
    labels: Tensor
    boxes: Tensor | None
    sources: Tensor | None
    partner: Tensor
    applied: Tensor
    masks: Tensor | None = None
    _given: Tensor | AreaTables | None = None

    @property
    def positions(self) -> Tensor | None:
        """Class positions (B,H,W) int32 of the mixed scenes (m̃ of eq. 8, ẽ of eq. 10), pasted when asked for."""
        if self._given is None:
            return None
        bits = _bits(self._given)
        if self.masks is not None:
            return torch.where(self.masks & self.applied.view(-1, 1, 1), bits[self.partner], bits)
        return _paste(bits.unsqueeze(1), self.boxes, self.sources, self.partner, self.applied).squeeze(1)


def sample_boxes(n: int, height: int, width: int, area_range: tuple[float, float], generator: Generator) -> Tensor:
    """Boxes (n,4) int64: top, left, bottom, right, half-open, in pixels, with an area in area_range (Algorithm 1).

    Algorithm 1 draws two rows from 0 … height and two columns from 0 … width until A_min ≤ area ≤ A_max, as fractions
    of height·width, so every box of a fitting area is equally likely. The same distribution is drawn here without
    rejection: a height, then a width, each as often as there are fitting boxes of it, and a place. Raises ValueError
    for a range outside (0, 1], or one that no box of whole pixels meets.
    """
    low, high = area_range
    narrower, first, fitting, shorter = _fitting(height, width, low, high)
    narrower, first, fitting, shorter = (t.to(generator.device) for t in (narrower, first, fitting, shorter))
    row = torch.searchsorted(shorter, _integers(shorter[-1:].expand(n), generator), right=True)
    column = torch.searchsorted(narrower, first[row] + _integers(fitting[row], generator), right=True)
    return _place(torch.stack((row + 1, column), dim=1), height, width, generator)


def cutout(
    images: Tensor,
    labels: Tensor,
    *,
    area_range: tuple[float, float],
    probability: float = 0.5,
    inplace: bool = False,
    generator: Generator,
) -> Mixed:
    """Fill one box of each image (B,C,H,W) with zeros, with the given probability; labels (B,L) stay (section V-A).

    inplace: as in `cutmix`. Raises ValueError for wrong shapes, area ranges or probabilities.
    """
    _check(images, labels, probability)
    boxes, applied = _draw(images, area_range, probability, generator)
    boxes, applied = boxes.to(images.device), applied.to(images.device)
    partner = torch.arange(len(images), device=images.device)
    if images.device.type == "cpu":
        filled = _fill_by_slices(images, boxes, applied, inplace)
    else:
        filled = _fill_by_mask(images, boxes, applied)
    return Mixed(filled, labels.float(), boxes, boxes, partner, applied)


def cutmix(
    images: Tensor,
    labels: Tensor,
    positions: Tensor | AreaTables | None = None,
    *,
    area_range: tuple[float, float],
    probability: float = 0.5,
    aligned: bool = False,
    min_pixels: int = 0,
    class_weights: Tensor | None = None,
    inplace: bool = False,
    generator: Generator,
) -> Mixed:
    """Paste a box of each image's partner into the image (B,C,H,W) and label the mixture (eqs. 1–11).

    positions None: labels (B,L) are averaged by area (eq. 6). positions given, as the AreaTables of the batch or,
    slower, as bit masks (B,H,W) int32: label propagation, class l is present in the mixture when more than min_pixels
    pixels carry it (0: reference maps, eqs. 7–9; t_map: explanation masks, eqs. 10–11). Partners are a random
    permutation of the batch as given, never of its mixtures. The patch is taken at a random place of the partner, or
    at the place of the hole when `aligned`. class_weights (L,): patches that hold classes of a high weight are drawn
    more often. inplace: the images given may be overwritten, which on a CPU saves the copy of the batch, most of the
    time. Raises ValueError for wrong shapes, types, devices, area ranges, probabilities or min_pixels.
    """
    _check(images, labels, probability)
    check_min_pixels(min_pixels)
    _check_positions(positions, images, labels)
    height, width = images.shape[2:]
    boxes, applied = _draw(images, area_range, probability, generator)
    if class_weights is None:
        partner = torch.randperm(len(images), generator=generator, device=generator.device)
        sources = boxes if aligned else _place(boxes[:, 2:] - boxes[:, :2], height, width, generator)
    else:
        if positions is None or aligned:
            raise ValueError(
                "class_weights: patches are chosen by what they hold, which needs positions and no `aligned`"
            )
        partner, sources = _choose(positions, boxes, class_weights, min_pixels, generator)
    boxes, sources, partner, applied = (t.to(images.device) for t in (boxes, sources, partner, applied))

    if positions is None:
        area = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).unsqueeze(1)
        rest = height * width - area
        mixed = (labels.float() * rest + labels[partner].float() * area) / (height * width)
    elif isinstance(positions, AreaTables):
        pixels = positions.totals() - positions.counts(boxes) + positions[partner].counts(sources)
        mixed = (pixels > min_pixels).float()
    else:
        bits = _paste(positions.unsqueeze(1), boxes, sources, partner, applied).squeeze(1)
        mixed = to_labels(bits, labels.shape[1], min_pixels).float()
    return Mixed(
        images=_paste(images, boxes, sources, partner, applied, inplace),
        labels=torch.where(applied.unsqueeze(1), mixed, labels.float()),
        boxes=boxes,
        sources=sources,
        partner=partner,
        applied=applied,
        _given=positions,
    )


def sample_blobs(
    n: int, height: int, width: int, area_range: tuple[float, float], generator: Generator, decay: float = 3.0
) -> Tensor:
    """Masks (n,height,width) bool of a few smooth blobs each, with the areas that boxes of area_range have.

    Noise whose spectrum falls with the frequency to the power of −decay is cut at the height that leaves the area
    (FMix: Harris et al., arXiv 2002.12047, section 4.2). Raises ValueError as `sample_boxes` does.
    """
    boxes = sample_boxes(n, height, width, area_range, generator)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    device = generator.device
    rows, columns = torch.fft.fftfreq(height, device=device), torch.fft.rfftfreq(width, device=device)
    frequency = torch.hypot(rows.unsqueeze(1), columns).clamp(min=1 / max(height, width))
    noise = torch.fft.rfft2(torch.randn(n, height, width, generator=generator, device=device))
    grey = torch.fft.irfft2(noise / frequency**decay, s=(height, width)).flatten(1)
    rank = grey.argsort(dim=1, descending=True).argsort(dim=1)  # of each pixel: exact areas, ties or not
    return (rank < area.unsqueeze(1)).view(n, height, width)


def fmix(
    images: Tensor,
    labels: Tensor,
    positions: Tensor | AreaTables | None = None,
    *,
    area_range: tuple[float, float],
    probability: float = 0.5,
    min_pixels: int = 0,
    generator: Generator,
) -> Mixed:
    """CutMix with blobs in place of boxes (FMix: Harris et al., arXiv 2002.12047), the patch at the place of the hole.

    Arguments and labels are those of `cutmix`, with the area of the blobs for that of the box. Raises ValueError as
    `cutmix` does.
    """
    _check(images, labels, probability)
    check_min_pixels(min_pixels)
    _check_positions(positions, images, labels)
    height, width = images.shape[2:]
    masks = sample_blobs(len(images), height, width, area_range, generator)
    applied = torch.rand(len(images), generator=generator, device=generator.device) < probability
    partner = torch.randperm(len(images), generator=generator, device=generator.device)
    masks, applied, partner = (t.to(images.device) for t in (masks, applied, partner))

    replaced = masks & applied.view(-1, 1, 1)
    if positions is None:
        share = masks.flatten(1).float().mean(dim=1, keepdim=True)
        mixed = (1 - share) * labels.float() + share * labels[partner].float()
    else:
        bits = _bits(positions)
        mixed = to_labels(torch.where(replaced, bits[partner], bits), labels.shape[1], min_pixels).float()
    moved = _as_moved(images)
    return Mixed(
        images=torch.where(replaced.unsqueeze(1), take(moved, partner), moved).view(images.dtype),
        labels=torch.where(applied.unsqueeze(1), mixed, labels.float()),
        boxes=None,
        sources=None,
        partner=partner,
        applied=applied,
        masks=masks,
        _given=positions,
    )


def _choose(
    positions: Tensor | AreaTables, boxes: Tensor, class_weights: Tensor, min_pixels: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Partner (B,) and source (B,4) of each box: one of CANDIDATES, drawn by the weight of the classes it holds."""
    tables = positions if isinstance(positions, AreaTables) else AreaTables(positions, len(class_weights))
    batch, (height, width) = len(tables), tables.shape
    partners = _integers(torch.full((CANDIDATES * batch,), batch, device=generator.device), generator)
    size = (boxes[:, 2:] - boxes[:, :2]).repeat(CANDIDATES, 1)
    sources = _place(size, height, width, generator)
    held = tables[partners].counts(sources.to(tables.device)) > min_pixels
    weight = (held.float() @ class_weights.to(tables.device).float()).view(CANDIDATES, batch).T.to(generator.device)
    chosen = torch.multinomial(weight + 1e-6, 1, generator=generator).squeeze(1)  # a patch may hold nothing
    chosen = chosen * batch + torch.arange(batch, device=generator.device)
    return partners[chosen], sources[chosen]


def _bits(positions: Tensor | AreaTables) -> Tensor:
    return positions.bits if isinstance(positions, AreaTables) else positions


@lru_cache(maxsize=32)  # in every batch the same
def _fitting(height: int, width: int, low: float, high: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `sample_boxes` draws from: places in a row up to each width (width+1,), then of each height (height,) the
    places of narrower boxes than fit and of those that fit, and all boxes up to it.
    """
    if not 0 < low <= high <= 1:
        raise ValueError(f"area_range={(low, high)}: expected 0 < A_min ≤ A_max ≤ 1, fractions of the image")
    if height < 1 or width < 1:
        raise ValueError(f"height={height}, width={width}: expected at least one pixel each")
    pixels = height * width
    smallest, largest = math.ceil(low * pixels - 1e-6), math.floor(high * pixels + 1e-6)  # 0.57·400 is 227.999…
    heights, widths = torch.arange(1, height + 1), torch.arange(1, width + 1)
    narrower = torch.nn.functional.pad((width + 1 - widths).cumsum(0), (1, 0))
    first = narrower[(-(-smallest // heights) - 1).clamp(0, width)]
    fitting = (narrower[(largest // heights).clamp(max=width)] - first).clamp(min=0)
    shorter = ((height + 1 - heights) * fitting).cumsum(0)
    if not shorter[-1]:
        raise ValueError(f"area_range={(low, high)}: no box of whole pixels in {height}×{width} has such an area")
    return narrower, first, fitting, shorter


def _draw(
    images: Tensor, area_range: tuple[float, float], probability: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    batch, _, height, width = images.shape
    boxes = sample_boxes(batch, height, width, area_range, generator)
    return boxes, torch.rand(batch, generator=generator, device=generator.device) < probability


def _place(size: Tensor, height: int, width: int, generator: Generator) -> Tensor:
    """Boxes (n,4) of these sizes (n,2), height and width, at uniformly random places."""
    corner = _integers(torch.tensor([height + 1, width + 1], device=size.device) - size, generator)
    return torch.cat((corner, corner + size), dim=1)


def _integers(below: Tensor, generator: Generator) -> Tensor:
    """Uniform random integers from 0 to below − 1, one for each bound."""
    uniform = torch.rand(below.shape, generator=generator, device=generator.device, dtype=torch.float64)
    return (uniform * below).long()  # below stays out of reach: uniform is at most 1 − 2⁻⁵³


def _paste(
    images: Tensor, boxes: Tensor, sources: Tensor, partner: Tensor, applied: Tensor, inplace: bool = False
) -> Tensor:
    # Two ways, because each is several times slower on the other device; the tests hold them to the same result.
    if images.device.type == "cpu":
        return _paste_by_slices(images, boxes, sources, partner, applied, inplace)
    return _paste_by_gather(images, boxes, sources, partner, applied)


def _paste_by_slices(
    images: Tensor, boxes: Tensor, sources: Tensor, partner: Tensor, applied: Tensor, inplace: bool = False
) -> Tensor:
    mixed = _writable(images, inplace)
    given, made = (_as_moved(tensor).numpy() for tensor in (images, mixed))  # whose slices cost a quarter of torch's
    boxes, rows = boxes.tolist(), torch.cat((sources, partner.unsqueeze(1)), dim=1).tolist()
    chosen = torch.nonzero(applied).flatten().tolist()
    patches = (given[j, :, top:bottom, left:right] for top, left, bottom, right, j in (rows[i] for i in chosen))
    if mixed is images:
        patches = [patch.copy() for patch in patches]  # all, before one is overwritten
    for i, patch in zip(chosen, patches, strict=True):
        top, left, bottom, right = boxes[i]
        made[i, :, top:bottom, left:right] = patch
    return mixed


def _paste_by_gather(images: Tensor, boxes: Tensor, sources: Tensor, partner: Tensor, applied: Tensor) -> Tensor:
    batch, bands, height, width = images.shape
    inside = _inside(boxes, images) & applied.view(-1, 1, 1)
    own = torch.arange(batch, device=images.device)
    shift = (sources - boxes)[:, :2]
    offset = (partner - own) * (height * width) + shift[:, 0] * width + shift[:, 1]
    pixel = torch.arange(batch * height * width, device=images.device).view(batch, height, width)
    pixel = pixel + torch.where(inside, offset.view(-1, 1, 1), 0)
    mixed = _as_moved(images).movedim(1, -1).reshape(-1, bands)[pixel.flatten()]
    return mixed.view(batch, height, width, bands).movedim(-1, 1).contiguous().view(images.dtype)


def _fill_by_slices(images: Tensor, boxes: Tensor, applied: Tensor, inplace: bool = False) -> Tensor:
    filled, rows = _writable(images, inplace), boxes.tolist()
    made = _as_moved(filled).numpy()
    for i in torch.nonzero(applied).flatten().tolist():
        top, left, bottom, right = rows[i]
        made[i, :, top:bottom, left:right] = 0
    return filled


def _fill_by_mask(images: Tensor, boxes: Tensor, applied: Tensor) -> Tensor:
    inside = _inside(boxes, images) & applied.view(-1, 1, 1)
    return _as_moved(images).masked_fill(inside.unsqueeze(1), 0).view(images.dtype)


def _writable(images: Tensor, inplace: bool) -> Tensor:
    """The images themselves where they may be overwritten, which those that share memory may not; else a copy."""
    return images if inplace and images.is_contiguous() else images.clone()


def _as_moved(images: Tensor) -> Tensor:
    """The same bytes in a type that can be moved: torch has few kernels for uint16, and NumPy has no bfloat16."""
    return images.view(torch.int16) if images.dtype in (torch.uint16, torch.bfloat16) else images


def _inside(boxes: Tensor, images: Tensor) -> Tensor:
    """Masks (B,H,W) bool of boxes (B,4)."""
    height, width = images.shape[2:]
    row = torch.arange(height, device=boxes.device).view(1, -1, 1)
    column = torch.arange(width, device=boxes.device).view(1, 1, -1)
    top, left, bottom, right = boxes.view(-1, 4, 1, 1).unbind(dim=1)
    return (row >= top) & (row < bottom) & (column >= left) & (column < right)


def _check_positions(positions: Tensor | AreaTables | None, images: Tensor, labels: Tensor) -> None:
    if positions is None:
        return
    if isinstance(positions, AreaTables):
        found = (len(positions), positions.num_classes, *positions.shape)
    else:
        check_bits(positions, labels.shape[1])
        found = (len(positions), labels.shape[1], *positions.shape[1:])
    expected = (len(images), labels.shape[1], *images.shape[2:])
    if found != expected:
        raise ValueError(f"positions: (B,L,H,W) is {found}, but images and labels say {expected}")
    if positions.device != images.device:
        raise ValueError(f"positions: on {positions.device}, but images are on {images.device}")


def _check(images: Tensor, labels: Tensor, probability: float) -> None:
    if images.ndim != 4:
        raise ValueError(f"images: expected (B,C,H,W), got shape {tuple(images.shape)}")
    if images.requires_grad:
        raise ValueError("images: they require gradients, which do not pass through a paste; give images.detach()")
    if labels.ndim != 2 or len(labels) != len(images):
        raise ValueError(f"labels: expected (B,L) with B = {len(images)}, got shape {tuple(labels.shape)}")
    if not 0 <= probability <= 1:
        raise ValueError(f"probability={probability}: expected a number from 0 to 1")
