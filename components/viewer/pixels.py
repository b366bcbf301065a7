"""A tile's px: read from the level that fits, or cut from the whole slide; hatched where nothing can be read."""

from __future__ import annotations

import math

import numpy as np
import simplejpeg
from PIL import Image

from components.readers.protocol import Picture, SlideReader
from components.records.errors import SlideError
from components.viewer.geometry import Place

# Of a level's own scale; within it a level's px are taken as they are.
SAME = 1e-3
_QUALITY = 85
_SMALLEST_PIECE = 128


def cut_tile(picture: Picture, downsample: float, place: Place) -> Picture:
    """A tile of a picture of the whole slide that has at least the tile's resolution."""
    ratio = place.scale / downsample
    left, top = place.x / downsample, place.y / downsample
    height, width = picture.shape[:2]
    box = (
        min(left, width - 1),
        min(top, height - 1),
        min(left + place.width * ratio, width),
        min(top + place.height * ratio, height),
    )
    cut = Image.fromarray(picture).resize((place.width, place.height), Image.Resampling.BOX, box=box)
    return np.asarray(cut)


def read_tile(reader: SlideReader, level: int, place: Place) -> tuple[Picture, bool]:
    """A tile's px, and whether a part of it is hatched because it can't be read."""
    try:
        return _read_whole(reader, level, place), False
    except SlideError:
        if max(place.width, place.height) <= _SMALLEST_PIECE:
            return _hatch(np.empty((place.height, place.width, 3), np.uint8)), True
    half = max(_SMALLEST_PIECE, -(-max(place.width, place.height) // 2))
    picture = np.empty((place.height, place.width, 3), np.uint8)
    for top in range(0, place.height, half):
        for left in range(0, place.width, half):
            piece = Place(
                place.scale,
                place.x + left * place.scale,
                place.y + top * place.scale,
                min(half, place.width - left),
                min(half, place.height - top),
            )
            picture[top : top + piece.height, left : left + piece.width] = read_tile(reader, level, piece)[0]
    return picture, True


def _read_whole(reader: SlideReader, level: int, place: Place) -> Picture:
    ratio = place.scale / reader.downsamples[level]
    if abs(ratio - 1) <= SAME:
        return reader.read_region(place.x, place.y, level, place.width, place.height)
    whole = round(ratio)
    reduce = getattr(reader, "read_reduced", None)
    if reduce is not None and whole in (2, 4, 8) and abs(ratio - whole) < SAME:
        reduced: Picture | None = reduce(place.x, place.y, level, place.width, place.height, whole)
        if reduced is not None:
            return reduced
    wide, tall = max(1, round(place.width * ratio)), max(1, round(place.height * ratio))
    region = reader.read_region(place.x, place.y, level, wide, tall)
    return np.asarray(Image.fromarray(region).resize((place.width, place.height), Image.Resampling.BOX))


def hatch_boxes(picture: Picture, downsample: float, boxes: tuple[tuple[float, float, float, float], ...]) -> Picture:
    """`picture` of the whole slide with stripes over boxes (left, top, right, bottom) in level-0 px."""
    if not boxes:
        return picture
    marked = picture.copy()
    for left, top, right, bottom in boxes:
        rows = slice(int(top / downsample), math.ceil(bottom / downsample))
        columns = slice(int(left / downsample), math.ceil(right / downsample))
        _hatch(marked[rows, columns])
    return marked


def _hatch(picture: Picture) -> Picture:
    """Fills `picture` with grey stripes: nothing on a slide looks like it."""
    diagonal = np.arange(picture.shape[0])[:, None] + np.arange(picture.shape[1])
    picture[:] = np.where(diagonal // 6 % 2, 150, 205).astype(np.uint8)[..., None]
    return picture


def encode_jpeg(picture: Picture, quality: int = _QUALITY) -> bytes:
    """RGB, uint8, shape [height, width, 3] as JPEG."""
    content: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality, "RGB", "420")
    return content
