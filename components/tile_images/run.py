"""`run_tiling`: a manifest of slides becomes a tiled dataset."""

from __future__ import annotations

import difflib
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from components.records import storage
from components.records.errors import InputError, name_first
from components.records.ledger import read_ledger
from components.records.manifest import Manifest, Row, read_manifest, resolve_images
from components.tile_images import lanes
from components.tile_images.finalise import COMMIT_FILES, check_losses, finalise
from components.tile_images.hold import hold_out
from components.tile_images.local import run_in_lanes
from components.tile_images.parameters import TilingParameters
from components.tile_images.plan import SlideTask, load_plan, plan_folder
from components.tile_images.progress import Progress, ProgressMonitor, log_progress
from components.tile_images.tissue import METHODS
from components.tile_images.work import find_plan

logger = logging.getLogger(__name__)

RUNNERS = (
    "DirectRunner",
    "FnApiRunner",
    "BundleBasedDirectRunner",
    "DataflowRunner",
    "FlinkRunner",
    "SparkRunner",
    "PortableRunner",
    "PrismRunner",
)


def run_tiling(
    manifest_path: str,
    images_root: str,
    out: str,
    parameters: TilingParameters | None = None,
    *,
    runner: str = "DirectRunner",
    workers: int = 1,
    beam_options: Sequence[str] = (),
    dataflow: Mapping[str, Any] | None = None,
    timeout: float = lanes.TIMEOUT,
    tell: Callable[[Progress], None] = log_progress,
    tell_every: float = 2.0,
) -> dict[str, Any]:
    """Tiles every slide of a manifest into `out`, a `components.records.dataset.TiledDataset`.

    The bytes of the output depend on manifest, slides and parameters alone, not on runner, workers, order or an
    earlier run that was broken off; only `seconds` of the ledger differ.

    Args:
        manifest_path: CSV; with a `split` on every row, records go to a folder a split.
        images_root: what `image_path` and `mask_path` are relative to; on disk or `gs://`.
        out: where to write; what an earlier run of the same parameters finished there is kept.
        parameters: of the run.
        runner: `DirectRunner` hands the work to child processes without Beam, which takes longer to import than a
            slide to tile, unless there are Beam options; any other name is a Beam runner's (`FnApiRunner` is Beam's
            own in this process), and runs the same work as a Beam pipeline.
        workers: child processes that read slides, of each Beam worker process.
        beam_options: further Beam flags, as `--name=value`.
        dataflow: with `DataflowRunner`, as `components.tile_images.dataflow.read_dataflow_options` takes it; `out` and
            `images_root` have to be in buckets then.
        timeout: seconds after which the planning of a slide, or a tile (300 at most), is given up.
        tell: called every `tell_every` seconds with the progress.
        tell_every: seconds; in a bucket, where a look takes requests, at least 15 times as many.

    Returns:
        The summary, as in `summary.json`; empty where the Beam options ask for the job's
            description only (`--template_location`, `--output_executable_path`).

    Raises:
        InputError: the manifest, a parameter or a folder is wrong, or another run tiles into `out`.
        WorkError: more slides were lost than `max_failed_share`, after everything was written; or no space is left.
    """
    parameters = parameters or TilingParameters()
    check_runner(runner)
    if workers < 1:
        raise InputError(f"{workers} is out of range", where="workers", mend="give at least 1")
    if runner == "DataflowRunner":
        from components.tile_images.launch import find_in_bucket, plan_launch, tile_on_dataflow

        out = find_in_bucket(out, "out")
        plan = plan_launch(
            manifest_path,
            images_root,
            parameters,
            dataflow=dataflow or {},
            workers=workers,
            beam_options=beam_options,
        )
        return tile_on_dataflow(plan, manifest_path, out)
    manifest = read_manifest(manifest_path)
    check_splits(manifest)
    check_tissue_options(manifest)
    tasks = list_tasks(manifest, images_root)
    local = runner in ("DirectRunner", "FnApiRunner")
    if local:
        lanes.share_pool(workers, timeout)
    try:
        check_out(out)
        with hold_out(out) as check_held:
            prepare_out(out, tasks, parameters)
            with ProgressMonitor(out, tasks, parameters, tell, tell_every):
                if runner == "DirectRunner" and not beam_options:
                    run_in_lanes(tasks, parameters, out, lanes.share_pool(workers, timeout), workers)
                else:
                    from components.tile_images.pipeline import run_pipeline

                    run_pipeline(
                        tasks,
                        parameters,
                        out,
                        runner=runner,
                        workers=workers,
                        beam_options=beam_options,
                        timeout=timeout,
                    )
            if any(option.startswith("--output_executable_path") for option in beam_options):
                return {}
            check_held()
            summary = finalise(manifest, tasks, parameters, out)
    finally:
        lanes.close_pools()
    check_losses(summary, read_ledger(storage.join(out, "ledger.jsonl")), parameters)
    return summary


def check_runner(runner: str) -> None:
    """Raises InputError where Beam has no runner of that name; a dotted class path is Beam's to judge."""
    if runner in RUNNERS or "." in runner:
        return
    near = difflib.get_close_matches(runner, RUNNERS, n=1, cutoff=0.6)
    mend = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(RUNNERS)}"
    raise InputError(f"unknown Beam runner {runner!r}", where="runner", mend=mend)


def check_splits(manifest: Manifest) -> None:
    """Raises InputError where some rows have a split and others none."""
    without = [str(row.line) for row in manifest.rows if not row.split]
    if without and len(without) < len(manifest.rows):
        raise InputError(
            f"line {name_first(without)}: no split, while other rows have one",
            where=manifest.path,
            mend="split the manifest first, or leave the column empty",
        )


def list_tasks(manifest: Manifest, images_root: str) -> list[SlideTask]:
    """Every row as work, in manifest order; a row whose image is not there carries the problem along."""
    found, problems = resolve_images(manifest, images_root)
    label_index = {label: index for index, label in enumerate(manifest.labels)}
    reasons = dict(problem.split(": ", 2)[1:] for problem in problems)
    tasks = []
    for row in manifest.rows:
        info = found.get(row.image_id)
        path = "" if info is None else _relative(info.path, images_root)
        tasks.append(
            SlideTask(
                image_id=row.image_id,
                patient_id=row.patient_id,
                label=row.label,
                label_index=label_index[row.label],
                split=row.split,
                mpp=row.mpp,
                path=path or row.image_path,
                image="" if info is None else info.path,
                mask=storage.join(images_root, *PurePosixPath(row.mask_path).parts) if row.mask_path else "",
                **read_tissue_options(row),
                problem="" if info is not None else reasons.get(row.image_id, "no image file"),
            )
        )
    return tasks


def check_tissue_options(manifest: Manifest) -> None:
    """Raises InputError that names the lines whose `tissue_method` or `tissue_threshold` can't be used."""
    wrong = []
    for row in manifest.rows:
        try:
            options = read_tissue_options(row)
        except ValueError:
            wrong.append(f"line {row.line}: tissue_threshold {row.extra['tissue_threshold']!r} is no number from 0 on")
            continue
        if options["tissue_method"] not in METHODS:
            wrong.append(f"line {row.line}: tissue_method {options['tissue_method']!r} is unknown")
        elif options["tissue_method"] == "fixed" and not options["tissue_threshold"]:
            wrong.append(f"line {row.line}: tissue_method 'fixed' needs a tissue_threshold")
    if wrong:
        mend = f"tissue_method is empty or {', '.join(METHODS)}; tissue_threshold is an optical density such as 0.1"
        raise InputError(name_first(wrong), where=manifest.path, mend=mend)


def read_tissue_options(row: Row) -> dict[str, Any]:
    """How a row wants its tissue found: its cells `tissue_method` and `tissue_threshold`, which alone means `fixed`.

    Raises:
        ValueError: the threshold is no number from 0 on.
    """
    text = row.extra.get("tissue_threshold", "").strip()
    threshold = float(text) if text else 0.0
    if not 0 <= threshold < math.inf:
        raise ValueError(text)
    method = row.extra.get("tissue_method", "").strip() or ("fixed" if threshold else "auto")
    return {"tissue_method": method, "tissue_threshold": threshold}


def _relative(path: str, root: str) -> str:
    if storage.is_remote(root):
        return path[len(root.rstrip("/")) + 1 :]
    return PurePosixPath(os.path.relpath(path, root)).as_posix()


def check_out(out: str) -> None:
    """Raises InputError where `out` holds records that no tiling run with results of its own wrote, or is a file."""
    if not storage.is_remote(out) and os.path.exists(out) and not os.path.isdir(out):
        raise InputError("is a file, not a folder", where=out, mend="choose another --out")
    home, records = storage.join(out, ".tiling"), storage.join(out, "records")
    known = storage.has_file(home) if storage.is_remote(out) else os.path.isdir(home)
    if not known and storage.has_file(records, ".tfrecord"):
        raise InputError("holds records of another origin", where=out, mend="choose another --out, or remove them")


def prepare_out(out: str, tasks: Sequence[SlideTask], parameters: TilingParameters) -> None:
    """Takes up what an earlier run left: plans that still hold stay, the others go.

    The dataset's own files go too, so that a run that is broken off leaves nothing that looks finished.
    """
    with storage.translate_os_errors(out):
        for name in COMMIT_FILES:
            storage.remove(storage.join(out, name))
        if storage.is_remote(out):
            # Each slide's own worker looks whether its plan still holds: here it would be a request a slide.
            return
        kept = stale = 0
        for task in tasks:
            if load_plan(out, task.image_id) is None:
                continue
            if find_plan(task, parameters, out) is not None:
                kept += 1
                continue
            stale += 1
            os.unlink(storage.join(plan_folder(out, task.image_id), "plan.json"))
    if kept or stale:
        logger.info("earlier run in %s: %d slides taken up, %d stale and planned again", out, kept, stale)
