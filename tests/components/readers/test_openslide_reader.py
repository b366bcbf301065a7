"""OpenSlide behind the readers' protocol."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from components.readers.open_slide import open_slide
from components.readers.openslide_reader import OpenSlideReader, flatten, parse_mpp
from components.records.errors import SlideError

SLIDES = Path(__file__).resolve().parents[4] / "shared" / "data"


def draw(width, height, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    return coarse.repeat(16, 0).repeat(16, 1)[:height, :width]


def write(path, picture, levels=1, **options):
    with tifffile.TiffWriter(path) as writer:
        common = {"tile": (256, 256), "photometric": "rgb", "compression": "deflate", "metadata": None}
        writer.write(picture, **common, **options)
        for level in range(1, levels):
            writer.write(picture[:: 2**level, :: 2**level], subfiletype=1, **common)
    return str(path)


@pytest.mark.parametrize("size", [(1, 1), (17, 300), (700, 513), (5000, 300)])
@pytest.mark.parametrize("downsample", [1.0, 4.0, 8.0, 7.3])
def test_low_resolution_is_the_mean_of_what_it_covers(tmp_path, size, downsample):
    width, height = size
    picture = draw(width, height)
    reader = open_slide(write(tmp_path / "s.tif", picture))
    low = reader.read_low_resolution(downsample)
    rows, columns = int(np.ceil(height / downsample)), int(np.ceil(width / downsample))
    assert low.shape == (rows, columns, 3)
    if downsample == 7.3:
        return
    step = int(downsample)
    whole = picture[: height // step * step, : width // step * step].astype(float)
    if whole.size:
        mean = whole.reshape(height // step, step, width // step, step, 3).mean((1, 3))
        assert abs(low[: height // step, : width // step] - mean).max() <= 1


def test_low_resolution_takes_the_nearest_finer_level(tmp_path, monkeypatch):
    reader = open_slide(write(tmp_path / "s.tif", draw(2048, 1024), levels=3))
    assert reader.downsamples == (1.0, 2.0, 4.0)
    levels = []
    read = reader.read_region
    monkeypatch.setattr(
        reader, "read_region", lambda x, y, level, w, h: levels.append(level) or read(x, y, level, w, h)
    )
    reader.read_low_resolution(8)
    reader.read_low_resolution(3)
    assert levels == [2, 1]


def test_regions_are_the_stored_pixels_and_white_beyond(tmp_path):
    picture = draw(300, 200)
    reader = open_slide(write(tmp_path / "s.tif", picture))
    assert (reader.width, reader.height, reader.name) == (300, 200, "openslide")
    assert (reader.read_region(40, 30, 0, 50, 60) == picture[30:90, 40:90]).all()
    beyond = reader.read_region(290, 190, 0, 20, 20)
    assert (beyond[:10, :10] == picture[190:, 290:]).all()
    assert (beyond[10:] == 255).all()
    assert reader.stored_block(0, 0, 0, 256, 256) is None


def test_after_a_failed_read_the_next_one_works(tmp_path):
    path = tmp_path / "s.tif"
    picture = draw(1024, 768)
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture, tile=(256, 256), photometric="rgb", compression="jpeg", metadata=None)
    with tifffile.TiffFile(path) as tiff:
        offset, length = tiff.pages[0].dataoffsets[5], tiff.pages[0].databytecounts[5]
    content = bytearray(path.read_bytes())
    content[offset : offset + length] = b"\xff" * length
    path.write_bytes(content)
    reader = OpenSlideReader(str(path))
    whole = reader.read_region(0, 0, 0, 256, 256)
    with pytest.raises(SlideError, match="OpenSlide can't read it"):
        reader.read_region(256, 256, 0, 256, 256)
    assert (reader.read_region(0, 0, 0, 256, 256) == whole).all()
    low = reader.read_low_resolution(4)
    assert reader.unreadable == [(256, 256, 512, 512)]
    assert (low[64:128, 64:128] == 255).all()
    assert low[:64].mean() < 200


@pytest.mark.parametrize(
    ("properties", "mpp"),
    [
        ({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.27"}, 0.26),
        ({"openslide.mpp-x": "0.25"}, 0.25),
        ({"openslide.mpp-x": "nan", "tiff.XResolution": "20000", "tiff.ResolutionUnit": "centimeter"}, 0.5),
        ({"tiff.XResolution": "72", "tiff.ResolutionUnit": "inch"}, 25400 / 72),
        ({"tiff.XResolution": "72", "tiff.ResolutionUnit": "none"}, None),
        ({"tiff.XResolution": "0", "tiff.ResolutionUnit": "inch"}, None),
        ({"openslide.mpp-x": "-1"}, None),
        ({}, None),
    ],
)
def test_mpp_of_properties(properties, mpp):
    assert parse_mpp(properties) == (None if mpp is None else pytest.approx(mpp))


def test_transparent_is_white():
    picture = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    picture.putpixel((1, 0), (10, 20, 30, 255))
    assert flatten(picture).tolist() == [[[255, 255, 255], [10, 20, 30]]]


def test_what_openslide_refuses_names_no_folder(tmp_path):
    for name, content in (("text.svs", b"no slide"), ("empty.tif", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SlideError) as caught:
            open_slide(str(tmp_path / name))
        assert str(tmp_path) not in str(caught.value)
    with pytest.raises(SlideError, match="there is no such file"):
        open_slide(str(tmp_path / "none.svs"))


def test_icc_profile_and_levels_of_a_real_file():
    if not (SLIDES / "slides").is_dir():
        pytest.skip("the shared slides are not here")
    boxes = open_slide(str(SLIDES / "slides" / "boxes.tiff"))
    assert boxes.icc_profile is not None
    assert len(boxes.downsamples) == 4
    assert boxes.mpp == pytest.approx(352.7778, abs=1e-3)
    with pytest.raises(SlideError):
        open_slide(str(SLIDES / "slides_bad" / "unreadable.svs")).read_low_resolution(1)
    with pytest.raises(SlideError, match="no slide that OpenSlide knows"):
        OpenSlideReader(str(SLIDES / "slides_bad" / "large_image_grey10kx5k_striped.tif"))
