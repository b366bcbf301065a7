"""A tile's bytes: the stored block where there is one, else its pixels, encoded."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from components.readers.protocol import Picture, SlideReader
from components.tile_images.parameters import TilingParameters
from components.tile_images.scale import Scale


@dataclass(frozen=True)
class EncodedTile:
    """A complete picture file; `lossless` is 1 where its pixels are the stored ones."""

    content: bytes
    format: str
    lossless: int


class TileEncoder:
    """Makes the tiles of one slide.

    A stored block is taken as it is where the reader has one for exactly the tile. A PNG holds the level's own
    pixels unless they were resampled; a JPEG that is encoded here is never lossless.
    """

    def __init__(self, reader: SlideReader, scale: Scale, parameters: TilingParameters) -> None:
        self._reader, self._scale, self._parameters = reader, scale, parameters
        self._blocks = scale.native and parameters.tile_format == "jpeg"

    def encode(self, x: int, y: int) -> EncodedTile:
        """The tile whose upper-left corner is at level-0 (`x`, `y`).

        Raises:
            SlideError: the slide can't be read there.
        """
        px, scale = self._parameters.tile_px, self._scale
        if self._blocks:
            block = self._reader.stored_block(x, y, scale.level, px, px)
            if block is not None:
                return EncodedTile(block, "jpeg", 1)
        content = io.BytesIO()
        picture = Image.fromarray(self.read_pixels(x, y))
        if self._parameters.tile_format == "png":
            picture.save(content, "PNG", compress_level=6)
            return EncodedTile(content.getvalue(), "png", int(scale.native))
        picture.save(content, "JPEG", quality=self._parameters.jpeg_quality, subsampling="4:2:0")
        return EncodedTile(content.getvalue(), "jpeg", 0)

    def read_pixels(self, x: int, y: int) -> Picture:
        """The tile's pixels at the wanted scale, uint8, shape [tile_px, tile_px, 3].

        Where the scale is no level's own, the next finer level is averaged over areas (a whole number of its px),
        or resampled by a Lanczos filter of the right width (any other).
        """
        px, scale = self._parameters.tile_px, self._scale
        if scale.native:
            return self._reader.read_region(x, y, scale.level, px, px)
        left, top, side = x / scale.downsample, y / scale.downsample, scale.side / scale.downsample
        x0, y0 = math.floor(left + 1e-6), math.floor(top + 1e-6)
        width, height = math.ceil(left + side - 1e-6) - x0, math.ceil(top + side - 1e-6) - y0
        corner = round(x0 * scale.downsample), round(y0 * scale.downsample)
        region = Image.fromarray(self._reader.read_region(*corner, scale.level, width, height))
        if width == height and width % px == 0 and abs(side - width) < 1e-6:
            return np.asarray(region.reduce(width // px))
        box = (left - x0, top - y0, min(left - x0 + side, width), min(top - y0 + side, height))
        return np.asarray(region.resize((px, px), Image.Resampling.LANCZOS, box=tuple(max(edge, 0.0) for edge in box)))
