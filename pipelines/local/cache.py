"""Keeps the local cache honest: an entry whose files were changed or removed since is dropped before a run.

`kfp.local` keys its cache by parameters, input artifacts and component, and only looks whether an artifact's path
exists. A seal (size and modification time of every file) is kept beside each artifact's run folder and compared here.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

from components.records import storage

_MARKER = "__kfp_artifact__"


class RunCache:
    """The folder `OUT/.bagline`: task folders (`runs`), cache entries (`cache`) and seals (`seals`)."""

    def __init__(self, out: str) -> None:
        self.home = os.path.join(out, ".bagline")
        self.runs = os.path.join(self.home, "runs")
        self.cache = os.path.join(self.home, "cache")
        self._seals = os.path.join(self.home, "seals")

    def outputs(self, key: str) -> dict[str, dict[str, Any]]:
        """The artifacts of the entry whose key starts with `key`: name → {uri, metadata}."""
        for name in sorted(os.listdir(self.cache)):
            if name.startswith(key) and name.endswith(".json"):
                return _artifacts(os.path.join(self.cache, name))
        return {}

    def seal(self, uri: str) -> None:
        """Remembers what the files of an artifact look like now."""
        storage.write_json(self._seal_path(uri), {"uri": uri, "files": _look(uri)})

    def drop_changed(self) -> int:
        """Removes every entry with an unsealed or changed artifact; returns how many."""
        dropped = 0
        for path in self._entries():
            if any(self._changed(artifact["uri"]) for artifact in _artifacts(path).values()):
                os.unlink(path)
                dropped += 1
        return dropped

    def forget_all_but(self, used: set[str]) -> None:
        """Removes the entries, seals and task folders that the run which used the artifacts `used` has no use for."""
        for path in self._entries():
            uris = {artifact["uri"] for artifact in _artifacts(path).values()}
            if not uris & used:
                os.unlink(path)
        keep = {_task_folder(uri, self.runs) for uri in used}
        for run in os.listdir(self.runs) if os.path.isdir(self.runs) else []:
            folder = os.path.join(self.runs, run)
            for task in os.listdir(folder):
                if os.path.join(folder, task) not in keep:
                    shutil.rmtree(os.path.join(folder, task))
            if not os.listdir(folder):
                os.rmdir(folder)
        sealed = {self._seal_path(uri) for uri in used}
        for name in os.listdir(self._seals) if os.path.isdir(self._seals) else []:
            if os.path.join(self._seals, name) not in sealed:
                os.unlink(os.path.join(self._seals, name))

    def _entries(self) -> list[str]:
        if not os.path.isdir(self.cache):
            return []
        return [os.path.join(self.cache, name) for name in sorted(os.listdir(self.cache)) if name.endswith(".json")]

    def _seal_path(self, uri: str) -> str:
        name = os.path.relpath(uri, self.runs).replace(os.sep, "__")
        return os.path.join(self._seals, f"{name}.json")

    def _changed(self, uri: str) -> bool:
        seal = self._seal_path(uri)
        if not os.path.exists(seal) or not os.path.exists(uri):
            return True
        return bool(storage.read_json(seal)["files"] != _look(uri))


def _artifacts(path: str) -> dict[str, dict[str, Any]]:
    try:
        with open(path, encoding="utf-8") as stream:  # noqa: PTH123
            entry = json.load(stream)
    except ValueError:
        return {}
    return {name: value for name, value in entry.items() if isinstance(value, dict) and value.get(_MARKER)}


def _task_folder(uri: str, runs: str) -> str:
    parts = os.path.relpath(uri, runs).split(os.sep)
    return os.path.join(runs, *parts[:2])


def _look(uri: str) -> dict[str, list[int]]:
    if os.path.isfile(uri):
        found = os.stat(uri)
        return {"": [found.st_size, found.st_mtime_ns]}
    return {name: [info.size, info.mtime_ns] for name, info in storage.list_files(uri).items()}
