"""What an artifact is to lineage: a name in OUT, the files below it, and a digest over their content."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field

from components.records import storage
from components.records.provenance import file_digest

RECORDS = ("records", "schema.json", "split.csv", "parts.json", "ledger.jsonl", "failed_tiles.jsonl", "summary.json")
THUMBNAILS = ("thumbnails", "thumbnails.json")
EVALUATION = (
    "metrics.json",
    "predictions.csv",
    "held_out.csv",
    "tile_predictions.csv.gz",
    "slides.csv",
    "calibration.json",
    "heatmaps",
    "report",
)

# artifact name → the files and folders of OUT that it is made of
MEMBERS: dict[str, tuple[str, ...]] = {
    "split": ("split.csv", "split.html"),
    "records": (*RECORDS, *THUMBNAILS),
    "validation": ("validation.json", "validation.html"),
    "embeddings": ("embeddings",),
    "model": ("model",),
    "training": ("training",),
    "evaluation": EVALUATION,
    "predictions": ("predictions.csv", "heatmaps", "report"),
}


@dataclass(frozen=True)
class Traced:
    """One artifact version: `files` maps a path relative to `root` to `sha256:<hex>` (or a store's own digest)."""

    name: str
    digest: str
    root: str = ""
    files: dict[str, str] = field(default_factory=dict)


def digest_files(files: dict[str, str]) -> str:
    """`sha256:<hex>` over the sorted (path, digest) pairs."""
    content = "".join(f"{name}\0{digest}\n" for name, digest in sorted(files.items()))
    return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


def trace_artifact(out: str, name: str) -> Traced | None:
    """The artifact `name` as it stands in OUT now, every file hashed; None where it isn't there.

    A name that is none of `MEMBERS` is a place in OUT, such as a fold's `folds/r0_f1/model`.

    Record parts are not read again: their sha256 was taken when they were written (`parts.json`).
    """
    known: dict[str, str] = {}
    parts = os.path.join(out, "parts.json")
    if name == "records" and os.path.exists(parts):
        known = {part["path"]: f"sha256:{part['sha256']}" for part in storage.read_json(parts)}
    files: dict[str, str] = {}
    for member in MEMBERS.get(name, (name,)):
        path = os.path.join(out, member)
        if os.path.isfile(path):
            files[member] = file_digest(path)
        elif os.path.isdir(path):
            for relative, info in sorted(storage.list_files(path).items()):
                key = f"{member}/{relative}"
                files[key] = known.get(key) or file_digest(info.path)
    return Traced(name, digest_files(files), "", files) if files else None


def trace_manifest(path: str, digest: str) -> Traced:
    """The manifest a run was started from."""
    key = path if storage.is_remote(path) else os.path.abspath(path)
    files = {key: f"sha256:{digest}"}
    return Traced("manifest", digest_files(files), "", files)


def trace_model(folder: str) -> Traced:
    """A saved model that a run was given."""
    found = storage.list_files(folder)
    files = {name: info.digest or file_digest(info.path) for name, info in sorted(found.items())}
    return Traced("model", digest_files(files), folder, files)


def trace_slides(out: str, images_root: str) -> Traced | None:
    """The slides as the ledger of OUT says they were read; None where there is no ledger."""
    ledger = os.path.join(out, "ledger.jsonl")
    if not os.path.exists(ledger):
        return None
    lines = storage.read_json_lines(ledger)
    files = {line["path"]: line["digest"] for line in lines if line["digest"]}
    root = images_root if storage.is_remote(images_root) else os.path.abspath(images_root)
    return Traced("slides", digest_files(files), root, files)
