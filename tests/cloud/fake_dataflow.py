"""The Dataflow service on a local port, as much of v1b3 as submitting, watching, finding and cancelling jobs takes.

A job goes through its states one a look; before it comes to its end, `work` may do what the job's workers would.
It refuses what it is told to, and a second active job of one name, as the service does.
"""

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

ENDED = ("JOB_STATE_DONE", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED")


@dataclass
class Refusal:
    """An answer that refuses `times` requests of `method` whose path ends in `path`."""

    status: int
    message: str = "try again"
    method: str = "GET"
    path: str = ""
    times: int = 1


@dataclass
class FakeJob:
    """A job: what was sent, the states still to come, and its messages."""

    id: str
    sent: dict[str, Any]
    states: list[str]
    messages: list[tuple[str, str]] = field(default_factory=list)
    looks: int = 0

    @property
    def name(self) -> str:
        return str(self.sent["name"])

    @property
    def state(self) -> str:
        return self.states[0]

    def describe(self, project: str, region: str) -> dict[str, Any]:
        return {
            "id": self.id, "projectId": project, "location": region, "name": self.name,
            "currentState": self.state, "type": "JOB_TYPE_BATCH", "labels": self.sent.get("labels", {}),
            "clientRequestId": self.sent.get("clientRequestId", ""),
        }  # fmt: skip


@dataclass
class FakeDataflow:
    """The jobs, what is to be refused, and every request that came; see `start`.

    Attributes:
        states: that a new job goes through, one a look; the last one stays.
        work: called with the job before it comes to `JOB_STATE_DONE`.
        messages: (importance, text) that a new job has to say.
    """

    states: list[str] = field(default_factory=lambda: ["JOB_STATE_PENDING", "JOB_STATE_RUNNING", "JOB_STATE_DONE"])
    work: Callable[[FakeJob], None] | None = None
    messages: list[tuple[str, str]] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    jobs: list[FakeJob] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    url: str = ""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def start(self) -> ThreadingHTTPServer:
        """Serves in a thread until `shutdown` and `server_close`."""
        handler = type("Handler", (_Handler,), {"fake": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        # Beam speaks REST, and without credentials, only to what is called localhost.
        self.url = f"http://localhost:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, name="fake-dataflow", daemon=True).start()
        return server

    def add(self, sent: dict[str, Any], states: list[str] | None = None) -> FakeJob:
        job = FakeJob(f"2026-11-21_{len(self.jobs)}", sent, list(states or self.states), list(self.messages))
        self.jobs.append(job)
        return job

    def refuse(self, method: str, path: str) -> Refusal | None:
        with self.lock:
            for refusal in self.refusals:
                if refusal.times > 0 and refusal.method == method and path.endswith(refusal.path):
                    refusal.times -= 1
                    return refusal
        return None

    def look(self, job: FakeJob) -> None:
        """A look at the job, after which it is in its next state."""
        job.looks += 1
        if job.looks > 1 and len(job.states) > 1:
            if job.states[1] == "JOB_STATE_DONE" and self.work is not None:
                self.work(job)
            job.states.pop(0)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fake: FakeDataflow

    def log_message(self, *_: Any) -> None:
        return

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def _serve(self, method: str) -> None:
        split = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(split.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.fake.requests.append(f"{method} {split.path}")
        refusal = self.fake.refuse(method, split.path)
        if refusal is not None:
            return self._refuse(refusal.status, refusal.message)
        found = re.fullmatch(
            r"/v1b3/projects/([^/]+)/locations/([^/]+)/jobs(?:/([^/]+))?(/messages)?", split.path.rstrip("/")
        )
        if found is None:
            return self._refuse(404, f"no such path: {split.path}")
        project, region, job_id, messages = found.groups()
        with self.fake.lock:
            if job_id is None:
                return self._jobs(method, project, region, query, body)
            job = next((each for each in self.fake.jobs if each.id == job_id), None)
            if job is None:
                return self._refuse(404, f"Information about job {job_id} could not be found in our system")
            if messages:
                said = [
                    {"id": str(number), "time": f"2026-11-21T00:00:{number:02d}Z", "messageText": text,
                     "messageImportance": importance}
                    for number, (importance, text) in enumerate(job.messages)
                ]  # fmt: skip
                return self._answer({"jobMessages": said})
            if method == "PUT":
                if job.state in ENDED:
                    return self._refuse(400, "The job has already terminated")
                if json.loads(body).get("requestedState") == "JOB_STATE_CANCELLED":
                    job.states = ["JOB_STATE_CANCELLED"]
            else:
                self.fake.look(job)
            return self._answer(job.describe(project, region))

    def _jobs(self, method: str, project: str, region: str, query: dict[str, str], body: bytes) -> None:
        if method == "POST":
            sent = json.loads(body)
            active = next((each for each in self.fake.jobs if each.name == sent["name"] and each.state not in ENDED), 0)
            # The service answers with the job that runs, whose clientRequestId is another one.
            return self._answer((active or self.fake.add(sent)).describe(project, region))
        jobs = [each for each in self.fake.jobs if query.get("filter") != "ACTIVE" or each.state not in ENDED]
        start = int(query.get("pageToken") or 0)
        page: dict[str, Any] = {"jobs": [each.describe(project, region) for each in jobs[start : start + 2]]}
        if start + 2 < len(jobs):
            page["nextPageToken"] = str(start + 2)
        return self._answer(page)

    def _answer(self, value: dict[str, Any]) -> None:
        self._send(200, value)

    def _refuse(self, status: int, message: str) -> None:
        self._send(status, {"error": {"code": status, "message": message, "status": "REFUSED"}})

    def _send(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
