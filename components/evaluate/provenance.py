"""The metadata that evaluation's artifacts carry."""

from __future__ import annotations

from typing import Any

from components.evaluate.evaluation import Evaluation
from components.records.dataset import TiledDataset
from components.records.provenance import artifact_metadata


def describe_evaluation(dataset_root: str, evaluation: Evaluation) -> dict[str, Any]:
    """DESIGN.md's metadata keys, and `blessed` with the gate's reason."""
    dataset = TiledDataset(dataset_root)
    return artifact_metadata(
        manifest_hash=dataset.manifest.digest,
        split=evaluation.curves.split,
        patients=len(dataset.patients()),
        slides=len(dataset.manifest.rows),
        tiles=sum(part.tiles for part in dataset.parts),
        mpp=dataset.schema.mpp,
        tile_px=dataset.schema.tile_px,
        blessed=evaluation.blessed,
        gate_reason=evaluation.verdict.reason,
    )
