"""Explorers: what a reader moves to understand. A Python class and a JavaScript module each, see `explorer`."""

from rsbook.widgets.cutmix_explorer import CutMixExplorer

__all__ = ["CutMixExplorer"]
