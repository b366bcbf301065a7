"""Where the tiles of a deep-zoom pyramid lie: each level half of the one above, the last one a single px."""

from __future__ import annotations

from dataclasses import dataclass

SMALLEST_TILE, LARGEST_TILE, USUAL_TILE = 256, 1024, 512


@dataclass(frozen=True)
class Place:
    """One tile: `scale` level-0 px a px, its corner in level-0 px, its size in px of the tile."""

    scale: int
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Pyramid:
    """A slide of `width` × `height` level-0 px in tiles of `tile_width` × `tile_height` px, without overlap."""

    width: int
    height: int
    tile_width: int
    tile_height: int

    @property
    def max_level(self) -> int:
        """The level that has the slide's own px; level 0 is a single px."""
        return (max(self.width, self.height) - 1).bit_length()

    def place(self, level: int, column: int, row: int) -> Place | None:
        """The tile of a level at (column, row), None where there is none."""
        if not 0 <= level <= self.max_level or column < 0 or row < 0:
            return None
        scale = 1 << (self.max_level - level)
        across, down = -(-self.width // scale), -(-self.height // scale)
        left, top = column * self.tile_width, row * self.tile_height
        if left >= across or top >= down:
            return None
        width, height = min(self.tile_width, across - left), min(self.tile_height, down - top)
        return Place(scale, left * scale, top * scale, width, height)


def choose_tile(block_width: int, block_height: int) -> tuple[int, int]:
    """Tile size for stored blocks: one block, or several where they are small; a usual size where they don't fit.

    Blocks of 0 px stand for a slide that stores none.
    """
    if min(block_width, block_height) < 1 or max(block_width, block_height) > LARGEST_TILE:
        return USUAL_TILE, USUAL_TILE
    times = -(-SMALLEST_TILE // min(block_width, block_height))
    if max(block_width, block_height) * times > LARGEST_TILE:
        return USUAL_TILE, USUAL_TILE
    return block_width * times, block_height * times
