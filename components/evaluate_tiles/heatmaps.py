"""Probabilities of lesion over a slide beside the truth: a picture, and tiles that QuPath opens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from components.evaluate_tiles.lesions import Mask
from components.evaluate_tiles.predict import SlidePrediction
from components.explain.heatmaps import (
    Picture,
    add_legend,
    blank_canvas,
    boxes_on_thumbnail,
    color_of,
    encode_png,
    load_thumbnail,
    outline,
    overlay_attention,
    write_features,
)
from components.records import storage
from components.records.dataset import Thumbnail

GAP = 12
CLASSES = ("Lesion 0-20%", "Lesion 20-40%", "Lesion 40-60%", "Lesion 60-80%", "Lesion 80-100%")
_TRUTH = (200, 60, 40)
# of the colour of what is no lesion, so that the line shows on red stains
_KEPT = 0.4


def write_lesion_map(
    folder: str, slide: SlidePrediction, root: str, thumbnail: Thumbnail | None, truth: tuple[Mask, float] | None
) -> str:
    """Writes `<image_id>.png` (left the probabilities, right the slide with its lesions outlined) and `.geojson`.

    Returns:
        The picture's path.
    """
    write_features(storage.join(folder, f"{slide.image_id}.geojson"), _features(slide))
    tiles = slide.as_tiles()
    if thumbnail is not None:
        picture, downsample = load_thumbnail(root, thumbnail), thumbnail.downsample
    else:
        picture, downsample = blank_canvas(tiles)
    left = overlay_attention(picture, replace(tiles, tile_labels=np.full(len(tiles.x), -1, np.int8)), downsample)
    shown = np.concatenate(
        [left, np.full((len(picture), GAP, 3), 255, np.uint8), draw_truth(picture, slide, downsample, truth)], axis=1
    )
    path = storage.join(folder, f"{slide.image_id}.png")
    storage.write_bytes(path, encode_png(add_legend(shown, "lesion", "0 to 1, the truth on the right")))
    return path


def draw_truth(
    picture: Picture, slide: SlidePrediction, downsample: float, truth: tuple[Mask, float] | None
) -> Picture:
    """The picture, faded, with a line around what the mask marks; without a mask around the tiles that are marked."""
    height, width = picture.shape[:2]
    if truth is not None:
        mask, of_mask = truth
        factor = max(1, round(downsample / of_mask))
        padded = np.pad(mask, ((0, -mask.shape[0] % factor), (0, -mask.shape[1] % factor)))
        small = padded.reshape(padded.shape[0] // factor, factor, -1, factor).any(axis=(1, 3))
        marked = np.asarray(
            Image.fromarray(np.asarray(small, bool)).resize((width, height), Image.Resampling.NEAREST)
        ).astype(bool)
    else:
        marked = np.zeros((height, width), bool)
        boxes = boxes_on_thumbnail(slide.as_tiles(), downsample, (height, width))
        for x0, y0, x1, y1 in boxes[slide.tile_labels == 1].tolist():
            marked[y0:y1, x0:x1] = True
    faded = np.round(picture * _KEPT + 255 * (1 - _KEPT)).astype(np.uint8)
    drawn: Picture = np.where(marked[..., None], picture, faded)
    drawn[outline(marked)] = _TRUTH
    return drawn


def _features(slide: SlidePrediction) -> Iterator[dict[str, Any]]:
    fifths = np.minimum((slide.probabilities * len(CLASSES)).astype(np.int64), len(CLASSES) - 1)
    colors = color_of((np.arange(len(CLASSES)) + 0.5) / len(CLASSES)).tolist()
    for index in range(len(slide.x)):
        left, top = int(slide.x[index]), int(slide.y[index])
        right, bottom = left + int(slide.width[index]), top + int(slide.height[index])
        measurements: dict[str, float] = {"Lesion": float(f"{slide.probabilities[index]:.6g}"), "x": left, "y": top}
        if slide.tile_labels[index] >= 0:
            measurements["Mask"] = int(slide.tile_labels[index])
        fifth = int(fifths[index])
        yield {
            "type": "Feature",
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]],
            },
            "properties": {
                "objectType": "tile",
                "classification": {"name": CLASSES[fifth], "color": colors[fifth]},
                "measurements": measurements,
            },
        }
