"""The index of good and bad files."""

from __future__ import annotations

import io
import struct
import time

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from components.readers.byte_source import LocalFile, read_ranges
from components.readers.jpeg_blocks import JpegBlockReader
from components.readers.strip_reader import StripReader
from components.readers.tiff_index import levels_of, read_index
from components.records.errors import SlideError


class Memory:
    name = "memory"

    def __init__(self, content):
        self.content, self.size, self.reads = content, len(content), []

    def read(self, offset, length):
        self.reads.append((offset, length))
        return self.content[offset : offset + length]

    def close(self):
        pass


def directory(entries, following=0, order="<"):
    packed = b"".join(struct.pack(f"{order}HHII", *entry) for entry in entries)
    return struct.pack(f"{order}H", len(entries)) + packed + struct.pack(f"{order}I", following)


def tiff(*entries, following=0, tail=b""):
    return b"II*\0" + struct.pack("<I", 8) + directory(sorted(entries), following) + tail


SIZE = [(256, 4, 1, 100), (257, 4, 1, 50)]
TILED = [*SIZE, (322, 4, 1, 128), (323, 4, 1, 128), (324, 4, 1, 500), (325, 4, 1, 9)]


def test_reads_a_hand_made_directory():
    (found,) = read_index(Memory(tiff(*TILED)))
    assert (found.width, found.height, found.block_width, found.block_height) == (100, 50, 128, 128)
    assert found.offsets.tolist() == [[500]]
    assert found.byte_counts.tolist() == [[9]]
    assert found.mpp is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is no TIFF"),
        (b"II*\0", "is no TIFF"),
        (b"%PDF-1.4........", "is no TIFF"),
        (b"II+\0" + bytes(12), "has a damaged BigTIFF header"),
        (b"II*\0" + bytes(4), "holds no picture"),
        (b"II*\0" + struct.pack("<I", 1000), "is cut off: its index points beyond the file's end"),
        (b"II*\0" + struct.pack("<IH", 8, 65535), "has a directory of 65535 entries"),
        (tiff(*SIZE, following=8), "has a loop in its chain of directories"),
        (tiff((256, 4, 1, 100)), "lacks tag 257"),
        (tiff((256, 4, 1, 0), (257, 4, 1, 5)), "has a picture of 0 × 5 px"),
        (tiff((256, 2, 1, 1), (257, 4, 1, 5)), "has tag 256 of type 2, which is no count"),
        (tiff(*TILED[:-1]), "lacks tag 325"),
        (tiff(*TILED[:-1], (325, 4, 2, 0)), "has 2 values in tag 325, where at most 1 fit"),
        (tiff(*TILED[:2], (322, 4, 1, 0), *TILED[3:]), "has blocks of 0 × 128 px"),
        (
            tiff((256, 4, 1, 2**31 - 1), (257, 4, 1, 2**31 - 1), *TILED[2:]),
            "has a picture of 281474976710656 blocks",
        ),
        (tiff((256, 4, 1, 300), *TILED[1:]), "lists 1 blocks where its size needs 3"),
        (tiff(*SIZE, (34675, 7, 2**30, 8)), "has a damaged tag 34675"),
    ],
)
def test_refuses_what_can_not_be(content, reason):
    with pytest.raises(SlideError) as caught:
        read_index(Memory(content))
    assert caught.value.what == reason
    assert str(caught.value).startswith("memory: ")


def test_overlapping_index_is_not_read_for_hours():
    # A thousand directories that all claim the same long description.
    size = 2 + 3 * 12 + 4
    text = 8 + 1000 * size
    many = [directory([*SIZE, (270, 2, 1 << 20, text)], 8 + (at + 1) * size) for at in range(1000)]
    source = Memory(b"II*\0" + struct.pack("<I", 8) + b"".join(many) + bytes(1 << 20))
    with pytest.raises(SlideError, match="longer than the file"):
        read_index(source)
    assert sum(length for _, length in source.reads) < 4 << 20


def test_mpp_of_resolution_tags():
    unit = (296, 3, 1, 3)
    at = 8 + 2 + 12 * 5 + 4
    for above, below, wanted in ((40000, 1, 0.25), (72, 1, 10000 / 72), (0, 1, None), (1, 0, None)):
        content = tiff(*SIZE, (282, 5, 1, at), (283, 5, 1, at), unit, tail=struct.pack("<II", above, below))
        assert read_index(Memory(content))[0].mpp == (pytest.approx(wanted) if wanted else None)


@pytest.mark.parametrize(("value", "wanted"), [("0.2520", 0.252), ("0", None), ("nan", None), ("abc", None)])
def test_mpp_of_aperio(tmp_path, value, wanted):
    text = f"Aperio Image\r\n10x10|AppMag = 40|MPP = {value}|Left = 1"
    tifffile.imwrite(tmp_path / "a.svs", np.zeros((10, 10, 3), np.uint8), description=text, metadata=None)
    (found,) = read_index(LocalFile(tmp_path / "a.svs"))
    assert found.aperio
    assert found.mpp == wanted


def test_levels_leave_out_what_is_no_level(tmp_path):
    with tifffile.TiffWriter(tmp_path / "s.tiff") as writer:
        for side, kind, tile in ((256, 0, 64), (128, 1, 64), (200, 1, 64), (100, 0, 64), (90, 1, None), (64, 1, 64)):
            options = {"tile": (tile, tile)} if tile else {}
            writer.write(
                np.zeros((side, side, 3), np.uint8), subfiletype=kind, metadata=None, photometric="rgb", **options
            )
    levels = levels_of(read_index(LocalFile(tmp_path / "s.tiff")))
    assert [level.width for level in levels] == [256, 128, 64]


def test_neighbouring_ranges_are_read_together():
    source = Memory(bytes(range(256)) * 4096)
    ranges = [(300000, 10), (0, 5), (5, 7), (100, 0), (20, 4)]
    assert read_ranges(source, ranges) == [source.content[at : at + length] for at, length in ranges]
    assert source.reads == [(0, 100), (300000, 10)]


def test_blocks_far_beyond_the_file_are_cut_off(tmp_path):
    content = bytearray(FILES[1])
    (found, _) = read_index(Memory(bytes(content)))
    content = content.replace(struct.pack(">Q", int(found.offsets[0, 0])), b"\xff" * 8)
    (tmp_path / "s.tiff").write_bytes(content)
    reader = JpegBlockReader(tmp_path / "s.tiff")
    for read in (reader.stored_block, reader.read_region):
        with pytest.raises(SlideError, match="it lies beyond the file's end"):
            read(0, 0, 0, 64, 64)
    with pytest.raises(SlideError, match="it lies beyond the file's end"):
        reader.stored_block(0, 0, 0, 128, 128)
    reader.read_low_resolution(1)
    assert reader.unreadable == [(0, 0, 64, 64)]


def make_files():
    made = []
    picture = np.random.default_rng(0).integers(0, 255, (150, 170, 3)).astype(np.uint8)
    for order, big in (("<", False), (">", True)):
        stream = io.BytesIO()
        with tifffile.TiffWriter(stream, bigtiff=big, byteorder=order) as writer:
            for step in (1, 2):
                writer.write(
                    picture[::step, ::step], tile=(64, 64), compression="jpeg", subsampling=(1, 1), photometric="ycbcr",
                    subfiletype=int(step > 1), metadata=None,
                )  # fmt: skip
        made.append(stream.getvalue())
    return made


FILES = make_files()


def use(path):
    """Opens and reads all of a file as its reader would."""
    for kind in (JpegBlockReader, StripReader):
        try:
            reader = kind(path)
        except SlideError:
            continue
        for read in (
            lambda reader=reader: reader.read_region(0, 0, 0, 100, 100),
            lambda reader=reader: reader.stored_block(0, 0, 0, 64, 64),
            lambda reader=reader: reader.stored_block(0, 0, 0, 128, 128),
            lambda reader=reader: reader.read_low_resolution(max(4.0, max(reader.width, reader.height) / 64)),
        ):
            try:
                read()
            except SlideError as error:
                assert "\n" not in str(error)  # noqa: PT017
        reader.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    which=st.integers(0, 1),
    cut=st.one_of(st.none(), st.floats(0, 1)),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    index_only=st.booleans(),
)
@example(which=0, cut=0.5, edits=[], index_only=False)
def test_damaged_files_end_in_slide_errors_soon(tmp_path, which, cut, edits, index_only):
    content = bytearray(FILES[which])
    reach = 600 if index_only else len(content)
    for place, value in edits:
        content[min(int(place * reach), len(content) - 1)] = value
    if cut is not None:
        del content[int(cut * len(content)) :]
    path = tmp_path / "s.tiff"
    path.write_bytes(content)
    began = time.monotonic()
    use(path)
    assert time.monotonic() - began < 20
