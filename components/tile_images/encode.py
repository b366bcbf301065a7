"""A tile's bytes: the stored blocks where they make up the tile, else its pixels, encoded once.

`tile/lossless` is 1 for the stored pixels, which are OpenSlide's too: a stored block as it is, several whole blocks
without chroma subsampling joined at the level of their JPEG coefficients, and a PNG of a level's own pixels.

Blocks with chroma subsampling are joined in the same way, and nothing is coded again either. But decoders interpolate
chroma across the seam between the blocks, so that the px next to it (1.6% of a tile of four 128-px blocks) come out up
to about 14 of 255 apart from those of the blocks decoded one by one: such a tile has `tile/lossless` 0, and the ledger
counts it in `tiles_joined`.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image

from components.readers.jpeg_stream import shares_chroma
from components.readers.protocol import Picture, SlideReader
from components.tile_images.parameters import TilingParameters
from components.tile_images.scale import Scale

_REDUCTIONS = (2, 4, 8)


@dataclass(frozen=True)
class EncodedTile:
    """A complete picture file.

    Attributes:
        lossless: 1 where its pixels are the stored ones.
        joined: 1 where it is several stored blocks, their coefficients untouched.
    """

    content: bytes
    format: str
    lossless: int
    joined: int = 0


class TileEncoder:
    """Makes the tiles of one slide.

    Stored blocks are taken where the reader has them for exactly the tile. A PNG holds the level's own pixels unless
    they were resampled; a JPEG that is encoded here (by libjpeg-turbo, 4:2:0) is never lossless.
    """

    def __init__(self, reader: SlideReader, scale: Scale, parameters: TilingParameters) -> None:
        self._reader, self._scale, self._parameters = reader, scale, parameters
        self._blocks = scale.native and parameters.tile_format == "jpeg"
        sizes = getattr(reader, "block_sizes", None)
        self._joins = sizes is not None and sizes[scale.level] != (parameters.tile_px, parameters.tile_px)
        ratio = scale.scale / scale.downsample
        self._reduction = round(ratio) if round(ratio) in _REDUCTIONS and abs(ratio - round(ratio)) < 1e-9 else 0

    def encode(self, x: int, y: int) -> EncodedTile:
        """The tile whose upper-left corner is at level-0 (`x`, `y`).

        Raises:
            SlideError: the slide can't be read there.
        """
        px, scale = self._parameters.tile_px, self._scale
        if self._blocks:
            block = self._reader.stored_block(x, y, scale.level, px, px)
            if block is not None:
                return EncodedTile(block, "jpeg", int(not (self._joins and shares_chroma(block))), int(self._joins))
        picture = self.read_pixels(x, y)
        if self._parameters.tile_format == "png":
            content = io.BytesIO()
            Image.fromarray(picture).save(content, "PNG", compress_level=6)
            return EncodedTile(content.getvalue(), "png", int(scale.native))
        quality = self._parameters.jpeg_quality
        stream = simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality, colorsubsampling="420")
        return EncodedTile(bytes(stream), "jpeg", 0)

    def read_pixels(self, x: int, y: int) -> Picture:
        """The tile's pixels at the wanted scale, uint8, shape [tile_px, tile_px, 3].

        Where the scale is no level's own, the next finer level is decoded at 1/2, 1/4 or 1/8 (stored JPEG blocks),
        averaged over areas (a whole number of its px), or resampled by a Lanczos filter of the right width.
        """
        px, scale = self._parameters.tile_px, self._scale
        if scale.native:
            return self._reader.read_region(x, y, scale.level, px, px)
        if self._reduction and hasattr(self._reader, "read_reduced"):
            reduced: Picture | None = self._reader.read_reduced(x, y, scale.level, px, px, self._reduction)
            if reduced is not None:
                return reduced
        left, top, side = x / scale.downsample, y / scale.downsample, scale.side / scale.downsample
        x0, y0 = math.floor(left + 1e-6), math.floor(top + 1e-6)
        width, height = math.ceil(left + side - 1e-6) - x0, math.ceil(top + side - 1e-6) - y0
        corner = round(x0 * scale.downsample), round(y0 * scale.downsample)
        region = Image.fromarray(self._reader.read_region(*corner, scale.level, width, height))
        if width == height and width % px == 0 and abs(side - width) < 1e-6:
            return np.asarray(region.reduce(width // px))
        x1, y1 = max(left - x0, 0.0), max(top - y0, 0.0)
        box = (x1, y1, min(x1 + side, width), min(y1 + side, height))
        return np.asarray(region.resize((px, px), Image.Resampling.LANCZOS, box=box))
