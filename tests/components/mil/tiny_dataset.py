"""A tiled dataset made from noise: 32 px tiles, lesion tiles red, in the real layout."""

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

from components.records import storage
from components.records.dataset import Part, write_parts
from components.records.example import encode_example, encode_features
from components.records.ledger import write_ledger
from components.records.manifest import Row, write_manifest
from components.records.schema import DatasetSchema
from components.records.tfrecord import frame

TILE = 32
SPLITS = ("train", "train", "train", "val", "test")


def build_dataset(root, patients=10, labels=("normal", "tumour"), splits=SPLITS, seed=0, form="png", masks=True):
    """`patients` patients in turn of each label, two slides each; the last patient's slides are empty."""
    root = Path(root)
    rng = np.random.default_rng(seed)
    rows, parts = [], []
    for number in range(patients + 1):
        label = labels[number % len(labels)]
        split = "train" if number == patients else splits[number // len(labels) % len(splits)]
        for slide in range(2):
            row = Row(f"p{number:02d}_{slide}", f"p{number:02d}", label, 0, split=split)
            rows.append(row)
            count = 0 if number == patients else 3 + (number + slide) % 4
            data = b"".join(
                frame(example(rng, row, at, labels, lesion=label == "tumour" and at == 1, form=form, masks=masks))
                for at in range(count)
            )
            if count:
                name = f"records/{split}/{row.image_id}-00000.tfrecord"
                storage.write_bytes(root / name, data)
                parts.append(Part(name, row.image_id, split, count, len(data), hashlib.sha256(data).hexdigest()))
    write_manifest(str(root / "split.csv"), ("image_id", "patient_id", "label", "split"), rows)
    DatasetSchema(tuple(sorted(labels)), TILE, 0.5, {}, "test").save(str(root / "schema.json"))
    write_parts(str(root), parts)
    write_ledger(str(root / "ledger.jsonl"), [])
    return str(root)


def example(rng, row, at, labels, *, lesion, form, masks):
    pixels = rng.integers(120, 200, (TILE, TILE, 3)).astype(np.uint8)
    if lesion:
        pixels[..., 1:] //= 4
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    label = {"tile/label": int(lesion)} if masks else {}
    return encode_example(
        encode_features(
            {
                "image/encoded": buffer.getvalue(),
                "image/format": form,
                "image/height": TILE,
                "image/width": TILE,
                "image/class/text": row.label,
                "image/class/label": sorted(labels).index(row.label),
                "slide/id": row.image_id,
                "patient/id": row.patient_id,
                "slide/digest": "sha256:0",
                "tile/x": at * 64,
                "tile/y": 128,
                "tile/level0_width": 64,
                "tile/level0_height": 64,
                "tile/tissue": 0.5,
                "tile/lossless": 1,
                **label,
            }
        )
    )
