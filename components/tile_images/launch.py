"""Tiling on Dataflow: the job is started, found again after a restart, waited for, and its results are finalised.

What a later process needs for that lies in OUT, in `.launch/`: the task that starts the job may be another one than
the task that waits for it.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any

from components.records import storage
from components.records.errors import InputError, WorkError
from components.records.ledger import read_ledger
from components.records.manifest import read_manifest
from components.records.provenance import code_version
from components.tile_images.dataflow import DataflowOptions, read_dataflow_options, read_flags, with_image, write_flags
from components.tile_images.dataflow_job import DataflowJob, await_job, cancel_job, find_active_job
from components.tile_images.finalise import check_losses, finalise
from components.tile_images.interruption import TerminatedError, raise_on_sigterm
from components.tile_images.parameters import TilingParameters
from components.tile_images.run import check_splits, check_tissue_options, list_tasks, prepare_out

logger = logging.getLogger(__name__)

FOLDER = ".launch"


@dataclass(frozen=True)
class Launch:
    """A tiling run as it is handed to Dataflow.

    Attributes:
        key: digest of all that decides what the job writes: two launches of one key may share a job.
        images_root, images_fingerprint, parameters, workers, beam_options, dataflow: as the step was called.
        job_id: the job last started for it.
        launched_by: who started that job, in the caller's own words.
    """

    key: str
    images_root: str
    images_fingerprint: str
    parameters: dict[str, Any]
    workers: int
    beam_options: list[str]
    dataflow: dict[str, Any]
    job_id: str = ""
    launched_by: str = ""

    @property
    def options(self) -> DataflowOptions:
        """The Dataflow options, typed."""
        return read_dataflow_options(self.dataflow)

    @property
    def job(self) -> DataflowJob:
        """The job last started."""
        options = self.options
        return DataflowJob(options.project, options.region, self.job_id, options.endpoint)


def plan_launch(
    manifest_path: str,
    images_root: str,
    parameters: TilingParameters,
    *,
    dataflow: Mapping[str, Any],
    workers: int,
    beam_options: Sequence[str],
    images_fingerprint: str = "",
) -> Launch:
    """Checks everything that can be known wrong before a job is started.

    Raises:
        InputError: the manifest, an option, or a folder that Dataflow's workers can't reach.
    """
    options = read_dataflow_options({**read_flags(beam_options), **dataflow})
    options = with_image(options, os.environ.get("BAGLINE_IMAGE", ""))
    if not options.image:
        raise InputError(
            "no image for the workers",
            where="dataflow.image",
            mend="name the tiling image by digest, or compile the pipeline with --images",
        )
    root = find_in_bucket(images_root, "images_root")
    manifest = read_manifest(manifest_path)
    check_splits(manifest)
    check_tissue_options(manifest)
    decides = [manifest.digest, root, asdict(parameters), code_version()]
    return Launch(
        key=sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest(),
        images_root=root,
        images_fingerprint=images_fingerprint,
        parameters=asdict(parameters),
        workers=workers,
        beam_options=list(beam_options),
        dataflow={**asdict(options), "labels": dict(options.labels)},
    )


def launch(plan: Launch, manifest_path: str, out: str, launched_by: str = "") -> Launch | None:
    """Starts the job and does not wait for it; a job of the same launch that runs already is taken as it is.

    Returns:
        The launch with its job, as it is stored in `out`; None where the Beam options ask for a template only.

    Raises:
        InputError: another run tiles into `out`. WorkError: the service refuses the job.
    """
    options = plan.options
    name = name_job(out)
    asked_for_template = any(flag.startswith(("--template_location", "--dry_run")) for flag in plan.beam_options)
    if not asked_for_template:
        running = _find_running(options, name, out, plan)
        if running is not None:
            return running
        manifest = storage.read_bytes(manifest_path)
        storage.write_bytes(_manifest_path(out), manifest)
        _save(replace(plan, launched_by=launched_by), out)
    tasks = list_tasks(read_manifest(manifest_path), plan.images_root)
    parameters = TilingParameters(**plan.parameters)
    if not asked_for_template:
        prepare_out(out, tasks, parameters)
    from components.tile_images.pipeline import submit_pipeline
    from components.tile_images.submission import translate_refusals

    try:
        with raise_on_sigterm(), translate_refusals(options):
            flags = [*write_flags(options, name), *plan.beam_options]
            job_id = submit_pipeline(tasks, parameters, out, workers=plan.workers, flags=flags)
    except (KeyboardInterrupt, TerminatedError):
        job = find_active_job(options.project, options.region, name, options.endpoint)
        if job is not None:
            cancel_job(job)
            logger.warning("stopped; Dataflow job %s is cancelled", job.id)
        raise
    except FileExistsError:  # another attempt of this step was quicker
        running = _find_running(options, name, out, plan)
        if running is None:
            raise WorkError(f"a job {name} existed and is gone", where="Dataflow", mend="run the step again") from None
        return running
    if not job_id:
        return None
    launched = replace(plan, job_id=job_id, launched_by=launched_by)
    logger.info("Dataflow job %s is started: %s", job_id, launched.job.link)
    _save(launched, out)
    return launched


def finish(launched: Launch, out: str) -> dict[str, Any]:
    """Waits for the job and finalises the dataset in `out`; being stopped cancels the job.

    Returns:
        The summary.

    Raises:
        WorkError: the job failed, or more slides were lost than `max_failed_share`, after everything was written.
        TerminatedError: this process was told to end.
    """
    try:
        with raise_on_sigterm():
            await_job(launched.job)
    except (KeyboardInterrupt, TerminatedError):
        cancel_job(launched.job)
        logger.warning("stopped; Dataflow job %s is cancelled: %s", launched.job_id, launched.job.link)
        raise
    manifest = read_manifest(_manifest_path(out))
    parameters = TilingParameters(**launched.parameters)
    summary = finalise(manifest, list_tasks(manifest, launched.images_root), parameters, out)
    check_losses(summary, read_ledger(storage.join(out, "ledger.jsonl")), parameters)
    return summary


def tile_on_dataflow(plan: Launch, manifest_path: str, out: str) -> dict[str, Any]:
    """Starts the job, waits for it and finalises the dataset in `out`.

    Returns:
        The summary; empty where the Beam options ask for a template only.

    Raises:
        BaglineError: as `launch` and `finish`.
    """
    launched = launch(plan, manifest_path, out)
    return {} if launched is None else finish(launched, out)


def load_launch(out: str) -> Launch:
    """The launch that `out` was tiled by.

    Raises:
        InputError: it was tiled by none.
    """
    return Launch(**storage.read_json(storage.join(out, FOLDER, "launch.json")))


def relaunch(launched: Launch, out: str, launched_by: str) -> Launch:
    """Starts a new job for a launch whose job ended badly; it takes up what the old one finished."""
    renewed = launch(launched, _manifest_path(out), out, launched_by)
    if renewed is None:
        raise WorkError("the job was a template only", where="Dataflow", mend="leave out --template_location")
    return renewed


def find_in_bucket(path: str, name: str) -> str:
    """`path` as Dataflow's workers reach it: `/gcs/bucket/…`, as Vertex AI mounts it, is `gs://bucket/…`.

    Raises:
        InputError: it is neither.
    """
    found = f"gs://{path.removeprefix('/gcs/')}" if path.startswith("/gcs/") else path
    if not storage.is_remote(found):
        raise InputError("Dataflow's workers can't reach it", where=f"{name} {path}", mend="give a gs:// folder")
    return found.rstrip("/")


def find_run(uri: str) -> str:
    """The folder of the pipeline run that an artifact lies in: `<run>/<task>/<artifact>`."""
    return uri.rstrip("/").rsplit("/", 2)[0]


def name_job(out: str) -> str:
    """The job's name: one for each `out`, so that the service itself keeps a second job from it."""
    return f"bagline-tile-{sha256(out.encode()).hexdigest()[:16]}"


def _find_running(options: DataflowOptions, name: str, out: str, plan: Launch) -> Launch | None:
    job = find_active_job(options.project, options.region, name, options.endpoint)
    if job is None:
        return None
    stored = load_launch(out)
    if stored.key != plan.key:
        raise InputError(
            f"Dataflow job {job.id} tiles into it now, from other inputs or with other parameters",
            where=out,
            mend=f"wait for it, or cancel it at {job.link}",
        )
    logger.info("Dataflow job %s runs already: %s", job.id, job.link)
    found = replace(stored, job_id=job.id)
    _save(found, out)
    return found


def _save(launched: Launch, out: str) -> None:
    storage.write_json(storage.join(out, FOLDER, "launch.json"), asdict(launched))


def _manifest_path(out: str) -> str:
    return storage.join(out, FOLDER, "manifest.csv")
