"""The QC sheet of a slide: its picture with the mask's outline, the pen, and the tiles that are kept."""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from components.readers.protocol import Picture
from components.records import storage
from components.tile_images.grid import Tiles
from components.tile_images.morphology import Mask, grow, reduce_picture, shrink
from components.tile_images.tissue import Findings

FOLDER = "qc"
SHEET_PX = 1024
TISSUE, PEN, FOLD, GRID = (91, 142, 125), (200, 85, 61), (233, 170, 40), (42, 111, 151)


def sheet_path(image_id: str) -> str:
    """Where the sheet lies, relative to OUT."""
    return f"{FOLDER}/{image_id}.jpg"


def save_sheet(
    out: str, image_id: str, picture: Picture, found: Findings, tiles: Tiles, downsample: float, side: int
) -> None:
    """Draws a slide's sheet into `qc/<image_id>.jpg`.

    Args:
        out: the dataset.
        image_id: of the slide.
        picture: at low resolution, uint8, shape [height, width, 3].
        found: masks of the picture.
        tiles: those that are kept, records of `grid.TILE`.
        downsample: level-0 px a px of the picture.
        side: level-0 px of a tile.
    """
    content = io.BytesIO()
    draw_sheet(picture, found, tiles, downsample, side).save(content, "JPEG", quality=82)
    storage.write_bytes(storage.join(out, *sheet_path(image_id).split("/")), content.getvalue())


def draw_sheet(picture: Picture, found: Findings, tiles: Tiles, downsample: float, side: int) -> Image.Image:
    """The sheet, at most 1024 px long: what is not kept is faded, tissue is outlined, pen and folds are tinted."""
    factor = math.ceil(max(picture.shape[:2]) / SHEET_PX)
    small = reduce_picture(picture, factor)
    height, width = small.shape[:2]
    scale = downsample * factor
    boxes = np.stack([tiles["x"], tiles["y"], tiles["x"] + side, tiles["y"] + side], axis=1) / scale
    corners = np.floor(boxes + 0.5).astype(int)
    kept = np.zeros((height, width), bool)
    for left, top, right, bottom in corners.tolist():
        kept[top:bottom, left:right] = True
    dark = small.mean() < 80
    canvas = Image.fromarray(small).point([(level * 2 + (0 if dark else 3 * 255)) // 5 for level in range(256)] * 3)
    canvas.paste(Image.fromarray(small), mask=Image.fromarray(kept.view(np.uint8) * np.uint8(255)))
    for mask, colour in ((found.pen, PEN), (found.fold, FOLD)):
        if mask.any():
            shown, where = np.array(canvas), _reduce(mask, factor, height, width)
            shown[where] = (shown[where].astype(np.uint16) + np.array(colour)) // 2
            canvas = Image.fromarray(shown)
    if side / scale >= 4:
        _draw_grid(canvas, corners)
    tissue = _reduce(found.tissue, factor, height, width)
    outline = grow(tissue, 1) & ~shrink(tissue, 1)
    canvas.paste(TISSUE, mask=Image.fromarray(outline.view(np.uint8) * np.uint8(255)))
    return canvas


def _draw_grid(canvas: Image.Image, corners: NDArray[np.int_]) -> None:
    lines = Image.new("L", canvas.size, 0)
    draw = ImageDraw.Draw(lines)
    for left, top, right, bottom in corners.tolist():
        draw.rectangle((left, top, right, bottom), outline=140)
    canvas.paste(GRID, mask=lines)


def _reduce(mask: Mask, factor: int, height: int, width: int) -> Mask:
    if factor == 1:
        return mask
    return np.asarray(reduce_picture(mask.view(np.uint8) * np.uint8(255), factor)[:height, :width] > 127)
