"""What is laid over a slide: its ground truth as a picture, and what people drew on it."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from PIL import Image

from components.readers.mask import survey_mask
from components.viewer.places import read_features

_MASK_SIDE = 2048
_MOST_SHAPES = 20_000
_MOST_POINTS = 1_000_000
_DEPTH = {"Point": 0, "MultiPoint": 1, "LineString": 1, "MultiLineString": 2, "Polygon": 2, "MultiPolygon": 3}


def draw_mask(path: str, size: tuple[int, int]) -> bytes:
    """A mask as PNG, marked px opaque and the others clear, at most 2048 px a side; it is stretched over the slide.

    Args:
        path: painted or drawn, as `components.readers.mask.survey_mask` takes it.
        size: of the slide, level-0 px (width, height).

    Raises:
        SlideError: the mask can't be read, or is of another slide.
    """
    nowhere = np.zeros(0, np.int64)
    mask = survey_mask(path, size, nowhere, nowhere, 1, max(1.0, max(size) / _MASK_SIDE)).drawn
    picture = Image.fromarray(mask.astype(np.uint8))
    picture = picture.convert("P") if picture.mode != "P" else picture
    picture.putpalette([0, 0, 0, 200, 85, 61])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", transparency=0, optimize=False)
    return buffer.getvalue()


def read_annotations(path: str) -> dict[str, Any]:
    """Shapes of a GeoJSON file in level-0 px, with name and colour; what is no shape is counted in `left_out`.

    Returns:
        `shapes`: each with `type`, `lines` (a list of lists of [x, y]), `name` and `color` (RGB or None).
    """
    shapes: list[dict[str, Any]] = []
    points = left_out = 0
    for feature in read_features(path):
        geometry = feature.get("geometry")
        geometry = geometry if isinstance(geometry, dict) else {}
        kind = str(geometry.get("type"))
        lines = _lines(geometry.get("coordinates"), _DEPTH[kind]) if kind in _DEPTH else None
        count = sum(map(len, lines)) if lines else 0
        if not lines or len(shapes) >= _MOST_SHAPES or points + count > _MOST_POINTS:
            left_out += 1
            continue
        points += count
        shapes.append({"type": kind, "lines": lines, **_describe(feature.get("properties"))})
    return {"shapes": shapes, "left_out": left_out}


def _lines(value: Any, depth: int) -> list[list[list[float]]] | None:
    """Coordinates of any depth as lines of points; None where they are malformed."""
    if depth == 0:
        return [[point]] if (point := _point(value)) else None
    if not isinstance(value, list) or not value:
        return None
    if depth == 1:
        line = [_point(one) for one in value]
        return [line] if all(line) else None  # type: ignore[list-item]
    found = [_lines(one, depth - 1) for one in value]
    return [line for lines in found for line in lines] if all(found) else None  # type: ignore[union-attr]


def _point(value: Any) -> list[float] | None:
    if not isinstance(value, list) or len(value) < 2:
        return None
    pair = value[:2]
    if not all(isinstance(one, int | float) and math.isfinite(one) for one in pair):
        return None
    return [float(one) for one in pair]


def _describe(properties: Any) -> dict[str, Any]:
    properties = properties if isinstance(properties, dict) else {}
    drawn = properties.get("classification")
    drawn = drawn if isinstance(drawn, dict) else {}
    color = drawn.get("color") or properties.get("color")
    fine = isinstance(color, list) and len(color) == 3 and all(isinstance(c, int) and 0 <= c <= 255 for c in color)
    name = drawn.get("name") or properties.get("name") or ""
    return {"name": str(name)[:200], "color": color if fine else None}
