"""The metadata that the evaluation's artifacts carry."""

from __future__ import annotations

from typing import Any

from components.evaluate_tiles.evaluation import SPLITS, TileEvaluation
from components.records.dataset import TiledDataset
from components.records.provenance import artifact_metadata


def describe_evaluation(dataset_root: str, evaluation: TileEvaluation) -> dict[str, Any]:
    """DESIGN.md's metadata keys, of the slides that were predicted."""
    dataset = TiledDataset(dataset_root)
    sections = {split: evaluation.metrics[split] for split in SPLITS if split in evaluation.metrics}
    return artifact_metadata(
        manifest_hash=dataset.manifest.digest,
        split=",".join(sections),
        patients=sum(section["n_patients"] for section in sections.values()),
        slides=sum(section["n_slides"] for section in sections.values()),
        tiles=sum(section["n_tiles"] for section in sections.values()),
        mpp=dataset.schema.mpp,
        tile_px=dataset.schema.tile_px,
    )
