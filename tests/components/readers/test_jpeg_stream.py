"""Stored streams made complete: markers, tables, and what is refused."""

from __future__ import annotations

import io

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from skimage.data import immunohistochemistry

from components.readers.jpeg_stream import (
    StreamError,
    complete_stream,
    find_damage,
    is_doubtful,
    read_header,
    read_tables,
)

BLOCK = np.ascontiguousarray(immunohistochemistry()[:64, :64])
FULL = {
    2: imagecodecs.jpeg8_encode(BLOCK, 90, colorspace="RGB", outcolorspace="RGB", subsampling="444"),
    6: imagecodecs.jpeg8_encode(BLOCK, 90, colorspace="RGB", outcolorspace="YCBCR", subsampling="420"),
}
ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"
JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"


def segments(stream):
    found, at = [], 2
    while stream[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        found.append(stream[at:end])
        at = end
    return found, stream[at:]


def rebuild(stream, colour=b"", drop=(0xE0, 0xEE)):
    parts, rest = segments(stream)
    return b"\xff\xd8" + colour + b"".join(part for part in parts if part[1] not in drop) + rest


def decode(stream, photometric, tables=b""):
    header = read_header(stream, tables, photometric)
    assert find_damage(stream, header) is None
    return np.asarray(Image.open(io.BytesIO(complete_stream(stream, header))))


@pytest.mark.parametrize("colour", [b"", JFIF, ADOBE + b"\0", ADOBE + b"\1", JFIF + ADOBE + b"\1", b"\xff\xfe\0\6note"])
@pytest.mark.parametrize("photometric", [2, 6])
def test_the_tiff_tells_the_colours_whatever_the_markers_say(photometric, colour):
    shown = decode(rebuild(FULL[photometric], colour), photometric)
    # JFIF wins over Adobe in a decoder, so a stream that has it is read as the YCbCr it says.
    assert np.array_equal(shown, imagecodecs.jpeg8_decode(FULL[photometric]))


def test_components_of_other_names_are_ycbcr_still():
    stream = bytearray(rebuild(FULL[6]))
    frame, scan = stream.index(b"\xff\xc0"), stream.index(b"\xff\xda")
    for at, name in enumerate(b"RGB"):
        stream[frame + 10 + 3 * at] = stream[scan + 5 + 2 * at] = name
    assert np.array_equal(decode(bytes(stream), 6), imagecodecs.jpeg8_decode(FULL[6]))


def test_tables_come_from_the_file_and_text_is_dropped():
    parts, _ = segments(FULL[6])
    shared = b"\xff\xd8" + b"".join(part for part in parts if part[1] in (0xDB, 0xC4)) + b"\xff\xd9"
    stream = rebuild(FULL[6], b"\xff\xfe\0\x08secret", drop=(0xE0, 0xDB, 0xC4))
    tables = read_tables(shared)
    assert np.array_equal(decode(stream, 6, tables), imagecodecs.jpeg8_decode(FULL[6]))
    assert b"secret" not in complete_stream(stream, read_header(stream, tables, 6))
    assert read_tables(None) == b""


def test_what_follows_the_end_is_left_out():
    header = read_header(FULL[6], b"", 6)
    assert complete_stream(FULL[6] + bytes(7), header) == complete_stream(FULL[6], header)


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"", "it holds no JPEG"),
        (b"RIFF", "it holds no JPEG"),
        (FULL[6][:100], "its JPEG is cut off in its header"),
        (b"\xff\xd8\xff\xda\0\4ab", "its JPEG has no single frame and scan"),
        (b"\xff\xd8ab", "its JPEG has a damaged header"),
        (imagecodecs.jpeg8_encode(np.ascontiguousarray(BLOCK[..., 0]), 90), "its JPEG doesn't have three components"),
        (
            FULL[6].replace(b"\xff\xc0\0\x11\x08\0\x40", b"\xff\xc0\0\x11\x08\0\0"),
            "its JPEG has a damaged frame header",
        ),
    ],
)
def test_no_header_gives_a_reason(stream, reason):
    with pytest.raises(StreamError, match=reason):
        read_header(stream, b"", 6)


def test_damage_gives_a_reason():
    header = read_header(FULL[6], b"", 6)
    middle = len(header.stored) + 200
    assert find_damage(FULL[6][:-40], header) == "its JPEG has no end"
    marker = FULL[6][:middle] + b"\xff\x07" + FULL[6][middle + 2 :]
    assert find_damage(marker, header) == "its JPEG has a marker inside its data"
    hole = FULL[6][:middle] + bytes(64) + FULL[6][middle + 64 :]
    assert find_damage(hole, header) == "its JPEG has a hole of zeros"


def test_zeros_are_only_doubted_where_tables_of_glass_code_them():
    glass = imagecodecs.jpeg8_encode(np.full((512, 512, 3), 240, np.uint8), 90, optimize=True)
    header = read_header(glass, b"", 6)
    assert bytes(64) in glass
    assert is_doubtful(glass, header)
    assert find_damage(glass, header) is None
