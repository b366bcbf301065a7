"""The stored JPEG blocks of a slide's levels: completed, checked, joined, decoded."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from components.readers.byte_source import ByteSource, read_ranges
from components.readers.jpeg_stream import (
    Header,
    StreamError,
    complete_stream,
    find_cut,
    find_damage,
    is_doubtful,
    read_header,
    read_tables,
)
from components.readers.protocol import Picture
from components.readers.tiff_index import Directory
from components.records.errors import SlideError

if TYPE_CHECKING:
    from components.readers.jpeg_join import BlockJoiner

_CACHE_BYTES = 16 << 20
_MOST_HEADERS = 64
# A JPEG has no longer side.
_MOST_SIDE = 65535


class BlockStore:
    """Blocks by level, row and column; keeps no more than 16 MiB of decoded ones. Safe to share between threads.

    Args:
        source: the slide's bytes.
        levels: the directories of its levels.
        verify: decode every block before it is given away.

    Raises:
        SlideError: the tables that complete the blocks are damaged.
    """

    def __init__(self, source: ByteSource, levels: Sequence[Directory], *, verify: bool) -> None:
        self._source, self._levels, self._verify = source, levels, verify
        try:
            self._tables = [read_tables(level.tables) for level in levels]
        except StreamError as error:
            raise SlideError(f"its JPEG tables are damaged: {error}", where=source.name) from error
        self._headers: list[list[Header]] = [[] for _ in levels]
        self._joiners: dict[bytes, BlockJoiner | None] = {}
        self._cache: OrderedDict[tuple[int, int, int, int], Picture] = OrderedDict()
        self._cached_bytes = 0
        self._lock = threading.Lock()

    def complete(self, level: int, row: int, column: int) -> bytes | None:
        """One block as a complete JPEG; None where the file leaves it out.

        Raises:
            SlideError: it is damaged or lies beyond the file's end.
        """
        stored = self._stored(level, row, column)
        if stored is None:
            return None
        return self._checked(stored, level, row, column)

    def join(self, level: int, row: int, column: int, across: int, down: int) -> bytes | None:
        """`across` × `down` blocks as one JPEG without loss; None where one is left out or their tables don't allow it.

        Raises:
            SlideError: one is damaged or lies beyond the file's end.
        """
        wide, tall = self._levels[level].block_width, self._levels[level].block_height
        places = [(row + j, column + i) for j in range(down) for i in range(across)]
        counts = self._levels[level].byte_counts
        if not all(counts[place] for place in places) or max(across * wide, down * tall) > _MOST_SIDE:
            return None
        blocks = read_ranges(self._source, [self._range(level, *place) for place in places])
        joiner: BlockJoiner | None = None
        for place, block in zip(places, blocks, strict=True):
            try:
                found = self._joiner(self._header(block, level, *place))
            except StreamError as error:
                raise self._damaged(level, *place, error) from error
            if found is None or (joiner is not None and found is not joiner):
                return None
            joiner = found
        assert joiner is not None
        try:
            return joiner.join(blocks, across)
        except StreamError as error:
            raise self._damaged(level, row, column, error) from error

    def decode(self, level: int, row: int, column: int, scale: int) -> Picture | None:
        """RGB of a block at 1/`scale`; None where the file leaves it out.

        Raises:
            SlideError: it is damaged or lies beyond the file's end.
        """
        key = level, row, column, scale
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        stored = self._stored(level, row, column)
        if stored is None:
            return None
        picture = self._decoded(stored, level, row, column, scale)
        with self._lock:
            if key not in self._cache:
                self._cache[key] = picture
                self._cached_bytes += picture.nbytes
            while self._cached_bytes > _CACHE_BYTES:
                self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return picture

    def decode_row(
        self, level: int, row: int, scale: int, unread: NDArray[np.bool_] | None = None
    ) -> Iterator[tuple[int, Picture | SlideError]]:
        """Column and RGB at 1/`scale` of a row's blocks, or why one can't be decoded.

        Left-out ones are skipped, and those that `unread` marks, bool, shape [columns].
        """
        here = self._levels[level]
        ranges = [self._range(level, row, column) for column in range(here.offsets.shape[1])]
        present = [
            column for column, (_, length) in enumerate(ranges) if length and (unread is None or not unread[column])
        ]
        for column, stored in _in_pieces(self._source, ranges, present):
            found: Picture | SlideError
            try:
                found = self._decoded(stored, level, row, column, scale)
            except SlideError as error:
                found = error
            yield column, found

    def ranges(self, level: int, places: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """(offset, length) in the file of the blocks at (row, column); those that the file leaves out are skipped."""
        found = (self._range(level, row, column) for row, column in places)
        return [(offset, length) for offset, length in found if length]

    def _stored(self, level: int, row: int, column: int) -> bytes | None:
        """A block's bytes, too few where the file is cut off; None where the file leaves the block out."""
        offset, length = self._range(level, row, column)
        return self._source.read(offset, length) if length else None

    def _range(self, level: int, row: int, column: int) -> tuple[int, int]:
        """Where a block lies; no longer than a block can be, whatever the index says."""
        here = self._levels[level]
        most = 4 * here.block_width * here.block_height + (1 << 16)
        return int(here.offsets[row, column]), min(int(here.byte_counts[row, column]), most)

    def _checked(self, stored: bytes, level: int, row: int, column: int) -> bytes:
        try:
            header = self._header(stored, level, row, column)
            decoded = self._verify or is_doubtful(stored, header)
            reason = find_cut(stored, header) if decoded else find_damage(stored, header)
            if reason:
                raise StreamError(reason)
            complete = complete_stream(stored, header)
            if decoded:
                # What decoders find wrong they find in the coded data, all of which a small grey picture needs too.
                decode_stream(complete, self._smallest(level), "GRAY")
        except StreamError as error:
            raise self._damaged(level, row, column, error) from error
        return complete

    def _decoded(self, stored: bytes, level: int, row: int, column: int, scale: int) -> Picture:
        try:
            header = self._header(stored, level, row, column)
            reason = find_cut(stored, header)
            if reason:
                raise StreamError(reason)
            return decode_stream(complete_stream(stored, header), self._scaled(level, scale))
        except StreamError as error:
            raise self._damaged(level, row, column, error) from error

    def _header(self, stored: bytes, level: int, row: int, column: int) -> Header:
        here = self._levels[level]
        if len(stored) != here.byte_counts[row, column]:
            if len(stored) == self._range(level, row, column)[1]:
                raise StreamError("it is longer than a block can be: the index is damaged")
            raise StreamError("it lies beyond the file's end: the file is cut off")
        headers = self._headers[level]
        for header in headers:
            if stored.startswith(header.stored):
                return header
        header = read_header(stored, self._tables[level], here.photometric)
        frame = header.frame
        if (frame.width, frame.height) != (here.block_width, here.block_height):
            raise StreamError(
                f"its JPEG is {frame.width} × {frame.height} px, not {here.block_width} × {here.block_height}"
            )
        if len(headers) < _MOST_HEADERS:
            headers.append(header)
        return header

    def _joiner(self, header: Header) -> BlockJoiner | None:
        found = self._joiners.get(header.stored)
        if found is None and header.stored not in self._joiners:
            # Imported where it is needed: numba takes most of a second, and slides whose blocks are tiles never join.
            from components.readers.jpeg_join import BlockJoiner, can_join

            found = BlockJoiner(header) if can_join(header) else None
            self._joiners[header.stored] = found
        return found

    def _scaled(self, level: int, scale: int) -> tuple[int, int] | None:
        here = self._levels[level]
        return None if scale == 1 else (here.block_width // scale, here.block_height // scale)

    def _smallest(self, level: int) -> tuple[int, int] | None:
        here = self._levels[level]
        return None if here.block_width % 8 or here.block_height % 8 else self._scaled(level, 8)

    def _damaged(self, level: int, row: int, column: int, error: StreamError) -> SlideError:
        return SlideError(f"block in column {column}, row {row} of level {level}: {error}", where=self._source.name)


def _in_pieces(
    source: ByteSource, ranges: Sequence[tuple[int, int]], wanted: Sequence[int]
) -> Iterator[tuple[int, bytes]]:
    for start in range(0, len(wanted), 256):
        some = wanted[start : start + 256]
        yield from zip(some, read_ranges(source, [ranges[index] for index in some]), strict=True)


def decode_stream(stream: bytes, size: tuple[int, int] | None, colours: str = "RGB") -> Picture:
    """RGB (or GRAY) of a complete JPEG, at the least scale that has `size` (width, height) where it is given.

    Raises:
        StreamError: it can't be decoded, or only with guesses: what decoders pass over with a warning is an error here.
    """
    width, height = size or (0, 0)
    try:
        picture: Picture = simplejpeg.decode_jpeg(stream, colours, min_width=width, min_height=height, strict=True)
    except ValueError as error:
        raise StreamError(f"its JPEG can't be decoded: {error}") from error
    return picture
