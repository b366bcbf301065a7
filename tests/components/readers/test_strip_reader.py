"""TIFFs that OpenSlide refuses, strip by strip."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage.data import immunohistochemistry

from components.readers.strip_reader import StripReader
from components.records.errors import SlideError

STRIPED = Path(__file__).resolve().parents[4] / "shared" / "data" / "slides_bad" / "large_image_grey10kx5k_striped.tif"
TISSUE = immunohistochemistry()


@pytest.mark.parametrize("compression", [None, "deflate", "lzw", "jpeg"])
@pytest.mark.parametrize("rows", [1, 7, 512])
def test_strips_show_the_pictures_pixels(tmp_path, compression, rows):
    path = tmp_path / "s.tiff"
    rows = 16 if compression == "jpeg" and rows < 16 else rows
    tifffile.imwrite(path, TISSUE, rowsperstrip=rows, compression=compression, photometric="rgb", metadata=None)
    whole = tifffile.imread(path)
    reader = StripReader(path)
    assert np.array_equal(reader.read_region(0, 0, 0, 512, 512), whole)
    region = reader.read_region(400, -20, 0, 200, 100)
    assert np.array_equal(region[20:, :112], whole[:80, 400:])
    assert (region[:20] == 255).all()
    assert (region[:, 112:] == 255).all()
    assert reader.stored_block(0, 0, 0, 512, 512) is None
    assert np.array_equal(pickle.loads(pickle.dumps(reader)).read_region(0, 0, 0, 9, 9), whole[:9, :9])


@pytest.mark.parametrize(
    ("picture", "options", "wanted"),
    [
        (TISSUE[..., 0], {"photometric": "minisblack"}, TISSUE[..., :1].repeat(3, 2)),
        (255 - TISSUE[..., 0], {"photometric": "miniswhite"}, TISSUE[..., :1].repeat(3, 2)),
        (TISSUE.astype(np.uint16) * 256 + 77, {"photometric": "rgb"}, TISSUE),
        (TISSUE, {"photometric": "rgb", "tile": (64, 48)}, TISSUE),
        (
            np.dstack([TISSUE, np.zeros((512, 512), np.uint8)]),
            {"photometric": "rgb", "extrasamples": [2]},
            TISSUE * 0 + 255,
        ),
        (TISSUE.astype(np.uint16) * 256, {"photometric": "rgb", "byteorder": ">"}, TISSUE),
    ],
)
def test_samples_become_rgb(tmp_path, picture, options, wanted):
    tifffile.imwrite(tmp_path / "s.tiff", picture, metadata=None, **{"rowsperstrip": 50} | options)
    assert np.array_equal(StripReader(tmp_path / "s.tiff").read_region(0, 0, 0, 512, 512), wanted)


def test_low_resolution_is_the_exact_average(tmp_path):
    tifffile.imwrite(tmp_path / "s.tiff", TISSUE, rowsperstrip=13, photometric="rgb", metadata=None)
    low = StripReader(tmp_path / "s.tiff").read_low_resolution(16)
    wanted = TISSUE.reshape(32, 16, 32, 16, 3).mean(axis=(1, 3))
    assert np.abs(low - wanted).max() <= 0.5
    assert StripReader(tmp_path / "s.tiff").read_low_resolution(100).shape == (6, 6, 3)


@pytest.mark.parametrize(
    ("picture", "options", "reason"),
    [
        (TISSUE.transpose(2, 0, 1), {"photometric": "rgb", "planarconfig": "separate"}, "stores its colours in planes"),
        (TISSUE.astype(np.float32), {"photometric": "rgb"}, "stores samples of 32 bits, not 8 or 16"),
        (np.stack([TISSUE] * 2), {"photometric": "rgb"}, "holds 2 pictures, of which none is said to be the slide"),
    ],
)
def test_refusals_give_a_reason(tmp_path, picture, options, reason):
    tifffile.imwrite(tmp_path / "s.tiff", picture, metadata=None, **options)
    with pytest.raises(SlideError) as caught:
        StripReader(tmp_path / "s.tiff")
    assert caught.value.what == reason


def test_one_huge_strip_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("components.readers.strip_reader.MOST_BYTES", 512 * 512 * 3 - 1)
    tifffile.imwrite(tmp_path / "s.tiff", TISSUE, rowsperstrip=512, photometric="rgb", metadata=None)
    with pytest.raises(SlideError, match="stores 512 × 512 px in one piece, too much to hold"):
        StripReader(tmp_path / "s.tiff")


def test_a_cut_file_fails_where_it_is_cut(tmp_path):
    path = tmp_path / "s.tiff"
    tifffile.imwrite(path, TISSUE, rowsperstrip=64, photometric="rgb", metadata=None)
    with open(path, "r+b") as stream:
        stream.truncate(path.stat().st_size - 100)
    reader = StripReader(path)
    assert np.array_equal(reader.read_region(0, 0, 0, 512, 448), TISSUE[:448])
    with pytest.raises(SlideError, match=r"s.tiff: strip 7: it lies beyond the file's end: the file is cut off"):
        reader.read_region(0, 400, 0, 512, 100)


def test_memory_is_one_strip(tmp_path):
    path = tmp_path / "s.tiff"
    shape = (6000, 4000, 3)
    strips = (np.full((10, 4000, 3), at % 255, np.uint8) for at in range(600))
    tifffile.imwrite(path, strips, shape=shape, dtype=np.uint8, rowsperstrip=10, photometric="rgb", metadata=None)
    reader = StripReader(path)
    tracemalloc.start()
    try:
        reader.read_low_resolution(20)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not STRIPED.is_file(), reason="the real slides are not here")
def test_real_striped_slide():
    reader = StripReader(STRIPED)
    assert (reader.width, reader.height) == (10000, 5000)
    whole = tifffile.imread(STRIPED)
    assert np.array_equal(reader.read_region(9000, 4500, 0, 256, 256)[..., 1], whole[4500:4756, 9000:9256])
    assert reader.read_low_resolution(100).shape == (50, 100, 3)
