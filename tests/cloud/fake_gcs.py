"""A bucket store on 127.0.0.1 that speaks as much of the JSON API as google-cloud-storage uses, and fails on demand.

It counts what it is asked for, so that a test can tell how many bytes of which object were fetched, by which ranges.
"""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import google_crc32c


@dataclass(frozen=True)
class Stored:
    content: bytes
    generation: int
    md5: bool = True
    created: str = "2026-01-01T00:00:00.000Z"

    def describe(self, bucket: str, name: str) -> dict[str, Any]:
        described = {
            "kind": "storage#object",
            "id": f"{bucket}/{name}/{self.generation}",
            "bucket": bucket,
            "name": name,
            "generation": str(self.generation),
            "metageneration": "1",
            "size": str(len(self.content)),
            "contentType": "application/octet-stream",
            "crc32c": base64.b64encode(google_crc32c.value(self.content).to_bytes(4, "big")).decode(),
            "timeCreated": self.created,
            "updated": self.created,
        }
        if self.md5:
            described["md5Hash"] = base64.b64encode(hashlib.md5(self.content).digest()).decode()
        return described


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True)
class Fetch:
    """A download of one range that went out; `sent` counts the bytes of the body."""

    name: str
    start: int
    sent: int
    whole: bool


@dataclass
class Fault:
    """What goes wrong with downloads: `503`, `429`, `cut` (mid-body), `short` (a whole answer, but too few bytes).

    Args:
        kind: which.
        times: so many downloads, then no more.
        name: part of the object's name.
    """

    kind: str
    times: int = 1
    name: str = ""


@dataclass
class FakeStore:
    """The objects, the faults to come, and what was fetched; see `start`.

    `denied` are the permissions that the caller lacks on every bucket; a bucket is there once something is put in it.
    """

    buckets: dict[str, dict[str, Stored]] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)
    fetches: list[Fetch] = field(default_factory=list)
    before_download: Callable[[str], None] | None = None
    latency: float = 0.0
    denied: set[str] = field(default_factory=set)
    url: str = ""
    injected: int = 0
    clock: Callable[[], float] = time.time
    _generation: int = 1000
    _uploads: dict[str, tuple[str, str, bytearray, str | None]] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def put(self, bucket: str, name: str, content: bytes, *, md5: bool = True, created: str = "") -> Stored:
        with self._lock:
            self._generation += 1
            stored = Stored(bytes(content), self._generation, md5, created or _stamp(self.clock()))
            self.buckets.setdefault(bucket, {})[name] = stored
            return stored

    def content(self, bucket: str, name: str) -> bytes:
        return self.buckets[bucket][name].content

    def names(self, bucket: str, prefix: str = "") -> list[str]:
        return sorted(name for name in self.buckets.get(bucket, {}) if name.startswith(prefix))

    def fetched(self, part: str = "") -> int:
        return sum(fetch.sent for fetch in self.fetches if part in fetch.name)

    def take_fault(self, name: str) -> str:
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and fault.name in name:
                    fault.times -= 1
                    self.injected += 1
                    return fault.kind
        return ""

    def start(self) -> ThreadingHTTPServer:
        """Serves in a thread until `shutdown` and `server_close`."""
        handler = type("Handler", (_Handler,), {"store": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, name="fake-gcs", daemon=True).start()
        return server


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    store: FakeStore

    def log_message(self, *_: Any) -> None:
        return

    def do_GET(self) -> None:
        path, query = self._parse()
        asked = re.fullmatch(r"/storage/v1/b/([^/]+)/iam/testPermissions", path)
        if asked is not None:
            return self._test_permissions(asked.group(1))
        found = re.fullmatch(r"(?:/download)?/storage/v1/b/([^/]+)(?:/o(?:/(.+))?)?", path)
        if found is None:
            return self._refuse(404, "no such path")
        bucket, name = found.groups()
        if bucket in self.store.missing:
            return self._refuse(404, "The specified bucket does not exist.")
        if "/o" not in path.partition("/b/")[2]:
            return self._answer({"kind": "storage#bucket", "name": bucket, "id": bucket})
        if name is None:
            return self._list(bucket, query)
        name = unquote(name)
        stored = self.store.buckets.get(bucket, {}).get(name)
        if stored is None:
            return self._refuse(404, f"no such object: {bucket}/{name}")
        if query.get("alt") == "media":
            return self._download(bucket, name, query)
        return self._answer(stored.describe(bucket, name))

    def do_POST(self) -> None:
        path, query = self._parse()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = re.fullmatch(r"(?:/upload|/resumable/upload)?/storage/v1/b(?:/([^/]+)/o)?", path)
        if found is None:
            return self._refuse(404, "no such path")
        bucket = found.group(1)
        if bucket is None:
            name = json.loads(body)["name"]
            self.store.buckets.setdefault(name, {})
            return self._answer({"kind": "storage#bucket", "name": name, "id": name})
        if query.get("uploadType") == "resumable":
            name = query.get("name") or json.loads(body)["name"]
            token = f"u{len(self.store._uploads)}"
            self.store._uploads[token] = bucket, name, bytearray(), query.get("ifGenerationMatch")
            place = f"{self.store.url}/upload/storage/v1/b/{quote(bucket)}/o?upload_id={token}"
            return self._answer({}, {"Location": place})
        boundary = re.search(r'boundary="?([^";]+)"?', self.headers["Content-Type"])
        assert boundary is not None
        parts = body.split(b"--" + boundary.group(1).encode())[1:3]
        about, content = (part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts)
        return self._store(bucket, json.loads(about)["name"], content, query.get("ifGenerationMatch"))

    def do_PUT(self) -> None:
        _, query = self._parse()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        bucket, name, received, wanted = self.store._uploads[query["upload_id"]]
        received += body
        total = self.headers.get("Content-Range", "").rpartition("/")[2]
        if total.isdigit() and len(received) == int(total):
            return self._store(bucket, name, bytes(received), wanted)
        return self._send(308, b"", {"Range": f"bytes=0-{len(received) - 1}"})

    def do_DELETE(self) -> None:
        path, query = self._parse()
        found = re.fullmatch(r"/storage/v1/b/([^/]+)/o/(.+)", path)
        with self.store._lock:
            objects = self.store.buckets.get(found.group(1), {}) if found else {}
            name = unquote(found.group(2)) if found else ""
            if name not in objects:
                return self._refuse(404, "no such object")
            if query.get("ifGenerationMatch", str(objects[name].generation)) != str(objects[name].generation):
                return self._refuse(412, "conditionNotMet")
            del objects[name]
            return self._send(204, b"")

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(self.store.clock() if timestamp is None else timestamp)

    def _parse(self) -> tuple[str, dict[str, str]]:
        split = urlsplit(self.path)
        return split.path, {key: values[0] for key, values in parse_qs(split.query).items()}

    def _test_permissions(self, bucket: str) -> None:
        if bucket not in self.store.buckets:
            return self._refuse(404, "The specified bucket does not exist.")
        wanted = parse_qs(urlsplit(self.path).query).get("permissions", [])
        granted = [permission for permission in wanted if permission not in self.store.denied]
        return self._answer({"kind": "storage#testIamPermissionsResponse", "permissions": granted})

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        names = self.store.names(bucket, query.get("prefix", ""))
        start = int(query.get("pageToken") or 0)
        page = names[start : start + 100]
        answer: dict[str, Any] = {
            "kind": "storage#objects",
            "items": [self.store.buckets[bucket][name].describe(bucket, name) for name in page],
        }
        if start + 100 < len(names):
            answer["nextPageToken"] = str(start + 100)
        self._answer(answer)

    def _store(self, bucket: str, name: str, content: bytes, wanted: str | None) -> None:
        with self.store._lock:
            there = self.store.buckets.get(bucket, {}).get(name)
            if wanted is not None and wanted != str(there.generation if there else 0):
                return self._refuse(412, "conditionNotMet")
            stored = self.store.put(bucket, name, content)
        return self._answer(stored.describe(bucket, name))

    def _download(self, bucket: str, name: str, query: dict[str, str]) -> None:
        if self.store.before_download is not None:
            self.store.before_download(name)
        if self.store.latency:
            time.sleep(self.store.latency)
        kind = self.store.take_fault(name)
        if kind.isdigit():
            return self._refuse(int(kind), "try again")
        stored = self.store.buckets[bucket].get(name)
        if stored is None:
            return self._refuse(404, "gone")
        if query.get("ifGenerationMatch", str(stored.generation)) != str(stored.generation):
            return self._refuse(412, "conditionNotMet")
        content, size = stored.content, len(stored.content)
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, stop = (int(span.group(1)), int(span.group(2) or size - 1) + 1) if span else (0, size)
        if span and start >= size:
            return self._refuse(416, "range not satisfiable")
        body = content[start : min(stop, size)]
        headers = {
            "Content-Type": "application/octet-stream",
            "X-Goog-Generation": str(stored.generation),
            "X-Goog-Hash": f"crc32c={stored.describe(bucket, name)['crc32c']}" if not span else "",
        }
        if span:
            headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{size}"
        if kind == "short":
            body = body[: len(body) // 2]
        length = len(body)
        if kind == "cut":
            body = body[: len(body) // 2]
            self.close_connection = True
        self.store.fetches.append(Fetch(name, start, len(body), span is None))
        return self._send(206 if span else 200, body, headers, length)

    def _answer(self, value: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _refuse(self, code: int, message: str) -> None:
        body = json.dumps({"error": {"code": code, "message": message, "errors": [{"message": message}]}}).encode()
        self._send(code, body, {"Content-Type": "application/json"})

    def _send(self, code: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = None) -> None:
        self.send_response(code)
        for key, value in (headers or {}).items():
            if value:
                self.send_header(key, value)
        if code != 204:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
