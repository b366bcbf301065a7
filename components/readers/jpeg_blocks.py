"""The JPEG blocks a tiled TIFF, BigTIFF or SVS stores: taken as they are, joined, or decoded smaller."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence

import numpy as np

from components.readers.block_store import BlockStore
from components.readers.box_average import BoxAverage
from components.readers.byte_source import ByteSource, LocalFile
from components.readers.jpeg_stream import RGB, YCBCR
from components.readers.protocol import Picture
from components.readers.tiff_index import Directory, levels_of, read_index
from components.records.errors import SlideError

_JPEG = 7
_CODECS = {
    1: "no compression",
    5: "LZW",
    6: "old-style JPEG",
    8: "deflate",
    32946: "deflate",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
}
_MOST_BLOCK = 8192
_SCALES = (8, 4, 2)
# Px of a row of blocks that a low-resolution picture is made of: more than a slide of 2 million px across has at 1/8.
_MOST_STRIP = 128 << 20
# Shown for a block that can't be decoded: a tissue mask keeps it, so that its tiles are tried and recorded as failed.
_UNREADABLE = (170, 90, 150)


def open_jpeg_slide(path: str | os.PathLike[str], *, verify: bool = False) -> JpegBlockReader | str:
    """The reader of a file's stored blocks, or the reason why the file needs another reader.

    Raises:
        SlideError: there is no such file, or it can't be opened.
    """
    source = LocalFile(path)
    try:
        return JpegBlockReader(source, verify=verify)
    except SlideError as error:
        source.close()
        return error.what


def can_read(path: str | os.PathLike[str]) -> str | None:
    """None where `JpegBlockReader` reads the file, else the reason why it doesn't."""
    opened = open_jpeg_slide(path)
    if isinstance(opened, str):
        return opened
    opened.close()
    return None


class JpegBlockReader:
    """Reads a slide by the JPEG blocks it stores; a `SlideReader`, and two things more.

    Safe to share between threads; pickles as its source.

    Args:
        source: the slide's bytes, or its path.
        verify: decode every stored block before it is given away. Without it a block is checked for its frame, its end,
            impossible markers and holes: cheap, and blind to a few flipped bits.

    Attributes:
        unreadable: left, top, right, bottom in level-0 px of blocks that the last low-resolution picture couldn't show.
        decoded_level: the level whose blocks the last low-resolution picture decoded, every one; -1 before the first.

    Raises:
        SlideError: the file is damaged, or not one whose blocks can be taken; `what` is the reason.
    """

    name = "jpeg-blocks"

    def __init__(self, source: ByteSource | str | os.PathLike[str], *, verify: bool = False) -> None:
        self._source: ByteSource = LocalFile(source) if isinstance(source, str | os.PathLike) else source
        self._verify = verify
        self._levels = levels_of(read_index(self._source))
        reason = _refusal(self._levels)
        if reason:
            raise SlideError(reason, where=self._source.name, mend="read it through OpenSlide")
        first = self._levels[0]
        self.width, self.height = first.width, first.height
        self.mpp, self.icc_profile = first.mpp, first.icc_profile
        self.downsamples = tuple(_downsample(first, level) for level in self._levels)
        self.unreadable: list[tuple[float, float, float, float]] = []
        self.decoded_level = -1
        self._damage: list[SlideError] = []
        self._blocks = BlockStore(self._source, self._levels, verify=verify)

    @property
    def block_sizes(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of the stored blocks of each level, px."""
        return tuple((level.block_width, level.block_height) for level in self._levels)

    def stored_block(self, x: int, y: int, level: int, width: int, height: int) -> bytes | None:
        """The complete JPEG of exactly these px without a second coding, or None where the file stores no such blocks.

        Several whole blocks are joined where their tables allow it; no coefficient changes. Where the joined JPEG
        `shares_chroma`, decoders give the px beside its seams other colours than in the blocks alone.

        Raises:
            SlideError: a block is damaged or lies beyond the file's end.
        """
        here = self._levels[level]
        across, down = width // here.block_width, height // here.block_height
        if (across * here.block_width, down * here.block_height) != (width, height) or not across or not down:
            return None
        left, top = self._at(x, level), self._at(y, level)
        if left is None or top is None or left % here.block_width or top % here.block_height:
            return None
        if left < 0 or top < 0 or left + width > here.width or top + height > here.height:
            return None
        column, row = left // here.block_width, top // here.block_height
        if across == down == 1:
            return self._blocks.complete(level, row, column)
        return self._blocks.join(level, row, column, across, down)

    def read_region(self, x: int, y: int, level: int, width: int, height: int) -> Picture:
        """`width` × `height` px of a level, its corner at level-0 (`x`, `y`); white beyond the slide's edge.

        Raises:
            SlideError: a block is damaged or lies beyond the file's end.
        """
        scale = self.downsamples[level]
        return self._paste(level, math.floor(x / scale + 0.5), math.floor(y / scale + 0.5), width, height, 1)

    def read_reduced(self, x: int, y: int, level: int, width: int, height: int, reduction: int) -> Picture | None:
        """`width` × `height` px at 1/`reduction` (2, 4 or 8) of a level, from its blocks decoded at that scale.

        Its corner is level-0 (`x`, `y`). None where the corner or the block size is no multiple of the reduction.

        Raises:
            SlideError: a block is damaged or lies beyond the file's end.
        """
        here = self._levels[level]
        left, top = self._at(x, level), self._at(y, level)
        if left is None or top is None or left % reduction or top % reduction or not _scales(here, reduction):
            return None
        return self._paste(level, left // reduction, top // reduction, width, height, reduction)

    def read_low_resolution(self, downsample: float) -> Picture:
        """The whole slide at `downsample` level-0 px a px: blocks decoded at up to 1/8, streaming, then averaged.

        A block that can't be decoded is a patch of tissue-like colour, and stands in `unreadable`.

        Returns:
            uint8, shape [ceil(height / downsample), ceil(width / downsample), 3].

        Raises:
            SlideError: no block of the level can be decoded.
        """
        if downsample < 1:
            raise ValueError("downsample is less than 1")
        level = max(at for at, scale in enumerate(self.downsamples) if scale <= downsample * (1 + 1e-9))
        here = self._levels[level]
        factor = max(1.0, downsample / self.downsamples[level])
        scale = next((scale for scale in _SCALES if scale <= factor and _scales(here, scale)), 1)
        shape = math.ceil(self.width / downsample), math.ceil(self.height / downsample)
        average = BoxAverage(-(-here.width // scale), -(-here.height // scale), factor / scale, *shape)
        self.unreadable = []
        self._damage.clear()
        for strip in self._strips(level, scale):
            average.add(strip)
        if self._damage and len(self._damage) == np.count_nonzero(here.byte_counts):
            raise self._damage[0]
        self.decoded_level = level
        return average.picture

    def tissue_blocks(self, level: int, count: int) -> list[tuple[int, int]]:
        """Level-0 corners of `count` whole blocks with much in them: of the longest quarter, in the file's order."""
        here = self._levels[level]
        inside = here.byte_counts[: here.height // here.block_height, : here.width // here.block_width]
        if not inside.size:
            return []
        rows, columns = np.nonzero((inside >= np.quantile(inside, 0.75)) & (inside > 0))
        scale = self.downsamples[level]
        pairs = zip(rows[:count].tolist(), columns[:count].tolist(), strict=True)
        return [
            (round(column * here.block_width * scale), round(row * here.block_height * scale)) for row, column in pairs
        ]

    def close(self) -> None:
        """Closes the file; a closed reader is not used again."""
        self._source.close()

    def __reduce__(self) -> tuple[object, ...]:
        return _reopen, (self._source, self._verify)

    def _at(self, position: int, level: int) -> int | None:
        """A level-0 coordinate in px of a level, None where no px of the level begins there."""
        found = math.floor(position / self.downsamples[level] + 0.5)
        return found if abs(found * self.downsamples[level] - position) <= 0.5 else None

    def _paste(self, level: int, left: int, top: int, width: int, height: int, scale: int) -> Picture:
        """Px of a level at 1/`scale`, the corner in px of that scale."""
        here = self._levels[level]
        block_width, block_height = here.block_width // scale, here.block_height // scale
        right, bottom = min(left + width, -(-here.width // scale)), min(top + height, -(-here.height // scale))
        picture = np.full((height, width, 3), 255, np.uint8)
        for row in range(max(top, 0) // block_height, -(-bottom // block_height)):
            for column in range(max(left, 0) // block_width, -(-right // block_width)):
                x, y = column * block_width, row * block_height
                x0, x1, y0, y1 = max(x, left), min(x + block_width, right), max(y, top), min(y + block_height, bottom)
                if x0 >= x1 or y0 >= y1:
                    continue
                block = self._blocks.decode(level, row, column, scale)
                if block is not None:
                    picture[y0 - top : y1 - top, x0 - left : x1 - left] = block[y0 - y : y1 - y, x0 - x : x1 - x]
        return picture

    def _strips(self, level: int, scale: int) -> Iterator[Picture]:
        """The level at 1/`scale`, a row of blocks at a time, cropped to the slide."""
        here = self._levels[level]
        width, height = -(-here.width // scale), -(-here.height // scale)
        block_width, block_height = here.block_width // scale, here.block_height // scale
        rows, columns = here.offsets.shape
        if block_height * columns * block_width > _MOST_STRIP:
            raise SlideError(f"a row of its blocks is {columns * block_width} px wide", where=self._source.name)
        whole = np.empty((block_height, columns * block_width, 3), np.uint8)
        for row in range(rows):
            whole[:] = 255
            for column, found in self._decode_row(level, row, scale):
                if isinstance(found, SlideError):
                    self.unreadable.append(self._covered(level, row, column))
                    self._damage.append(found)
                whole[:, column * block_width : (column + 1) * block_width] = (
                    _UNREADABLE if isinstance(found, SlideError) else found
                )
            yield whole[: min(block_height, height - row * block_height), :width]

    def _decode_row(self, level: int, row: int, scale: int) -> Iterator[tuple[int, Picture | SlideError]]:
        return self._blocks.decode_row(level, row, scale)

    def _covered(self, level: int, row: int, column: int) -> tuple[float, float, float, float]:
        """What a block covers, in level-0 px: left, top, right, bottom."""
        here, ratio = self._levels[level], self.downsamples[level]
        x, y = round(column * here.block_width * ratio), round(row * here.block_height * ratio)
        right = min(round((column + 1) * here.block_width * ratio), self.width)
        return x, y, right, min(round((row + 1) * here.block_height * ratio), self.height)


def _reopen(source: ByteSource, verify: bool) -> JpegBlockReader:
    return JpegBlockReader(source, verify=verify)


def _refusal(levels: Sequence[Directory]) -> str | None:
    if not levels:
        return "holds no tiled picture"
    for at, level in enumerate(levels):
        if level.maker:
            return f"is a {level.maker} file"
        if level.compression != _JPEG:
            return f"stores {_CODECS.get(level.compression, f'compression {level.compression}')}, not JPEG"
        if max(level.block_width, level.block_height) > _MOST_BLOCK:
            return f"has blocks of {level.block_width} × {level.block_height} px"
        if (level.samples, level.bits, level.planar) != (3, 8, 1):
            return f"stores {level.samples} samples of {level.bits} bits, planes {level.planar}, not RGB of 8 bits"
        if level.photometric not in (RGB, YCBCR):
            return f"has photometric {level.photometric}, not RGB or YCbCr"
        if at and level.aperio and not level.byte_counts.all():
            return "lacks blocks in a smaller level, which OpenSlide fills from the larger one"
    return None


def _downsample(first: Directory, level: Directory) -> float:
    """Level-0 px a px. A side that is a whole fraction of the slide's but for the cut-off rest is taken as that."""
    mean = (first.width / level.width + first.height / level.height) / 2
    whole = round(mean)
    sides = ((first.width, level.width), (first.height, level.height))
    exact = whole > 0 and all(side in (full // whole, -(-full // whole)) for full, side in sides)
    return float(whole) if exact else mean


def _scales(level: Directory, scale: int) -> bool:
    return scale in _SCALES and level.block_width % scale == 0 and level.block_height % scale == 0
