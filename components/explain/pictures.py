"""Pictures inside the report: small JPEGs as data URIs. Thumbnails and tiles only, never a label or macro image."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, UnidentifiedImageError

from components.explain.attention import TopTile
from components.explain.heatmaps import LEGEND_PX, Picture, SlideTiles, boxes_on_thumbnail
from components.records.errors import WorkError
from components.records.example import parse_example

_GRID = (42, 111, 151)


def shrink(picture: Image.Image, side: int) -> Image.Image:
    """The picture with its longer side at most `side` px."""
    scale = side / max(picture.size)
    if scale >= 1:
        return picture
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def data_uri(picture: Image.Image, side: int, quality: int = 82) -> str:
    """`data:image/jpeg;base64,…` of the picture, its longer side at most `side` px."""
    buffer = io.BytesIO()
    shrink(picture.convert("RGB"), side).save(buffer, "JPEG", quality=quality, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def crop_around(box: tuple[int, int, int, int], downsample: float, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A nearly square crop, thumbnail px, around a box in level-0 px, inside a picture of `size` (w, h)."""
    left, top, right, bottom = (value / downsample for value in box)
    side = max(right - left, bottom - top)
    width, height = (max(length, 0.75 * side) + 0.12 * side for length in (right - left, bottom - top))
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    x0, y0 = max(0, int(middle_x - width / 2)), max(0, int(middle_y - height / 2))
    x1, y1 = min(size[0], round(middle_x + width / 2)), min(size[1], round(middle_y + height / 2))
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def heatmap_uri(path: str, box: tuple[int, int, int, int] | None, side: int) -> str:
    """`data_uri` of a heatmap on disk without its legend, cropped to `box` where there is one."""
    with Image.open(path) as picture:
        return data_uri(picture.crop(box or (0, 0, picture.width, picture.height - LEGEND_PX)), side)


def draw_tile_grid(picture: Picture, tiles: SlideTiles | None, downsample: float, side: int) -> str:
    """`data_uri` of a thumbnail on which the kept tiles are outlined and all else is faded."""
    small = shrink(Image.fromarray(picture), side)
    faded = np.asarray(small, np.float32) * 0.45 + 255 * 0.55
    if tiles is None or not len(tiles.x):
        return data_uri(Image.fromarray(faded.astype(np.uint8)), side)
    scale = downsample * picture.shape[1] / small.width
    boxes = boxes_on_thumbnail(tiles, scale, (small.height, small.width)).tolist()
    kept = np.zeros((small.height, small.width), bool)
    for left, top, right, bottom in boxes:
        kept[top:bottom, left:right] = True
    shown = np.where(kept[..., None], np.asarray(small), faded).astype(np.uint8)
    canvas = Image.fromarray(shown).convert("RGB")
    if min(boxes[0][2] - boxes[0][0], boxes[0][3] - boxes[0][1]) >= 4:
        lines = Image.new("L", canvas.size, 0)
        draw = ImageDraw.Draw(lines)
        for left, top, right, bottom in boxes:
            draw.rectangle((left, top, right, bottom), outline=150)
        canvas.paste(Image.new("RGB", canvas.size, _GRID), mask=lines)
    return data_uri(canvas, side)


def read_tile(tile: TopTile) -> Image.Image:
    """Decodes one tile from its record.

    Raises:
        WorkError: the record is missing or cut off, or its picture does not decode.
    """
    where = f"{tile.image_id}, tile at {tile.x}, {tile.y}"
    mend = "run the tiling step again"
    try:
        with Path(tile.span.path).open("rb") as stream:
            stream.seek(tile.span.offset)
            data = stream.read(tile.span.length)
    except FileNotFoundError:
        raise WorkError(f"{tile.span.path} is missing", where=where, mend=mend) from None
    encoded = parse_example(data).get("image/encoded")
    if len(data) != tile.span.length or not encoded:
        raise WorkError("the record holds no picture", where=where, mend=mend)
    try:
        picture = Image.open(io.BytesIO(encoded[0]))
        picture.load()
    except (UnidentifiedImageError, OSError):
        raise WorkError("the picture does not decode", where=where, mend=mend) from None
    return picture
