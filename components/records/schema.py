"""The record: which features an instance carries, and `schema.json`, which says how to read a dataset of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from components.records import storage
from components.records.errors import InputError

SCHEMA_VERSION = "1"
SPLITS = ("train", "val", "test")
FORMATS = ("jpeg", "png")


@dataclass(frozen=True)
class Feature:
    """One feature of a record: its kind (`bytes`, `int64` or `float`), and whether every record has it."""

    kind: str
    required: bool = True


FEATURES: dict[str, Feature] = {
    "image/encoded": Feature("bytes"),
    "image/format": Feature("bytes"),
    "image/height": Feature("int64"),
    "image/width": Feature("int64"),
    "image/class/text": Feature("bytes"),
    "image/class/label": Feature("int64"),
    "slide/id": Feature("bytes"),
    "patient/id": Feature("bytes"),
    "slide/digest": Feature("bytes"),
    "tile/x": Feature("int64"),
    "tile/y": Feature("int64"),
    "tile/level0_width": Feature("int64"),
    "tile/level0_height": Feature("int64"),
    "tile/mpp": Feature("float", required=False),
    "tile/tissue": Feature("float"),
    "tile/lossless": Feature("int64"),
    "tile/label": Feature("int64", required=False),
    "slice/axis": Feature("bytes", required=False),
    "slice/index": Feature("int64", required=False),
}


@dataclass(frozen=True)
class DatasetSchema:
    """What `schema.json` beside a dataset's records says.

    Attributes:
        labels: every label of the manifest in sorted order; a record's `image/class/label` is its index.
        tile_px: side of an encoded tile, px.
        mpp: µm/px asked for, or None where a level was asked for instead.
        parameters: every parameter of the tiling run that changes a record.
    """

    labels: tuple[str, ...]
    tile_px: int
    mpp: float | None
    parameters: dict[str, Any]
    code_version: str
    schema_version: str = SCHEMA_VERSION

    def save(self, path: str) -> None:
        """Writes `schema.json`."""
        features = {name: asdict(feature) for name, feature in FEATURES.items()}
        storage.write_json(path, {**asdict(self), "labels": list(self.labels), "features": features})

    @classmethod
    def load(cls, path: str) -> DatasetSchema:
        """Reads `schema.json`; raises InputError where it is missing, of another version, or lacks a key."""
        found = storage.read_json(path)
        version = found.get("schema_version") if isinstance(found, dict) else None
        if version != SCHEMA_VERSION:
            raise InputError(
                f"schema version {version!r} is not {SCHEMA_VERSION!r}", where=path, mend="run the tiling step again"
            )
        try:
            return cls(
                labels=tuple(found["labels"]),
                tile_px=int(found["tile_px"]),
                mpp=found["mpp"],
                parameters=dict(found["parameters"]),
                code_version=str(found["code_version"]),
            )
        except KeyError as error:
            raise InputError(f"lacks {error}", where=path, mend="run the tiling step again") from None
