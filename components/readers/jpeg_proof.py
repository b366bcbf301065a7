"""The fast path proves itself: a slide's stored blocks must show what OpenSlide shows."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from components.readers.block_store import decode_stream
from components.readers.jpeg_blocks import JpegBlockReader
from components.readers.jpeg_stream import StreamError
from components.readers.protocol import SlideReader
from components.records.errors import SlideError


def prove(
    reader: JpegBlockReader, reference: SlideReader, blocks: Iterable[tuple[int, int, int]] | None = None
) -> str | None:
    """Whether the stored blocks say what another reader (OpenSlide) shows there.

    Args:
        reader: the reader to prove.
        reference: the same slide through the other reader.
        blocks: level-0 x, y and level of the blocks to compare; four with much in them of each level if not given.

    Returns:
        None where sizes and pixels are equal, else the reason to step aside. Where a level's size is no whole fraction
        of the slide's, OpenSlide interpolates, and pixels need only be alike: less than 3 levels apart on average.
    """
    theirs_are, ours_are = (f"{slide.width} × {slide.height} px" for slide in (reference, reader))
    if theirs_are != ours_are:
        return f"it is {theirs_are} through {reference.name}, {ours_are} by its index"
    theirs_are, ours_are = (f"{len(slide.downsamples)} levels" for slide in (reference, reader))
    if theirs_are != ours_are:
        return f"it has {theirs_are} through {reference.name}, {ours_are} by its index"
    if blocks is None:
        blocks = [(x, y, level) for level in range(len(reader.downsamples)) for x, y in reader.tissue_blocks(level, 4)]
    for x, y, level in blocks:
        width, height = reader.block_sizes[level]
        try:
            stored = reader.stored_block(x, y, level, width, height)
            if stored is None:
                continue
            ours, theirs = decode_stream(stored, None), reference.read_region(x, y, level, width, height)
        except (SlideError, StreamError) as error:
            return f"block at ({x}, {y}) of level {level} can't be compared: {error}"
        apart = np.abs(ours.astype(np.int16) - theirs)
        exact = all(math.isclose(position / reference.downsamples[level] % 1, 0, abs_tol=1e-9) for position in (x, y))
        if apart.any() if exact else apart.mean() >= 3:
            return f"its pixels differ from {reference.name}'s at ({x}, {y}) of level {level}, by up to {apart.max()}"
    return None
