"""Places in the Google Cloud console, and the log filters that lead there."""

from __future__ import annotations

from urllib.parse import quote

_CONSOLE = "https://console.cloud.google.com"


def job_link(name: str) -> str:
    """The page of a pipeline job, by its resource name."""
    _, project, _, region, _, job = name.split("/")
    return f"{_CONSOLE}/vertex-ai/locations/{region}/pipelines/runs/{job}?project={project}"


def schedules_link(project: str) -> str:
    """The page of a project's schedules."""
    return f"{_CONSOLE}/vertex-ai/pipelines/schedules?project={project}"


def logs_link(filter_text: str, project: str) -> str:
    """The Logs Explorer with a filter in it."""
    return f"{_CONSOLE}/logs/query;query={quote(filter_text, safe='')}?project={project}"


def task_log_filter(custom_job: str) -> str:
    """The filter for what a task's container wrote, by the custom job's resource name."""
    return f'resource.type="ml_job" resource.labels.job_id="{custom_job.rpartition("/")[2]}"'


def pipeline_log_filter(name: str) -> str:
    """The filter for what the pipeline service says of a job."""
    job = name.rpartition("/")[2]
    return f'resource.type="aiplatform.googleapis.com/PipelineJob" resource.labels.pipeline_job_id="{job}"'
