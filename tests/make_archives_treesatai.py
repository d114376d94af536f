"""A miniature TreeSatAI archive in the publisher's layout, formats and names."""

import json

import numpy as np
import rasterio
from rasterio.transform import from_origin

LABELS = {  # as in the publisher's file: genera with the share of the scene that each covers
    "Abies_alba_1_834_WEFL_NLF.tif": [["Abies", 0.93771], ["Larix", 0.06229]],
    "Abies_alba_2_1005_WEFL_NLF.tif": [["Abies", 0.95], ["Fagus", 0.05]],
    "Acer_pseudoplatanus_3_21_WEFL_NLF.tif": [["Acer", 0.90001], ["Tilia", 0.04999], ["Quercus", 0.05]],
    "Cleared_0_77_WEFL_NLF.tif": [["Cleared", 1.0]],
    "Fagus_sylvatica_1_6647_WEFL_NLF.tif": [["Fagus", 0.6], ["Picea", 0.4]],
    "Fagus_sylvatica_1_29861_BI_NLF.tif": [["Fagus", 0.04], ["Pinus", 0.96]],
    "Pinus_nigra_5_311_WEFL_NLF.tif": [["Pinus", 1.0]],
    "Quercus_robur_4_1234_WEFL_NLF.tif": [["Quercus", 0.97], ["Betula", 0.03]],
    "Tilia_spec._9_99911_WEFL_NLF.tif": [["Tilia", 0.5], ["Alnus", 0.5]],
    "Tilia_spec._9_99912_WEFL_NLF.tif": [["Tilia", 0.8], ["Prunus", 0.2]],
}
TEST = ("Quercus_robur_4_1234_WEFL_NLF.tif",)


def make(folder, generator):
    """aerial_60m_*/ as unpacked one by one, Sentinel-2 images of the same names, labels/ and the two lists."""
    for name in LABELS:
        archive = f"aerial_60m_{name.split('_')[0].lower()}"
        write(folder / archive / name, generator.integers(0, 256, (4, 304, 304), dtype=np.uint8), meters=0.2)
        write(folder / "s2" / "60m" / name, generator.integers(0, 9999, (12, 6, 6), dtype=np.uint16), meters=10)
    (folder / "labels").mkdir()
    (folder / "labels" / "TreeSatBA_v9_60m_multi_labels.json").write_text(json.dumps(LABELS))
    (folder / "train_filenames.lst").write_text("".join(f"{name}\n" for name in LABELS if name not in TEST))
    (folder / "test_filenames.lst").write_text("\n".join(TEST))


def write(path, image, meters):
    """An image (C,H,W) as a georeferenced GeoTIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = image.shape
    grid = {"crs": "EPSG:25832", "transform": from_origin(550000, 5800000, meters, meters)}
    shape = {"height": height, "width": width, "count": bands, "dtype": image.dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape, **grid) as file:
        file.write(image)
