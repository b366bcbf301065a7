"""The pipeline job as it is sent to Vertex AI: a plain mapping, made without a word to the cloud but its inputs."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from components.records import storage
from components.records.errors import InputError
from components.records.provenance import code_version
from pipelines.compile import compile_for_cloud, read_references, signature_of, steps_of
from pipelines.local.inputs import look_at_inputs
from pipelines.parameters import check_parameters, check_steps, parse_assignments
from pipelines.vertex.environment import Config, Environment

# set by us, from the command line and what it names
_INPUTS = ("manifest", "images_root", "manifest_hash", "images_fingerprint")
_PATHS = ("previous_split", "previous_metrics", "encoder_path", "checkpoint_dir")
_WORLD = {"manifest", "images_root"}  # a task that is given one of these reads what no artifact stands for


@dataclass(frozen=True)
class Order:
    """What is to run where.

    Attributes:
        manifest, images_root: empty for those of the environment; a local manifest is copied below the pipeline root.
        pipeline: empty for the config's.
        images: path of images.json; empty for the environment's.
        assignments: `key=value` words over the config's parameters.
        spec: a compiled template that takes the place of this code's pipeline; `template` is its address.
        pinned: whether the job is tied to the manifest's bytes and the images as they are now; a schedule's is not.
    """

    config: Config
    manifest: str = ""
    images_root: str = ""
    pipeline: str = ""
    images: str = ""
    allow_tags: bool = False
    assignments: tuple[str, ...] = ()
    spec: Mapping[str, Any] | None = None
    template: str = ""
    pinned: bool = True

    @property
    def environment(self) -> Environment:
        """Where it runs; raises InputError where the config names no place."""
        return self.config.need_environment()


@dataclass(frozen=True)
class Request:
    """A job ready to be sent.

    Attributes:
        body: the PipelineJob in the API's JSON form.
        job_id: its id.
        upload: local manifest and the object it is copied to, or None.
    """

    environment: Environment
    body: dict[str, Any]
    job_id: str
    upload: tuple[str, str] | None = None

    @property
    def name(self) -> str:
        """The resource name that the job will have."""
        return f"{self.environment.parent}/pipelineJobs/{self.job_id}"


def build_request(order: Order) -> Request:
    """The job's body, its inputs looked at and hashed as `bagline run` does.

    Raises:
        InputError: images, manifest, parameters or the caching don't fit.
    """
    environment, name = order.environment, order.pipeline or order.config.pipeline
    spec = _compile(order, name)
    values, upload = _values(order, name, spec)
    _set_caching(spec, order, name)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    job_id = f"{name}-{stamp}-{secrets.token_hex(2)}"
    version = re.sub(r"[^a-z0-9_-]", "-", code_version().lower())[:63]
    body: dict[str, Any] = {
        "displayName": name,
        "pipelineSpec": spec,
        "labels": {"bagline-pipeline": name, "bagline-code": version, **environment.labels},
        "runtimeConfig": {
            "gcsOutputDirectory": environment.pipeline_root,
            "parameterValues": values,
            "failurePolicy": f"PIPELINE_FAILURE_POLICY_FAIL_{environment.failure_policy.upper()}",
        },
    }
    if environment.service_account:
        body["serviceAccount"] = environment.service_account
    if environment.network:
        body["network"] = environment.network
    if environment.kms_key:
        body["encryptionSpec"] = {"kmsKeyName": environment.kms_key}
    if order.template:
        body["templateUri"] = order.template
    return Request(environment, body, job_id, upload)


def images_of(spec: Mapping[str, Any]) -> list[str]:
    """The container images of a compiled spec, each once, sorted."""
    executors = spec["deploymentSpec"]["executors"].values()
    return sorted({executor["container"]["image"] for executor in executors if "container" in executor})


def _compile(order: Order, name: str) -> dict[str, Any]:
    if order.spec is not None:
        return json.loads(json.dumps(order.spec))  # type: ignore[no-any-return]
    where = f"{order.config.where}: environment.images"
    references = read_references(order.images or order.environment.images, where, allow_tags=order.allow_tags)
    return compile_for_cloud(name, references, order.config.resources, order.config.where)


def _values(order: Order, name: str, spec: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, str] | None]:
    signature, config = signature_of(spec), order.config
    free = {key: value for key, value in signature.items() if key not in (*_INPUTS, "dataflow")}
    given = config.parameters
    if name != config.pipeline:
        given = {key: value for key, value in given.items() if key in free}
    values = check_parameters(given, free, config.where) | parse_assignments(order.assignments, free)
    for key in _PATHS:
        if values.get(key) and not str(values[key]).startswith(("gs://", "/gcs/")):
            raise InputError(
                f"{key} is {values[key]!r}, on this machine", mend="copy it to a bucket, and name it gs://…"
            )
    if "dataflow" in signature and config.dataflow:
        values["dataflow"] = config.dataflow
    found, upload = _look(order, labelled="model" not in signature) if "manifest" in signature else ({}, None)
    values |= {key: value for key, value in found.items() if key in signature}
    missing = [key for key, parameter in signature.items() if parameter.required and key not in values]
    if missing:
        raise InputError(f"{name} needs {', '.join(missing)}", mend=f"pass --set {missing[0]}=…")
    return values, upload


def _look(order: Order, *, labelled: bool) -> tuple[dict[str, str], tuple[str, str] | None]:
    environment = order.environment
    manifest = order.manifest or environment.manifest
    images_root = order.images_root or environment.images_root
    if not manifest:
        raise InputError("no manifest is named", where=order.config.where, mend="pass MANIFEST")
    if not images_root:
        raise InputError("no images are named", where=order.config.where, mend="pass --images-root gs://…")
    if not storage.is_remote(images_root):
        raise InputError(f"{images_root} is on this machine", where="--images-root", mend="name a gs:// folder")
    found, fingerprint = look_at_inputs(manifest, images_root, labelled=labelled)
    upload = None
    if not storage.is_remote(manifest):
        if not order.pinned:
            raise InputError(f"{manifest} is on this machine", where="MANIFEST", mend="a schedule needs a gs:// one")
        target = storage.join(environment.pipeline_root, "manifests", f"{found.digest}.csv")
        upload, manifest = (manifest, target), target
    values = {"manifest": manifest, "images_root": images_root}
    if order.pinned:
        values |= {"manifest_hash": found.digest, "images_fingerprint": fingerprint}
    return values, upload


def _set_caching(spec: dict[str, Any], order: Order, name: str) -> None:
    """Writes `caching:` into the tasks; an order that is not pinned never takes what was read from the world."""
    caching, steps = order.environment.caching, steps_of(spec)
    if name == order.config.pipeline:
        check_steps(caching.tasks, steps.values(), order.config.where)
    for task, body in spec["root"]["dag"]["tasks"].items():
        wanted = caching.tasks.get(steps[task], caching.default)
        given = body.get("inputs", {}).get("parameters", {}).values()
        reads_world = bool(_WORLD & {source.get("componentInputParameter") for source in given})
        never = "cachingOptions" in body and not body["cachingOptions"].get("enableCache")
        if never or (reads_world and not order.pinned):
            wanted = False
        body["cachingOptions"] = {"enableCache": wanted}
