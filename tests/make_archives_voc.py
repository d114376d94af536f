"""A miniature Pascal VOC 2012 with SBD in the publishers' layouts, formats and names."""

import numpy as np
from PIL import Image
from scipy.io import savemat
from scipy.sparse import csc_array

VOC, SBD = "VOCdevkit/VOC2012", "benchmark_RELEASE/dataset"
# Height and width of each image, and its classes by the publishers' indices: 0 is the background, 255 ignored.
TRAIN = {
    "2007_000032": (281, 500, (0, 1, 15, 255)),
    "2007_000039": (375, 500, (0, 20, 255)),
    "2007_000063": (375, 500, (0, 9, 12, 255)),
    "2007_000121": (48, 500, (20,)),
    "2008_000015": (500, 333, (0, 5, 255)),
    "2009_000022": (500, 500, (0, 2, 255)),
    "2010_000002": (96, 60, (0, 11)),
    "2011_000003": (375, 500, (0, 3, 15, 255)),
    "2008_000033": (96, 64, (0, 1, 255)),
    "2008_000041": (64, 96, (255, 4)),
}
VAL = {
    "2007_000033": (366, 500, (0, 1, 255)),
    "2009_000013": (120, 90, (0, 3)),
    "2011_000004": (90, 120, (255,)),
}
# SBD's two lists: each has images of VOC's training list, of its validation list, and others.
SBD_TRAIN = {"2008_000002": (375, 500, (0, 20)), "2008_000015": (500, 333, (0, 6)), "2009_000013": (120, 90, (0, 7))}
SBD_VAL = {"2008_000003": (50, 60, (0, 15, 19)), "2010_000002": (96, 60, (0, 8)), "2010_000905": (60, 50, (1, 2))}
EXTRA = {"2008_000002", "2008_000003", "2010_000905"}
UNLISTED = "2012_004331"  # an image with boxes only
GREY = "2008_000033"  # one of one band


def make(folder, generator, sbd=True):
    """VOCdevkit/ and benchmark_RELEASE/ of all images."""
    for name, (height, width, _) in {**SBD_TRAIN, **SBD_VAL, **TRAIN, **VAL, UNLISTED: (60, 60, ())}.items():
        colours = generator.integers(0, 256, (height, width, 3), dtype="uint8")
        photograph(folder / VOC / "JPEGImages" / f"{name}.jpg", colours[..., 0] if name == GREY else colours)
    for name, shown in (TRAIN | VAL).items():
        painted(folder / VOC / "SegmentationClass" / f"{name}.png", regions(*shown, generator))
    lists = folder / VOC / "ImageSets" / "Segmentation"
    for name, images in (("train", TRAIN), ("val", VAL), ("trainval", TRAIN | VAL)):
        listed(lists / f"{name}.txt", sorted(images))
    if sbd:
        make_sbd(folder / SBD, generator)


def make_sbd(folder, generator):
    for i, (name, shown) in enumerate((SBD_TRAIN | SBD_VAL).items()):
        matlab(folder / "cls" / f"{name}.mat", regions(*shown, generator), do_compression=i % 2 == 0)
    for name, images in (("train", SBD_TRAIN), ("val", SBD_VAL)):
        listed(folder / f"{name}.txt", images)


def regions(height, width, classes, generator):
    """A map (H,W) uint8 in which each class has some blocks of 8 × 8 pixels, and at least one."""
    blocks = generator.choice(np.array(classes, dtype="uint8"), (-(-height // 8), -(-width // 8)))
    blocks.flat[: len(classes)] = classes
    return blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]


def photograph(path, image):
    """An image (H,W,3) or (H,W) as a JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=90)


def painted(path, classes):
    """A map as a PNG whose colours the publishers' palette has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(classes)
    image.putpalette([colour for index in range(256) for colour in colours(index)])
    image.save(path)


def colours(index):
    """Red, green and blue of an index: its bits 0, 1, 2 are their highest, 3, 4, 5 their next."""
    return [sum((index >> (3 * i + band) & 1) << (7 - i) for i in range(3)) for band in range(3)]


def matlab(path, classes, **options):
    """A map as SBD has it, beside the boundaries of each class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    boundaries = np.empty((20, 1), dtype=object)
    for i in range(20):
        edge = (classes == i + 1) & (np.roll(classes, 1, axis=1) != i + 1)
        boundaries[i, 0] = csc_array(edge.astype(float))
    present = np.setdiff1d(classes, [0])[:, None]
    parts = {"Boundaries": boundaries, "Segmentation": classes, "CategoriesPresent": present}
    savemat(path, {"GTcls": parts}, **options)


def listed(path, names):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))
