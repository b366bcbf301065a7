"""The index of a TIFF or BigTIFF: its directories, and where their blocks lie. No pixel is read, nothing is trusted."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.readers.byte_source import ByteSource
from components.records.errors import SlideError

MOST_DIRECTORIES = 1024
MOST_ENTRIES = 1024
MOST_BLOCKS = 64 << 20
MOST_TEXT = 1 << 20
MOST_PROFILE = 32 << 20

# TIFF 6.0 and BigTIFF field types: their size in bytes and, for numbers, numpy's letter.
_TYPES = {1: (1, "u1"), 2: (1, ""), 3: (2, "u2"), 4: (4, "u4"), 5: (8, ""), 7: (1, ""), 13: (4, "u4"), 16: (8, "u8")}
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _DESCRIPTION = 254, 256, 257, 258, 259, 262, 270
_SAMPLES, _PLANAR, _UNIT = 277, 284, 296
_RESOLUTIONS = (282, 283)
_SOFTWARE, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES, _TABLES, _SUBSAMPLING = (
    305,
    322,
    323,
    324,
    325,
    347,
    530,
)
_XMP, _PROFILE, _NDPI = 700, 34675, 65420

# What begins a description, make, or metadata packet and tells a maker whose files need OpenSlide's knowledge of them.
_MAKERS = (
    (b"<scn", "Leica SCN"),
    (b"http://www.leica-microsystems.com/scn", "Leica SCN"),
    (b'<DataObject ObjectType="DPUfsImport"', "Philips TIFF"),
    (b"<iScan", "Ventana"),
    (b"Background Color:", "Trestle"),
)


@dataclass(frozen=True, eq=False)
class Directory:
    """One picture of the file, as its index describes it.

    Attributes:
        width, height: px.
        block_width, block_height: px of a tile; 0 where the picture lies in strips.
        offsets, byte_counts: uint64, shape [blocks down, blocks across] of tiles; empty where there are none.
        subsampling: chroma subsampling the tags state, (1, 1) where they state none.
        tables: the `JPEGTables` that complete abbreviated streams, None where there are none.
        mpp: µm/px the file states for this picture, as OpenSlide derives it; the mean of both sides.
        aperio: an Aperio scanner wrote it.
        reduced: it says of itself that it is a smaller version of another picture.
        maker: a maker whose files need more than this index to be read right; "" for none.
    """

    width: int
    height: int
    block_width: int
    block_height: int
    offsets: NDArray[np.uint64]
    byte_counts: NDArray[np.uint64]
    compression: int
    photometric: int
    samples: int
    bits: int
    planar: int
    subsampling: tuple[int, int]
    tables: bytes | None
    icc_profile: bytes | None
    mpp: float | None
    aperio: bool
    reduced: bool
    maker: str

    @property
    def tiled(self) -> bool:
        """Whether the picture lies in tiles."""
        return self.block_width > 0


def read_index(source: ByteSource) -> list[Directory]:
    """Every directory of the main chain, in the file's order; sub-directories are not followed.

    Raises:
        SlideError: no TIFF, or a damaged one: cut off, looping, or with counts that can't be.
    """
    return _Index(source).directories()


def levels_of(directories: list[Directory]) -> list[Directory]:
    """The pyramid: the first tiled picture and the smaller tiled versions of it, largest first.

    Aperio files hold the levels as their tiled pictures; thumbnail, label and macro lie in strips. Elsewhere a level
    is a tiled picture that says that it is a reduced version. A picture as large as the one before, or larger, is none.
    """
    levels: list[Directory] = []
    for directory in directories:
        if not directory.tiled or (levels and not (levels[0].aperio or directory.reduced)):
            continue
        if levels and not (directory.width < levels[-1].width and directory.height < levels[-1].height):
            continue
        levels.append(directory)
    return levels


class _Index:
    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._spent = 0
        head = source.read(0, 16)
        self._order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        if not self._order or len(head) < 8:
            raise self._refuse("is no TIFF")
        version = self._number("H", head[2:4])
        self._big = version == 43
        if self._big and (len(head) < 16 or head[4:8] != struct.pack(f"{self._order}HH", 8, 0)):
            raise self._refuse("has a damaged BigTIFF header")
        if version not in (42, 43):
            raise self._refuse("is no TIFF")
        self._first = self._number("Q", head[8:16]) if self._big else self._number("I", head[4:8])

    def directories(self) -> list[Directory]:
        found: list[Directory] = []
        seen: set[int] = set()
        offset = self._first
        while offset:
            if offset in seen:
                raise self._refuse("has a loop in its chain of directories")
            if len(found) >= MOST_DIRECTORIES:
                raise self._refuse(f"has more than {MOST_DIRECTORIES} directories")
            seen.add(offset)
            entries, offset = self._entries(offset)
            found.append(self._directory(entries))
        if not found:
            raise self._refuse("holds no picture")
        return found

    def _entries(self, offset: int) -> tuple[dict[int, tuple[int, int, bytes]], int]:
        head, entry, following = ("Q", 20, "Q") if self._big else ("H", 12, "I")
        size = struct.calcsize(f"={head}")
        count = self._number(head, self._bytes(offset, size))
        if not 0 < count <= MOST_ENTRIES:
            raise self._refuse(f"has a directory of {count} entries")
        tail = struct.calcsize(f"={following}")
        body = self._bytes(offset + size, count * entry + tail)
        entries: dict[int, tuple[int, int, bytes]] = {}
        for start in range(0, count * entry, entry):
            tag, kind = struct.unpack_from(f"{self._order}HH", body, start)
            number, value = (
                struct.unpack_from(f"{self._order}Q8s", body, start + 4)
                if self._big
                else struct.unpack_from(f"{self._order}I4s", body, start + 4)
            )
            entries.setdefault(tag, (kind, number, value))
        return entries, self._number(following, body[-tail:])

    def _directory(self, entries: dict[int, tuple[int, int, bytes]]) -> Directory:
        width, height = self._one(entries, _WIDTH), self._one(entries, _HEIGHT)
        if not 0 < width < 1 << 31 or not 0 < height < 1 << 31:
            raise self._refuse(f"has a picture of {width} × {height} px")
        bits = self._many(entries, _BITS, 1, most=64)
        tiled = _TILE_OFFSETS in entries
        block_width = block_height = 0
        offsets = byte_counts = np.zeros((0, 0), np.uint64)
        if tiled:
            block_width, block_height = self._one(entries, _TILE_WIDTH), self._one(entries, _TILE_HEIGHT)
            if not 0 < block_width <= 1 << 16 or not 0 < block_height <= 1 << 16:
                raise self._refuse(f"has blocks of {block_width} × {block_height} px")
            planes = self._one(entries, _SAMPLES, 1) if self._one(entries, _PLANAR, 1) == 2 else 1
            shape = -(-height // block_height), -(-width // block_width)
            offsets = self._blocks(entries, _TILE_OFFSETS, shape, planes)
            byte_counts = self._blocks(entries, _TILE_BYTES, shape, planes)
        description = self._text(entries, _DESCRIPTION)
        aperio = description.startswith(b"Aperio")
        subsampling = self._many(entries, _SUBSAMPLING, 1, most=2)
        photometric = self._one(entries, _PHOTOMETRIC, 0)
        if _SUBSAMPLING not in entries and photometric == 6:
            subsampling = np.array([2, 2])
        return Directory(
            width=width,
            height=height,
            block_width=block_width,
            block_height=block_height,
            offsets=offsets,
            byte_counts=byte_counts,
            compression=self._one(entries, _COMPRESSION, 1),
            photometric=photometric,
            samples=self._one(entries, _SAMPLES, 1),
            bits=int(bits.max()),
            planar=self._one(entries, _PLANAR, 1),
            subsampling=(int(subsampling[0]), int(subsampling[-1])),
            tables=self._opaque(entries, _TABLES, MOST_TEXT),
            icc_profile=self._opaque(entries, _PROFILE, MOST_PROFILE),
            mpp=_aperio_mpp(description) if aperio else self._mpp(entries),
            aperio=aperio,
            reduced=bool(self._one(entries, _SUBFILE, 0) & 1),
            maker=self._maker(entries, description),
        )

    def _maker(self, entries: dict[int, tuple[int, int, bytes]], description: bytes) -> str:
        if _NDPI in entries:
            return "Hamamatsu NDPI"
        if self._text(entries, _SOFTWARE).startswith(b"MedScan"):
            return "Trestle"
        told = (description, self._text(entries, _XMP))
        return next((name for mark, name in _MAKERS if any(mark in text[:4096] for text in told)), "")

    def _mpp(self, entries: dict[int, tuple[int, int, bytes]]) -> float | None:
        sides = [side for side in map(partial(self._side, entries), _RESOLUTIONS) if side is not None]
        return sum(sides) / len(sides) if sides else None

    def _side(self, entries: dict[int, tuple[int, int, bytes]], tag: int) -> float | None:
        kind, number, value = entries.get(tag, (0, 0, b""))
        unit = {2: 25400.0, 3: 10000.0}.get(self._one(entries, _UNIT, 2))
        if kind != 5 or number != 1 or unit is None:
            return None
        raw = value if self._big else self._bytes(self._number("I", value), 8)
        above, below = struct.unpack(f"{self._order}II", raw)
        resolution = above / below if below else 0.0
        return unit / resolution if resolution else None

    def _blocks(
        self, entries: dict[int, tuple[int, int, bytes]], tag: int, shape: tuple[int, int], planes: int
    ) -> NDArray[np.uint64]:
        expected = shape[0] * shape[1] * planes
        if expected > MOST_BLOCKS:
            raise self._refuse(f"has a picture of {expected} blocks")
        values = self._many(entries, tag, None, most=expected)
        if len(values) != expected:
            raise self._refuse(f"lists {len(values)} blocks where its size needs {expected}")
        return values.astype(np.uint64)[: shape[0] * shape[1]].reshape(shape)

    def _one(self, entries: dict[int, tuple[int, int, bytes]], tag: int, default: int | None = None) -> int:
        return int(self._many(entries, tag, default, most=MOST_ENTRIES)[0])

    def _many(
        self, entries: dict[int, tuple[int, int, bytes]], tag: int, default: int | None, *, most: int
    ) -> NDArray[Any]:
        if tag not in entries:
            if default is None:
                raise self._refuse(f"lacks tag {tag}")
            return np.array([default])
        kind, number, value = entries[tag]
        size, letter = _TYPES.get(kind, (0, ""))
        if not letter:
            raise self._refuse(f"has tag {tag} of type {kind}, which is no count")
        if not 0 < number <= most:
            raise self._refuse(f"has {number} values in tag {tag}, where at most {most} fit")
        return np.frombuffer(self._values(value, number * size), f"{self._order}{letter}")

    def _opaque(self, entries: dict[int, tuple[int, int, bytes]], tag: int, most: int) -> bytes | None:
        kind, number, value = entries.get(tag, (0, 0, b""))
        if not number:
            return None
        if kind not in (1, 2, 7) or number > most:
            raise self._refuse(f"has a damaged tag {tag}")
        return self._values(value, number)

    def _text(self, entries: dict[int, tuple[int, int, bytes]], tag: int) -> bytes:
        kind, number, value = entries.get(tag, (0, 0, b""))
        return self._values(value, min(number, MOST_TEXT), most=number) if kind in (1, 2, 7) else b""

    def _values(self, value: bytes, length: int, most: int | None = None) -> bytes:
        # Values that fit stand in the entry itself; whether they do is told by their whole length.
        if (length if most is None else most) <= len(value):
            return value[:length]
        return self._bytes(self._number("Q" if self._big else "I", value), length)

    def _bytes(self, offset: int, length: int) -> bytes:
        if offset + length > self._source.size:
            raise self._refuse("is cut off: its index points beyond the file's end")
        # An honest index never overlaps itself, so it is shorter than the file; a crafted one could be read for hours.
        self._spent += length
        if self._spent > self._source.size + MOST_TEXT:
            raise self._refuse("has an index that is longer than the file")
        found = self._source.read(offset, length)
        if len(found) != length:
            raise self._refuse("is cut off: its index can't be read whole")
        return found

    def _number(self, kind: str, raw: bytes) -> int:
        return int(struct.unpack(f"{self._order}{kind}", raw)[0])

    def _refuse(self, what: str) -> SlideError:
        return SlideError(what, where=self._source.name, mend="fetch the file again, or leave it out of the manifest")


def _aperio_mpp(description: bytes) -> float | None:
    for entry in description.split(b"|")[1:]:
        name, separator, value = entry.partition(b"=")
        if separator and name.strip() == b"MPP":
            try:
                mpp = float(value.strip(b" \0\r\n"))
            except ValueError:
                return None
            return mpp if math.isfinite(mpp) and mpp > 0 else None
    return None
