"""Reads the events back and answers: what was this made from, and does it still match?"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from components.records import storage
from components.records.errors import InputError, name_first
from components.records.provenance import file_digest
from pipelines.lineage.artifacts import Traced

_UUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
_MEND = "name a file or folder of a finished run, a patient id, or a tile as <image_id>@<x>,<y>"


@dataclass
class Node:
    """One artifact in the tree: what made it (`made_by`), and from what (`inputs`).

    `mismatches` names the files whose content is not what it was, each with what is wrong.
    """

    artifact: Traced
    note: str = ""
    made_by: dict[str, Any] = field(default_factory=dict)
    inputs: list[Node] = field(default_factory=list)
    mismatches: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The tree as plain values."""
        return {
            "name": self.artifact.name,
            "digest": self.artifact.digest,
            "note": self.note,
            "files": self.artifact.files,
            "root": self.artifact.root,
            "mismatches": self.mismatches,
            "made_by": self.made_by,
            "inputs": [node.to_json() for node in self.inputs],
        }

    def all_mismatches(self) -> list[str]:
        """Every mismatch of the tree, once, sorted."""
        found = set(self.mismatches)
        for node in self.inputs:
            found |= set(node.all_mismatches())
        return sorted(found)


def find_out(target: str, out: str = "") -> tuple[str, str]:
    """The run's folder, and what is asked for in it.

    `target` may be a path inside a run, `OUT/<id>`, or an id with `out` given (else the current folder).

    Raises:
        InputError: no folder with a `lineage/` is found.
    """
    if out:
        if not os.path.isdir(os.path.join(out, "lineage")):
            raise InputError("holds no lineage events", where=out, mend="name the OUT of a finished run")
        return out, os.path.relpath(target, out) if os.path.exists(target) else target
    path = os.path.abspath(target)
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    while True:
        if os.path.isdir(os.path.join(folder, "lineage")):
            return folder, os.path.relpath(path, folder)
        parent = os.path.dirname(folder)
        if parent == folder:
            raise InputError(f"no run found for {target!r}", mend="pass --out OUT")
        folder = parent


def read_events(out: str) -> list[dict[str, Any]]:
    """Every finished task's event, oldest first."""
    folder = os.path.join(out, "lineage")
    names = sorted(name for name in os.listdir(folder) if name.endswith((".json",)) and not name.startswith("."))
    events = [storage.read_json(os.path.join(folder, name)) for name in names]
    return [event for event in events if event.get("eventType") in ("COMPLETE", "FAIL")]


def _traced(dataset: dict[str, Any]) -> Traced:
    facets = dataset["facets"]
    files = facets["bagline_files"]
    return Traced(dataset["name"], facets["version"]["datasetVersion"], files["root"], files["files"])


class Lineage:
    """The lineage of one run's folder."""

    def __init__(self, out: str, *, verify: bool = True, progress: Callable[[str], None] | None = None) -> None:
        self.out = out
        self.events = read_events(out)
        self._verify = verify
        self._progress = progress
        self._checked: dict[str, str] = {}

    def tree(self, target: str) -> Node:
        """The tree of a path relative to OUT, a patient id, or a tile `<image_id>@<x>,<y>`.

        Raises:
            InputError: nothing of that name was made here.
        """
        if target in ("", "."):
            return self._newest(("evaluation", "predictions", "model", "validation", "records", "split"))
        node = self._tree_of_path(target.rstrip("/").replace(os.sep, "/"))
        if node is None and "@" in target:
            node = self._tree_of_tile(target)
        if node is None:
            node = self._tree_of_patient(target)
        if node is None:
            raise InputError(f"no artifact, patient or tile {target!r}", where=self.out, mend=_MEND)
        return node

    def _newest(self, names: tuple[str, ...]) -> Node:
        for name in names:
            for event in reversed(self.events):
                for dataset in event.get("outputs", []):
                    if dataset["name"] == name:
                        return self._node(_traced(dataset))
        raise InputError("no finished task is recorded", where=self.out, mend="run the pipeline first")

    def _tree_of_path(self, path: str) -> Node | None:
        for event in reversed(self.events):
            for dataset in reversed(event.get("outputs", [])):
                artifact = _traced(dataset)
                if path == artifact.name or any(f == path or f.startswith(f"{path}/") for f in artifact.files):
                    return self._node(artifact, note=path if path != artifact.name else "")
        return None

    def _tree_of_patient(self, patient_id: str) -> Node | None:
        predictions = os.path.join(self.out, "predictions.csv")
        if not os.path.exists(predictions):
            return None
        text = storage.read_bytes(predictions).decode("utf-8")
        row = next((row for row in csv.DictReader(io.StringIO(text)) if row["patient_id"] == patient_id), None)
        if row is None:
            return None
        node = self._newest(("evaluation", "predictions"))
        node.note = f"prediction of patient {patient_id}: " + ", ".join(
            f"{key} {value}" for key, value in row.items() if key != "patient_id"
        )
        keep_slides(node, self._slides_of(patient_id))
        return node

    def _tree_of_tile(self, target: str) -> Node | None:
        image_id, _, place = target.rpartition("@")
        x, comma, y = place.partition(",")
        if not comma or not x.isdigit() or not y.isdigit():
            return None
        part = self._find_tile(image_id, int(x), int(y))
        if part is None:
            return None
        node = self._newest(("records",))
        node.note = f"tile {target} in {part}"
        ledger = {line["image_id"]: line for line in storage.read_json_lines(os.path.join(self.out, "ledger.jsonl"))}
        keep_slides(node, {ledger[image_id]["path"]})
        return node

    def _find_tile(self, image_id: str, x: int, y: int) -> str | None:
        from components.records.example import parse_example
        from components.records.tfrecord import read_tfrecord

        for part in storage.read_json(os.path.join(self.out, "parts.json")):
            if part["image_id"] != image_id:
                continue
            for record in read_tfrecord(os.path.join(self.out, part["path"])):
                features = parse_example(record)
                if features["tile/x"] == [x] and features["tile/y"] == [y]:
                    return str(part["path"])
        return None

    def _slides_of(self, patient_id: str) -> set[str]:
        from components.records.manifest import read_manifest

        ids = {row.image_id for row in read_manifest(os.path.join(self.out, "split.csv")).rows
               if row.patient_id == patient_id}  # fmt: skip
        ledger = storage.read_json_lines(os.path.join(self.out, "ledger.jsonl"))
        return {line["path"] for line in ledger if line["image_id"] in ids}

    def _node(self, artifact: Traced, note: str = "") -> Node:
        node = Node(artifact, note, mismatches=self._mismatches(artifact))
        event = self._maker(artifact)
        if event is None:
            return node
        facet = event["run"]["facets"]["bagline_task"]
        node.made_by = {
            "task": event["job"]["name"],
            "run": event["run"]["runId"],
            "ended": event["eventTime"],
            "state": event["eventType"],
            "code_version": facet["code_version"],
            "environment_digest": facet["environment_digest"],
            "image": facet["image"],
            "parameters": facet["parameters"],
        }
        node.inputs = [self._node(_traced(dataset)) for dataset in event.get("inputs", [])]
        return node

    def _maker(self, artifact: Traced) -> dict[str, Any] | None:
        for event in reversed(self.events):
            for dataset in event.get("outputs", []):
                if (dataset["name"], dataset["facets"]["version"]["datasetVersion"]) == (
                    artifact.name,
                    artifact.digest,
                ):
                    return dict(event)
        return None

    def _mismatches(self, artifact: Traced) -> list[str]:
        if not self._verify:
            return []
        found = []
        for name, digest in artifact.files.items():
            path = storage.join(artifact.root or self.out, name) if not os.path.isabs(name) else name
            if path not in self._checked:
                self._checked[path] = self._digest_now(path, digest)
            if self._checked[path] != digest:
                found.append(f"{path}: {'missing' if not self._checked[path] else 'changed since'}")
        return found

    def _digest_now(self, path: str, expected: str) -> str:
        if storage.is_remote(path):
            info = storage.stat(path)
            return "" if info is None else info.digest or expected
        if self._progress:
            self._progress(path)
        return file_digest(path) if os.path.isfile(path) else ""


def keep_slides(node: Node, paths: set[str]) -> None:
    """Leaves only the slides at `paths` in a tree."""
    for child in node.inputs:
        if child.artifact.name == "slides":
            kept = {name: digest for name, digest in child.artifact.files.items() if name in paths}
            child.note = f"{len(kept)} of {len(child.artifact.files)} slides"
            child.artifact = Traced("slides", child.artifact.digest, child.artifact.root, kept)
        keep_slides(child, paths)


def render_tree(node: Node) -> str:
    """The tree as text, an artifact a line and its maker below it."""
    lines: list[str] = []
    _render(node, "", "", lines)
    return "\n".join(lines)


def _render(node: Node, prefix: str, branch: str, lines: list[str]) -> None:
    artifact = node.artifact
    state = f"  ✗ {len(node.mismatches)} of {len(artifact.files)} files differ" if node.mismatches else ""
    note = f"  ({node.note})" if node.note else ""
    lines.append(f"{prefix}{branch}{artifact.name}  {artifact.digest[:19]}…  {len(artifact.files)} files{note}{state}")
    inner = prefix + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
    lines += [f"{inner}   ✗ {problem}" for problem in node.mismatches]
    if artifact.name in ("slides", "manifest"):
        lines += [f"{inner}   {name}  {digest}" for name, digest in sorted(artifact.files.items())]
    if node.made_by:
        made = node.made_by
        stands = [f"environment {made['environment_digest'][:19]}…"] if made["environment_digest"] else []
        stands += [f"image {made['image']}"] if made["image"] else []
        run = made["run"][:8] if _UUID.match(made["run"]) else made["run"]
        lines.append("  ".join([f"{inner}   by {made['task']}", f"run {run}", f"code {made['code_version']}", *stands]))
        given = ", ".join(
            f"{key}={value}" for key, value in sorted(made["parameters"].items()) if value not in ("", [])
        )
        lines.append(f"{inner}   with {given}" if given else f"{inner}   with defaults")
    for index, child in enumerate(node.inputs):
        _render(child, inner, "└─ " if index == len(node.inputs) - 1 else "├─ ", lines)


def summarise_mismatches(node: Node) -> str:
    """One line on what no longer matches, empty where all does."""
    problems = node.all_mismatches()
    return f"{len(problems)} files no longer match: {name_first(problems)}" if problems else ""
