"""Lesion masks: painted (single-channel TIFFs or pictures of the whole slide, any nonzero px marked) or drawn."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tifffile import TiffFile, TiffFileError

from components.readers.annotation import is_annotation, read_annotation
from components.readers.polygon import Regions
from components.records.errors import SlideError

_MOST_PICTURE_PX = 1 << 28
_MOST_SKEW = 0.02
_KNOWN_EMPTY = 64
# A tile that only shares an edge with a mask px is not touched by it, whatever rounding says: level-0 px inwards.
_INSET = 0.125
_MEND = "give a single-channel TIFF or PNG, ASAP's .xml or QuPath's .geojson, or leave mask_path empty"

Block = tuple[NDArray[np.bool_], int, int]
Corners = NDArray[np.int64]


@dataclass(frozen=True)
class Survey:
    """What a mask says of a slide.

    Attributes:
        areas: level-0 px² marked of each tile, float64 [tiles]; above 0 where the mask touches it at all.
        drawn: bool [h, w], the slide at a low resolution; a px is marked that the mask touches.
    """

    areas: NDArray[np.float64]
    drawn: NDArray[np.bool_]


def survey_mask(
    path: str,
    size: tuple[int, int],
    x: Corners,
    y: Corners,
    side: int,
    downsample: float,
    *,
    classes: Sequence[str] = (),
    name: str = "",
) -> Survey:
    """Holds a mask against a slide's tiles at the mask's full resolution, one of its blocks in memory at a time.

    Args:
        path: a TIFF, a picture, or an annotation, as its name ends.
        size: of the slide, level-0 px (width, height).
        x: left edge of each tile, level-0 px; tiles come in rows from the top.
        y: upper edge of each.
        side: level-0 px of a tile.
        downsample: level-0 px a px of the picture that is drawn.
        classes: as `annotation.read_annotation` takes them.
        name: what errors call the file, where it isn't the path's.

    Raises:
        SlideError: there is no such file, it can't be read, has several channels, or is not of this slide.
    """
    if not os.path.isfile(path):
        raise SlideError("the mask is missing", mend="check mask_path")
    name = name or os.path.basename(path)
    if is_annotation(name):
        return _survey_annotation(path, size, x, y, side, downsample, classes, name)
    try:
        with open(path, "rb") as stream:
            is_tiff = stream.read(4)[:2] in (b"II", b"MM")
        if is_tiff:
            with TiffFile(path) as tiff:
                return _TiffMask(tiff).survey(size, x, y, side, downsample)
        marked = _read_picture(path)
        found = _Tally((marked.shape[1], marked.shape[0]), size, x, y, side, downsample)
        found.add(marked, 0, 0)
        return found.finish()
    except (
        TiffFileError,
        OSError,
        ValueError,
        RuntimeError,
        IndexError,
        KeyError,
        Image.DecompressionBombError,
    ) as error:
        told = str(error).replace(path, name)
        raise SlideError(f"the mask can't be read ({type(error).__name__}: {told})", mend=_MEND) from None


def _survey_annotation(
    path: str,
    size: tuple[int, int],
    x: Corners,
    y: Corners,
    side: int,
    downsample: float,
    classes: Sequence[str],
    name: str,
) -> Survey:
    polygons = read_annotation(path, classes, name)
    for polygon in polygons:
        left, top, right, bottom = polygon.box
        if right <= 0 or bottom <= 0 or left >= size[0] or top >= size[1]:
            raise SlideError(
                f"the annotation {name} marks ({left:g}, {top:g}) to ({right:g}, {bottom:g}), outside the slide",
                mend="give coordinates in level-0 px of this slide",
            )
    regions = Regions(polygons)
    return Survey(regions.measure(x, y, side), regions.draw(*size, downsample))


def _read_picture(path: str) -> NDArray[np.bool_]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        picture = Image.open(path)
    with picture:
        if len(picture.getbands()) != 1:
            raise SlideError(f"the mask has {len(picture.getbands())} channels", mend=_MEND)
        if picture.width * picture.height > _MOST_PICTURE_PX:
            raise SlideError("the mask picture is too large to hold", mend="write it as a tiled TIFF")
        return np.asarray(np.asarray(picture) != 0)


class _Tally:
    """Adds up blocks of a mask: the area of each tile, and the low-resolution picture."""

    def __init__(
        self, mask_size: tuple[int, int], size: tuple[int, int], x: Corners, y: Corners, side: int, downsample: float
    ) -> None:
        check_mask_shape((mask_size[1], mask_size[0]), *size)
        self._scale = _scale(mask_size[0], size[0]), _scale(mask_size[1], size[1])
        across, down = self._scale
        self._left, self._right = (x + _INSET) / across, (x + side - _INSET) / across
        self._top, self._bottom = (y + _INSET) / down, (y + side - _INSET) / down
        self._areas = np.zeros(len(x))
        self._inset_share = (side / (side - 2 * _INSET)) ** 2
        self._downsample = downsample
        self._drawn = np.zeros((int(-(-size[1] // downsample)), int(-(-size[0] // downsample))), bool)

    def add(self, marked: NDArray[np.bool_], top: int, left: int) -> None:
        """Adds a block, bool [h, w], whose corner lies at (`left`, `top`) of the mask."""
        rows, columns = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
        if not len(rows):
            return
        marked = marked[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        top, left = top + int(rows[0]), left + int(columns[0])
        height, width = marked.shape
        self._draw(marked, top, left)
        # rows of tiles come in order, so that those near the block are one run
        begin, end = np.searchsorted(self._bottom, top, "right"), np.searchsorted(self._top, top + height, "left")
        near = np.flatnonzero((self._left[begin:end] < left + width) & (self._right[begin:end] > left)) + begin
        across, down = self._scale
        for tile in near.tolist():
            vertical, y0 = _overlap(self._top[tile] - top, self._bottom[tile] - top, height)
            horizontal, x0 = _overlap(self._left[tile] - left, self._right[tile] - left, width)
            part = marked[y0 : y0 + len(vertical), x0 : x0 + len(horizontal)]
            if part.any():
                self._areas[tile] += float(vertical @ part @ horizontal) * across * down

    def _draw(self, marked: NDArray[np.bool_], top: int, left: int) -> None:
        """A px of the mask marks every px of the picture that it touches."""
        spread = marked
        for axis, (start, scale) in enumerate(((top, self._scale[1]), (left, self._scale[0]))):
            begins = np.floor((np.arange(spread.shape[axis]) + start) * scale / self._downsample + 1e-9).astype(int)
            ends = np.ceil((np.arange(spread.shape[axis]) + start + 1) * scale / self._downsample - 1e-9).astype(int)
            first, last = int(begins[0]), int(ends[-1])
            made = np.zeros((last - first, spread.shape[1 - axis]), bool)
            source = spread if axis == 0 else spread.T
            for offset in range(int((ends - begins).max())):
                where = begins + offset
                inside = where < ends
                to, starts = np.unique(where[inside] - first, return_index=True)
                made[to] |= np.logical_or.reduceat(source[inside], starts, axis=0)
            spread = made if axis == 0 else made.T
            if axis == 0:
                y0 = first
            else:
                x0 = first
        target = self._drawn[y0 : y0 + spread.shape[0], x0 : x0 + spread.shape[1]]
        target |= spread[: target.shape[0], : target.shape[1]]

    def finish(self) -> Survey:
        """What all blocks came to."""
        return Survey(self._areas * self._inset_share, self._drawn)


def _overlap(begin: float, end: float, length: int) -> tuple[NDArray[np.float64], int]:
    """How much of each px lies between `begin` and `end`, and the first px, of an axis of `length` px."""
    first, last = max(0, int(np.floor(begin))), min(length, int(np.ceil(end)))
    at = np.arange(first, last)
    return np.minimum(at + 1, end) - np.maximum(at, begin), first


def _scale(px: int, length: int) -> float:
    """Level-0 px a px of a mask; whole where the mask was made by taking every so many."""
    whole = max(1, round(length / px))
    return float(whole) if px in (length // whole, -(-length // whole)) else length / px


def check_mask_shape(shape: tuple[int, ...], width: int, height: int) -> None:
    """Holds a mask's proportions against the slide's; raises SlideError where they differ."""
    rows, columns = shape
    skew = abs(columns * height / (rows * width) - 1)
    if skew > _MOST_SKEW + 1 / min(rows, columns):
        raise SlideError(
            f"the mask of {columns} × {rows} px does not have the slide's proportions ({width} × {height})",
            mend="give a mask of the whole slide",
        )


class _TiffMask:
    """The first (largest) level of a TIFF, block by block; blocks of equal bytes known to be empty are not decoded."""

    def __init__(self, tiff: TiffFile) -> None:
        page: Any = tiff.pages[0]
        if page.samplesperpixel != 1:
            raise SlideError(f"the mask has {page.samplesperpixel} channels", mend=_MEND)
        self._file, self._page = tiff.filehandle, page
        self.width, self.height = int(page.imagewidth), int(page.imagelength)

    def survey(self, size: tuple[int, int], x: Corners, y: Corners, side: int, downsample: float) -> Survey:
        """As `survey_mask`."""
        found = _Tally((self.width, self.height), size, x, y, side, downsample)
        for block, top, left in self._blocks():
            found.add(block, top, left)
        return found.finish()

    def _blocks(self) -> Iterator[Block]:
        page = self._page
        rows, columns = (
            (page.tilelength, page.tilewidth) if page.is_tiled else (min(page.rowsperstrip, self.height), self.width)
        )
        if rows * columns > _MOST_PICTURE_PX:
            raise SlideError("the mask's blocks are too large to hold", mend="write it as a tiled TIFF")
        empty: set[bytes] = set()
        for index, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
            if count == 0:
                continue
            self._file.seek(offset)
            data = self._file.read(count)
            if len(data) != count:
                raise ValueError(f"block {index} is cut off")
            if data in empty:
                continue
            segment, place, shape = page.decode(data, index, jpegtables=page.jpegtables)
            if segment is None:
                continue
            top, left = int(place[2]), int(place[3])
            block = np.asarray(segment).reshape(segment.shape[-3], segment.shape[-2])[: shape[1], : shape[2]] != 0
            block = block[: self.height - top, : self.width - left]
            if block.any():
                yield block, top, left
            elif len(empty) < _KNOWN_EMPTY and count <= 1 << 16:
                empty.add(data)
