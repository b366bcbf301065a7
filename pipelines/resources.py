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
    """

    cpu: int = 2
    memory: str = "8G"
    accelerator: str = ""
    accelerator_count: int = 1
    retries: int = 1
    backoff: int = 60


DEFAULTS: dict[str, Resources] = {
    "split": Resources(cpu=2, memory="8G", retries=2),
    "tile": Resources(cpu=8, memory="32G", retries=2),
    "wait": Resources(cpu=1, memory="4G", retries=3),
    "validate": Resources(cpu=4, memory="16G", retries=1),
    "train": Resources(cpu=8, memory="32G", retries=2),
    "evaluate": Resources(cpu=8, memory="32G", retries=1),
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
            if not isinstance(value, str if known[key] == "str" else int) or isinstance(value, bool):
                raise InputError(f"{key} of {step} is {value!r}", where=where, mend=f"give a {known[key]}")
            if key == "memory" and not _MEMORY.match(str(value)):
                raise InputError(f"memory of {step} is {value!r}", where=where, mend="write it like 16G")
        resources[step] = replace(DEFAULTS[step], **values)
    return resources


def apply_resources(task: Any, wanted: Resources) -> None:
    """Sets a KFP task's requests."""
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
