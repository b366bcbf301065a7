"""What the KFP face calls: the run, and the metadata of its artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.records.provenance import artifact_metadata
from components.tile_images.dataflow import read_dataflow_options
from components.tile_images.parameters import TilingParameters
from components.tile_images.run import run_tiling


def tile_into(
    manifest_path: str,
    images_root: str,
    out: str,
    *,
    images_fingerprint: str,
    runner: str,
    workers: int,
    beam_options: Sequence[str],
    dataflow: Mapping[str, Any],
    parameters: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, float]]:
    """Runs the tiling; the metadata of the records artifact, and the totals as metrics.

    Raises:
        InputError, WorkError: as `run_tiling`.
    """
    chosen = TilingParameters(**parameters)
    if dataflow:
        read_dataflow_options(dataflow)
    summary = run_tiling(
        manifest_path, images_root, out, chosen, runner=runner, workers=workers, beam_options=list(beam_options)
    )
    metadata = artifact_metadata(
        manifest_hash=summary["manifest_hash"],
        split=",".join(summary["splits"]),
        patients=summary["patients"],
        slides=summary["slides"],
        tiles=summary["tiles"],
        mpp=chosen.mpp,
        tile_px=chosen.tile_px,
        tiles_failed=summary["tiles_failed"],
        images_fingerprint=images_fingerprint,
    )
    totals = {f"slides_{name}": float(count) for name, count in summary["slides_by_status"].items()}
    for name in ("tiles", "tiles_failed", "tiles_lossless", "bytes", "slides_lost_share"):
        totals[name] = float(summary[name])
    return metadata, totals
