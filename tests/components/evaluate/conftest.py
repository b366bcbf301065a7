"""A tiled dataset out of thin air, and a predictor that needs no TensorFlow."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.records import storage
from components.records.dataset import Part, RecordSpan, Thumbnail, TiledDataset, write_parts, write_thumbnails
from components.records.example import encode_example, encode_features
from components.records.ledger import LedgerEntry, write_ledger
from components.records.manifest import Row, write_manifest
from components.records.schema import DatasetSchema
from components.records.tfrecord import frame

TILE = 32
SIDE = 8 * TILE
DOWNSAMPLE = 4.0


@dataclass(frozen=True)
class Bag:
    patient_id: str
    label: str
    split: str
    logits: Any
    probabilities: Any
    image_ids: tuple[str, ...]
    x: Any
    y: Any
    width: Any
    height: Any
    tissue: Any
    attention: Any
    tile_labels: Any
    spans: tuple[RecordSpan, ...]


@dataclass
class Slide:
    image_id: str
    patient_id: str
    label: str
    split: str
    tiles: list[tuple[int, int, int]] = field(default_factory=lambda: [(x, y, -1) for y in (32, 64) for x in (64, 96)])
    status: str = "tiled"
    reason: str = ""
    center_id: str = "1"
    thumbnail: bool = True


def encode_picture(color: tuple[int, int, int], side: int = TILE) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), color).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_dataset(root: Path, slides: list[Slide]) -> str:
    labels = tuple(sorted({slide.label for slide in slides}))
    parts, ledger, thumbnails = [], [], {}
    for slide in slides:
        data = b"".join(
            frame(
                encode_example(
                    encode_features(
                        {
                            "image/encoded": encode_picture((180, 40 + x % 200, 120)),
                            "image/format": "jpeg",
                            "tile/x": x,
                            "tile/y": y,
                            **({"tile/label": marked} if marked >= 0 else {}),
                        }
                    )
                )
            )
            for x, y, marked in slide.tiles
        )
        if slide.tiles:
            name = f"records/{slide.split}/{slide.image_id}-0.tfrecord"
            storage.write_bytes(root / name, data)
            digest = hashlib.sha256(data).hexdigest()
            parts.append(Part(name, slide.image_id, slide.split, len(slide.tiles), len(data), digest))
        ledger.append(
            LedgerEntry(
                slide.image_id, slide.status, slide.reason, len(slide.tiles), 0, 1.5, f"{slide.image_id}.tif",
                "sha256:00", "openslide", 0.5, "file", {},
            )  # fmt: skip
        )
        if slide.thumbnail:
            storage.write_bytes(
                root / "thumbnails" / f"{slide.image_id}.jpg",
                encode_picture((235, 235, 235), int(SIDE / DOWNSAMPLE)),
            )
            thumbnails[slide.image_id] = Thumbnail(f"thumbnails/{slide.image_id}.jpg", DOWNSAMPLE, SIDE, SIDE)
    write_parts(str(root), parts)
    write_thumbnails(str(root), thumbnails)
    write_ledger(str(root / "ledger.jsonl"), ledger)
    rows = [
        Row(s.image_id, s.patient_id, s.label, number + 2, center_id=s.center_id, split=s.split)
        for number, s in enumerate(slides)
    ]
    write_manifest(str(root / "split.csv"), ("image_id", "patient_id", "label", "center_id", "split"), rows)
    DatasetSchema(labels, TILE, 0.5, {}, "0.1.0+test").save(str(root / "schema.json"))
    return str(root)


def make_predictor(
    probability: Callable[[str, str], list[float]] | None = None, **changes: Any
) -> Callable[[str, TiledDataset], Iterator[Bag]]:
    """A predictor whose probabilities come from (patient id, label); marked tiles get the most attention."""

    def predict(model_dir: str, dataset: TiledDataset) -> Iterator[Bag]:
        labels = dataset.schema.labels
        for patient_id, rows in dataset.patients().items():
            ids, places, spans = [], [], []
            for row in rows:
                from components.records.example import parse_example

                for span in dataset.spans(row.image_id):
                    data = Path(span.path).read_bytes()[span.offset : span.offset + span.length]
                    example = parse_example(data)
                    ids.append(row.image_id)
                    places.append((example["tile/x"][0], example["tile/y"][0], example.get("tile/label", [-1])[0]))
                    spans.append(span)
            if not spans:
                continue
            array = np.array(places, np.int64)
            weight = np.where(array[:, 2] == 1, 5.0, 1.0) + np.arange(len(array)) * 0.01
            values = probability(patient_id, rows[0].label) if probability else guess(patient_id, rows[0].label, labels)
            bag = {
                "patient_id": patient_id,
                "label": rows[0].label,
                "split": rows[0].split,
                "logits": np.log(np.maximum(values, 1e-9)).astype(np.float32),
                "probabilities": np.array(values, np.float32),
                "image_ids": tuple(ids),
                "x": array[:, 0],
                "y": array[:, 1],
                "width": np.full(len(array), TILE, np.int64),
                "height": np.full(len(array), TILE, np.int64),
                "tissue": np.full(len(array), 0.75, np.float32),
                "attention": (weight / weight.sum()).astype(np.float32),
                "tile_labels": array[:, 2].astype(np.int8),
                "spans": tuple(spans),
            }
            yield Bag(**{**bag, **changes})

    return predict


def guess(patient_id: str, label: str, labels: tuple[str, ...]) -> list[float]:
    """Right for most patients: 0.55 to 0.95 on the true label, and on a wrong one for ids that end in 3."""
    sure = 0.55 + 0.4 * (hashlib.sha256(patient_id.encode()).digest()[0] / 255)
    at = labels.index(label)
    if patient_id.endswith("3"):
        at = (at + 1) % len(labels)
    values = [(1 - sure) / (len(labels) - 1)] * len(labels)
    values[at] = sure
    return values


def make_cohort(labels: tuple[str, ...] = ("CE", "LAA"), per_split: int = 6) -> list[Slide]:
    slides = []
    for split in ("train", "val", "test"):
        for number in range(per_split):
            label = labels[number % len(labels)]
            patient = f"{split}{number}"
            marked = int(label == labels[-1])
            tiles = [(x, y, int(marked and x == 64)) for y in (32, 64) for x in (64, 96)]
            for image in range(1 + (number == 0)):
                slides.append(Slide(f"{patient}_{image}", patient, label, split, tiles, center_id=str(number % 3)))
    return slides


@pytest.fixture(scope="session")
def kit() -> Any:
    """The builders of this file, for tests (which are imported without a package)."""

    class Kit:
        slide = Slide
        write = staticmethod(write_dataset)
        cohort = staticmethod(make_cohort)
        predictor = staticmethod(make_predictor)
        picture = staticmethod(encode_picture)

    return Kit


@pytest.fixture(scope="session")
def dataset_root(tmp_path_factory: pytest.TempPathFactory) -> str:
    slides = make_cohort()
    slides.append(Slide("test9_0", "test9", "CE", "test", [], "empty", "no tissue"))
    slides.append(Slide("test9_1", "test9", "CE", "test", [], "failed", "can't be opened", thumbnail=False))
    return write_dataset(tmp_path_factory.mktemp("tiled"), slides)
