"""The graph of a run, from its OpenLineage events: which step made what of what."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

_MOST_EVENTS = 10_000


def read_events(folder: str) -> list[dict[str, Any]]:
    """The finished steps' events of `OUT/lineage/`, oldest first; a file that is no event is passed over."""
    found: list[dict[str, Any]] = []
    if not os.path.isdir(folder):
        return found
    for name in sorted(os.listdir(folder))[-_MOST_EVENTS:]:
        if not name.endswith(".json") or name.startswith("."):
            continue
        try:
            with Path(folder, name).open(encoding="utf-8") as stream:
                event = json.loads(stream.readline() or "null")
        except (OSError, ValueError):
            continue
        if isinstance(event, dict) and event.get("eventType") in ("COMPLETE", "FAIL") and "job" in event:
            found.append(event)
    return found


def draw_graph(events: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Nodes (steps and artifacts) and edges of the latest event of each step.

    Returns:
        `nodes`: `id`, `kind` (`step` or `artifact`), `name`, `digest`, `files`, `failed`, `code`, `parameters`, and
        `depth`, the column to draw it in; `edges`: `from` and `to`, ids.
    """
    latest: dict[str, dict[str, Any]] = {}
    for event in events:
        latest[str(event["job"].get("name", ""))] = event
    nodes: dict[str, dict[str, Any]] = {}
    edges: list[dict[str, str]] = []
    for name, event in latest.items():
        step = f"step:{name}"
        task = event.get("run", {}).get("facets", {}).get("bagline_task", {})
        nodes[step] = {
            "id": step,
            "kind": "step",
            "name": name.rpartition(".")[2],
            "failed": event.get("eventType") == "FAIL",
            "ended": str(event.get("eventTime", "")),
            "code": str(task.get("code_version", "")),
            "parameters": {str(key): value for key, value in (task.get("parameters") or {}).items()},
        }
        for artifact in event.get("inputs") or []:
            edges.append({"from": _add(nodes, artifact), "to": step})
        for artifact in event.get("outputs") or []:
            edges.append({"from": step, "to": _add(nodes, artifact)})
    _place(nodes, edges)
    return {"nodes": list(nodes.values()), "edges": list({(e["from"], e["to"]): e for e in edges}.values())}


def _add(nodes: dict[str, dict[str, Any]], artifact: dict[str, Any]) -> str:
    facets = artifact.get("facets") or {}
    digest = str((facets.get("version") or {}).get("datasetVersion", ""))
    name = str(artifact.get("name", ""))
    key = f"artifact:{name}:{digest}"
    files = (facets.get("bagline_files") or {}).get("files") or {}
    nodes.setdefault(key, {"id": key, "kind": "artifact", "name": name, "digest": digest, "files": len(files)})
    return key


def _place(nodes: dict[str, dict[str, Any]], edges: list[dict[str, str]]) -> None:
    """Gives every node its column: one after the last of those it comes from."""
    depth = dict.fromkeys(nodes, 0)
    for _ in range(len(nodes)):
        changed = False
        for edge in edges:
            wanted = depth[edge["from"]] + 1
            if depth[edge["to"]] < wanted <= len(nodes):
                depth[edge["to"]] = wanted
                changed = True
        if not changed:
            break
    for key, node in nodes.items():
        node["depth"] = depth[key]
