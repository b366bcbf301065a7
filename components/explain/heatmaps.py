"""Attention over a slide: a picture on the thumbnail, and polygons that QuPath opens."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from components.explain.attention import rank_attention, relative_attention
from components.records import storage
from components.records.dataset import Thumbnail

if TYPE_CHECKING:
    from components.mil.inference import BagPrediction

Picture = NDArray[np.uint8]

CLASSES = ("Attention 0-20%", "Attention 20-40%", "Attention 40-60%", "Attention 60-80%", "Attention 80-100%")
_COLORMAP = "viridis"
LEGEND_PX = 34
_BLANK_SIDE = 1024
_INK, _PAPER, _MARK = (60, 60, 66), (255, 255, 255), (200, 60, 40)


@dataclass(frozen=True)
class SlideTiles:
    """One slide's tiles of a predicted bag.

    Attributes:
        x, y, width, height: int64 [n], level-0 px.
        attention: float32 [n], summing to 1 over all slides of the patient.
        relative: float64 [n], attention as a multiple of the patient's mean.
        rank: float32 [n], percentile within the patient, 0–1.
        tissue: float32 [n]. tile_labels: int8 [n].
    """

    image_id: str
    x: NDArray[np.int64]
    y: NDArray[np.int64]
    width: NDArray[np.int64]
    height: NDArray[np.int64]
    attention: NDArray[np.float32]
    relative: NDArray[np.float64]
    rank: NDArray[np.float32]
    tissue: NDArray[np.float32]
    tile_labels: NDArray[np.int8]


def split_by_slide(bag: BagPrediction) -> dict[str, SlideTiles]:
    """A bag's tiles slide by slide; ranks stay those within the patient."""
    rank = rank_attention(bag.attention).astype(np.float32)
    relative = relative_attention(bag.attention)
    images = np.asarray(bag.image_ids)
    slides = {}
    for image_id in dict.fromkeys(bag.image_ids):
        here = images == image_id
        slides[image_id] = SlideTiles(
            image_id,
            bag.x[here],
            bag.y[here],
            bag.width[here],
            bag.height[here],
            bag.attention[here],
            relative[here],
            rank[here],
            bag.tissue[here],
            bag.tile_labels[here],
        )
    return slides


def color_of(rank: NDArray[np.floating[Any]]) -> Picture:
    """RGB, uint8 [..., 3], of ranks 0–1: perceptually uniform, and none of its colours is a stain's."""
    from matplotlib import colormaps

    return np.asarray(np.round(colormaps[_COLORMAP](np.asarray(rank, np.float64))[..., :3] * 255), np.uint8)


def boxes_on_thumbnail(tiles: SlideTiles, downsample: float, shape: tuple[int, int]) -> NDArray[np.int64]:
    """[n, 4] (left, top, right, bottom) of each tile in thumbnail px, at least 1 px and inside `shape` (h, w)."""
    height, width = shape
    left = np.floor(tiles.x / downsample).astype(np.int64).clip(0, width - 1)
    top = np.floor(tiles.y / downsample).astype(np.int64).clip(0, height - 1)
    right = np.round((tiles.x + tiles.width) / downsample).astype(np.int64)
    bottom = np.round((tiles.y + tiles.height) / downsample).astype(np.int64)
    right, bottom = np.maximum(right, left + 1), np.maximum(bottom, top + 1)
    return np.stack([left, top, right.clip(1, width), bottom.clip(1, height)], axis=1)


def overlay_attention(picture: Picture, tiles: SlideTiles, downsample: float) -> Picture:
    """`picture` [h, w, 3] in grey with the tiles' ranks over it; where tiles overlap, their mean.

    A red line goes around the tiles that the lesion mask marks, where there is a mask.
    """
    shape = picture.shape[:2]
    total, count = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    boxes = boxes_on_thumbnail(tiles, downsample, (shape[0], shape[1]))
    marked = np.zeros(shape, bool)
    for (left, top, right, bottom), rank, label in zip(boxes.tolist(), tiles.rank, tiles.tile_labels, strict=True):
        total[top:bottom, left:right] += rank
        count[top:bottom, left:right] += 1
        if label == 1:
            marked[top:bottom, left:right] = True
    covered = count > 0
    mean = np.divide(total, count, out=np.zeros_like(total), where=covered)
    alpha = np.where(covered, 0.4 + 0.2 * mean, 0)[..., None]
    grey = picture.mean(axis=2, keepdims=True)
    blended = np.asarray(np.round(grey * (1 - alpha) + color_of(mean) * alpha), np.uint8)
    blended[outline(marked)] = _MARK
    return blended


def outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The inner edge of a mask, 2 to 3 px wide by its picture's size."""
    inner = mask
    for _ in range(2 + (max(mask.shape) > 1200)):
        padded = np.pad(inner, 1)
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def load_thumbnail(root: str, thumbnail: Thumbnail) -> Picture:
    """A slide's thumbnail as RGB, uint8 [h, w, 3]."""
    content = storage.read_bytes(storage.join(root, *thumbnail.path.split("/")))
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def blank_canvas(tiles: SlideTiles) -> tuple[Picture, float]:
    """A white stand-in for a missing thumbnail that all tiles fit on, and its downsample."""
    extent = max(int((tiles.x + tiles.width).max()), int((tiles.y + tiles.height).max()))
    downsample = max(1.0, extent / _BLANK_SIDE)
    width = math.ceil(int((tiles.x + tiles.width).max()) / downsample)
    height = math.ceil(int((tiles.y + tiles.height).max()) / downsample)
    return np.full((height, width, 3), 255, np.uint8), downsample


def add_legend(picture: Picture, what: str = "attention", ends: str = "least to most") -> Picture:
    """`picture` with a colour bar below: attention from least to most within the patient, or what else is told."""
    height, width = picture.shape[:2]
    canvas = Image.new("RGB", (max(width, 240), height + LEGEND_PX), _PAPER)
    canvas.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=13)
    length = min(canvas.width - 180, 220)
    bar = np.broadcast_to(color_of(np.linspace(0, 1, length))[None], (12, length, 3))
    left = 78
    canvas.paste(Image.fromarray(np.ascontiguousarray(bar)), (left, height + 11))
    middle = height + 17
    draw.text((10, middle), what, fill=_INK, font=font, anchor="lm")
    draw.text((left + length + 8, middle), ends, fill=_INK, font=font, anchor="lm")
    return np.asarray(canvas)


def encode_png(picture: Picture) -> bytes:
    """The picture as PNG; equal pixels give equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def write_heatmap(folder: str, image_id: str, tiles: SlideTiles | None, root: str, thumbnail: Thumbnail | None) -> bool:
    """Writes `<image_id>.geojson` and `.png` into `folder`: the thumbnail with the tiles' attention over it.

    A slide without tiles gets its plain thumbnail; one without a thumbnail is drawn on white, and one without either
    has no picture.

    Returns:
        Whether there is a picture.
    """
    write_geojson(storage.join(folder, f"{image_id}.geojson"), tiles)
    if thumbnail is not None:
        picture, downsample = load_thumbnail(root, thumbnail), thumbnail.downsample
    elif tiles is not None:
        picture, downsample = blank_canvas(tiles)
    else:
        return False
    if tiles is not None:
        picture = overlay_attention(picture, tiles, downsample)
    storage.write_bytes(storage.join(folder, f"{image_id}.png"), encode_png(add_legend(picture)))
    return True


def write_geojson(path: str, tiles: SlideTiles | None) -> None:
    """Writes one slide's tiles as a GeoJSON FeatureCollection in level-0 px, upper-left origin, as QuPath reads it.

    Every feature is a QuPath tile object (`objectType`), so that 100,000 of them stay fast, with measurements for
    QuPath's measurement maps and a classification by fifths of the patient's attention. Streamed line by line.
    """
    write_features(path, _features(tiles) if tiles is not None else ())


def write_features(path: str, features: Iterable[dict[str, Any]]) -> None:
    """Writes features as a GeoJSON FeatureCollection, a line each."""
    with storage.open_atomic(path, "w") as stream:
        stream.write('{"type": "FeatureCollection", "features": [')
        for number, feature in enumerate(features):
            stream.write("\n" if number == 0 else ",\n")
            stream.write(json.dumps(feature, allow_nan=False))
        stream.write("\n]}\n")


def _features(tiles: SlideTiles) -> Iterator[dict[str, Any]]:
    fifths = np.minimum((tiles.rank * len(CLASSES)).astype(np.int64), len(CLASSES) - 1)
    colors = color_of((np.arange(len(CLASSES)) + 0.5) / len(CLASSES)).tolist()
    for index in range(len(tiles.x)):
        left, top = int(tiles.x[index]), int(tiles.y[index])
        right, bottom = left + int(tiles.width[index]), top + int(tiles.height[index])
        measurements = {
            "Attention": float(f"{tiles.attention[index]:.7g}"),
            "Attention percentile": round(100 * float(tiles.rank[index]), 3),
            "Attention relative to mean": float(f"{tiles.relative[index]:.5g}"),
            "Tissue": round(float(tiles.tissue[index]), 4),
            "x": left,
            "y": top,
        }
        if tiles.tile_labels[index] >= 0:
            measurements["Mask"] = int(tiles.tile_labels[index])
        fifth = int(fifths[index])
        corners = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
        yield {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [corners]},
            "properties": {
                "objectType": "tile",
                "classification": {"name": CLASSES[fifth], "color": colors[fifth]},
                "measurements": measurements,
            },
        }
