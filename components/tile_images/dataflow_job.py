"""A Dataflow job seen from outside: its state, its errors, its link; cancelling it. No Beam in here.

The service is asked over plain REST: https://cloud.google.com/dataflow/docs/reference/rest/v1b3/projects.locations.jobs
"""

from __future__ import annotations

import functools
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from components.records.errors import InputError, WorkError

logger = logging.getLogger(__name__)

GOOGLE = "https://dataflow.googleapis.com"
RESOURCE_TYPE = "DataflowJob"
GOOD_ENDS = ("JOB_STATE_DONE",)
BAD_ENDS = ("JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_UPDATED", "JOB_STATE_DRAINED")
_URI = re.compile(r"https?://[^/]+(?:/dataflow)?/v1b3/projects/([^/]+)/(?:locations|regions)/([^/]+)/jobs/([^/?]+)")
_TRANSIENT = (408, 429, 500, 502, 503, 504)
_PATIENCE = 1800.0
_REQUEST_TIMEOUT = 60.0


@dataclass(frozen=True)
class DataflowJob:
    """Which job of whom; `endpoint` is the service's address where it is not Google's."""

    project: str
    region: str
    id: str
    endpoint: str = ""

    @property
    def uri(self) -> str:
        """The job as `gcp_resources` names it."""
        return f"{GOOGLE}/v1b3/{self._path}"

    @property
    def link(self) -> str:
        """The job's page in the console."""
        return f"https://console.cloud.google.com/dataflow/jobs/{self.region}/{self.id}?project={self.project}"

    @property
    def address(self) -> str:
        """Where the service answers about the job."""
        return f"{self.endpoint.rstrip('/') or GOOGLE}/v1b3/{self._path}"

    @property
    def _path(self) -> str:
        return f"projects/{self.project}/locations/{self.region}/jobs/{self.id}"


def write_gcp_resources(job: DataflowJob | None) -> str:
    """The text of a task's output `gcp_resources`, by which Vertex AI links the job; no job gives an empty list."""
    named = [] if job is None else [{"resourceType": RESOURCE_TYPE, "resourceUri": job.uri}]
    return json.dumps({"resources": named})


def read_gcp_resources(text: str, endpoint: str = "") -> DataflowJob | None:
    """The Dataflow job that a text of `gcp_resources` names, None where it names none.

    Raises:
        InputError: the text is no such thing.
    """
    if not text.strip():
        return None
    try:
        named = json.loads(text)["resources"]
        uris = [str(each["resourceUri"]) for each in named if each["resourceType"] == RESOURCE_TYPE]
    except (ValueError, KeyError, TypeError):
        raise InputError(
            "is not a list of resources", where="gcp_resources", mend="run the tiling step again"
        ) from None
    if not uris:
        return None
    found = _URI.fullmatch(uris[0])
    if found is None:
        raise InputError(f"{uris[0]} is no Dataflow job", where="gcp_resources", mend="run the tiling step again")
    project, region, job_id = found.groups()
    return DataflowJob(project, region, job_id, endpoint)


def job_link(job: DataflowJob) -> str:
    """The job's page in the console."""
    return job.link


def job_state(job: DataflowJob, *, patience: float = _PATIENCE) -> str:
    """The job's state, such as `JOB_STATE_RUNNING`.

    Raises:
        WorkError: there is no such job, it may not be seen, or the service gave no answer for `patience` seconds.
    """
    return str(_ask(job, "GET", job.address, patience=patience).get("currentState", "JOB_STATE_UNKNOWN"))


def job_errors(job: DataflowJob, *, patience: float = _PATIENCE) -> list[str]:
    """What the job said of severity ERROR, oldest first, each once.

    Raises:
        WorkError: as `job_state`.
    """
    query = {"minimumImportance": "JOB_MESSAGE_ERROR", "pageSize": "100"}
    found = [
        (str(message.get("time", "")), " ".join(str(message.get("messageText", "")).split()))
        for page in _pages(job, f"{job.address}/messages", query, patience)
        for message in page.get("jobMessages", [])
        if message.get("messageImportance") == "JOB_MESSAGE_ERROR"
    ]
    return list(dict.fromkeys(text for _, text in sorted(found) if text))


def cancel_job(job: DataflowJob, *, patience: float = 60.0) -> None:
    """Asks the service to cancel the job; one that has ended stays as it is.

    Raises:
        WorkError: as `job_state`.
    """
    body = {"requestedState": "JOB_STATE_CANCELLED"}
    try:
        _ask(job, "PUT", job.address, body=body, patience=patience)
    except WorkError:
        if job_state(job, patience=patience) not in (*GOOD_ENDS, *BAD_ENDS, "JOB_STATE_CANCELLING"):
            raise


def find_active_job(project: str, region: str, name: str, endpoint: str = "") -> DataflowJob | None:
    """The job of that name that has not ended; there is at most one.

    Raises:
        WorkError: as `job_state`.
    """
    home = DataflowJob(project, region, "", endpoint)
    query = {"filter": "ACTIVE", "name": name}
    for page in _pages(home, home.address.rstrip("/"), query, _PATIENCE):
        for each in page.get("jobs", []):
            if each.get("name") == name and each.get("currentState") not in (*GOOD_ENDS, *BAD_ENDS):
                return DataflowJob(project, region, str(each["id"]), endpoint)
    return None


def await_job(
    job: DataflowJob,
    *,
    first_pause: float = 2.0,
    longest_pause: float = 30.0,
    patience: float = _PATIENCE,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Waits for the job's end and logs each state that it comes to.

    Raises:
        WorkError: the job failed or was cancelled (with its own words and its link), or as `job_state`.
    """
    last, pause = "", first_pause
    while True:
        state = job_state(job, patience=patience)
        if state != last:
            logger.info("Dataflow job %s: %s, %s", job.id, name_state(state), job.link)
            last, pause = state, first_pause
        if state in GOOD_ENDS:
            return
        if state in BAD_ENDS:
            raise describe_failure(job, state, patience)
        sleep(pause)
        pause = min(pause * 1.5, longest_pause)


def describe_failure(job: DataflowJob, state: str, patience: float = _PATIENCE) -> WorkError:
    """The error that says why a job ended badly, in one line."""
    errors = job_errors(job, patience=patience)
    why = f": {errors[-1]}" if errors else ", and says no more"
    return WorkError(f"Dataflow job {job.id} {name_state(state)}{why}", where="tiling", mend=f"see {job.link}")


def name_state(state: str) -> str:
    """`JOB_STATE_RUNNING` as `running`."""
    return state.removeprefix("JOB_STATE_").replace("_", " ").lower()


def _pages(job: DataflowJob, url: str, query: dict[str, str], patience: float) -> Iterator[dict[str, Any]]:
    token = ""
    while True:
        page = _ask(job, "GET", url, query={**query, **({"pageToken": token} if token else {})}, patience=patience)
        yield page
        token = str(page.get("nextPageToken", ""))
        if not token:
            return


def _ask(
    job: DataflowJob,
    method: str,
    url: str,
    *,
    query: dict[str, str] | None = None,
    body: dict[str, Any] | None = None,
    patience: float,
) -> dict[str, Any]:
    """The service's answer; what may pass is tried again for `patience` seconds."""
    from google.auth.exceptions import GoogleAuthError, TransportError

    until, pause = time.monotonic() + patience, 0.5
    while True:
        try:
            answer = _session(job.endpoint).request(method, url, params=query, json=body, timeout=_REQUEST_TIMEOUT)
        except (OSError, TransportError) as error:  # what `requests` raises is an OSError
            problem = f"can't be reached ({type(error).__name__})"
        except GoogleAuthError as error:
            mend = "log in with `gcloud auth application-default login`, or run it as a service account"
            raise WorkError(f"no credentials ({error})", where="Dataflow", mend=mend) from None
        else:
            if answer.ok:
                read: dict[str, Any] = answer.json() if answer.content else {}
                return read
            if answer.status_code not in _TRANSIENT:
                raise _refusal(job, answer.status_code, answer.text)
            problem = f"answers {answer.status_code}"
        if time.monotonic() + pause > until:
            raise WorkError(
                f"{problem}, for {patience:g} s now", where="Dataflow", mend=f"run the step again; see {job.link}"
            )
        logger.warning("Dataflow %s; trying again in %g s", problem, pause)
        time.sleep(pause)
        pause = min(2 * pause, 60.0)


def _refusal(job: DataflowJob, status: int, text: str) -> WorkError:
    try:
        said = str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        said = f"HTTP status {status}"
    mend = f"see {job.link}" if job.id else "check project and region"
    if status in (401, 403):
        mend = "grant roles/dataflow.developer to the account that runs this step"
    return WorkError(f"refuses: {said}", where=f"Dataflow, project {job.project}, {job.region}", mend=mend)


@functools.cache
def _session(endpoint: str) -> Any:
    """An HTTP session with the caller's credentials; none are shown to an endpoint that is not encrypted."""
    import google.auth
    from google.auth.credentials import AnonymousCredentials
    from google.auth.transport.requests import AuthorizedSession

    if endpoint.startswith("http://"):
        credentials: Any = AnonymousCredentials()  # type: ignore[no-untyped-call]
    else:
        credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    return AuthorizedSession(credentials)  # type: ignore[no-untyped-call]
