"""A finished run of a few small slides, written by hand, for tests of the viewer."""

import hashlib
import json
from pathlib import Path

import numpy as np
import simplejpeg
import tifffile
from PIL import Image

from components.records import storage
from components.records.dataset import Part, Thumbnail, write_parts, write_thumbnails
from components.records.example import encode_example, encode_features
from components.records.ledger import LedgerEntry, write_ledger
from components.records.manifest import Row, write_manifest
from components.records.schema import DatasetSchema
from components.records.tfrecord import frame

SIDE, TILE = 2048, 256
LABELS = ("normal", "tumour")
PATIENTS = (("A", "normal", "train"), ("B", "tumour", "train"), ("C", "normal", "test"), ("D", "tumour", "test"))
PROBABILITIES = {"A": 0.1, "B": 0.9, "C": 0.7, "D": 0.8}
HOSTILE = "<img src=x onerror=document.title='pwned'>"


def paint(seed: int, side: int = SIDE) -> np.ndarray:
    """Glass with a round piece of something on it."""
    random = np.random.default_rng(seed)
    rows, columns = np.indices((side, side))
    inside = (rows - side / 2) ** 2 + (columns - side / 2) ** 2 < (side * 0.35) ** 2
    picture = np.full((side, side, 3), 242, np.uint8)
    noise = np.kron(random.integers(-30, 30, (side // 16, side // 16, 1)), np.ones((16, 16, 1), int))
    picture[inside] = np.clip(np.array([190, 130, 170]) + noise, 0, 255).astype(np.uint8)[inside]
    return picture


def write_slide(path: Path, picture: np.ndarray, block: int = TILE) -> None:
    """A flat slide of JPEG blocks at 0.5 µm/px."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = picture.shape[:2]
    blocks = (
        simplejpeg.encode_jpeg(np.ascontiguousarray(picture[y : y + block, x : x + block]), 90, "RGB", "420")
        for y in range(0, height, block)
        for x in range(0, width, block)
    )
    tifffile.imwrite(
        path, blocks, shape=picture.shape, dtype=np.uint8, tile=(block, block), photometric="ycbcr",
        compression="jpeg", subsampling=(2, 2), resolution=(20000, 20000), resolutionunit="CENTIMETER", metadata=None,
    )  # fmt: skip


def write_run(folder: Path, labels: tuple[str, str] = LABELS) -> tuple[Path, Path]:
    """The run's OUT and the root of its slides."""
    out, images = folder / "run", folder / "slides"
    rows, entries, parts, thumbnails = [], [], [], {}
    for number, (patient, label, split) in enumerate(PATIENTS):
        label = labels[LABELS.index(label)]
        image_id = f"{patient}_0"
        picture = paint(number)
        write_slide(images / f"{image_id}.tif", picture)
        mask = np.zeros((SIDE // 8, SIDE // 8), np.uint8)
        mask[100:150, 100:150] = 255
        tifffile.imwrite(images / f"{image_id}_mask.tif", mask)
        rows.append(
            Row(image_id, patient, label, number + 2, center_id=f"c{number % 2}", image_path=f"{image_id}.tif",
                mask_path=f"{image_id}_mask.tif", split=split)
        )  # fmt: skip
        frames, features = [], []
        for y in range(2 * TILE, SIDE - 2 * TILE, TILE):
            for x in range(2 * TILE, SIDE - 2 * TILE, TILE):
                marked = int(x == y)
                encoded = simplejpeg.encode_jpeg(np.ascontiguousarray(picture[y : y + TILE, x : x + TILE]))
                record = {
                    "image/encoded": encoded, "image/format": "jpeg", "image/height": TILE, "image/width": TILE,
                    "image/class/text": label, "image/class/label": labels.index(label), "slide/id": image_id,
                    "patient/id": patient, "slide/digest": "sha256:0", "tile/x": x, "tile/y": y,
                    "tile/level0_width": TILE, "tile/level0_height": TILE, "tile/mpp": 0.5, "tile/tissue": 0.75,
                    "tile/lossless": 1, "tile/label": marked,
                }  # fmt: skip
                frames.append(frame(encode_example(encode_features(record))))
                measured = {"Attention": 1 / 16, "Attention percentile": 100 * len(features) / 15,
                            "Attention relative to mean": len(features) / 8, "x": x, "y": y}  # fmt: skip
                features.append({"type": "Feature", "properties": {"measurements": measured}})
        content = b"".join(frames)
        path = f"records/{split}/{image_id}-00000.tfrecord"
        storage.write_bytes(out / path, content)
        parts.append(Part(path, image_id, split, len(frames), len(content), hashlib.sha256(content).hexdigest()))
        if split == "test":
            storage.write_json(out / "heatmaps" / f"{image_id}.geojson", {"features": features})
        small = np.asarray(Image.fromarray(picture).reduce(8))
        storage.write_bytes(out / "thumbnails" / f"{image_id}.jpg", simplejpeg.encode_jpeg(small))
        thumbnails[image_id] = Thumbnail(f"thumbnails/{image_id}.jpg", 8.0, SIDE, SIDE)
        status, reason = ("partial", "a block is damaged") if patient == "C" else ("tiled", "")
        entries.append(
            LedgerEntry(image_id, status, reason, len(frames), 0, 0.1, f"{image_id}.tif", "sha256:0", "jpeg-blocks",
                        0.5, "file", {})
        )  # fmt: skip
    (images / "D_0.geojson").write_text(
        json.dumps(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [[[600, 600], [1200, 600], [900, 1100], [600, 600]]]},
                "properties": {"classification": {"name": HOSTILE, "color": [0, 90, 200]}},
            }
        )
    )
    columns = ("image_id", "patient_id", "label", "center_id", "image_path", "mask_path", "split")
    write_manifest(str(out / "split.csv"), columns, rows)
    DatasetSchema(labels, TILE, 0.5, {}, "test").save(str(out / "schema.json"))
    write_parts(str(out), parts)
    write_thumbnails(str(out), thumbnails)
    write_ledger(str(out / "ledger.jsonl"), entries)
    _write_evaluation(out, rows, labels)
    _write_events(out, images)
    return out, images


def _write_evaluation(out: Path, rows: list[Row], labels: tuple[str, str]) -> None:
    import csv

    with (out / "predictions.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient_id", "label", "split", *(f"prob_{label}" for label in labels)])
        for row in rows:
            p = PROBABILITIES[row.patient_id]
            writer.writerow([row.patient_id, row.label, row.split, 1 - p, p])
    of_split = {
        "n_patients": 2, "auc": 1.0, "auc_ci95": [0.5, 1.0], "accuracy": 0.5, "ci95": {"accuracy": [0.0, 1.0]}
    }  # fmt: skip
    gate = {"blessed": True, "reason": "test auc 1.0000 with no threshold to beat"}
    storage.write_json(
        out / "metrics.json", {"train": of_split, "test": of_split, "gate": gate, "attention": {}, "labels": labels}
    )
    epochs = [{"epoch": n, "loss": 1 / n, "val_loss": 1.1 / n, "val_auc": 0.5 + n / 20} for n in range(1, 8)]
    storage.write_json(out / "training" / "history.json", {"best_epoch": 7, "epochs": epochs})


def _write_events(out: Path, images: Path) -> None:
    def artifact(name: str) -> dict:
        return {"name": name, "facets": {"version": {"datasetVersion": f"sha256:{name}"}}}

    chain = (("tile", ["manifest", "slides"], ["records"]), ("train", ["records"], ["model"]))
    for number, (step, inputs, outputs) in enumerate(chain):
        event = {
            "eventType": "COMPLETE",
            "eventTime": f"2026-01-01T00:00:0{number}Z",
            "job": {"name": f"whole-slide.{step}"},
            "run": {"facets": {"bagline_task": {"parameters": {"images_root": str(images)} if step == "tile" else {}}}},
            "inputs": [artifact(name) for name in inputs],
            "outputs": [artifact(name) for name in outputs],
        }
        storage.write_text(out / "lineage" / f"{number}-complete.json", json.dumps(event) + "\n")
