"""Which device the book computes on."""

from __future__ import annotations

import torch


def resolve_device(device: str) -> str:
    """The device that "auto" stands for here, "cuda" or "cpu"; raises ValueError for one that is not there."""
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device={device!r}: expected auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device='cuda': PyTorch finds no GPU here; use device='auto' or 'cpu'")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
