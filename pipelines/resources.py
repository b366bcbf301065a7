"""What a task asks of Vertex AI: CPU, memory, accelerator, retries. Locally none of it has an effect."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from components.records.errors import InputError
from pipelines.parameters import suggest

_MEMORY = re.compile(r"^\d+[GM]$")


@dataclass(frozen=True)
class Resources:
    """One task's request.

    Attributes:
        cpu: vCPUs.
        memory: such as `16G`.
        accelerator: Vertex's name, such as `NVIDIA_TESLA_T4`; empty for none.
        accelerator_count: how many.
        retries: how often a failed task starts again; `backoff` seconds before the first retry, doubled each time.
        machine_type: such as `n1-standard-16`: the step runs as a custom job on such machines, each with the
            accelerators; `cpu` and `memory` have no say then.
        workers: machines of the custom job, the chief among them; more than 1 makes it one.
        disk_gb: boot disk of each.
        spot: takes machines that may be taken away; the job then starts again from its checkpoint.
        service_account, network, kms_key: of the custom job; it takes none of the pipeline's own.
        max_hours: the job is ended after this.
    """

    cpu: int = 2
    memory: str = "8G"
    accelerator: str = ""
    accelerator_count: int = 1
    retries: int = 1
    backoff: int = 60
    machine_type: str = ""
    workers: int = 1
    disk_gb: int = 100
    spot: bool = False
    service_account: str = ""
    network: str = ""
    kms_key: str = ""
    max_hours: int = 168

    @property
    def is_custom_job(self) -> bool:
        """Whether the step runs as a custom job of its own."""
        return bool(self.machine_type) or self.workers > 1


CUSTOM_JOBS = ("train",)

DEFAULTS: dict[str, Resources] = {
    "summarise": Resources(cpu=2, memory="8G", retries=1),
    "split": Resources(cpu=2, memory="8G", retries=2),
    "tile": Resources(cpu=8, memory="32G", retries=2),
    "wait": Resources(cpu=1, memory="4G", retries=3),
    "validate": Resources(cpu=4, memory="16G", retries=1),
    "embed": Resources(cpu=8, memory="32G", retries=2),
    "train": Resources(cpu=8, memory="32G", retries=2),
    "evaluate": Resources(cpu=8, memory="32G", retries=1),
    "register": Resources(cpu=2, memory="8G", retries=0),
    "prepare": Resources(cpu=2, memory="8G", retries=1),
    "predict": Resources(cpu=8, memory="32G", retries=1),
}


def read_resources(given: Mapping[str, Any], where: str) -> dict[str, Resources]:
    """The defaults with what a config file's `resources` says of each step.

    Raises:
        InputError: unknown step or key (suggests the right one), or a value of another type.
    """
    resources = dict(DEFAULTS)
    known = {field.name: field.type for field in fields(Resources)}
    for step, values in given.items():
        if step not in DEFAULTS:
            mend = suggest(str(step), DEFAULTS) or f"steps are {', '.join(DEFAULTS)}"
            raise InputError(f"unknown step {step!r} in resources", where=where, mend=mend)
        if not isinstance(values, dict):
            raise InputError(f"resources of {step} are no mapping", where=where, mend="write a key a line below it")
        for key, value in values.items():
            if key not in known:
                mend = suggest(str(key), known) or f"keys are {', '.join(known)}"
                raise InputError(f"unknown key {key!r} in resources of {step}", where=where, mend=mend)
            kind = {"str": str, "int": int, "bool": bool}[str(known[key])]
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                raise InputError(f"{key} of {step} is {value!r}", where=where, mend=f"give a {known[key]}")
            if key == "memory" and not _MEMORY.match(str(value)):
                raise InputError(f"memory of {step} is {value!r}", where=where, mend="write it like 16G")
        resources[step] = replace(DEFAULTS[step], **values)
        _check_custom_job(step, resources[step], where)
    return resources


def _check_custom_job(step: str, wanted: Resources, where: str) -> None:
    if not wanted.is_custom_job:
        only = [name for name in ("spot", "service_account", "network", "kms_key") if getattr(wanted, name)]
        if only:
            raise InputError(f"{only[0]} of {step} is of custom jobs only", where=where, mend="give a machine_type too")
        return
    if step not in CUSTOM_JOBS:
        raise InputError(f"{step} can't be a custom job", where=where, mend=f"only {', '.join(CUSTOM_JOBS)} can")
    if not wanted.machine_type:
        raise InputError(
            f"{step} asks for {wanted.workers} workers without a machine_type", where=where, mend="give a machine_type"
        )
    if wanted.workers < 1:
        raise InputError(f"workers of {step} is {wanted.workers}", where=where, mend="give 1 or more")


def as_custom_job(component: Any, step: str, wanted: Resources) -> Any:
    """A KFP component that starts `component` as a Vertex AI custom job: the same inputs and outputs.

    Vertex tells each worker of the others by `TF_CONFIG` and `CLUSTER_SPEC`.
    """
    # Imported where it is asked for: it takes most of a second.
    from google_cloud_pipeline_components.v1.custom_job import create_custom_training_job_from_component

    return create_custom_training_job_from_component(
        component,
        display_name=f"bagline-{step}",
        replica_count=wanted.workers,
        machine_type=wanted.machine_type,
        accelerator_type=wanted.accelerator,
        accelerator_count=wanted.accelerator_count,
        boot_disk_size_gb=wanted.disk_gb,
        timeout=f"{wanted.max_hours * 3600}s",
        restart_job_on_worker_restart=wanted.workers > 1,
        service_account=wanted.service_account,
        network=wanted.network,
        encryption_spec_key_name=wanted.kms_key,
        strategy="SPOT" if wanted.spot else "STANDARD",
        env=[{"name": "BAGLINE_IMAGE", "value": image_of(component)}],
    )


def image_of(component: Any) -> str:
    """The image, or the placeholder of it, that a component runs in."""
    executors = component.pipeline_spec.deployment_spec["executors"]
    return str(next(iter(executors.values()))["container"]["image"])


def apply_resources(task: Any, wanted: Resources) -> None:
    """Sets a KFP task's requests."""
    if not wanted.is_custom_job:  # whose task only starts it
        task.set_cpu_limit(str(wanted.cpu)).set_memory_limit(wanted.memory)
        if wanted.accelerator:
            task.set_accelerator_type(wanted.accelerator).set_accelerator_limit(wanted.accelerator_count)
    if wanted.retries:
        task.set_retry(
            num_retries=wanted.retries,
            backoff_duration=f"{wanted.backoff}s",
            backoff_factor=2.0,
            backoff_max_duration="3600s",
        )
