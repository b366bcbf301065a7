"""Tiles of open slides: stored blocks where they fit the grid, else decoded, from bounded caches."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import simplejpeg
from PIL import Image

from components.readers.open_slide import open_slide
from components.readers.protocol import Picture, SlideReader
from components.records import storage
from components.records.errors import BaglineError, SlideError
from components.viewer.bounded import ByteCache, OneAtATime, OpenedSlide, SlidePool
from components.viewer.geometry import Place, Pyramid, choose_tile
from components.viewer.pixels import SAME, cut_tile, encode_jpeg, hatch_boxes, read_tile

JPEG = "image/jpeg"
_TILE_BYTES = 64 << 20
_OVERVIEW_BYTES = 160 << 20
_OVERVIEW_SIDE = 4096
_LEAST_OVERVIEW = 8
_MOST_OPEN = 6
_MOST_REDUCTION = 8
# Part of every version: another one makes browsers fetch tiles again.
_MAKING = "1"


class SlideGoneError(SlideError):
    """The slide's file was there and is not any more."""


class NoTileError(LookupError):
    """The slide has no such tile."""


@dataclass(frozen=True)
class Tile:
    """A picture as it is sent.

    Attributes:
        content: JPEG.
        etag: of its content.
        made: `stored`, `decoded`, or `overview`, where it was cut from the slide at low resolution.
        unreadable: a part of it could not be read, and is hatched.
    """

    content: bytes
    etag: str
    made: str
    unreadable: bool = False


@dataclass(frozen=True)
class SlideShape:
    """What the viewer needs to know of a slide; `version` changes with its file."""

    pyramid: Pyramid
    mpp: float | None
    reader: str
    levels: int
    version: str


@dataclass(frozen=True)
class StandIn:
    """A small picture of the slide that was made before: `downsample` level-0 px a px, and the slide's size."""

    path: str
    downsample: float
    width: int
    height: int


@dataclass(frozen=True)
class Overview:
    """The whole slide at low resolution; `lost` are the boxes that can't be read: left, top, right, bottom, level 0."""

    picture: Picture
    downsample: float
    lost: tuple[tuple[float, float, float, float], ...] = ()

    def lost_in(self, place: Place) -> bool:
        """Whether a part of a tile can't be read."""
        end_x, end_y = place.x + place.width * place.scale, place.y + place.height * place.scale
        return any(
            left < end_x and top < end_y and right > place.x and bottom > place.y
            for left, top, right, bottom in self.lost
        )


class TileMaker:
    """Makes tiles of slides by path; safe to share between threads.

    Memory is bounded: 64 MiB of tiles, 160 MiB of slides at low resolution (each at most 4096 px a side), six open.

    Args:
        decoders: how many threads decode at the same time; 0 for one more than there are CPUs.
    """

    def __init__(self, decoders: int = 0) -> None:
        self._slides: SlidePool[tuple[str, str]] = SlidePool(_MOST_OPEN)
        self._tiles: ByteCache[tuple[str, str, int, int, int], Tile] = ByteCache(_TILE_BYTES)
        self._overviews: ByteCache[tuple[str, str], Overview] = ByteCache(_OVERVIEW_BYTES)
        self._making: OneAtATime[tuple[str, str]] = OneAtATime()
        self._decoding = threading.BoundedSemaphore(decoders or (os.cpu_count() or 1) + 1)

    def shape(self, path: str) -> SlideShape:
        """Size, tiles and scale of a slide.

        Raises:
            SlideGoneError: its file is gone. SlideError: no reader can open it.
        """
        version = tell_version(path)
        with self._open(path, version) as slide:
            reader = slide.reader
            return SlideShape(_pyramid(reader), reader.mpp, reader.name, len(reader.downsamples), version)

    def tile(self, path: str, level: int, column: int, row: int, stand_in: StandIn | None = None) -> Tile:
        """One tile, level 0 being a single px.

        Args:
            path: of the slide.
            level: of the tile.
            column: of the tile.
            row: of the tile.
            stand_in: a smaller picture of the slide; levels it is large enough for are cut from it.

        Raises:
            NoTileError: there is no such tile. SlideGoneError: its file is gone. SlideError: no reader can open it.
        """
        version = tell_version(path)
        key = path, version, level, column, row
        found = self._tiles.get(key)
        if found is not None:
            return found
        with self._open(path, version) as slide:
            place = _pyramid(slide.reader).place(level, column, row)
            if place is None:
                raise NoTileError(f"level {level}, column {column}, row {row}")
            content, made, unreadable = self._make(slide, (path, version), place, stand_in)
        if unreadable:
            # What could not be read now may be readable later: a share that was away, a file still being copied.
            tell_version(path)
        tile = Tile(content, f'"{version}-{level}-{column}-{row}-{len(content):x}"', made, unreadable)
        if not unreadable:
            self._tiles.put(key, tile, len(content) + 200)
        return tile

    def overview(self, path: str, side: int, stand_in: StandIn | None = None) -> Picture:
        """The whole slide at most `side` px wide and high: uint8, shape [height, width, 3].

        Raises:
            SlideGoneError: its file is gone. SlideError: it can't be read.
        """
        picture = _load(stand_in) if stand_in is not None else None
        if picture is None:
            version = tell_version(path)
            with self._open(path, version) as slide:
                longest = max(slide.reader.width, slide.reader.height)
                if longest < side * _overview_downsample(slide.reader):
                    with self._decoding, slide.lock:
                        picture = slide.reader.read_low_resolution(max(1.0, longest / side))
                else:
                    picture = self._overview(slide, (path, version)).picture
        small = Image.fromarray(picture)
        small.thumbnail((side, side), Image.Resampling.BOX, reducing_gap=None)
        return np.asarray(small)

    def state(self) -> dict[str, int]:
        """How much is held: bytes of tiles and overviews, open slides."""
        return {
            "tile_bytes": self._tiles.bytes,
            "overview_bytes": self._overviews.bytes,
            "open_slides": len(self._slides),
        }

    def close(self) -> None:
        """Closes the slides."""
        self._slides.close()

    @contextlib.contextmanager
    def _open(self, path: str, version: str) -> Iterator[OpenedSlide]:
        with contextlib.ExitStack() as stack:
            slide = stack.enter_context(self._slides.lease((path, version), partial(open_slide, path)))
            if slide.busy:
                # Readers that threads can't share are opened a second time, so that two tiles can be made at once.
                slide = stack.enter_context(self._slides.lease((f"{path}\0again", version), partial(open_slide, path)))
            yield slide

    def _make(
        self, slide: OpenedSlide, key: tuple[str, str], place: Place, stand_in: StandIn | None
    ) -> tuple[bytes, str, bool]:
        reader = slide.reader
        if stand_in is not None and place.scale >= stand_in.downsample and _fits(stand_in, reader):
            picture = self._stand_in(key, stand_in)
            if picture is not None:
                return encode_jpeg(cut_tile(picture, stand_in.downsample, place)), "overview", False
        level = _level_for(reader, place.scale)
        ratio = place.scale / reader.downsamples[level]
        if abs(ratio - 1) > SAME and (ratio > _MOST_REDUCTION or place.scale >= _overview_downsample(reader)):
            overview = self._overview(slide, key)
            return (
                encode_jpeg(cut_tile(overview.picture, overview.downsample, place)),
                "overview",
                overview.lost_in(place),
            )
        with self._decoding, slide.lock:
            if abs(ratio - 1) <= SAME and _is_block(reader, level, place):
                with contextlib.suppress(SlideError):
                    stored = reader.stored_block(place.x, place.y, level, place.width, place.height)
                    if stored is not None:
                        return stored, "stored", False
            picture, unreadable = read_tile(reader, level, place)
        return encode_jpeg(picture), "decoded", unreadable

    def _stand_in(self, key: tuple[str, str], stand_in: StandIn) -> Picture | None:
        mine = (f"{key[0]}\0thumbnail", key[1])
        found = self._overviews.get(mine)
        if found is None:
            picture = _load(stand_in)
            if picture is None:
                return None
            found = Overview(picture, stand_in.downsample)
            self._overviews.put(mine, found, picture.nbytes)
        return found.picture

    def _overview(self, slide: OpenedSlide, key: tuple[str, str]) -> Overview:
        found = self._overviews.get(key)
        if found is not None:
            return found
        with self._making.hold(key):
            found = self._overviews.get(key)
            if found is None:
                downsample = _overview_downsample(slide.reader)
                with self._decoding, slide.lock:
                    picture = slide.reader.read_low_resolution(downsample)
                    lost = tuple(getattr(slide.reader, "unreadable", ()))
                found = Overview(hatch_boxes(picture, downsample, lost), downsample, lost)
                self._overviews.put(key, found, picture.nbytes)
        return found


def tell_version(path: str) -> str:
    """A short hash that changes when the slide's file does.

    Raises:
        SlideGoneError: there is no such file.
    """
    if storage.is_remote(path):
        return hashlib.sha256(f"{_MAKING}\0{path}".encode()).hexdigest()[:12]
    try:
        found = os.stat(path)
    except OSError:
        raise SlideGoneError("its file is gone", mend="put it back, or start the viewer again") from None
    told = f"{_MAKING}\0{path}\0{found.st_mtime_ns}\0{found.st_size}\0{found.st_ino}"
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def _pyramid(reader: SlideReader) -> Pyramid:
    sizes: tuple[tuple[int, int], ...] = getattr(reader, "block_sizes", ())
    return Pyramid(reader.width, reader.height, *choose_tile(*(sizes[0] if sizes else (0, 0))))


def _is_block(reader: SlideReader, level: int, place: Place) -> bool:
    """Whether a tile is one stored block. Several could be joined, but decoding them takes less time than that."""
    sizes: tuple[tuple[int, int], ...] = getattr(reader, "block_sizes", ())
    return bool(sizes) and sizes[level] == (place.width, place.height)


def _level_for(reader: SlideReader, scale: int) -> int:
    return max(at for at, own in enumerate(reader.downsamples) if at == 0 or own <= scale * (1 + SAME))


def _overview_downsample(reader: SlideReader) -> float:
    least = -(-max(reader.width, reader.height) // _OVERVIEW_SIDE)
    return float(max(_LEAST_OVERVIEW, 1 << (least - 1).bit_length()))


def _fits(stand_in: StandIn, reader: SlideReader) -> bool:
    return (stand_in.width, stand_in.height) == (reader.width, reader.height)


def _load(stand_in: StandIn) -> Picture | None:
    """The stand-in's picture, None where it can't be read: the slide itself then takes its place."""
    try:
        content = storage.read_bytes(stand_in.path)
        return np.asarray(simplejpeg.decode_jpeg(content, "RGB"))
    except (BaglineError, ValueError):
        return None
