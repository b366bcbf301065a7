"""Small slides with drawn tissue, lesion masks and a manifest."""

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def draw_slide(seed, width=1024, height=768, tissue=(128, 192, 640, 832)):
    """Glass with a textured piece of tissue at (top, left, bottom, right)."""
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 243, np.uint8) + rng.integers(0, 4, (height, width, 1), dtype=np.uint8)
    if tissue:
        top, left, bottom, right = tissue
        texture = rng.integers(-30, 30, ((bottom - top) // 8 + 1, (right - left) // 8 + 1)).repeat(8, 0).repeat(8, 1)
        colour = np.array([200, 120, 170]) + texture[: bottom - top, : right - left, None]
        picture[top:bottom, left:right] = colour
    return picture


def write_tiff(path, picture, mpp=0.5, levels=2, block=256, compression="jpeg", subsampling=None):
    """A tiled pyramid."""
    options = {"tile": (block, block), "compression": compression, "photometric": "rgb", "metadata": None}
    if compression == "jpeg":
        options["compressionargs"] = {"level": 85}
    if subsampling:
        options |= {"photometric": "ycbcr", "subsampling": subsampling}
    resolution = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"} if mpp else {}
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture, **options, **resolution)
        for level in range(1, levels):
            step = 2**level
            small = picture[: picture.shape[0] // step * step, : picture.shape[1] // step * step]
            small = small.reshape(small.shape[0] // step, step, -1, step, 3).mean((1, 3)).astype(np.uint8)
            writer.write(small, subfiletype=1, **options)


def write_manifest(path, rows):
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with open(path, "w", newline="") as out:
        writer = csv.DictWriter(out, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


@pytest.fixture(scope="session")
def drawn():
    """The functions above, for tests that draw their own slides."""
    return SimpleNamespace(draw_slide=draw_slide, write_tiff=write_tiff, write_manifest=write_manifest)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    """Five slides: two tiled, one bare glass, one cut off in the middle, one that is not there."""
    root = tmp_path_factory.mktemp("cohort")
    rows = []
    for number, name in enumerate(["a_0", "a_1", "b_0", "c_0", "d_0"]):
        image = root / f"{name}.tif"
        picture = draw_slide(number, tissue=None if name == "b_0" else (128, 192, 640, 832))
        if name != "d_0":
            write_tiff(image, picture)
        if name == "c_0":
            content = image.read_bytes()
            image.write_bytes(content[: len(content) // 10])
        rows.append(
            {
                "image_id": name,
                "patient_id": name[0],
                "label": "CE" if name[0] == "a" else "LAA",
                "image_path": f"{name}.tif",
            }
        )
        rows[-1]["split"] = {"a": "train", "b": "val", "c": "test", "d": "train"}[name[0]]
    mask = np.zeros((48, 64), np.uint8)
    mask[20:22, 30:32] = 255  # level-0 px x 480..512, y 320..352
    tifffile.imwrite(root / "a_0_mask.tif", mask, tile=(16, 16), compression="deflate")
    rows[0]["mask_path"] = "a_0_mask.tif"
    return root, write_manifest(root / "manifest.csv", rows)


@pytest.fixture
def shared_slides():
    if not (SHARED / "slides").is_dir():
        pytest.skip("the shared slides are not here")
    return SHARED
