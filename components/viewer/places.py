"""A slide's tiles as columns of numbers: their places from the records, their attention from the heatmap."""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.records import storage
from components.records.dataset import RecordSpan, TiledDataset
from components.records.errors import InputError, WorkError

MOST_TILES = 400_000
_MOST_JSON = 256 << 20
_WANTED = {
    b"tile/x": "x",
    b"tile/y": "y",
    b"tile/level0_width": "width",
    b"tile/level0_height": "height",
    b"tile/tissue": "tissue",
    b"tile/label": "marked",
}
_ATTENTION = (
    ("Attention", "attention"),
    ("Attention percentile", "percentile"),
    ("Attention relative to mean", "relative"),
)


def read_places(dataset: TiledDataset, image_id: str, heatmap: str = "") -> dict[str, Any]:
    """A slide's tiles in record order.

    Args:
        dataset: the run.
        image_id: of the slide.
        heatmap: path of its attention as GeoJSON, empty for none.

    Returns:
        `count`, and lists of that length: `x`, `y`, `width`, `height` in level-0 px, `tissue` (0–1), and where they
        are known `marked` (0 or 1), `attention`, `percentile` (0–100), `relative` (to the patient's mean); None for
        a tile without one.

    Raises:
        WorkError: a record is damaged, or there are more tiles than can be shown.
    """
    spans = dataset.spans(image_id)
    if len(spans) > MOST_TILES:
        raise WorkError(f"slide {image_id} has {len(spans)} tiles, too many to show", mend="open its part of the run")
    columns: dict[str, list[Any]] = {name: [] for name in _WANTED.values()}
    for features in _scan(spans):
        for name, column in columns.items():
            column.append(features.get(name))
    if not any(value is not None for value in columns["marked"]):
        del columns["marked"]
    columns["tissue"] = [None if value is None else round(value, 4) for value in columns["tissue"]]
    if heatmap:
        _add_attention(columns, heatmap)
    return {"count": len(spans), **columns}


def read_record(dataset: TiledDataset, image_id: str, index: int) -> tuple[bytes, str] | None:
    """The picture of a slide's tile, in record order, and its media type: the very bytes that the model is given.

    Raises:
        WorkError: the record is damaged.
    """
    from components.records.example import parse_example

    spans = dataset.spans(image_id)
    if not 0 <= index < len(spans):
        return None
    span = spans[index]
    with storage.open_stream(span.path) as stream:
        stream.seek(span.offset)
        features = parse_example(stream.read(span.length))
    kind = (features.get("image/format") or [b""])[0]
    picture = (features.get("image/encoded") or [b""])[0]
    return bytes(picture), "image/png" if kind == b"png" else "image/jpeg"


def _scan(spans: list[RecordSpan]) -> Iterator[dict[str, float | int]]:
    """The wanted features of each record; the pictures between them are stepped over, not read."""
    path, held = "", None
    try:
        for span in spans:
            if held is None or span.path != path:
                if held is not None:
                    held.close()
                with Path(span.path).open("rb") as stream:
                    held = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
                path = span.path
            try:
                yield _read_features(held, span.offset, span.offset + span.length)
            except (IndexError, struct.error, ValueError):
                raise WorkError(
                    "a record is no tf.train.Example", where=os.path.basename(path), mend="run the tiling step again"
                ) from None
    finally:
        if held is not None:
            held.close()


def _read_features(data: mmap.mmap, start: int, stop: int) -> dict[str, float | int]:
    found: dict[str, float | int] = {}
    for features in _fields(data, start, stop):
        for entry in _fields(data, *features):
            inside = list(_fields(data, *entry))
            if len(inside) != 2:
                continue
            name = _WANTED.get(data[inside[0][0] : inside[0][1]])
            if name is not None:
                value = _first_number(data, *inside[1])
                if value is not None:
                    found[name] = value
    return found


def _fields(data: mmap.mmap, at: int, stop: int) -> Iterator[tuple[int, int]]:
    """Where the length-delimited fields of a message lie; records hold no others down to their lists of numbers."""
    while at < stop:
        key, at = _varint(data, at)
        if key & 7 != 2:
            raise ValueError(key)
        length, at = _varint(data, at)
        if at + length > stop:
            raise ValueError(length)
        yield at, at + length
        at += length


def _first_number(data: mmap.mmap, at: int, stop: int) -> float | int | None:
    """The first value of a Feature that is a list of floats or int64."""
    if at >= stop:
        return None
    kind = data[at] >> 3
    for start, end in _fields(data, at, stop):
        if start >= end:
            return None
        packed = data[start] & 7 == 2
        if packed:
            _, start = _varint(data, start + 1)
        else:
            start += 1
        if kind == 2:
            return float(struct.unpack("<f", data[start : start + 4])[0])
        if kind == 3:
            value = _varint(data, start)[0]
            return value - (1 << 64) if value >> 63 else value
    return None


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a varint of more than 64 bits")


def _add_attention(columns: dict[str, list[Any]], heatmap: str) -> None:
    """Adds the heatmap's columns; one that is malformed is left out."""
    measured: dict[tuple[int, int], dict[str, Any]] = {}
    for feature in read_features(heatmap):
        values = (feature.get("properties") or {}).get("measurements")
        if isinstance(values, dict) and "x" in values and "y" in values:
            measured[values["x"], values["y"]] = values
    if not measured:
        return
    here = [measured.get(place, {}) for place in zip(columns["x"], columns["y"], strict=True)]
    for name, column in _ATTENTION:
        columns[column] = [_number(values.get(name)) for values in here]


def read_features(path: str) -> list[dict[str, Any]]:
    """The features of a GeoJSON file, a FeatureCollection, a list of features, or one; none where it is malformed."""
    try:
        found = storage.stat(path)
        if found is None or found.size > _MOST_JSON:
            return []
        content = json.loads(storage.read_bytes(path))
    except (ValueError, RecursionError, InputError):
        return []
    if isinstance(content, dict):
        content = content.get("features", [content])
    return [one for one in content if isinstance(one, dict)] if isinstance(content, list) else []


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
