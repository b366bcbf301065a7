"""Painted masks, block by block, held against tiles at their full resolution."""

import resource

import numpy as np
import pytest
import tifffile
from PIL import Image

from components.readers.mask import survey_mask
from components.records.errors import SlideError

SIZE = (517 * 4, 333 * 4)
SIDE = 64


@pytest.fixture
def marked():
    mask = np.zeros((333, 517), np.uint8)
    mask[10, 20] = 1
    mask[300:, 400:450] = 255
    return mask


def corners(size=SIZE, side=SIDE):
    xs, ys = np.arange(0, size[0] - side + 1, side), np.arange(0, size[1] - side + 1, side)
    return np.tile(xs, len(ys)), np.repeat(ys, len(xs))


def survey(path, size=SIZE, side=SIDE, downsample=8.0, **more):
    return survey_mask(str(path), size, *corners(size, side), side, downsample, **more)


def expected(marked, scale=4):
    whole = np.kron(marked > 0, np.ones((scale, scale), bool))
    return np.array([whole[y : y + SIDE, x : x + SIDE].sum() for x, y in zip(*corners(), strict=True)])


OPTIONS = [{"tile": (64, 48)}, {"rowsperstrip": 7}, {"tile": (128, 128), "compression": "deflate"}]


@pytest.mark.parametrize("options", OPTIONS)
def test_every_tile_has_the_area_that_the_mask_marks(tmp_path, marked, options):
    tifffile.imwrite(tmp_path / "m.tif", marked, metadata=None, **options)
    found = survey(tmp_path / "m.tif")
    wanted = expected(marked)
    assert ((found.areas > 0) == (wanted > 0)).all()
    # the inset of an eighth of a px at a tile's edge
    assert np.abs(found.areas - wanted).max() < 0.02 * SIDE**2
    whole = np.kron(marked > 0, np.ones((4, 4), bool))
    padded = np.pad(whole, ((0, -whole.shape[0] % 8), (0, -whole.shape[1] % 8)))
    assert (found.drawn == padded.reshape(padded.shape[0] // 8, 8, -1, 8).any((1, 3))).all()


def test_a_png_is_as_good_as_a_tiff(tmp_path, marked):
    Image.fromarray(marked).save(tmp_path / "m.png")
    assert ((survey(tmp_path / "m.png").areas > 0) == (expected(marked) > 0)).all()


def test_overlapping_tiles_each_count_what_they_cover(tmp_path, marked):
    tifffile.imwrite(tmp_path / "m.tif", marked, tile=(64, 48), metadata=None)
    x, y = np.array([0, 32, 64, 80, 84]), np.zeros(5, np.int64)
    found = survey_mask(str(tmp_path / "m.tif"), SIZE, x, y, 64, 8.0)
    assert ((found.areas > 0) == [False, True, True, True, False]).all()
    assert found.areas[3] == pytest.approx(16, rel=0.05)


def test_one_px_is_found_in_a_mask_of_the_slide_s_own_size_and_no_neighbour_is_marked(tmp_path):
    mask = np.zeros((512, 512), np.uint8)
    mask[255, 256] = 1
    tifffile.imwrite(tmp_path / "m.tif", mask, tile=(128, 128), compression="deflate", metadata=None)
    x, y = corners((512, 512))
    found = survey_mask(str(tmp_path / "m.tif"), (512, 512), x, y, 64, 64.0)
    assert [(int(a), int(b)) for a, b in zip(x[found.areas > 0], y[found.areas > 0], strict=True)] == [(256, 192)]
    assert found.drawn.sum() == 1
    assert found.drawn[3, 4]


def test_a_pyramid_of_a_gigapixel_is_read_at_its_first_level_in_little_memory(tmp_path):
    side = 32768
    with tifffile.TiffWriter(tmp_path / "m.tif", bigtiff=True) as writer:

        def blocks():
            for index in range((side // 1024) ** 2):
                block = np.zeros((1024, 1024), np.uint8)
                if index == 5 * 32 + 7:
                    block[3, 4] = 255  # no coarser level has it
                yield block

        options = {"dtype": np.uint8, "compression": "deflate", "tile": (1024, 1024), "metadata": None}
        writer.write(blocks(), shape=(side, side), **options)
        writer.write(np.zeros((1024, 1024), np.uint8), subfiletype=1, tile=(256, 256), metadata=None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    x, y = corners((side, side), 512)
    found = survey_mask(str(tmp_path / "m.tif"), (side, side), x, y, 512, 32.0)
    assert [(int(a), int(b)) for a, b in zip(x[found.areas > 0], y[found.areas > 0], strict=True)] == [(7168, 5120)]
    assert found.areas.sum() == pytest.approx(1, rel=0.01)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB; the mask is a gigabyte


def test_what_is_no_mask_says_why(tmp_path, marked):
    with pytest.raises(SlideError, match="the mask is missing; check mask_path"):
        survey(tmp_path / "none.tif")
    tifffile.imwrite(tmp_path / "rgb.tif", np.dstack([marked] * 3), photometric="rgb", tile=(64, 64))
    with pytest.raises(SlideError, match="has 3 channels"):
        survey(tmp_path / "rgb.tif")
    tifffile.imwrite(tmp_path / "square.tif", marked[:, :333], tile=(64, 64))
    with pytest.raises(SlideError, match="does not have the slide's proportions"):
        survey(tmp_path / "square.tif")
    tifffile.imwrite(tmp_path / "cut.tif", marked, tile=(64, 48), compression="deflate")
    content = (tmp_path / "cut.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(content[: len(content) // 3])
    (tmp_path / "text.png").write_bytes(b"no picture")
    (tmp_path / "empty.tif").write_bytes(b"")
    for name in ("text.png", "empty.tif", "cut.tif"):
        with pytest.raises(SlideError, match="the mask can't be read") as caught:
            survey(tmp_path / name)
        assert str(tmp_path) not in str(caught.value)
