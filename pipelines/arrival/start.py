"""The one place where an upload meets Vertex AI: its run is submitted, once."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.records.errors import InputError
from pipelines.arrival.upload import Upload

if TYPE_CHECKING:
    from pipelines.vertex.client import Clients

_ONE_AT_A_TIME = threading.Lock()  # KFP builds one pipeline a process at a time


@dataclass(frozen=True)
class Settings:
    """What the service is set up with.

    Attributes:
        prefix: the `gs://` folder that is watched.
        env, config: environment of the run, as `bagline submit` takes it.
        template: tag of the template that runs; empty compiles the pipeline with the environment's images.
    """

    prefix: str
    env: str = ""
    config: str = ""
    template: str = "latest"


def read_settings(variables: Mapping[str, str] = os.environ) -> Settings:
    """The settings of BAGLINE_ARRIVALS (`gs://…`), BAGLINE_ENV or BAGLINE_CONFIG, and BAGLINE_TEMPLATE.

    Raises:
        InputError: what is watched, or where to run, is not said.
    """
    prefix = variables.get("BAGLINE_ARRIVALS", "")
    if not prefix.startswith("gs://") or not prefix.removeprefix("gs://").strip("/"):
        raise InputError(f"BAGLINE_ARRIVALS is {prefix!r}", mend="name the folder that is watched, gs://BUCKET/FOLDER")
    env, config = variables.get("BAGLINE_ENV", ""), variables.get("BAGLINE_CONFIG", "")
    if not env and not config:
        raise InputError("no environment is named", mend="set BAGLINE_ENV (dev, prod) or BAGLINE_CONFIG (a file)")
    return Settings(prefix.rstrip("/"), env, config, variables.get("BAGLINE_TEMPLATE", "latest"))


def job_id_of(upload: Upload) -> str:
    """The id of an upload's run: the same for the same content, so that Vertex AI itself refuses a second one."""
    return f"arrival-{upload.key[:32]}"


def start_run(upload: Upload, settings: Settings) -> tuple[str, bool]:
    """Submits the run of a whole upload.

    Returns:
        The job's name, and whether it was started now (False: it was there).

    Raises:
        InputError, WorkError: as `pipelines.vertex.submit.submit`.
    """
    from pipelines.vertex.client import Clients
    from pipelines.vertex.environment import load_config
    from pipelines.vertex.request import Order
    from pipelines.vertex.submit import submit
    from pipelines.vertex.template import fetch_template

    config = load_config(settings.env, settings.config)
    environment = config.need_environment()
    clients = Clients(environment.region)
    name = f"{environment.parent}/pipelineJobs/{job_id_of(upload)}"
    with _ONE_AT_A_TIME:
        if _is_there(clients, name):
            return name, False
        spec, template = None, ""
        if settings.template:
            spec, template = fetch_template(environment, config.pipeline, settings.template)
        order = Order(config, manifest=upload.manifest, images_root=upload.root, spec=spec, template=template)
        try:
            request = submit(order, clients=clients, job_id=job_id_of(upload))
        except InputError:
            # Two events may have come at once: then the other one's job is there now.
            if not _is_there(clients, name):
                raise
            return name, False
        return request.name, True


def _is_there(clients: Clients, name: str) -> bool:
    from google.api_core.exceptions import NotFound

    from pipelines.vertex.client import TIMEOUT, explain

    with explain(name):
        try:
            clients.pipelines.get_pipeline_job(name=name, timeout=TIMEOUT)
        except NotFound:
            return False
    return True
