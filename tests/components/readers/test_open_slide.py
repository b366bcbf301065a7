"""Which reader a file gets, and the reason why the stored blocks are not used."""

from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import tifffile

from components.readers import jpeg_proof
from components.readers.open_slide import choose_reader, open_slide
from components.records.errors import SlideError

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def draw(width, height):
    rng = np.random.default_rng(4)
    coarse = rng.integers(0, 255, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    return coarse.repeat(16, 0).repeat(16, 1)[:height, :width]


def write(path, picture, levels=1, byteorder="<", **options):
    common = {"photometric": "rgb", "metadata": None, **options}
    with tifffile.TiffWriter(path, byteorder=byteorder) as writer:
        for level in range(levels):
            writer.write(picture[:: 2**level, :: 2**level], subfiletype=int(level > 0), **common)
    return str(path)


JPEG = {"tile": (256, 256), "compression": "jpeg", "compressionargs": {"level": 85}}


@pytest.mark.parametrize(
    ("options", "name", "reason"),
    [
        ({**JPEG, "levels": 2}, "jpeg-blocks", ""),
        ({**JPEG, "levels": 2, "byteorder": ">"}, "jpeg-blocks", ""),
        ({"tile": (256, 256), "compression": "deflate"}, "openslide", "stores deflate, not JPEG"),
        ({"rowsperstrip": 16}, "tifffile", "holds no tiled picture"),
    ],
)
def test_the_fastest_reader_that_fits_is_chosen_and_opened_again_by_name(tmp_path, options, name, reason):
    picture = draw(600, 520)
    path = write(tmp_path / "s.tif", picture, **options)
    reader, said = choose_reader(path)
    assert (reader.name, said) == (name, reason)
    again = open_slide(path, reader.name)
    assert type(again) is type(reader)
    shown = again.read_region(40, 30, 0, 100, 90).astype(int)
    assert abs(shown - picture[30:120, 40:140]).mean() < 6
    assert open_slide(path).name == name


def test_a_file_whose_blocks_show_other_pixels_goes_through_openslide(tmp_path, monkeypatch):
    path = write(tmp_path / "s.tif", draw(600, 520), **JPEG)
    decode = jpeg_proof.decode_stream
    monkeypatch.setattr(jpeg_proof, "decode_stream", lambda stream, size: decode(stream, size) ^ 1)
    reader, reason = choose_reader(path)
    assert reader.name == "openslide"
    assert reason.startswith("its pixels differ from openslide's at (")


def test_damaged_blocks_prove_nothing_and_the_others_prove_the_file(tmp_path):
    path = tmp_path / "s.tif"
    write(path, draw(2048, 1024), **JPEG)
    with tifffile.TiffFile(path) as tiff:
        places = list(zip(tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts, strict=True))
    whole = path.read_bytes()
    longest = max(length for _, length in places)
    for share, name in ((0.9, "jpeg-blocks"), (0.0, "openslide")):
        content = bytearray(whole)
        for offset, length in places:
            if length >= share * longest and (share == 0 or offset % 3):
                content[offset + length // 2 : offset + length] = b"\xff" * (length - length // 2)
        path.write_bytes(content)
        reader, reason = choose_reader(str(path))
        assert reader.name == name, reason
    assert "can't be compared" in reason


def test_what_no_reader_takes_says_what_each_met(tmp_path):
    path = write(tmp_path / "s.tif", draw(64, 64).astype(np.float32), rowsperstrip=16)
    with pytest.raises(SlideError, match=r"OpenSlide.*; as a TIFF: "):
        choose_reader(path)
    (tmp_path / "text.svs").write_bytes(b"no slide")
    with pytest.raises(SlideError, match=r"^is no slide that OpenSlide knows; convert it"):
        choose_reader(str(tmp_path / "text.svs"))
    with pytest.raises(SlideError, match="there is no such file"):
        choose_reader(str(tmp_path / "none.svs"))


def test_real_files_get_their_readers():
    if not (SHARED / "slides").is_dir():
        pytest.skip("the shared slides are not here")
    found = {}
    for name in ("slides/CMU-1-Small-Region.svs", "slides/boxes.tiff", "slides_bad/large_image_grey10kx5k_striped.tif"):
        found[name.split("/")[1]] = choose_reader(str(SHARED / name))[0].name
    assert list(found.values()) == ["jpeg-blocks", "openslide", "tifffile"]


def test_a_stored_block_given_away_is_decoded_first_unless_told_otherwise(tmp_path):
    path = tmp_path / "s.tif"
    write(path, draw(512, 512), **JPEG)
    with tifffile.TiffFile(path) as tiff:
        offset, length = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
    content = bytearray(path.read_bytes())
    for at in range(offset + length // 2, offset + length - 8):
        content[at] = 0x55
    path.write_bytes(content)
    stored = open_slide(str(path), "jpeg-blocks", verify=False).stored_block(0, 0, 0, 256, 256)
    with pytest.raises(ValueError, match="JPEG"):
        simplejpeg.decode_jpeg(stored, strict=True)
    with pytest.raises(SlideError, match="block in column 0, row 0 of level 0"):
        open_slide(str(path), "jpeg-blocks").stored_block(0, 0, 0, 256, 256)
