"""The fast path proves itself: a slide's stored blocks must show what OpenSlide shows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from components.readers.block_store import decode_stream
from components.readers.jpeg_blocks import JpegBlockReader
from components.readers.jpeg_stream import StreamError
from components.readers.protocol import Picture, SlideReader
from components.records.errors import SlideError

# How far apart averages over 8 × 8 px may be where OpenSlide interpolates between px.
_ALIKE = 16
# Blocks of a level that are compared, and that are tried where damaged ones are among them.
_ENOUGH, _MOST_TRIED = 4, 32


def prove(
    reader: JpegBlockReader,
    reference: SlideReader,
    blocks: Iterable[tuple[int, int, int]] | None = None,
    *,
    levels: int | None = None,
) -> str | None:
    """Whether the stored blocks say what another reader (OpenSlide) shows there.

    Args:
        reader: the reader to prove.
        reference: the same slide through the other reader.
        blocks: level-0 x, y and level of the blocks to compare; four with much in them of each level if not given.
            A block that the strict decoder finds damaged proves nothing and is passed over.
        levels: how many levels are compared; all, whose number must then be equal, if not given.

    Returns:
        None where sizes and pixels are equal, else the reason to step aside. Where a level's size is no whole fraction
        of the slide's, OpenSlide interpolates, and only averages over 8 × 8 px need be alike.
    """
    theirs_are, ours_are = (f"{slide.width} × {slide.height} px" for slide in (reference, reader))
    if theirs_are != ours_are:
        return f"it is {theirs_are} through {reference.name}, {ours_are} by its index"
    theirs_are, ours_are = (f"{len(slide.downsamples)} levels" for slide in (reference, reader))
    if levels is None and theirs_are != ours_are:
        return f"it has {theirs_are} through {reference.name}, {ours_are} by its index"
    enough = -1
    if blocks is None:
        compared = range(levels or len(reader.downsamples))
        blocks = [(x, y, level) for level in compared for x, y in reader.tissue_blocks(level, _MOST_TRIED)]
        enough = _ENOUGH
    damaged, done = "", Counter[int]()
    for x, y, level in blocks:
        if done[level] == enough:
            continue
        width, height = reader.block_sizes[level]
        ours_at, theirs_at = reader.downsamples[level], reference.downsamples[level]
        # The same px of the level, where the two readers' downsamples differ in a cut-off rest.
        there = [round(round(position / ours_at) * theirs_at) for position in (x, y)]
        try:
            stored = reader.stored_block(x, y, level, width, height)
            ours = None if stored is None else decode_stream(stored, None)
        except (SlideError, StreamError) as error:
            damaged = damaged or f"block at ({x}, {y}) of level {level} can't be compared: {error}"
            continue
        if ours is None:
            continue
        done[level] += 1
        try:
            theirs = reference.read_region(there[0], there[1], level, width, height)
        except SlideError as error:
            return f"block at ({x}, {y}) of level {level} can't be compared: {error}"
        exact = all(math.isclose(position / theirs_at, round(position / theirs_at), abs_tol=1e-9) for position in there)
        apart = np.abs(ours.astype(np.int16) - theirs) if exact else np.abs(_soften(ours) - _soften(theirs))
        if apart.any() if exact else apart.max() >= _ALIKE:
            return f"its pixels differ from {reference.name}'s at ({x}, {y}) of level {level}, by up to {apart.max()}"
    return None if done else damaged or None


def _soften(picture: Picture) -> NDArray[np.float64]:
    height, width, _ = picture.shape
    tall, wide = min(8, height), min(8, width)
    boxes = picture[: height // tall * tall, : width // wide * wide]
    softened: NDArray[np.float64] = boxes.reshape(height // tall, tall, width // wide, wide, 3).mean(axis=(1, 3))
    return softened
