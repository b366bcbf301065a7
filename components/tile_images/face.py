"""What the KFP face calls: the run, and the metadata of its artifacts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from components.records.provenance import artifact_metadata
from components.tile_images.dataflow import read_dataflow_options
from components.tile_images.dataflow_job import write_gcp_resources
from components.tile_images.parameters import TilingParameters
from components.tile_images.run import run_tiling

LAUNCH_ONLY = "BAGLINE_LAUNCH_ONLY"


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
) -> tuple[dict[str, Any], dict[str, float], str]:
    """Runs the tiling.

    With `DataflowRunner` and `BAGLINE_LAUNCH_ONLY` set, it starts the job and leaves the waiting to the next task.

    Returns:
        The metadata of the records artifact, the totals as metrics, and the text of `gcp_resources`.

    Raises:
        InputError, WorkError: as `run_tiling`.
    """
    chosen = TilingParameters(**parameters)
    if runner == "DataflowRunner" and os.environ.get(LAUNCH_ONLY):
        return _start_job(manifest_path, images_root, out, chosen, dataflow, workers, beam_options, images_fingerprint)
    if dataflow:
        read_dataflow_options(dataflow)
    summary = run_tiling(
        manifest_path,
        images_root,
        out,
        chosen,
        runner=runner,
        workers=workers,
        beam_options=list(beam_options),
        dataflow=dataflow,
    )
    return describe_run(summary, chosen, images_fingerprint), list_totals(summary), write_gcp_resources(None)


def describe_run(summary: Mapping[str, Any], parameters: TilingParameters, images_fingerprint: str) -> dict[str, Any]:
    """The metadata of the records artifact."""
    return artifact_metadata(
        manifest_hash=summary["manifest_hash"],
        split=",".join(summary["splits"]),
        patients=summary["patients"],
        slides=summary["slides"],
        tiles=summary["tiles"],
        mpp=parameters.mpp,
        tile_px=parameters.tile_px,
        tiles_failed=summary["tiles_failed"],
        images_fingerprint=images_fingerprint,
    )


def list_totals(summary: Mapping[str, Any]) -> dict[str, float]:
    """The totals of a summary, as metrics."""
    totals = {f"slides_{name}": float(count) for name, count in summary["slides_by_status"].items()}
    for name in ("tiles", "tiles_failed", "tiles_lossless", "tiles_joined", "bytes", "slides_lost_share"):
        totals[name] = float(summary[name])
    return totals


def _start_job(
    manifest_path: str,
    images_root: str,
    out: str,
    parameters: TilingParameters,
    dataflow: Mapping[str, Any],
    workers: int,
    beam_options: Sequence[str],
    images_fingerprint: str,
) -> tuple[dict[str, Any], dict[str, float], str]:
    from components.records.errors import InputError
    from components.records.manifest import read_manifest
    from components.tile_images.launch import find_in_bucket, find_run, launch, plan_launch

    home = find_in_bucket(out, "records")
    plan = plan_launch(
        manifest_path,
        images_root,
        parameters,
        dataflow=dataflow,
        workers=workers,
        beam_options=beam_options,
        images_fingerprint=images_fingerprint,
    )
    launched = launch(plan, manifest_path, home, find_run(home))
    if launched is None:
        raise InputError("a template is no job", where="beam_options", mend="leave out --template_location")
    metadata = artifact_metadata(
        manifest_hash=read_manifest(manifest_path).digest,
        mpp=parameters.mpp,
        tile_px=parameters.tile_px,
        images_fingerprint=images_fingerprint,
    )
    return metadata, {}, write_gcp_resources(launched.job)
