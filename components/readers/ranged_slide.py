"""A slide in `gs://`: by ranges where its stored blocks can be taken, else by a copy on the worker's disk."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.readers import glass
from components.readers.bucket_object import BucketObject
from components.readers.jpeg_blocks import JpegBlockReader
from components.readers.jpeg_proof import prove
from components.readers.openslide_reader import OpenSlideReader
from components.readers.protocol import Picture, SlideReader
from components.readers.spool import whole_copy
from components.records.errors import SlideError

_PROVED_BLOCKS = 2


class RangedSlide(JpegBlockReader):
    """`JpegBlockReader` on an object in a bucket; of a flat slide's glass it fetches samples only.

    Args:
        source: the object.
        verify: as `JpegBlockReader`.

    Attributes:
        digest: of the object, as the store tells it.
        glass_unread: blocks of bare glass that the last low-resolution picture shows by their neighbours' likeness.
    """

    def __init__(self, source: BucketObject, *, verify: bool = False) -> None:
        super().__init__(source, verify=verify)
        self._object = source
        self.digest = source.digest
        self.glass_unread = 0

    @property
    def bytes_read(self) -> int:
        """Bytes fetched so far."""
        return self._object.fetched

    def expect_tiles(self, corners: Sequence[tuple[int, int]], level: int, side: int) -> None:
        """Announces tiles of a level, by level-0 corner and side in level-0 px, that will be read."""
        here, ratio = self._levels[level], self.downsamples[level]
        rows, columns = here.offsets.shape
        places: dict[tuple[int, int], None] = {}
        for x, y in corners:
            left, top = math.floor(x / ratio + 1e-6), math.floor(y / ratio + 1e-6)
            right, bottom = math.ceil((x + side) / ratio - 1e-6), math.ceil((y + side) / ratio - 1e-6)
            for row in range(max(top // here.block_height, 0), min(-(-bottom // here.block_height), rows)):
                for column in range(max(left // here.block_width, 0), min(-(-right // here.block_width), columns)):
                    places[row, column] = None
        self._object.expect(self._blocks.ranges(level, places))

    def read_low_resolution(self, downsample: float) -> Picture:
        """As `JpegBlockReader.read_low_resolution`; bare glass of a flat slide is shown by samples of it."""
        self.glass_unread = 0
        picture = super().read_low_resolution(downsample)
        if self.glass_unread:
            self.decoded_level = -1
        return picture

    def _strips(self, level: int, scale: int) -> Iterator[Picture]:
        counts = self._levels[level].byte_counts
        unread = np.zeros(counts.shape, bool)
        looks: dict[tuple[int, int], Picture] = {}
        if level == 0:
            unread, looks = self._spare_glass(scale)
        self.glass_unread = int(unread.sum())
        places = ((int(row), int(column)) for row, column in np.argwhere(~unread))
        self._object.expect(self._blocks.ranges(level, places))
        if not self.glass_unread:
            yield from super()._strips(level, scale)
            return
        self._unread, side = unread, glass.cell_side(unread.shape)
        by_cell = glass.sort_into_cells(looks, side)
        block_width = self._levels[level].block_width // scale
        for row, strip in enumerate(super()._strips(level, scale)):
            for column in np.flatnonzero(unread[row]).tolist():
                look = by_cell[row // side, column // side]
                place = strip[:, column * block_width : (column + 1) * block_width]
                place[:] = look[: place.shape[0], : place.shape[1]]
            yield strip

    def _decode_row(self, level: int, row: int, scale: int) -> Iterator[tuple[int, Picture | SlideError]]:
        return self._blocks.decode_row(level, row, scale, self._unread[row] if self.glass_unread else None)

    def _spare_glass(self, scale: int) -> tuple[NDArray[np.bool_], dict[tuple[int, int], Picture]]:
        """Which blocks of level 0 may be left unread, and the looks of their samples."""
        unread, samples = glass.choose_samples(self._levels[0].byte_counts)
        self._object.expect(self._blocks.ranges(0, samples))
        looks: dict[tuple[int, int], Picture] = {}
        for row, column in samples:
            with contextlib.suppress(SlideError):
                look = self._blocks.decode(0, row, column, scale)
                if look is not None:
                    looks[row, column] = look
        glass.confirm_glass(unread, looks)
        return unread, looks


class FetchedSlide:
    """Another reader's slide on a copy of the object on the worker's disk.

    Attributes:
        bytes_read: bytes fetched to make the copy, 0 where it was there.
    """

    def __init__(self, reader: SlideReader, stack: contextlib.ExitStack, source: BucketObject) -> None:
        self._reader, self._stack = reader, stack
        self.bytes_read, self.digest = source.fetched, source.digest

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def close(self) -> None:
        """Closes the slide and gives the copy free."""
        self._stack.close()


def choose_ranged_slide(uri: str, *, verify: bool = True) -> tuple[SlideReader, str]:
    """The slide in `gs://` by ranges where its stored blocks show what OpenSlide shows, else a copy of it.

    Returns:
        The open reader, and why it isn't read by ranges, empty where it is.

    Raises:
        SlideError: there is no such object, it can't be fetched, or no reader can open it.
    """
    source = BucketObject(uri, keep=True)
    with _closed_on_error(source):
        found = _open_by_ranges(source, verify)
        if isinstance(found, RangedSlide):
            reason = _prove_by_ranges(found, source)
            if reason is None:
                return found, ""
            found = reason
        return _open_copy(source, "", verify), found


def open_ranged_slide(uri: str, reader: str, *, verify: bool = True, digest: str = "") -> SlideReader:
    """The slide in `gs://` by the reader that `choose_ranged_slide` chose for it.

    Args:
        uri: of the object.
        reader: its name.
        verify: as `JpegBlockReader`.
        digest: the content the object had then, as the store told it.

    Raises:
        SlideError: the object is gone or has another content, it can't be fetched, or the reader can't open it.
    """
    source = BucketObject(uri, digest=digest)
    with _closed_on_error(source):
        if reader == RangedSlide.name:
            found = _open_by_ranges(source, verify)
            if isinstance(found, RangedSlide):
                return found
        return _open_copy(source, reader, verify)


@contextlib.contextmanager
def _closed_on_error(source: BucketObject) -> Iterator[None]:
    try:
        yield
    except BaseException:
        source.close()
        raise


def _open_by_ranges(source: BucketObject, verify: bool) -> RangedSlide | str:
    """The slide, or the reason why it must be fetched whole."""
    try:
        return RangedSlide(source, verify=verify)
    except SlideError as error:
        if source.failed:
            raise
        return error.what


def _prove_by_ranges(slide: RangedSlide, source: BucketObject) -> str | None:
    """Holds blocks of each level against OpenSlide's, which is given a sparse file of what was fetched so far."""
    if source.kept is None:
        return None
    blocks = []
    try:
        for level, (width, height) in enumerate(slide.block_sizes):
            corners = slide.tissue_blocks(level, _PROVED_BLOCKS)
            slide.expect_tiles(corners, level, 1)
            for x, y in corners:
                slide.stored_block(x, y, level, width, height)
            blocks += [(x, y, level) for x, y in corners]
        with contextlib.closing(OpenSlideReader(source.kept.path)) as reference:
            return prove(slide, reference, blocks)
    except SlideError as error:
        if source.failed:
            raise
        return f"it can't be proved: {error}"


def _open_copy(source: BucketObject, reader: str, verify: bool) -> SlideReader:
    from components.readers.open_slide import open_slide

    if source.name.endswith(".mrxs"):
        raise SlideError("MIRAX slides are several files", where=source.name, mend="tile them from a disk")
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(whole_copy(f"{source.key}-whole", source.name, source.size, source.download))
        source.close()
        opened = open_slide(path, reader)
        stack.callback(opened.close)
        return FetchedSlide(opened, stack.pop_all(), source)
