"""Heatmaps: the right pixels, and GeoJSON as QuPath wants it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.explain.heatmaps import (
    CLASSES,
    LEGEND_PX,
    SlideTiles,
    add_legend,
    blank_canvas,
    boxes_on_thumbnail,
    color_of,
    encode_png,
    overlay_attention,
    write_geojson,
)


def make_tiles(places, rank, side: int = 100, marked=None) -> SlideTiles:
    count = len(places)
    x, y = np.array(places, np.int64).reshape(-1, 2).T
    return SlideTiles(
        "s0", x, y, np.full(count, side), np.full(count, side), np.full(count, 1 / count, np.float32),
        np.ones(count), np.array(rank, np.float32), np.full(count, 0.5, np.float32),
        np.array(marked or [-1] * count, np.int8),
    )  # fmt: skip


def test_overlay_colours_tiles_and_leaves_the_rest_grey() -> None:
    picture = np.full((40, 40, 3), (200, 100, 150), np.uint8)
    found = overlay_attention(picture, make_tiles([(0, 0), (200, 200)], [0.0, 1.0]), 10.0)
    assert found[15, 15].tolist() == [150, 150, 150]
    most, least = color_of(np.array([1.0, 0.0]))
    assert found[25, 25] == pytest.approx(np.round(150 * 0.4 + most * 0.6), abs=1)
    assert found[5, 5] == pytest.approx(np.round(150 * 0.6 + least * 0.4), abs=1)


def test_overlapping_tiles_show_their_mean() -> None:
    picture = np.full((20, 30, 3), 255, np.uint8)
    both = overlay_attention(picture, make_tiles([(0, 0), (100, 0)], [0.0, 1.0], side=200), 10.0)
    half = overlay_attention(picture, make_tiles([(100, 0)], [0.5]), 10.0)
    assert both[5, 15].tolist() == half[5, 15].tolist()


def test_marked_tiles_are_outlined() -> None:
    picture = np.full((40, 40, 3), 200, np.uint8)
    found = overlay_attention(picture, make_tiles([(100, 100), (200, 100)], [0.5, 0.5], marked=[1, 0]), 10.0)
    red = (found == (200, 60, 40)).all(axis=2)
    assert red[10, 10]
    assert not red[15, 15]
    assert not red[:, 20:].any()


def test_boxes_stay_inside_and_are_never_empty() -> None:
    boxes = boxes_on_thumbnail(make_tiles([(0, 0), (395, 395)], [0, 1], side=10), 40.0, (10, 10))
    assert boxes.tolist() == [[0, 0, 1, 1], [9, 9, 10, 10]]


def test_a_missing_thumbnail_gets_a_canvas_that_fits() -> None:
    tiles = make_tiles([(0, 0), (4000, 2000)], [0, 1], side=96)
    canvas, downsample = blank_canvas(tiles)
    assert downsample == 4.0
    assert canvas.shape == (524, 1024, 3)


def test_legend_is_below_and_png_repeats() -> None:
    picture = np.full((50, 300, 3), 240, np.uint8)
    found = add_legend(picture)
    assert found.shape == (50 + LEGEND_PX, 300, 3)
    assert (found[:50] == picture).all()
    assert len(np.unique(found[50:].reshape(-1, 3), axis=0)) > 50
    assert encode_png(found) == encode_png(found)
    assert (np.asarray(Image.open(io.BytesIO(encode_png(found)))) == found).all()


def test_geojson_is_a_collection_of_closed_level_0_polygons(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    write_geojson(str(path), make_tiles([(300, 200), (0, 0)], [1.0, 0.3], marked=[1, -1]))
    found = json.loads(path.read_text())
    assert found["type"] == "FeatureCollection"
    first, second = found["features"]
    assert first["type"] == "Feature"
    assert first["geometry"] == {
        "type": "Polygon",
        "coordinates": [[[300, 200], [400, 200], [400, 300], [300, 300], [300, 200]]],
    }
    assert first["properties"]["objectType"] == "tile"
    assert first["properties"]["classification"]["name"] == CLASSES[-1]
    assert second["properties"]["classification"]["name"] == CLASSES[1]
    color = first["properties"]["classification"]["color"]
    assert len(color) == 3
    assert all(isinstance(value, int) and 0 <= value <= 255 for value in color)
    measured = first["properties"]["measurements"]
    assert measured == {
        "Attention": 0.5, "Attention percentile": 100.0, "Attention relative to mean": 1.0, "Tissue": 0.5,
        "x": 300, "y": 200, "Mask": 1,
    }  # fmt: skip
    assert "Mask" not in second["properties"]["measurements"]


def test_geojson_of_a_slide_without_tiles_is_empty_but_valid(tmp_path: Path) -> None:
    write_geojson(str(tmp_path / "a.geojson"), None)
    assert json.loads((tmp_path / "a.geojson").read_text()) == {"type": "FeatureCollection", "features": []}
