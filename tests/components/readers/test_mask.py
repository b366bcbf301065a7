"""Masks, block by block."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from components.readers.mask import read_mask
from components.records.errors import SlideError


@pytest.fixture
def marked():
    mask = np.zeros((333, 517), np.uint8)
    mask[10, 20] = 1
    mask[300:, 400:450] = 255
    return mask


@pytest.mark.parametrize(
    "options", [{"tile": (64, 48)}, {"rowsperstrip": 7}, {"tile": (128, 128), "compression": "deflate"}]
)
def test_a_tiff_is_read_whole(tmp_path, marked, options):
    tifffile.imwrite(tmp_path / "m.tif", marked, metadata=None, **options)
    assert (read_mask(str(tmp_path / "m.tif")) == (marked > 0)).all()


def test_a_large_tiff_is_reduced_and_no_mark_is_lost(tmp_path, marked):
    tifffile.imwrite(tmp_path / "m.tif", marked, tile=(64, 48), metadata=None)
    small = read_mask(str(tmp_path / "m.tif"), most_px=333 * 517 // 16)
    factor = -(-333 // small.shape[0])
    assert factor == 5
    assert small.shape == (67, 104)
    ys, xs = np.nonzero(marked)
    assert (np.argwhere(small) == np.unique(np.stack([ys // factor, xs // factor], 1), axis=0)).all()


def test_a_png_is_read(tmp_path, marked):
    Image.fromarray(marked).save(tmp_path / "m.png")
    assert (read_mask(str(tmp_path / "m.png")) == (marked > 0)).all()


def test_what_is_no_mask_says_why(tmp_path, marked):
    with pytest.raises(SlideError, match="the mask is missing; check mask_path"):
        read_mask(str(tmp_path / "none.tif"))
    tifffile.imwrite(tmp_path / "rgb.tif", np.dstack([marked] * 3), photometric="rgb", tile=(64, 64))
    with pytest.raises(SlideError, match="has 3 channels"):
        read_mask(str(tmp_path / "rgb.tif"))
    tifffile.imwrite(tmp_path / "cut.tif", marked, tile=(64, 48), compression="deflate")
    content = (tmp_path / "cut.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(content[: len(content) // 3])
    (tmp_path / "text.png").write_bytes(b"no picture")
    (tmp_path / "empty.tif").write_bytes(b"")
    for name in ("text.png", "empty.tif", "cut.tif"):
        with pytest.raises(SlideError, match="the mask can't be read") as caught:
            read_mask(str(tmp_path / name))
        assert str(tmp_path) not in str(caught.value)
