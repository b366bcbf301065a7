"""Writes OpenLineage run events: what each task read and wrote, with which parameters, code and environment."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import attr
from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import DatasetFacet, RunFacet, dataset_version_dataset, error_message_run, parent_run
from openlineage.client.transport.file import FileConfig, FileTransport

from components.records.provenance import code_version, environment_digest
from pipelines.lineage.artifacts import Traced

NAMESPACE = "bagline"
FOLDER = "lineage"
_PRODUCER = "urn:bagline"
_SCHEMA = "urn:bagline:facet"


@attr.define
class FilesDatasetFacet(DatasetFacet):
    """Path to digest of every file of an artifact, relative to `root` (empty: the folder that holds `lineage/`)."""

    root: str
    files: dict[str, str]

    @staticmethod
    def _get_schema() -> str:
        return f"{_SCHEMA}/FilesDatasetFacet-1"


@attr.define
class TaskRunFacet(RunFacet):
    """What else decides a task's result: its parameters, the code's version, the digest of the environment."""

    parameters: dict[str, Any]
    code_version: str
    environment_digest: str
    image: str

    @staticmethod
    def _get_schema() -> str:
        return f"{_SCHEMA}/TaskRunFacet-1"


@dataclass(frozen=True)
class TaskRecord:
    """One finished task.

    Attributes:
        job: `<pipeline>.<step>`.
        started, ended: aware UTC times.
        error: the one-line error of a failed task, else empty.
        parent: run id of the pipeline run, else empty.
    """

    job: str
    parameters: dict[str, Any]
    inputs: list[Traced]
    outputs: list[Traced]
    started: datetime
    ended: datetime
    error: str = ""
    parent: str = ""
    image: str = ""
    run_id: str = field(default_factory=lambda: str(uuid.uuid4()))


def _facets(artifact: Traced) -> dict[str, DatasetFacet]:
    return {
        "version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=artifact.digest),
        "bagline_files": FilesDatasetFacet(root=artifact.root, files=artifact.files),
    }


def write_events(out: str, task: TaskRecord) -> None:
    """Writes the START and the COMPLETE or FAIL event of a task, a file each, below `OUT/lineage/`."""
    run_facets: dict[str, RunFacet] = {
        "bagline_task": TaskRunFacet(
            parameters=task.parameters,
            code_version=code_version(),
            environment_digest=environment_digest(),
            image=task.image,
        )
    }
    if task.parent:
        run_facets["parent"] = parent_run.ParentRunFacet(
            run=parent_run.Run(runId=task.parent),
            job=parent_run.Job(namespace=NAMESPACE, name=task.job.partition(".")[0]),
        )
    job = Job(namespace=NAMESPACE, name=task.job)
    inputs = [InputDataset(NAMESPACE, artifact.name, facets=_facets(artifact)) for artifact in task.inputs]
    start = RunEvent(
        eventTime=task.started.isoformat(),
        producer=_PRODUCER,
        run=Run(task.run_id, facets=dict(run_facets)),
        job=job,
        eventType=RunState.START,
        inputs=inputs,
    )
    if task.error:
        run_facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
            message=task.error, programmingLanguage="Python"
        )
    end = RunEvent(
        eventTime=task.ended.isoformat(),
        producer=_PRODUCER,
        run=Run(task.run_id, facets=dict(run_facets)),
        job=job,
        eventType=RunState.FAIL if task.error else RunState.COMPLETE,
        inputs=inputs,
        outputs=[OutputDataset(NAMESPACE, artifact.name, facets=_facets(artifact)) for artifact in task.outputs],
    )
    _emit(out, start)
    _emit(out, end)


def _emit(out: str, event: RunEvent) -> None:
    folder = os.path.join(out, FOLDER)
    os.makedirs(folder, exist_ok=True)
    stamp = event.eventTime.replace(":", "").replace("+0000", "Z")
    kind = str(event.eventType.value if event.eventType else "OTHER").lower()
    name = f"{stamp}-{event.job.name}-{event.run.runId[:8]}-{kind}.json"
    temporary = os.path.join(folder, f".{name}.tmp")
    transport = FileTransport(FileConfig(log_file_path=temporary, append=True))
    OpenLineageClient(transport=transport).emit(event)
    os.replace(temporary, os.path.join(folder, name))


def now() -> datetime:
    """The present time, UTC."""
    return datetime.now(UTC)
