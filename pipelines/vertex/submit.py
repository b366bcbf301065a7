"""Sends a job to Vertex AI, and associates it with its experiment."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from typing import Any

from components.records import storage
from pipelines.vertex.client import TIMEOUT, Clients, explain
from pipelines.vertex.environment import Environment
from pipelines.vertex.preflight import check_readiness
from pipelines.vertex.request import Order, Request, build_request

_LOG = logging.getLogger(__name__)


def submit(order: Order, *, preflight: bool = True, clients: Clients | None = None, job_id: str = "") -> Request:
    """Builds, checks and sends a job; with a `job_id` of the caller's own, Vertex AI refuses the second one of it.

    Returns:
        The request as it was sent; `.name` is the job.

    Raises:
        InputError: something doesn't fit or is missing; nothing was sent. WorkError: Vertex AI refused or was away.
    """
    request = build_request(order)
    if job_id:
        request = replace(request, job_id=job_id)
    environment = request.environment
    if preflight:
        check_readiness(environment, request.body["pipelineSpec"])
    copy_manifest(request)
    clients = clients or Clients(environment.region)
    with explain("submit"):
        clients.pipelines.create_pipeline_job(
            parent=environment.parent,
            pipeline_job=as_job(request.body),
            pipeline_job_id=request.job_id,
            timeout=TIMEOUT,
        )
    return request


def as_job(body: dict[str, Any]) -> Any:
    """The client library's PipelineJob; it knows every field of `body`."""
    from google.cloud.aiplatform_v1.types import PipelineJob

    return PipelineJob.from_json(json.dumps(body), ignore_unknown_fields=False)


def copy_manifest(request: Request) -> None:
    """Copies a local manifest to where the job reads it; its name is its hash, so it is never another one's."""
    if request.upload:
        source, target = request.upload
        with explain(f"copying {source} to {target}"):
            storage.write_bytes(target, storage.read_bytes(source))


def join_experiment(clients: Clients, environment: Environment, job: str, *, patience: float = 60.0) -> bool:
    """Puts a job's run into the environment's experiment, which is made where it isn't there.

    A job is not lost for it: what goes wrong is a warning.

    Args:
        clients: of the region.
        environment: names the experiment.
        job: resource name of the job.
        patience: seconds to wait for the run to appear in the metadata store.
    """
    from google.api_core.exceptions import AlreadyExists, GoogleAPICallError, NotFound, RetryError

    store = f"{environment.parent}/metadataStores/default"
    experiment = f"{store}/contexts/{environment.experiment}"
    try:
        run = _find_run(clients, job, patience)
        if not run:
            _LOG.warning("experiment %s: the run has not appeared in it yet", environment.experiment)
            return False
        try:
            clients.metadata.get_context(name=experiment, timeout=TIMEOUT)
        except NotFound:
            context = {
                "display_name": environment.experiment,
                "schema_title": "system.Experiment",
                "schema_version": "0.0.1",
                "metadata": {"experiment_deleted": False},
            }
            try:
                clients.metadata.create_context(
                    parent=store, context=context, context_id=environment.experiment, timeout=TIMEOUT
                )
            except AlreadyExists:
                _LOG.debug("experiment %s was made meanwhile", environment.experiment)
        clients.metadata.add_context_children(context=experiment, child_contexts=[run], timeout=TIMEOUT)
    except (GoogleAPICallError, RetryError, OSError) as error:
        _LOG.warning("experiment %s: the run is not in it: %s", environment.experiment, " ".join(str(error).split()))
        return False
    return True


def _find_run(clients: Clients, job: str, patience: float) -> str:
    end = time.monotonic() + patience
    while True:
        found = clients.pipelines.get_pipeline_job(name=job, timeout=TIMEOUT)
        if found.job_detail.pipeline_run_context.name:
            return str(found.job_detail.pipeline_run_context.name)
        if time.monotonic() >= end:
            return ""
        time.sleep(min(2.0, patience / 10))
