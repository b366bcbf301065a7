"""The report's patients: the best and the worst with their heatmaps, all as a table, and the tiles attended most."""

from __future__ import annotations

import math
from typing import Any

from PIL import Image

from components.evaluate.collect import Collection
from components.evaluate.predictions import Prediction
from components.explain.heatmaps import load_thumbnail
from components.explain.pictures import crop_around, data_uri, heatmap_uri, read_tile
from components.records import storage
from components.records.dataset import TiledDataset
from components.statistics.metrics import SMALLEST_PROBABILITY

_SHOWN_PATIENTS = 3
_SHOWN_SLIDES = 2
_PICTURE_SIDE = 520
_TILE_SIDE = 144
_MOST_ROWS = 400
_MOST_LABELS = 12


def describe_patients(dataset: TiledDataset, found: Collection, heatmaps: str) -> dict[str, Any]:
    """The shown split's patients by loss: up to three best and three worst with pictures, and a table of all."""
    labels = dataset.schema.labels
    mine = sorted(
        (p for p in found.predictions if p.split == found.shown),
        key=lambda p: (_loss(p, labels), p.patient_id),
    )
    half = min(_SHOWN_PATIENTS, len(mine) // 2) or min(1, len(mine))
    best, worst = mine[:half], mine[half:][::-1][:_SHOWN_PATIENTS]
    thumbnails = dataset.thumbnails

    def card(p: Prediction) -> dict[str, Any]:
        slides = []
        for slide in p.slides[:_SHOWN_SLIDES]:
            thumbnail = thumbnails.get(slide.image_id)
            plain, box = None, None
            if thumbnail is not None:
                picture = Image.fromarray(load_thumbnail(dataset.root, thumbnail))
                box = crop_around(slide.box, thumbnail.downsample, picture.size)
                plain = data_uri(picture.crop(box), _PICTURE_SIDE)
            heatmap = heatmap_uri(storage.join(heatmaps, f"{slide.image_id}.png"), box, _PICTURE_SIDE)
            slides.append({"image_id": slide.image_id, "share": slide.share, "plain": plain, "heatmap": heatmap})
        return {**_row(p, labels), "slides": slides, "more_slides": max(0, len(p.slides) - _SHOWN_SLIDES)}

    return {
        "best": [card(p) for p in best],
        "worst": [card(p) for p in worst],
        "table": [_row(p, labels) for p in mine[::-1][:_MOST_ROWS]],
        "more": max(0, len(mine) - _MOST_ROWS),
    }


def describe_top_tiles(found: Collection) -> list[dict[str, Any]]:
    """Per label the tiles attended most, decoded from their records."""
    groups = []
    for label, tiles in list(found.top_tiles.items())[:_MOST_LABELS]:
        shown = [
            {
                "uri": data_uri(read_tile(tile), _TILE_SIDE, quality=85),
                "image_id": tile.image_id,
                "relative": tile.relative,
                "x": tile.x,
                "y": tile.y,
                "marked": tile.tile_label,
            }
            for tile in tiles
        ]
        groups.append({"label": label, "tiles": shown})
    return groups


def _row(p: Prediction, labels: tuple[str, ...]) -> dict[str, Any]:
    likely = max(range(len(labels)), key=lambda number: p.probabilities[number])
    return {
        "patient_id": p.patient_id,
        "label": p.label,
        "predicted": labels[likely],
        "right": labels[likely] == p.label,
        "probabilities": list(zip(labels, p.probabilities, strict=True)),
        "of_truth": p.probabilities[labels.index(p.label)],
        "loss": _loss(p, labels),
        "tiles": p.tiles,
        "slides_count": len(p.slides),
    }


def _loss(p: Prediction, labels: tuple[str, ...]) -> float:
    return -math.log(max(p.probabilities[labels.index(p.label)], SMALLEST_PROBABILITY))
