"""One record held against the schema, its manifest row, its ledger line and its slide."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from components.records.schema import FEATURES, FORMATS

_KINDS: dict[str, type] = {"bytes": bytes, "int64": int, "float": float}
_MPP_TOLERANCE = 0.01

Problem = tuple[str, str]


@dataclass(frozen=True)
class Expected:
    """What every record of a slide has to say.

    Attributes:
        label_index: place of `label` among the dataset's sorted labels, -1 where it is not there.
        digest: of the image file, as the ledger has it.
        mpp: µm/px at level 0 as the ledger has it, None where unknown.
        width, height: of the slide at level 0, None where unknown.
        tile_px: side of a tile, px.
    """

    image_id: str
    patient_id: str
    label: str
    label_index: int
    digest: str
    mpp: float | None
    width: int | None
    height: int | None
    tile_px: int


def check_schema(features: dict[str, list[Any]]) -> list[str]:
    """What keeps a record from being read: features missing, doubled or of another kind. Empty where it is sound."""
    problems = []
    for name, feature in FEATURES.items():
        values = features.get(name)
        if values is None:
            if feature.required:
                problems.append(f"lacks {name}")
        elif len(values) != 1:
            problems.append(f"{name} holds {len(values)} values, not 1")
        elif type(values[0]) is not _KINDS[feature.kind]:
            problems.append(f"{name} is not {feature.kind}")
    if not problems and features["image/format"][0].decode("utf-8", "replace") not in FORMATS:
        problems.append(f"image/format {_text(features['image/format'][0])!r} is none of {', '.join(FORMATS)}")
    return problems


def check_values(record: dict[str, Any], expected: Expected) -> Iterator[Problem]:
    """(check name, problem) for every value of a record that is wrong; `record` holds one value a feature."""
    yield from _check_identity(record, expected)
    yield from _check_labels(record, expected)
    yield from _check_place(record, expected)
    yield from _check_numbers(record, expected)
    yield from _check_mpp(record, expected)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _check_identity(record: dict[str, Any], expected: Expected) -> Iterator[Problem]:
    for name, wanted in (
        ("slide/id", expected.image_id),
        ("patient/id", expected.patient_id),
        ("slide/digest", expected.digest),
    ):
        found = _text(record[name])
        if found != wanted:
            yield "identity", f"{name} is {found!r}, not {wanted!r}"


def _check_labels(record: dict[str, Any], expected: Expected) -> Iterator[Problem]:
    text, index = _text(record["image/class/text"]), record["image/class/label"]
    if text != expected.label:
        yield "labels", f"image/class/text is {text!r}, the manifest says {expected.label!r}"
    elif index != expected.label_index:
        yield "labels", f"image/class/label is {index}, {text!r} is number {expected.label_index} of the sorted labels"


def _check_place(record: dict[str, Any], expected: Expected) -> Iterator[Problem]:
    x, y = record["tile/x"], record["tile/y"]
    for name, value, size in (("x", x, expected.width), ("y", y, expected.height)):
        if value < 0 or (size is not None and value >= size):
            yield "places", f"tile/{name} {value} lies outside the slide (0 to {'?' if size is None else size - 1})"
    for name in ("tile/level0_width", "tile/level0_height"):
        if record[name] <= 0:
            yield "places", f"{name} is {record[name]}"
    for name in ("image/height", "image/width"):
        if record[name] != expected.tile_px:
            yield "size", f"{name} is {record[name]}, schema.json says {expected.tile_px}"


def _check_numbers(record: dict[str, Any], expected: Expected) -> Iterator[Problem]:
    del expected
    if not 0.0 <= record["tile/tissue"] <= 1.0:
        yield "values", f"tile/tissue {record['tile/tissue']:g} is not between 0 and 1"
    for name in ("tile/lossless", "tile/label"):
        if record.get(name, 0) not in (0, 1):
            yield "values", f"{name} is {record[name]}, neither 0 nor 1"


def _check_mpp(record: dict[str, Any], expected: Expected) -> Iterator[Problem]:
    mpp = record.get("tile/mpp")
    if mpp is None:
        if expected.mpp is not None:
            yield "mpp", f"lacks tile/mpp, the ledger has {expected.mpp:g} at level 0"
        return
    if not math.isfinite(mpp) or mpp <= 0:
        yield "mpp", f"tile/mpp is {mpp}"
    elif expected.mpp is None:
        yield "mpp", f"tile/mpp is {mpp:g}, the ledger knows none"
    elif record["image/width"] > 0:
        covered, stated = record["tile/level0_width"] * expected.mpp, record["image/width"] * mpp
        if abs(covered - stated) > _MPP_TOLERANCE * covered + expected.mpp:
            yield "mpp", f"tile/mpp is {mpp:g}, its place says {covered / record['image/width']:g}"
