"""What every reader offers, whatever the format behind it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


class SlideReader(Protocol):
    """An open slide.

    Coordinates are level-0 px from the upper-left corner. Pictures are RGB, uint8, shape [height, width, 3];
    what is transparent in the file is white. Only pixels and the attributes below leave a reader: never the
    label or macro image, never a free-text property.

    Attributes:
        name: which reader this is, as the ledger says it.
        width, height: level-0 px.
        downsamples: level-0 px a px of each level, level 0 first; a flat slide has one level, 1.0.
        mpp: µm/px at level 0 as the file states it, None where it doesn't.
        icc_profile: the file's ICC profile, None where it has none.
    """

    name: str
    width: int
    height: int
    downsamples: tuple[float, ...]
    mpp: float | None
    icc_profile: bytes | None

    def read_region(self, x: int, y: int, level: int, width: int, height: int) -> Picture:
        """`width` × `height` px of a level, its corner at level-0 (`x`, `y`); white beyond the slide's edge.

        Raises:
            SlideError: the file can't be read there.
        """
        ...

    def read_low_resolution(self, downsample: float) -> Picture:
        """The whole slide at `downsample` level-0 px a px, in bounded memory even where the file has no pyramid.

        Returns:
            uint8, shape [ceil(height / downsample), ceil(width / downsample), 3].

        Raises:
            SlideError: the file can't be read.
        """
        ...

    def stored_block(self, x: int, y: int, level: int, width: int, height: int) -> bytes | None:
        """The complete JPEG the file stores for exactly these px, or None where it stores no such block."""
        ...

    def close(self) -> None:
        """Closes the file; a closed reader is not used again."""
        ...
