"""A miniature AID-multilabel archive in the publisher's layout, formats and names."""

import csv

from PIL import Image

from rsbook.archives.aid import CLASSES

LABELS = {  # as in the publisher's file, by their names
    "airport_1": ("airplane", "buildings", "cars", "grass", "pavement", "trees"),
    "airport_12": ("airplane", "bare-soil", "pavement"),
    "airport_103": ("airplane", "buildings", "pavement"),
    "beach_4": ("sand", "sea"),
    "beach_40": ("sand", "sea", "ship"),
    "desert_7": (),
    "desert_8": ("bare-soil", "chaparral"),
    "meadow_2": ("grass", "pavement"),
    "meadow_20": ("grass", "pavement"),
    "port_9": ("dock", "ship", "water", "tanks"),
    "port_10": ("dock", "ship", "water", "mobile-home"),
    "school_5": ("buildings", "court", "field", "trees"),
}
CORRECTED = {**LABELS, "meadow_2": ("grass",), "meadow_20": ("grass", "trees")}
TEST = ("airport_12", "meadow_20")


def make(folder, generator, labels=LABELS):
    """images_tr/SCENE/ and images_test/SCENE/ of all images, and multilabel.csv."""
    for name in LABELS:
        path = folder / ("images_test" if name in TEST else "images_tr") / scene(name) / f"{name}.jpg"
        write(path, generator.integers(0, 256, (600, 600, 3), dtype="uint8"))
    table(folder / "multilabel.csv", labels)


def scene(name):
    return name.split("_")[0].capitalize()


def write(path, image):
    """An image (H,W,3) as a JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=90)


def table(path, labels, classes=CLASSES):
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["IMAGE\\LABEL", *classes])
        rows.writerows([name, *(int(c in present) for c in classes)] for name, present in labels.items())
