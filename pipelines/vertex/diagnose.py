"""Why a job on Vertex AI failed: the tasks that failed themselves, what they said, where their logs are, the mend."""

from __future__ import annotations

import logging
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from components.records.errors import BaglineError, InputError
from pipelines.local.stream import error_in_lines
from pipelines.vertex.client import Clients, ask, endpoint, explain
from pipelines.vertex.environment import Environment
from pipelines.vertex.links import job_link, logs_link, pipeline_log_filter, task_log_filter
from pipelines.vertex.watch import failed_attempts, failed_tasks, get_job, real_tasks, state_of, step_names

_LOG = logging.getLogger(__name__)
_LINES = 100
_PATIENCE = 10.0
_TILE, _WAIT = "tile-images", "await-tiling"
_RESOURCES = ("output:gcp_resources", "input:gcp_resources")
_OURS = re.compile(r"^bagline \w+: (.*)$")
_JOB = re.compile(r"^projects/[^/]+/locations/[^/]+/pipelineJobs/[^/]+$")
_LINK = re.compile(r"/locations/([^/]+)/pipelines/runs/([^/?]+)\?(?:.*&)?project=([^&]+)")

# what the message or the log says → what to do; the first that fits
_MENDS: tuple[tuple[str, str], ...] = (
    (
        r"out of memory|OOM|exit(ed)?[^.]{0,40} 137|MemoryError",
        "give {step} more memory: resources: {step}: {{memory: …}}",
    ),
    (r"No space left", "give {step} a smaller cohort at once, or more disk"),
    (r"RESOURCE_EXHAUSTED|[Qq]uota", "wait, ask for more quota in this region, or take another accelerator or region"),
    (r"[Ff]ailed to pull|ImagePull|manifest unknown|image .*not found", "push the image, and compile with its digest"),
    (
        r"does not have .*permission|PERMISSION_DENIED|\b403\b",
        "give the service account the role; see docs/vertex.md, Roles",
    ),
    (r"[Dd]ataflow", "open the Dataflow job's page; its worker logs name the slide"),
    (r"INTERNAL|UNAVAILABLE|[Pp]reempted|internal error", "submit again: unchanged steps come from the cache"),
    (r"[Dd]eadline|timed? ?out", "submit again, or allow it more time"),
)


@dataclass
class FailedTask:
    """One task that failed.

    Attributes:
        step: as users say it; `task` as KFP calls it.
        message: the error of our own code where the log has it, else what the service says.
        attempts: how often it was tried.
        log_filter: for the Logs Explorer; `log_link` opens it.
        dataflow: per Dataflow job its `job`, `state`, `link` and `errors`.
        mend: what to do.
    """

    step: str
    task: str
    message: str
    service_message: str
    attempts: int
    log_filter: str
    log_link: str
    dataflow: list[dict[str, Any]] = field(default_factory=list)
    mend: str = ""


@dataclass
class Diagnosis:
    """What became of a job, and the tasks that failed."""

    job: str
    state: str
    link: str
    error: str
    log_filter: str
    failed: list[FailedTask]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def job_name(text: str, environment: Environment | None) -> str:
    """The resource name of a job that is given by name, by the address of its page, or by its id alone.

    Raises:
        InputError: an id without an environment, or no job at all.
    """
    if _JOB.match(text):
        return text
    link = _LINK.search(text)
    if link:
        region, job, project = link.groups()
        return f"projects/{project}/locations/{region}/pipelineJobs/{job}"
    if environment is None:
        raise InputError(f"where {text!r} ran is not known", where="JOB", mend="pass --env dev, or the whole name")
    if not re.match(r"^[a-z][-a-z0-9]{0,127}$", text):
        raise InputError(
            f"{text!r} is no job", where="JOB", mend="give its id, its resource name or its page's address"
        )
    return f"{environment.parent}/pipelineJobs/{text}"


def diagnose(clients: Clients, name: str, *, logs: bool = True) -> Diagnosis:
    """Looks at a job.

    Args:
        clients: of the region.
        name: the job's resource name.
        logs: whether the log of each failed task is read for the error of our own code.

    Raises:
        InputError: there is no such job.
    """
    job = get_job(clients, name)
    steps, project = step_names(job), name.split("/")[1]
    failed = [
        _look_at(job, task, steps.get(task.task_name, task.task_name), project, logs) for task in failed_tasks(job)
    ]
    return Diagnosis(
        job=name,
        state=state_of(job),
        link=job_link(name),
        error=" ".join(job.error.message.split()),
        log_filter=pipeline_log_filter(name),
        failed=failed,
    )


def render(diagnosis: Diagnosis) -> str:
    """The diagnosis as text."""
    lines = [f"{diagnosis.job.rpartition('/')[2]}  {diagnosis.state}", f"  page     {diagnosis.link}"]
    if diagnosis.state == "FAILED" and not diagnosis.failed:
        lines += [f"  error    {diagnosis.error}", f"  logs     {diagnosis.log_filter}"]
    for task in diagnosis.failed:
        tries = f", tried {task.attempts} times" if task.attempts > 1 else ""
        lines += ["", f"{task.step} failed{tries}", f"  error    {task.message}"]
        if task.service_message and task.service_message != task.message:
            lines.append(f"  Vertex   {task.service_message}")
        for job in task.dataflow:
            lines.append(f"  Dataflow {job['state']}  {job['link']}")
            lines += [f"           {text}" for text in job["errors"][:5]]
        lines += [f"  logs     {task.log_filter}", f"           {task.log_link}"]
        if task.mend:
            lines.append(f"  mend     {task.mend}")
    return "\n".join(lines)


def _look_at(job: Any, task: Any, step: str, project: str, logs: bool) -> FailedTask:
    said = " ".join(task.error.message.split())
    container = task.executor_detail.container_detail.main_job or task.executor_detail.custom_job_detail.job
    tried = failed_attempts(task)
    newest = container or (tried[-1] if tried else "")
    log_filter = task_log_filter(newest) if newest else pipeline_log_filter(job.name)
    log_filter += " severity>=ERROR"
    message = _error_in_log(newest, project) if logs and newest else ""
    dataflow = _dataflow_jobs(job, task)
    evidence = " ".join([message, said, *(text for each in dataflow for text in each["errors"])])
    mend = "" if message and ";" in message else _mend(evidence, step)  # our own errors carry theirs
    return FailedTask(
        step=step,
        task=task.task_name,
        message=message or said or "it says nothing; look at its log",
        service_message=said,
        attempts=max(1, len({*tried, *([container] if container else [])})),
        log_filter=log_filter,
        log_link=logs_link(log_filter, project),
        dataflow=dataflow,
        mend=mend,
    )


def _mend(evidence: str, step: str) -> str:
    for pattern, mend in _MENDS:
        if re.search(pattern, evidence):
            return mend.format(step=step)
    return f"read the log, then submit again: steps before {step} come from the cache"


def _error_in_log(custom_job: str, project: str) -> str:
    """The one-line error of our own code in a task's log, or empty; that the log can't be read is only a warning."""
    body = {
        "resourceNames": [f"projects/{project}"],
        "filter": task_log_filter(custom_job),
        "orderBy": "timestamp desc",
        "pageSize": _LINES,
    }
    try:
        with explain("the log"):
            entries = ask("logging", "https://logging.googleapis.com", "v2/entries:list", body).get("entries", [])
    except BaglineError as error:
        _LOG.warning("%s", error)
        return ""
    texts = [str(entry.get("textPayload") or entry.get("jsonPayload", {}).get("message", "")) for entry in entries]
    lines = [line for text in reversed(texts) for line in text.splitlines()]
    own = [match.group(1) for match in map(_OURS.match, lines) if match]
    return own[-1] if own else error_in_lines(lines)[0]


def _dataflow_jobs(job: Any, failed: Any) -> list[dict[str, Any]]:
    """The Dataflow jobs that a failed task waited for or started, by its `gcp_resources`: state, errors, page."""
    from components.tile_images.dataflow_job import job_errors, job_link, job_state, name_state, read_gcp_resources

    chosen = [failed]
    if failed.task_name == _WAIT:
        chosen += [task for task in real_tasks(job) if task.task_name == _TILE]
    texts = [str((task.execution.metadata or {}).get(key, "") or "") for task in chosen for key in _RESOURCES]
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        try:
            dataflow = read_gcp_resources(text, endpoint("dataflow", ""))
        except BaglineError:
            continue
        if dataflow is None or dataflow.uri in found:
            continue
        state, errors = "of unknown state", []
        try:
            state = name_state(job_state(dataflow, patience=_PATIENCE))
            errors = job_errors(dataflow, patience=_PATIENCE)
        except BaglineError as error:
            errors = [str(error)]
        found[dataflow.uri] = {"job": dataflow.uri, "state": state, "link": job_link(dataflow), "errors": errors}
    return list(found.values())
