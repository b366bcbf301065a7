"""What was this made from? As `pipelines.lineage.query` says it, but out of Vertex ML Metadata and the bucket."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from datetime import datetime
from typing import Any

from components.records import storage
from components.records.errors import BaglineError, InputError
from components.records.manifest import read_manifest
from pipelines.catalog import PIPELINES
from pipelines.lineage.artifacts import Traced, digest_files
from pipelines.lineage.query import Node, keep_slides
from pipelines.vertex.graph import Graph, plain

_NAMES = {"split_manifest": "split", "split_table": "split", "table": "validation"}
_MANIFESTS = ("split_manifest", "cohort", "slides")  # the outputs that are the manifest, with splits or checked


class VertexLineage:
    """The lineage of artifacts on Vertex AI.

    A file's digest is the one that its bucket keeps. An artifact's files differ where one is missing, or was written
    again after the tasks that made the artifact had ended.
    """

    def __init__(self, graph: Graph, *, verify: bool = True) -> None:
        self._graph = graph
        self._verify = verify
        self._listed: dict[str, dict[str, tuple[str, datetime]]] = {}
        self._differ: dict[str, list[str]] = {}

    def tree(self, target: str, job: str = "") -> Node:
        """The tree of what `Graph.find` finds; with `job`, of a patient's prediction in it, or of one of its artifacts.

        Raises:
            InputError: there is no such thing.
        """
        if not job:
            return self._tree_of(self._graph.find(target))
        made = self._graph.made_by_job(job)
        wanted = next((name for name in made if target in (name, _NAMES.get(name))), "")
        if wanted:
            return self._tree_of(made[wanted])
        lacking = [name for name in ("evaluation", "records", "split_manifest") if name not in made]
        if lacking:
            mend = f"it made {', '.join(sorted(made)) or 'nothing yet'}"
            raise InputError(f"{target!r} is not in it", where=f"job {job}", mend=mend)
        row = _prediction(made["evaluation"].uri, target)
        node = self._tree_of(made["evaluation"])
        told = ", ".join(f"{key} {value}" for key, value in row.items() if key != "patient_id")
        node.note = f"prediction of patient {target}: {told}"
        ids = {row.image_id for row in read_manifest(made["split_manifest"].uri).rows if row.patient_id == target}
        ledger = storage.read_json_lines(storage.join(made["records"].uri, "ledger.jsonl"))
        keep_slides(node, {line["path"] for line in ledger if line["image_id"] in ids})
        return node

    def _tree_of(self, artifact: Any) -> Node:
        self._graph.load(artifact.name)
        self._graph.artifacts.setdefault(artifact.name, artifact)
        return self._node(artifact)

    def _node(self, artifact: Any) -> Node:
        maker = self._graph.maker(artifact.name)
        files = self._files(artifact.uri)
        found = {name: digest for name, (digest, _) in files.items()}
        name = _NAMES.get(artifact.display_name, artifact.display_name)
        node = Node(Traced(name, digest_files(found), artifact.uri, found))
        if self._verify and artifact.uri.startswith("gs://"):
            if artifact.name not in self._differ:
                self._differ[artifact.name] = self._mismatches(artifact, files)
            node.mismatches = self._differ[artifact.name]
        if maker is None:
            return node
        given = {
            key.removeprefix("input:"): value for key, value in plain(maker.metadata).items() if key[:6] == "input:"
        }
        node.made_by = self._made_by(artifact, maker, given)
        node.inputs = [self._node(each) for each in self._graph.inputs(maker.name)]
        node.inputs += self._world(artifact, given)
        return node

    def _made_by(self, artifact: Any, maker: Any, given: dict[str, Any]) -> dict[str, Any]:
        carried, run = plain(artifact.metadata), _run(artifact, maker)
        task = maker.display_name
        pipeline = next((name for name in PIPELINES if run.startswith(f"{name}-")), "")
        steps = {step.task: step.name for step in PIPELINES[pipeline].steps} if pipeline else {}
        step = steps.get(task, "wait" if task == "await-tiling" else task)
        return {
            "task": f"{pipeline}.{step}" if pipeline else step,
            "run": run,
            "ended": maker.update_time.isoformat() if maker.update_time else "",
            "state": maker.state.name,
            "code_version": str(carried.get("code_version", "")),
            "environment_digest": str(carried.get("environment_digest", "")),
            "image": str(carried.get("image_digest", "")),
            "parameters": given,
        }

    def _world(self, artifact: Any, given: dict[str, Any]) -> list[Node]:
        """What a step read that is no artifact: the manifest, or the slides."""
        if artifact.display_name in _MANIFESTS and given.get("manifest"):
            return [self._manifest(str(given["manifest"]), str(given.get("manifest_hash", "")), artifact)]
        if artifact.display_name == "records" and given.get("images_root"):
            return self._slides(artifact.uri, str(given["images_root"]))
        return []

    def _manifest(self, uri: str, given_hash: str, made: Any) -> Node:
        known = given_hash or str(plain(made.metadata).get("manifest_hash", ""))
        files = {uri: f"sha256:{known}"}
        node = Node(Traced("manifest", digest_files(files), "", files))
        if self._verify and storage.is_remote(uri):
            info = storage.stat(uri)
            now = hashlib.sha256(storage.read_bytes(uri)).hexdigest() if info else ""
            if now != known:
                node.mismatches = [f"{uri}: {'changed since' if now else 'missing'}"]
        return node

    def _slides(self, records: str, images_root: str) -> list[Node]:
        try:
            ledger = storage.read_json_lines(storage.join(records, "ledger.jsonl"))
        except BaglineError:
            return []  # the records' own node says that it is missing
        files = {line["path"]: line["digest"] for line in ledger if line["digest"]}
        node = Node(Traced("slides", digest_files(files), images_root, files))
        if self._verify and storage.is_remote(images_root):
            now = {name: digest for name, (digest, _) in self._files(images_root).items()}
            for path, digest in files.items():
                name = path.removeprefix(images_root).lstrip("/")
                if name not in now:
                    node.mismatches.append(f"{storage.join(images_root, name)}: missing")
                elif now[name].partition(":")[0] == digest.partition(":")[0] and now[name] != digest:
                    node.mismatches.append(f"{storage.join(images_root, name)}: changed since")
        return [node]

    def _files(self, uri: str) -> dict[str, tuple[str, datetime]]:
        """Name below `uri` (or its own name) → digest and time of writing."""
        if uri not in self._listed:
            self._listed[uri] = _list(uri) if storage.is_remote(uri) else {}
        return self._listed[uri]

    def _mismatches(self, artifact: Any, files: dict[str, tuple[str, datetime]]) -> list[str]:
        if not files:
            return [f"{artifact.uri}: missing"]
        problems = []
        if artifact.display_name in ("records", "dataset") and "parts.json" in files:
            parts = storage.read_json(storage.join(artifact.uri, "parts.json"))
            problems = [f"{artifact.uri}/{part['path']}: missing" for part in parts if part["path"] not in files]
        settled = self._graph.settled(artifact.uri)
        if settled:
            problems += [
                f"{storage.join(artifact.uri, name) if name != os.path.basename(artifact.uri) else artifact.uri}"
                ": changed since"
                for name, (_, written) in sorted(files.items())
                if written > settled
            ]
        return problems


def _list(uri: str) -> dict[str, tuple[str, datetime]]:
    prefix = storage.object_name(uri).rstrip("/")
    found = {}
    for blob in storage.bucket(uri).list_blobs(prefix=prefix):
        below = blob.name[len(prefix) :]
        beside = bool(prefix and below) and not below.startswith("/")
        if blob.name.endswith("/") or beside:
            continue
        found[below.lstrip("/") or os.path.basename(blob.name)] = (storage.blob_digest(blob) or "", blob.time_created)
    return found


def _run(artifact: Any, maker: Any) -> str:
    """The job's id: as the execution says it, or by the folder that Vertex AI makes for it in the pipeline root."""
    said = str(plain(maker.metadata).get("pipeline_job_resource_name", ""))
    if said:
        return said.rpartition("/")[2]
    folder = re.search(r"/\d+/([a-z][-a-z0-9]*)/[^/]+_-?\d+/[^/]+$", artifact.uri)
    return folder.group(1) if folder else str(maker.name).rpartition("/")[2]


def _prediction(evaluation: str, patient_id: str) -> dict[str, str]:
    text = storage.read_bytes(storage.join(evaluation, "predictions.csv")).decode("utf-8")
    for row in csv.DictReader(io.StringIO(text)):
        if row["patient_id"] == patient_id:
            return row
    raise InputError(f"no prediction of patient {patient_id!r}", where=evaluation, mend="check the patient's id")
