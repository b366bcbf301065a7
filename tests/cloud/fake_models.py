"""A Model Registry on this machine: versions, aliases, evaluations, and a record of what it was sent."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

_MODEL = r"(?P<parent>projects/[^/]+/locations/[^/]+)/models/(?P<id>[^/@:]+)(?:@(?P<version>[^/:]+))?"
_ALIAS = re.compile(r"^[a-z][a-zA-Z0-9-]{0,126}[a-z0-9-]$")
_LABEL = re.compile(r"^[a-z][a-z0-9_-]{0,62}$")


class RefusedError(Exception):
    """An error answer: its HTTP status and Google's name of it."""

    def __init__(self, status: int, name: str, message: str) -> None:
        super().__init__(message)
        self.status, self.name, self.message = status, name, message


@dataclass
class FakeModels:
    """Holds models by resource name; checks what it is sent as far as Vertex AI's documentation says.

    Attributes:
        models: model → its versions, the first is version 1.
        evaluations: evaluation's name → {version, evaluation, slices}.
        calls: (method, path, body) of everything asked.
        refuse: an answer to give next instead.
    """

    models: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[tuple[str, str, Any]] = field(default_factory=list)
    refuse: RefusedError | None = None
    url: str = ""
    _done: dict[str, dict[str, Any]] = field(default_factory=dict)

    def start(self) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        return server

    def answer(self, method: str, path: str, body: Any) -> Any:
        self.calls.append((method, path, body))
        if self.refuse:
            refused, self.refuse = self.refuse, None
            raise refused
        for pattern, action in (
            (rf"GET /v1/{_MODEL}", self._get),
            (r"POST /v1/(?P<parent>projects/[^/]+/locations/[^/]+)/models:upload", self._upload),
            (rf"POST /v1/{_MODEL}:mergeVersionAliases", self._merge),
            (rf"POST /v1/{_MODEL}/evaluations:import", self._import),
            (rf"GET /v1/{_MODEL}/evaluations", self._list),
            (rf"POST /v1/(?P<name>{_MODEL}/evaluations/[^/]+)/slices:batchImport", self._slices),
            (r"GET /(?:v1|ui)/(?P<name>.+/operations/[^/]+)", self._operation),
        ):
            match = re.fullmatch(pattern, f"{method} {path}")
            if match:
                return action(match, body)
        raise RefusedError(404, "NOT_FOUND", f"no such method: {method} {path}")

    def at(self, model: str, version: str = "default") -> dict[str, Any]:
        for one in self.models.get(model, []):
            if version in (one["versionId"], *one["versionAliases"]):
                return one
        raise RefusedError(404, "NOT_FOUND", f"The Model {model}@{version} does not exist.")

    def _get(self, match: re.Match[str], body: Any) -> Any:
        return self.at(f"{match['parent']}/models/{match['id']}", match["version"] or "default")

    def _upload(self, match: re.Match[str], body: Any) -> Any:
        sent = body["model"]
        if not sent["artifactUri"].startswith("gs://"):
            raise RefusedError(400, "INVALID_ARGUMENT", "artifact_uri must be a Cloud Storage path")
        wrong = [key for key, value in sent.get("labels", {}).items()
                 if not _LABEL.match(key) or (value and not re.fullmatch(r"[a-z0-9_-]{0,63}", value))]  # fmt: skip
        if wrong:
            raise RefusedError(400, "INVALID_ARGUMENT", f"labels {wrong}")
        if body.get("parentModel"):
            name = body["parentModel"]
            if name not in self.models:
                raise RefusedError(404, "NOT_FOUND", f"The Model {name} does not exist.")
        else:
            name = f"{match['parent']}/models/{body['modelId']}"
            if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,62}", body["modelId"]) or name in self.models:
                raise RefusedError(409, "ALREADY_EXISTS", f"{name} exists, or its id is no id")
        versions = self.models.setdefault(name, [])
        number = str(len(versions) + 1)
        versions.append({**sent, "name": name, "versionId": number, "versionAliases": []})
        self._give(name, number, [*sent.get("versionAliases", []), *(["default"] if number == "1" else [])])
        operation = f"{match['parent']}/operations/{len(self._done) + 1}"
        kind = "type.googleapis.com/google.cloud.aiplatform.v1.UploadModelResponse"
        self._done[operation] = {"@type": kind, "model": name, "modelVersionId": number}
        return {"name": operation, "done": False}

    def _operation(self, match: re.Match[str], body: Any) -> Any:
        return {"name": match["name"], "done": True, "response": self._done[match["name"]]}

    def _merge(self, match: re.Match[str], body: Any) -> Any:
        name = f"{match['parent']}/models/{match['id']}"
        return self._give(name, match["version"], body["versionAliases"])

    def _give(self, name: str, version: str, aliases: list[str]) -> dict[str, Any]:
        target = self.at(name, version)
        for alias in aliases:
            if not _ALIAS.match(alias.removeprefix("-")):
                raise RefusedError(400, "INVALID_ARGUMENT", f"alias {alias}")
            for one in self.models[name]:  # an alias is of one version
                if alias.removeprefix("-") in one["versionAliases"]:
                    one["versionAliases"].remove(alias.removeprefix("-"))
            if not alias.startswith("-"):
                target["versionAliases"].append(alias)
        return target

    def _import(self, match: re.Match[str], body: Any) -> Any:
        model = f"{match['parent']}/models/{match['id']}"
        version = self.at(model, match["version"] or "default")["versionId"]
        name = f"{model}/evaluations/{len(self.evaluations) + 1}"
        sent = body["modelEvaluation"]
        if not sent["metricsSchemaUri"].startswith("gs://google-cloud-aiplatform/schema/modelevaluation/"):
            raise RefusedError(400, "INVALID_ARGUMENT", "metrics_schema_uri")
        stamp = f"2026-01-01T00:00:{len(self.evaluations):02d}Z"
        found = {**sent, "name": name, "createTime": stamp}
        self.evaluations[name] = {"model": model, "version": version, "evaluation": found, "slices": []}
        return found

    def _list(self, match: re.Match[str], body: Any) -> Any:
        model = f"{match['parent']}/models/{match['id']}"
        version = self.at(model, match["version"] or "default")["versionId"]
        mine = [one for one in self.evaluations.values() if (one["model"], one["version"]) == (model, version)]
        return {"modelEvaluations": [one["evaluation"] for one in mine]}

    def _slices(self, match: re.Match[str], body: Any) -> Any:
        slices = body["modelEvaluationSlices"]
        self.evaluations[match["name"]]["slices"] += slices
        return {"importedModelEvaluationSlices": [f"{match['name']}/slices/{n}" for n, _ in enumerate(slices)]}


def _handler(fake: FakeModels) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Says nothing."""

        def do_GET(self) -> None:
            self._answer("GET")

        def do_POST(self) -> None:
            self._answer("POST")

        def _answer(self, method: str) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            try:
                status, value = 200, fake.answer(method, unquote(urlsplit(self.path).path), body)
            except RefusedError as refused:
                status = refused.status
                value = {"error": {"code": status, "status": refused.name, "message": refused.message}}
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler
