"""Vertex AI, and what stands around it, on 127.0.0.1: it checks what it is sent, and its jobs go on with every look.

Pipeline jobs, schedules, ML Metadata, service accounts, Artifact Registry (images, and a KFP repository) and the log.
"""

import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from google.cloud.aiplatform_v1 import types
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

NUMBER = "123456789012"  # the project's, as artifacts' addresses hold it
_KINDS: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}
_GIVEN = {
    "displayName",
    "pipelineSpec",
    "labels",
    "runtimeConfig",
    "encryptionSpec",
    "serviceAccount",
    "network",
    "templateUri",
    "reservedIpRanges",
}


class Refused(Exception):  # noqa: N818 - an answer, not an error of ours
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@dataclass
class Failure:
    """How a task fails: what the service says, after how many tries, and what its container wrote."""

    message: str = "The replica workerpool0-0 exited with a non-zero status of 1."
    tries: int = 1
    log: tuple[str, ...] = ()


@dataclass
class Fault:
    """An answer that is no answer: to requests whose `METHOD path` holds `part`, so many times."""

    code: int
    part: str = ""
    times: int = 1
    message: str = "The service is currently unavailable."


@dataclass
class FakeVertex:
    """What is there, what goes wrong, and what was asked; see `start`.

    Args:
        failures: task → how it fails.
        cached: tasks whose outputs come from the cache.
        metadata: (task, output) → metadata of the artifact.
        parameters: task → its execution's further metadata, such as `output:gcp_resources`.
        on_done: called with (task, output, uri) for every artifact that is made.
    """

    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    schedules: dict[str, dict[str, Any]] = field(default_factory=dict)
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    executions: dict[str, dict[str, Any]] = field(default_factory=dict)
    contexts: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: list[dict[str, str]] = field(default_factory=list)
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    images: set[str] = field(default_factory=set)
    packages: dict[str, dict[str, Any]] = field(default_factory=dict)
    log: dict[str, list[str]] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    cached: set[str] = field(default_factory=set)
    metadata: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    max_answer: int = 1000
    on_done: Callable[[str, str, str], None] | None = None
    asked: list[str] = field(default_factory=list)
    url: str = ""
    _ids: int = 1000
    _clock: datetime = datetime(2026, 11, 1, 12, tzinfo=UTC)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def start(self) -> ThreadingHTTPServer:
        """Serves in a thread until `shutdown` and `server_close`."""
        handler = type("Handler", (_Handler,), {"fake": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, name="fake-vertex", daemon=True).start()
        return server

    def add_account(self, email: str, *, disabled: bool = False, act_as: bool = True) -> None:
        self.accounts[email] = {"email": email, "disabled": disabled, "act_as": act_as}

    def only_job(self) -> dict[str, Any]:
        (job,) = self.jobs.values()
        return job

    def number(self) -> int:
        self._ids += 1
        return self._ids

    def now(self) -> str:
        self._clock += timedelta(seconds=10)
        return self._clock.strftime("%Y-%m-%dT%H:%M:%SZ")

    # --- pipeline jobs

    def create_job(self, parent: str, job_id: str, body: dict[str, Any]) -> dict[str, Any]:
        check_job(body, parent)
        if not re.fullmatch(r"[a-z][-a-z0-9]{0,127}", job_id):
            raise Refused(400, f"pipelineJobId {job_id!r} is invalid")
        name = f"{parent}/pipelineJobs/{job_id}"
        if name in self.jobs:
            raise Refused(409, f"PipelineJob {name} already exists")
        context = f"{parent}/metadataStores/default/contexts/{job_id}"
        self.contexts[context] = {"name": context, "displayName": job_id, "schemaTitle": "system.PipelineRun"}
        tasks = body["pipelineSpec"]["root"]["dag"]["tasks"]
        details = [{"taskId": str(self.number()), "taskName": job_id, "state": "RUNNING"}]
        details += [{"taskId": str(self.number()), "taskName": task, "state": "PENDING"} for task in tasks]
        self.jobs[name] = {
            **body,
            "name": name,
            "state": "PIPELINE_STATE_PENDING",
            "createTime": self.now(),
            "jobDetail": {"pipelineRunContext": self.contexts[context], "taskDetails": details},
        }
        return self.jobs[name]

    def advance(self, job: dict[str, Any]) -> None:
        """One look later: what runs ends, and what waited for it begins."""
        if job["state"] in ("PIPELINE_STATE_SUCCEEDED", "PIPELINE_STATE_FAILED", "PIPELINE_STATE_CANCELLED"):
            return
        graph, *details = job["jobDetail"]["taskDetails"]
        by_name = {detail["taskName"]: detail for detail in details}
        tasks = job["pipelineSpec"]["root"]["dag"]["tasks"]
        if job["state"] == "PIPELINE_STATE_CANCELLING":
            self._end(job, graph, "CANCELLED")
            return
        job["state"] = "PIPELINE_STATE_RUNNING"
        job.setdefault("startTime", self.now())
        for detail in details:
            if detail["state"] == "RUNNING":
                self._finish(job, detail, tasks[detail["taskName"]])
        done = {name for name, detail in by_name.items() if detail["state"] in ("SUCCEEDED", "SKIPPED")}
        if any(detail["state"] == "FAILED" for detail in details):
            for detail in details:
                if detail["state"] == "PENDING":
                    detail["state"] = "NOT_TRIGGERED"
            failed = [name for name, detail in by_name.items() if detail["state"] == "FAILED"]
            job["error"] = {
                "code": 9,
                "message": f"The DAG failed because some tasks failed. The failed tasks are: {failed}.",
            }
            self._end(job, graph, "FAILED")
            return
        for name, detail in by_name.items():
            if detail["state"] == "PENDING" and set(tasks[name].get("dependentTasks", [])) <= done:
                detail["startTime"] = self.now()
                if name in self.cached and tasks[name].get("cachingOptions", {}).get("enableCache"):
                    self._finish(job, detail, tasks[name])
                    detail["state"] = "SKIPPED"
                else:
                    detail["state"] = "RUNNING"
                    self._start_container(job, detail)
        if len(done) == len(details):
            self._end(job, graph, "SUCCEEDED")

    def _end(self, job: dict[str, Any], graph: dict[str, Any], state: str) -> None:
        graph["state"] = state
        job["state"], job["endTime"] = f"PIPELINE_STATE_{state}", self.now()

    def _start_container(self, job: dict[str, Any], detail: dict[str, Any]) -> None:
        parent = job["name"].partition("/pipelineJobs/")[0]
        main = f"{parent}/customJobs/{self.number()}"
        detail["executorDetail"] = {"containerDetail": {"mainJob": main, "failedMainJobs": []}}

    def _finish(self, job: dict[str, Any], detail: dict[str, Any], task: dict[str, Any]) -> None:
        name = detail["taskName"]
        failure = self.failures.get(name)
        if failure:
            container = detail["executorDetail"]["containerDetail"]
            self.log[container["mainJob"].rpartition("/")[2]] = list(failure.log)
            container["failedMainJobs"].append(container["mainJob"])
            if len(container["failedMainJobs"]) < failure.tries:
                parent = job["name"].partition("/pipelineJobs/")[0]
                container["mainJob"] = f"{parent}/customJobs/{self.number()}"
                return
            detail["state"], detail["error"] = "FAILED", {"code": 9, "message": failure.message}
        else:
            detail["state"] = "SUCCEEDED"
        detail["endTime"] = self.now()
        self._record(job, detail, task, failed=failure is not None)

    def _record(self, job: dict[str, Any], detail: dict[str, Any], task: dict[str, Any], *, failed: bool) -> None:
        parent, _, job_id = job["name"].partition("/pipelineJobs/")
        store, name = f"{parent}/metadataStores/default", detail["taskName"]
        context = f"{store}/contexts/{job_id}"
        values = job["runtimeConfig"].get("parameterValues", {})
        defaults = job["pipelineSpec"]["root"].get("inputDefinitions", {}).get("parameters", {})
        given = {}
        for key, source in task.get("inputs", {}).get("parameters", {}).items():
            outer = source.get("componentInputParameter")
            if outer:
                given[f"input:{key}"] = values.get(outer, defaults[outer].get("defaultValue"))
            origin = source.get("taskOutputParameter")
            if origin:
                told = self.parameters.get(origin["producerTask"], {})
                given[f"input:{key}"] = told.get(f"output:{origin['outputParameterKey']}", "")
        execution = {
            "name": f"{store}/executions/{self.number()}",
            "displayName": name,
            "state": "FAILED" if failed else "COMPLETE",
            "schemaTitle": "system.ContainerExecution",
            "createTime": detail["startTime"],
            "updateTime": detail["endTime"],
            "metadata": {**given, **self.parameters.get(name, {})},
            "_contexts": [context],
        }
        self.executions[execution["name"]] = execution
        detail["execution"] = execution
        made = job.setdefault("_made", {})
        for source in task.get("inputs", {}).get("artifacts", {}).values():
            origin = source["taskOutputArtifact"]
            artifact = made[origin["producerTask"], origin["outputArtifactKey"]]
            self.events.append({"artifact": artifact, "execution": execution["name"], "type": "INPUT"})
        if failed:
            return
        component = job["pipelineSpec"]["components"][task["componentRef"]["name"]]
        root = job["runtimeConfig"]["gcsOutputDirectory"].rstrip("/")
        for output, about in component.get("outputDefinitions", {}).get("artifacts", {}).items():
            uri = f"{root}/{NUMBER}/{job_id}/{name}_-{detail['taskId']}/{output}"
            if (name, output) in (("validate-records", "dataset"), ("await-tiling", "records")):
                uri = self.artifacts[made["tile-images", "records"]]["uri"]
            artifact = {
                "name": f"{store}/artifacts/{self.number()}",
                "displayName": output,
                "uri": uri,
                "state": "LIVE",
                "schemaTitle": about["artifactType"]["schemaTitle"],
                "createTime": detail["endTime"],
                "metadata": self.metadata.get((name, output), {}),
                "_contexts": [context],
            }
            self.artifacts[artifact["name"]] = artifact
            made[name, output] = artifact["name"]
            self.events.append({"artifact": artifact["name"], "execution": execution["name"], "type": "OUTPUT"})
            if self.on_done:
                self.on_done(name, output, uri)

    # --- schedules

    def create_schedule(self, parent: str, body: dict[str, Any]) -> dict[str, Any]:
        parse(body, types.Schedule)
        request = body["createPipelineJobRequest"]
        if request.get("parent") != parent:
            raise Refused(400, "createPipelineJobRequest.parent must be the schedule's")
        check_job(request["pipelineJob"], parent)
        if len(re.sub(r"^(CRON_)?TZ=\S+ ", "", body.get("cron", "")).split()) != 5:
            raise Refused(400, "cron has not five fields")
        if not int(body.get("maxConcurrentRunCount", 0)):
            raise Refused(400, "maxConcurrentRunCount is required")
        name = f"{parent}/schedules/{self.number()}"
        self.schedules[name] = {
            **body,
            "name": name,
            "state": "ACTIVE",
            "createTime": self.now(),
            "nextRunTime": "2027-01-01T03:00:00Z",
        }
        return self.schedules[name]

    def active(self) -> list[str]:
        return [name for name, schedule in self.schedules.items() if schedule["state"] == "ACTIVE"]

    # --- metadata

    def lineage(self, artifact: str, hops: int | None) -> dict[str, Any]:
        """As the service answers: everything that hangs together with an artifact, whichever way the events point."""
        if artifact not in self.artifacts:
            raise Refused(404, f"Artifact {artifact} is not found")
        artifacts, executions = {artifact}, set()
        for _ in range(1000 if hops is None else hops):
            before = len(artifacts) + len(executions)
            executions |= {event["execution"] for event in self.events if event["artifact"] in artifacts}
            if hops != 1:
                artifacts |= {event["artifact"] for event in self.events if event["execution"] in executions}
            if before == len(artifacts) + len(executions):
                break
        if len(artifacts) + len(executions) > self.max_answer:
            raise Refused(400, "the number of nodes exceeds the limit")
        return self._subgraph(artifacts, executions)

    def _subgraph(self, artifacts: set[str], executions: set[str]) -> dict[str, Any]:
        return {
            "artifacts": [self.artifacts[name] for name in sorted(artifacts)],
            "executions": [self.executions[name] for name in sorted(executions)],
            "events": [e for e in self.events if e["artifact"] in artifacts and e["execution"] in executions],
        }

    def around(self, execution: str) -> dict[str, Any]:
        artifacts = {event["artifact"] for event in self.events if event["execution"] == execution}
        return self._subgraph(artifacts, {execution})

    def list_artifacts(self, wanted: str) -> list[dict[str, Any]]:
        uri, context = re.fullmatch(r'uri="([^"]*)"', wanted), re.fullmatch(r'in_context\("([^"]*)"\)', wanted)
        if uri:
            found = [each for each in self.artifacts.values() if each["uri"] == uri.group(1)]
        elif context:
            found = [each for each in self.artifacts.values() if context.group(1) in each["_contexts"]]
        else:
            raise Refused(400, f"filter {wanted!r} can't be parsed")
        return sorted(found, key=lambda each: each["createTime"], reverse=True)

    # --- the KFP repository

    def upload(self, repository: str, content: bytes, tags: list[str]) -> str:
        import yaml

        spec = yaml.safe_load(content)
        parse_spec(spec)
        package, version = spec["pipelineInfo"]["name"], f"sha256:{hashlib.sha256(content).hexdigest()}"
        stored = self.packages.setdefault(f"{repository}/{package}", {"versions": {}, "tags": {}})
        stored["versions"][version] = content
        stored["tags"] |= dict.fromkeys(tags, version)
        return f"{package}/{version}"


def parse(body: dict[str, Any], kind: Any) -> None:
    try:
        json_format.ParseDict(body, kind.pb(kind()), ignore_unknown_fields=False)
    except json_format.ParseError as error:
        raise Refused(400, f"Invalid JSON payload received. {error}") from None


def parse_spec(spec: dict[str, Any]) -> None:
    try:
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec(), ignore_unknown_fields=False)
    except json_format.ParseError as error:
        raise Refused(400, f"pipelineSpec is invalid: {error}") from None


def check_job(body: dict[str, Any], parent: str) -> None:
    """What the service would refuse."""
    parse(body, types.PipelineJob)
    if set(body) - _GIVEN:
        raise Refused(400, f"output only fields are set: {sorted(set(body) - _GIVEN)}")
    region = parent.rpartition("/")[2]
    spec, runtime = body["pipelineSpec"], body.get("runtimeConfig", {})
    parse_spec(spec)
    if not re.match(r"^gs://[a-z0-9]", runtime.get("gcsOutputDirectory", "")):
        raise Refused(400, "runtimeConfig.gcsOutputDirectory is no Cloud Storage address")
    check_values(spec["root"].get("inputDefinitions", {}).get("parameters", {}), runtime)
    for executor in spec["deploymentSpec"]["executors"].values():
        image = executor.get("container", {}).get("image", "x/y")
        if "/" not in image:
            raise Refused(400, f"image {image} is in no registry")
    for key, value in body.get("labels", {}).items():
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key) or not re.fullmatch(r"[a-z0-9_-]{0,63}", value):
            raise Refused(400, f"label {key}: {value} is invalid")
    if body.get("encryptionSpec") and f"/locations/{region}/" not in body["encryptionSpec"]["kmsKeyName"]:
        raise Refused(400, "the key is in another region")
    if body.get("network") and not re.fullmatch(r"projects/\d+/global/networks/[\w-]+", body["network"]):
        raise Refused(400, "network must be projects/NUMBER/global/networks/NAME")


def check_values(known: dict[str, Any], runtime: dict[str, Any]) -> None:
    """The parameters' names and types, and that none is missing."""
    for key, value in runtime.get("parameterValues", {}).items():
        if key not in known:
            raise Refused(400, f"The pipeline parameter {key} is not found in the pipeline job input definitions")
        kind = known[key]["parameterType"]
        if not isinstance(value, _KINDS[kind]) or (isinstance(value, bool) and kind != "BOOLEAN"):
            raise Refused(400, f"parameter {key} is no {kind}")
    for key, about in known.items():
        if not about.get("isOptional") and key not in runtime.get("parameterValues", {}):
            raise Refused(400, f"parameter {key} is required")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeVertex

    def log_message(self, *_: Any) -> None:
        return

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def _serve(self, method: str) -> None:
        split = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = {key: values[0] for key, values in parse_qs(split.query).items()}
        with self.fake._lock:
            self.fake.asked.append(f"{method} {split.path}")
            try:
                self._take_fault(f"{method} {split.path}")
                for pattern, route in _ROUTES:
                    found = re.fullmatch(pattern, f"{method} {split.path}")
                    if found:
                        self._answer(200, route(self.fake, found, query, raw, self.headers))
                        return
                raise Refused(404, f"no such path: {method} {split.path}")
            except Refused as refused:
                error = {"code": refused.code, "message": refused.message}
                self._answer(refused.code, {"error": error})

    def _take_fault(self, line: str) -> None:
        for fault in self.fake.faults:
            if fault.times > 0 and fault.part in line:
                fault.times -= 1
                raise Refused(fault.code, fault.message)

    def _answer(self, code: int, value: Any) -> None:
        body = value if isinstance(value, bytes) else json.dumps(_bare(value)).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(value, bytes) else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _bare(value: Any) -> Any:
    """Without what the fake keeps for itself."""
    if isinstance(value, dict):
        return {key: _bare(each) for key, each in value.items() if not str(key).startswith("_")}
    return [_bare(each) for each in value] if isinstance(value, list) else value


def _found(held: dict[str, Any], name: str) -> dict[str, Any]:
    if name not in held:
        raise Refused(404, f"{name} is not found")
    return held[name]


def _create_job(fake, found, query, raw, headers):
    return fake.create_job(found[1], query["pipelineJobId"], json.loads(raw))


def _get_job(fake, found, query, raw, headers):
    job = _found(fake.jobs, found[1])
    fake.advance(job)
    return job


def _cancel_job(fake, found, query, raw, headers):
    _found(fake.jobs, found[1])["state"] = "PIPELINE_STATE_CANCELLING"
    return {}


def _list_schedules(fake, found, query, raw, headers):
    wanted = re.fullmatch(r'display_name="(.*)"', query.get("filter", ""))
    every = sorted(fake.schedules.values(), key=lambda each: each["createTime"], reverse=True)
    return {"schedules": [each for each in every if not wanted or each["displayName"] == wanted[1]]}


def _switch_schedule(fake, found, query, raw, headers):
    schedule = _found(fake.schedules, found[1])
    before, after = ("ACTIVE", "PAUSED") if found[2] == "pause" else ("PAUSED", "ACTIVE")
    if schedule["state"] != before:
        raise Refused(400, f"the schedule is {schedule['state']}")
    schedule["state"] = after
    return {}


def _delete_schedule(fake, found, query, raw, headers):
    _found(fake.schedules, found[1])
    del fake.schedules[found[1]]
    name = f"{found[1].partition('/schedules/')[0]}/operations/{fake.number()}"
    return {"name": name, "done": True, "response": {"@type": "type.googleapis.com/google.protobuf.Empty"}}


def _create_context(fake, found, query, raw, headers):
    name, body = f"{found[1]}/contexts/{query['contextId']}", json.loads(raw)
    parse(body, types.Context)
    if name in fake.contexts:
        raise Refused(409, f"{name} exists")
    fake.contexts[name] = {**body, "name": name}
    return fake.contexts[name]


def _add_children(fake, found, query, raw, headers):
    context = _found(fake.contexts, found[1])
    for child in json.loads(raw)["childContexts"]:
        _found(fake.contexts, child).setdefault("parentContexts", []).append(context["name"])
    return {}


def _account(fake, found, query, raw, headers):
    return _found(fake.accounts, unquote(found[1]))


def _account_permissions(fake, found, query, raw, headers):
    account = _found(fake.accounts, unquote(found[1]))
    return {"permissions": json.loads(raw)["permissions"]} if account["act_as"] else {}


def _image(fake, found, query, raw, headers):
    project, region, repository, name = (unquote(part) for part in found.groups())
    reference = f"{region}-docker.pkg.dev/{project}/{repository}/{name}"
    if reference not in fake.images:
        raise Refused(404, f"{reference} is not found")
    return {"uri": reference}


def _upload(fake, found, query, raw, headers):
    message = BytesParser().parsebytes(b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n" + raw)
    parts = {part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
             for part in message.get_payload()}  # fmt: skip
    return fake.upload(found[1], parts["content"], parts["tags"].decode().split(",")).encode()


def _download(fake, found, query, raw, headers):
    return _found(_found(fake.packages, f"{found[1]}/{found[2]}")["versions"], found[3])


def _tag(fake, found, query, raw, headers):
    project, repository, package, tag = found.groups()
    version = _found(_found(fake.packages, f"{project}/{repository}/{package}")["tags"], tag)
    place = found[0].removeprefix("GET /v1/").partition("/tags/")[0]
    return {"name": f"{place}/tags/{tag}", "version": f"{place}/versions/{version}"}


def _entries(fake, found, query, raw, headers):
    body = json.loads(raw)
    job = re.search(r'resource\.labels\.job_id="(\w+)"', body["filter"])
    lines = fake.log.get(job[1] if job else "", [])
    return {"entries": [{"textPayload": line} for line in reversed(lines)]}


_PLACE = r"(projects/[^/]+/locations/[^/]+)"
_STORE = r"(projects/[^/]+/locations/[^/]+/metadataStores/[^/]+)"
_ROUTES: list[tuple[str, Callable[..., Any]]] = [
    (rf"POST /v1/{_PLACE}/pipelineJobs", _create_job),
    (r"GET /v1/(projects/[^/]+/locations/[^/]+/pipelineJobs/[^/:]+)", _get_job),
    (r"POST /v1/(projects/[^/]+/locations/[^/]+/pipelineJobs/[^/:]+):cancel", _cancel_job),
    (rf"POST /v1/{_PLACE}/schedules", lambda fake, found, q, raw, h: fake.create_schedule(found[1], json.loads(raw))),
    (rf"GET /v1/{_PLACE}/schedules", _list_schedules),
    (r"POST /v1/(projects/[^/]+/locations/[^/]+/schedules/[^/:]+):(pause|resume)", _switch_schedule),
    (r"DELETE /v1/(projects/[^/]+/locations/[^/]+/schedules/[^/:]+)", _delete_schedule),
    (rf"GET /v1/{_STORE}/artifacts", lambda f, found, q, raw, h: {"artifacts": f.list_artifacts(q.get("filter", ""))}),
    (rf"GET /v1/({_STORE}/artifacts/[^/:]+)", lambda fake, found, q, raw, h: _found(fake.artifacts, found[1])),
    (
        rf"GET /v1/({_STORE}/artifacts/[^/:]+):queryArtifactLineageSubgraph",
        lambda fake, found, q, raw, h: fake.lineage(found[1], int(q["maxHops"]) if "maxHops" in q else None),
    ),
    (
        rf"GET /v1/({_STORE}/executions/[^/:]+):queryExecutionInputsAndOutputs",
        lambda fake, found, q, raw, h: fake.around(found[1]),
    ),
    (rf"POST /v1/{_STORE}/contexts", _create_context),
    (rf"GET /v1/({_STORE}/contexts/[^/:]+)", lambda fake, found, q, raw, h: _found(fake.contexts, found[1])),
    (rf"POST /v1/({_STORE}/contexts/[^/:]+):addContextChildren", _add_children),
    (r"GET /v1/projects/-/serviceAccounts/([^/:]+)", _account),
    (r"POST /v1/projects/-/serviceAccounts/([^/:]+):testIamPermissions", _account_permissions),
    (r"GET /v1/projects/([^/]+)/locations/([^/]+)/repositories/([^/]+)/dockerImages/([^/]+)", _image),
    (r"GET /v1/projects/([^/]+)/locations/[^/]+/repositories/([^/]+)/packages/([^/]+)/tags/([^/]+)", _tag),
    (r"POST /v2/entries:list", _entries),
    (r"POST /([^/]+/[^/]+)", _upload),
    (r"GET /([^/]+/[^/]+)/([^/]+)/(sha256:[0-9a-f]+)", _download),
]
