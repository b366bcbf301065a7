"""Follows a job on Vertex AI until it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipelines.vertex.client import TIMEOUT, Clients, explain, patiently

DONE = ("SUCCEEDED", "FAILED", "CANCELLED", "PAUSED")
_WORDS = {
    "RUNNING": "runs",
    "SKIPPED": "unchanged, taken from the cache",
    "CANCEL_PENDING": "is asked to stop",
    "CANCELLING": "stops",
    "CANCELLED": "stopped",
    "NOT_TRIGGERED": "is left out",
}


@dataclass(frozen=True)
class Outcome:
    """How a job ended: its state (`SUCCEEDED`, `FAILED`, …), seconds, and what the service says of a failure."""

    job: str
    state: str
    seconds: float
    error: str = ""
    failed: tuple[str, ...] = ()


def get_job(clients: Clients, name: str) -> Any:
    """The job as it is now; raises InputError where there is none."""
    with explain(f"job {name.rpartition('/')[2]}"):
        return clients.pipelines.get_pipeline_job(name=name, retry=patiently(), timeout=TIMEOUT)


def watch(clients: Clients, name: str, show: Callable[[str, str, bool], None], *, every: float = 15.0) -> Outcome:
    """Waits until a job ends.

    Args:
        clients: of the region.
        name: the job's resource name.
        show: called with (step, line, moving) whenever a task changes its state.
        every: seconds between two looks.
    """
    seen: dict[int, tuple[str, int]] = {}
    while True:
        job = get_job(clients, name)
        steps = step_names(job)
        for task in real_tasks(job):
            state = task.state.name
            attempts = len(failed_attempts(task))
            if state != "PENDING" and seen.get(task.task_id) != (state, attempts):
                seen[task.task_id] = state, attempts
                show(steps.get(task.task_name, task.task_name), _line(task, state, attempts), state in ("RUNNING",))
        state = state_of(job)
        if state in DONE:
            failed = tuple(steps.get(task.task_name, task.task_name) for task in failed_tasks(job))
            return Outcome(name, state, _seconds(job), " ".join(job.error.message.split()), failed)
        time.sleep(every)


def state_of(job: Any) -> str:
    """`RUNNING`, `SUCCEEDED`, …"""
    return str(job.state.name).removeprefix("PIPELINE_STATE_")


def step_names(job: Any) -> dict[str, str]:
    """Task name → step as users say it, by the job's own spec."""
    from google.protobuf import json_format

    spec = json_format.MessageToDict(type(job).pb(job).pipeline_spec)
    tasks = spec.get("root", {}).get("dag", {}).get("tasks", {})
    return {name: body.get("taskInfo", {}).get("name", name) for name, body in tasks.items()}


def real_tasks(job: Any) -> list[Any]:
    """The tasks, without the one that stands for the whole graph, in the order they were made."""
    known = step_names(job)
    tasks = [task for task in job.job_detail.task_details if not known or task.task_name in known]
    return sorted(tasks, key=lambda task: task.task_id)


def failed_tasks(job: Any) -> list[Any]:
    """The tasks that failed themselves."""
    return [task for task in real_tasks(job) if task.state.name == "FAILED"]


def failed_attempts(task: Any) -> list[str]:
    """The custom jobs of a task that failed and were tried again (or not)."""
    detail = task.executor_detail
    return [*detail.container_detail.failed_main_jobs, *detail.custom_job_detail.failed_jobs]


def _line(task: Any, state: str, attempts: int) -> str:
    seconds = _seconds(task)
    if state == "SUCCEEDED":
        return f"done in {seconds:.0f} s"
    if state == "FAILED":
        return f"failed after {seconds:.0f} s: {' '.join(task.error.message.split())[:300]}"
    again = f", after {attempts} that failed" if attempts else ""
    return _WORDS.get(state, state.lower()) + again


def _seconds(timed: Any) -> float:
    if not timed.end_time or not timed.start_time:
        return 0.0
    return float((timed.end_time - timed.start_time).total_seconds())
