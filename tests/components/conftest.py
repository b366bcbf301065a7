"""A small tiled dataset made of noise, with a handle on everything that can go wrong in one."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.records import storage
from components.records.dataset import Part, Thumbnail, write_parts, write_thumbnails
from components.records.example import encode_example, encode_features
from components.records.ledger import LedgerEntry, write_ledger
from components.records.manifest import Row, write_manifest
from components.records.provenance import derive_seed
from components.records.schema import SPLITS, DatasetSchema
from components.records.tfrecord import frame

STAIN = np.array([190.0, 130.0, 170.0])


@dataclass(frozen=True)
class Recipe:
    """What `tiled_dataset` builds: by default two patients of each class in each split, from two centers.

    Attributes:
        edit_row: (row) to the row that the manifest will have.
        edit_pixels: (row, tile number, uint8 [tile_px, tile_px, 3]) to the pixels that are encoded.
        edit_record: (row, tile number, features) to the features written; the ledger still counts the tile.
        edit_entry: (ledger entry) to the one written.
        parts: files a slide's tiles are spread over.
    """

    patients: int = 12
    slides: int = 1
    tiles: int = 4
    parts: int = 1
    tile_px: int = 32
    mpp: float | None = 0.5
    kind: str = "jpeg"
    splits: bool = True
    labels: tuple[str, ...] = ("CE", "LAA")
    seed: int = 0
    edit_row: Callable[[Row], Row] = lambda row: row
    edit_pixels: Callable[[Row, int, np.ndarray], np.ndarray] = lambda row, number, pixels: pixels
    edit_record: Callable[[Row, int, dict[str, Any]], dict[str, Any]] = lambda row, number, features: features
    edit_entry: Callable[[LedgerEntry], LedgerEntry] = lambda entry: entry


def encode_picture(pixels: np.ndarray, kind: str = "jpeg") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind.upper(), **({"quality": 90} if kind == "jpeg" else {}))
    return buffer.getvalue()


def make_pixels(recipe: Recipe, image_id: str, number: int) -> np.ndarray:
    rng = np.random.default_rng(derive_seed(recipe.seed, image_id, number))
    coarse = rng.normal(0, 40, (8, 8, 3)) + STAIN
    scale = -(-recipe.tile_px // 8)
    pixels = np.kron(coarse, np.ones((scale, scale, 1)))[: recipe.tile_px, : recipe.tile_px]
    return np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)


def make_rows(recipe: Recipe) -> list[Row]:
    rows = []
    for patient in range(recipe.patients):
        for slide in range(recipe.slides):
            row = Row(
                image_id=f"p{patient:02d}_{slide}",
                patient_id=f"p{patient:02d}",
                label=recipe.labels[patient % len(recipe.labels)],
                line=len(rows) + 2,
                center_id=f"c{patient // len(recipe.labels) % 2}",
                image_num=str(slide),
                split=SPLITS[patient // len(recipe.labels) % 3] if recipe.splits else "",
            )
            rows.append(recipe.edit_row(row))
    return rows


def write_slide(root: Path, recipe: Recipe, row: Row) -> tuple[LedgerEntry, list[Part], Thumbnail]:
    labels = sorted(recipe.labels)
    frames: list[list[bytes]] = [[] for _ in range(recipe.parts)]
    columns = max(1, int(np.ceil(np.sqrt(recipe.tiles))))
    side = 2 * recipe.tile_px
    digest = f"sha256:{hashlib.sha256(row.image_id.encode()).hexdigest()}"
    for number in range(recipe.tiles):
        pixels = recipe.edit_pixels(row, number, make_pixels(recipe, row.image_id, number))
        features: dict[str, Any] = {
            "image/encoded": encode_picture(pixels, recipe.kind),
            "image/format": recipe.kind,
            "image/height": recipe.tile_px,
            "image/width": recipe.tile_px,
            "image/class/text": row.label,
            "image/class/label": labels.index(row.label) if row.label in labels else 0,
            "slide/id": row.image_id,
            "patient/id": row.patient_id,
            "slide/digest": digest,
            "tile/x": number % columns * side,
            "tile/y": number // columns * side,
            "tile/level0_width": side,
            "tile/level0_height": side,
            "tile/tissue": 1.0,
            "tile/lossless": 0,
        }
        if recipe.mpp is not None:
            features["tile/mpp"] = recipe.mpp
        features = recipe.edit_record(row, number, features)
        data = features["raw"] if "raw" in features else encode_example(encode_features(features))
        frames[number * recipe.parts // recipe.tiles].append(frame(data))
    parts = []
    for number, one in enumerate(frames):
        path = "/".join(["records", *([row.split] if row.split else []), f"{row.image_id}-{number:05d}.tfrecord"])
        content = b"".join(one)
        storage.write_bytes(root / path, content)
        sha256 = hashlib.sha256(content).hexdigest()
        parts.append(Part(path, row.image_id, row.split, len(one), len(content), sha256))
    size = columns * side
    storage.write_bytes(
        root / "thumbnails" / f"{row.image_id}.jpg", encode_picture(make_pixels(recipe, row.image_id, 0))
    )
    entry = LedgerEntry(
        image_id=row.image_id,
        status="tiled" if recipe.tiles else "empty",
        reason="" if recipe.tiles else "no tissue",
        tiles=recipe.tiles,
        tiles_failed=0,
        seconds=0.1,
        path=f"{row.image_id}.tif",
        digest=digest,
        reader="noise",
        mpp=None if recipe.mpp is None else recipe.mpp / 2,
        mpp_source="unknown" if recipe.mpp is None else "file",
        details={},
    )
    thumbnail = Thumbnail(f"thumbnails/{row.image_id}.jpg", size / recipe.tile_px, size, size)
    return recipe.edit_entry(entry), parts, thumbnail


def build_dataset(root: Path, recipe: Recipe) -> str:
    rows = make_rows(recipe)
    columns = ("image_id", "patient_id", "label", "center_id", "image_num", *(("split",) if recipe.splits else ()))
    write_manifest(str(root / "split.csv"), columns, rows)
    entries, parts, thumbnails = [], [], {}
    for row in rows:
        entry, written, thumbnail = write_slide(root, recipe, row)
        entries.append(entry)
        parts += written
        thumbnails[row.image_id] = thumbnail
    schema = DatasetSchema(tuple(sorted(recipe.labels)), recipe.tile_px, recipe.mpp, {"seed": recipe.seed}, "test")
    schema.save(str(root / "schema.json"))
    write_parts(str(root), parts)
    write_thumbnails(str(root), thumbnails)
    write_ledger(str(root / "ledger.jsonl"), entries)
    storage.write_json_lines(str(root / "failed_tiles.jsonl"), [])
    storage.write_json(str(root / "summary.json"), {"tiles": sum(entry.tiles for entry in entries)})
    return str(root)


@pytest.fixture
def tiled_dataset(tmp_path: Path) -> Callable[..., str]:
    """A function of `Recipe`'s fields that builds a dataset (below `name`) and returns its root."""

    def build(name: str = "tiled", **fields: Any) -> str:
        return build_dataset(tmp_path / name, replace(Recipe(), **fields))

    return build
