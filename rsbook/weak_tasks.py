"""Networks and tasks of Part V: classifiers whose activation maps are looked at, and how alike pixels are."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import timm
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, interpolate

from rsbook import affinity, batch_mixing, models, segmentation, training, weak_segmentation
from rsbook.augmentations import turned
from rsbook.positions import AreaTables
from rsbook.scenes import Scenes, take
from rsbook.weak_maps import stage_maps, stages_of

MIXING = ("mixup", "manifold", "fmix")
SUBCATEGORIES = ("sce", "sct")
METHODS = ("cam", *MIXING, *SUBCATEGORIES)
ALPHA = {"mixup": 0.2, "manifold": 0.2, "fmix": 1.0}  # of the Beta distribution of shares
SIDES = (0.512, 1.024)  # a photograph's longer side is 256 to 512 pixels, of 500, before it is cropped
UNKNOWN = -100  # what cross_entropy passes over
LARGE = 224  # pixels a side of the images that ViT-B/16 was made for
SMALL = {"embed_dim": 64, "num_heads": 4, "depth": 4}  # of a transformer that a CPU trains
PATCH = 8  # pixels a side of the small vision transformer's


class CamNetwork(nn.Module):
    """A classifier with its activation maps: images (B,C,H,W) → logits (B,L), maps (B,L,h,w) and sub-class logits.

    network: of timm, with global average pooling and one linear layer · subclasses: of a second linear layer (B,S) ·
    fixed_statistics: batch normalisation stays as it is, as small batches want it after pre-training.
    """

    def __init__(
        self, network: nn.Module, subclasses: int, generator: Generator, fixed_statistics: bool = False
    ) -> None:
        super().__init__()
        self.network, self.fixed_statistics = network, fixed_statistics
        head = network.get_classifier()
        with models.drawn_from(generator):
            self.sub = nn.Linear(head.in_features, subclasses) if subclasses else None

    def train(self, mode: bool = True) -> CamNetwork:
        """Training mode, in which statistics may stay as they are."""
        super().train(mode)
        if self.fixed_statistics:
            models.fix_statistics(self)
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits (B,L), maps w·f (B,L,h,w) before the ReLU, and logits (B,S) of sub-classes where there are any."""
        features = self.network.forward_features(images)
        head, pooled = self.network.get_classifier(), features.mean(dim=(2, 3))
        maps = torch.einsum("bkhw,lk->blhw", features, head.weight)
        return head(pooled), maps, None if self.sub is None else self.sub(pooled)


@dataclass(frozen=True)
class Batch:
    """Images (B,C,H,W) float32 and labels (B,L) float32, with all that the mixing of this batch draws.

    index (B,): rows of the training scenes · partner (B,), share: of `batch_mixing` · mask (H,W) bool for FMix.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    partner: Tensor
    share: float
    mask: Tensor | None
    generator: Generator


class Weak(training.Classification):
    """Multi-label classification for the sake of its activation maps, by one of METHODS; watches mAP macro on
    validation labels, which image-level labels have.

    sublabels (n,S) bool: of the training scenes, for sub-category methods · sub_weight: of their loss · entropy,
    concentration: weights of the regularisers, for methods that mix · as_coded: both as the report's code has them,
    entropy of the labels, from which nothing is learnt, and concentration across classes · crop: see
    `augmentation`.
    """

    def __init__(
        self,
        scenes: Scenes,
        train: Tensor,
        val: Tensor,
        *,
        method: str,
        sublabels: Tensor | None = None,
        sub_weight: float = 1.0,
        entropy: float = 0.0,
        concentration: float = 0.0,
        as_coded: bool = False,
        crop: int | None = None,
    ) -> None:
        super().__init__(scenes, train, val, augmentation(crop))
        self.method, self.sublabels, self.sub_weight = method, sublabels, sub_weight
        self.entropy = 0.0 if as_coded else entropy
        self.weight = concentration
        coded = weak_segmentation.concentration_loss_as_coded
        self.concentration = coded if as_coded else weak_segmentation.concentration_loss

    def to(self, device: torch.device) -> None:
        """Move what fits to the device."""
        super().to(device)
        self.sublabels = None if self.sublabels is None else self.sublabels.to(device)

    def batch(self, index: Tensor, generator: Generator) -> Batch:
        """A batch, augmented, not yet mixed: Manifold Mixup mixes inside the network."""
        images, labels = super().batch(index, generator)
        partner, share, mask = torch.arange(len(index)), 1.0, None
        if self.method in MIXING:
            partner = torch.randperm(len(index), generator=generator)
            share = batch_mixing.sample_share(ALPHA[self.method], generator)
        if self.method == "fmix":
            mask = batch_mixing.fmix_mask(*images.shape[2:], share, generator).to(self.device)
            share = mask.float().mean().item()
        return Batch(images, labels, index.to(self.device), partner.to(self.device), share, mask, generator)

    def loss(self, model: nn.Module, batch: Batch, epoch: int) -> Tensor:
        """Cross-entropy of the mixture's label, with regularisers, or with that of sub-classes."""
        images, first, second, share = batch.images, batch.labels, batch.labels[batch.partner], batch.share
        mixes = nullcontext()
        if self.method == "mixup":
            images = batch_mixing.mixup(images, share, batch.partner)
        elif self.method == "fmix":
            images = torch.where(batch.mask, images, take(images, batch.partner))
        elif self.method == "manifold":
            stages = stages_of(model.network)[:-1]  # after the last one, it would be the logits that are mixed
            mixes = batch_mixing.manifold_mixup(stages, share, batch.partner, batch.generator, model.network.conv1)
        with mixes:
            logits, maps, sub = model(images.contiguous(memory_format=torch.channels_last))
        loss = weak_segmentation.mixed_loss(logits, first, second, share)
        if sub is not None:
            loss = loss + self.sub_weight * binary_cross_entropy_with_logits(sub, self.sublabels[batch.index].float())
        if self.entropy:
            loss = loss + self.entropy * weak_segmentation.entropy_loss(logits)
        if self.weight:
            spread = share * self.concentration(maps, first > 0)
            if share < 1:
                spread = spread + (1 - share) * self.concentration(maps, second > 0)
            loss = loss + self.weight * spread
        return loss

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """What `training.score` finds on the validation split."""
        return super().evaluate(model.network)


class DeepLabMaps(segmentation.MapTask):
    """Segmentation with a `deeplab.DeepLabV2`, the cross-entropy of each scale and of the highest of them summed."""

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor], epoch: int) -> Tensor:
        """A scalar; pixels without a class, which are negative, count for nothing."""
        images, maps = batch
        labels = maps.where(maps >= 0, UNKNOWN)
        known = (maps >= 0).sum().clamp(min=1)  # the mean over no pixel is no number
        found = model(images.contiguous(memory_format=torch.channels_last), every=True)
        losses = [cross_entropy(one.float(), labels, ignore_index=UNKNOWN, reduction="sum") for one in found]
        return torch.stack(losses).sum() / known

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Nothing: there are no validation scenes with maps."""
        return {}


class Affinity:
    """Learning how alike pixels are, as a task of `training.fit` for an `affinity.AffinityNet`; the last epoch counts.

    network: the classifier, which stays as it is · labels (n,h,w) int64: confident ones of the training scenes `index`
    · background: the label of what is none of the classes.
    """

    watch = None

    def __init__(
        self, scenes: Scenes, index: Tensor, network: nn.Module, labels: Tensor, background: int, radius: int
    ) -> None:
        self.scenes, self.index, self.size = scenes, index, len(index)
        self.network, self.labels, self.background = network.eval(), labels, background
        self.offsets = affinity.neighbours(radius)

    def to(self, device: torch.device) -> None:
        """Move labels and the classifier to the device."""
        self.device, self.labels, self.network = device, self.labels.to(device), self.network.to(device)

    def batch(self, index: Tensor, generator: Generator) -> tuple[list[Tensor], Tensor]:
        """Feature maps [(B,C,h,w), …] of the classifier's stages, without a gradient, and labels (B,h,w)."""
        images = self.scenes.normalise(take(self.scenes.images, self.index[index]).to(self.device))
        return stage_maps(self.network, images), self.labels[index.to(self.device)]

    def loss(self, model: nn.Module, batch: tuple[list[Tensor], Tensor], epoch: int) -> Tensor:
        """`affinity.affinity_loss` at the size of the labels."""
        maps, labels = batch
        features = model(maps, tuple(labels.shape[1:]))
        return affinity.affinity_loss(features, labels, self.background, self.offsets)

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Nothing: there are no validation scenes."""
        return {}


class VisionTransformer(nn.Module):
    """A vision transformer of timm, for images (B,C,H,W) of any size, which it resizes bilinearly: logits (B,L)."""

    def __init__(self, network: nn.Module, side: int) -> None:
        super().__init__()
        self.network, self.side = network, side

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B,L)."""
        return self.network(self._resized(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Features of all patches, as timm's network of the same name gives them."""
        return self.network.forward_features(self._resized(images))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (B,L), or the pooled features before them."""
        return self.network.forward_head(features, pre_logits=pre_logits)

    def _resized(self, images: Tensor) -> Tensor:
        if tuple(images.shape[2:]) == (self.side, self.side):
            return images
        return interpolate(images, size=(self.side, self.side), mode="bilinear", align_corners=False, antialias=True)


def vision_transformer(
    bands: int, classes: int, side: int, generator: Generator, large: bool = False, pretrained: bool = False
) -> VisionTransformer:
    """The teacher of Sub-category Teaching: a small one with random weights for images of about `side` pixels, with
    patches of 8; or, large, ViT-B/16 for 224 pixels, pretrained with timm's weights from ImageNet, downloaded once.
    """
    if large:
        with models.drawn_from(generator):
            network = timm.create_model(
                "vit_base_patch16_224", pretrained=pretrained, in_chans=bands, num_classes=classes
            )
        return VisionTransformer(network, LARGE)
    side = max(min(side, LARGE) // PATCH, 1) * PATCH
    with models.drawn_from(generator):
        network = timm.create_model(
            "vit_tiny_patch16_224", img_size=side, patch_size=PATCH, in_chans=bands, num_classes=classes, **SMALL
        )
    return VisionTransformer(network, side)


def augmentation(crop: int | None) -> training.Augment:
    """How a `training.Classification` changes images: those from above are flipped and turned; with a crop, they are
    photographs, of which it cuts so many pixels a side.
    """
    return _turn if crop is None else partial(_photograph, crop)


def _turn(
    images: Tensor, labels: Tensor, where: AreaTables | Tensor | None, generator: Generator
) -> tuple[Tensor, Tensor]:
    return turned(images, generator), labels.float()


def _photograph(
    crop: int, images: Tensor, labels: Tensor, where: AreaTables | Tensor | None, generator: Generator
) -> tuple[Tensor, Tensor]:
    return segmentation.augment_photographs(images, None, generator, crop, SIDES)[0], labels.float()
