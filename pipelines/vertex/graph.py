"""What Vertex ML Metadata knows of an artifact: which execution made it, and from which artifacts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from components.records.errors import InputError
from pipelines.vertex.client import TIMEOUT, Clients, explain, patiently
from pipelines.vertex.environment import Environment
from pipelines.vertex.watch import get_job

_ARTIFACT = re.compile(r"^projects/[^/]+/locations/[^/]+/metadataStores/[^/]+/artifacts/[^/]+$")
_JOB = re.compile(r"^projects/[^/]+/locations/[^/]+/pipelineJobs/([^/]+)$")
_MEND = "name an artifact (its resource name or id), a gs:// address below one, or a pipeline job"
# of a job without further words: the first of these that it made
NEWEST = ("evaluation", "model", "validation", "records", "split_manifest")


class Graph:
    """The part of the metadata store that artifacts asked for were made from."""

    def __init__(self, clients: Clients, environment: Environment) -> None:
        self._clients = clients
        self._environment = environment
        self.store = f"{environment.parent}/metadataStores/default"
        self.artifacts: dict[str, Any] = {}
        self.executions: dict[str, Any] = {}
        self._makers: dict[str, set[str]] = {}
        self._inputs: dict[str, list[str]] = {}
        self._whole = True

    def find(self, target: str) -> Any:
        """The artifact that a resource name, an id, a `gs://` address or a pipeline job means.

        Raises:
            InputError: there is none.
        """
        if target.startswith("gs://"):
            return self._by_uri(target)
        if _ARTIFACT.match(target) or target.isdigit():
            name = target if not target.isdigit() else f"{self.store}/artifacts/{target}"
            with explain(f"artifact {target}"):
                return self._clients.metadata.get_artifact(name=name, retry=patiently(), timeout=TIMEOUT)
        if not re.match(r"^[a-z][-a-z0-9]{0,127}$", target) and not _JOB.match(target):
            raise InputError(f"{target!r} is no artifact", where="lineage", mend=_MEND)
        made = self.made_by_job(target)
        for wanted in NEWEST:
            if wanted in made:
                return made[wanted]
        raise InputError(f"job {target} has made nothing yet", where="lineage", mend="wait until a step is done")

    def made_by_job(self, job: str) -> dict[str, Any]:
        """Artifact name → artifact, of all that a pipeline job made or took from the cache; the newest of a name."""
        name = job if _JOB.match(job) else f"{self._environment.parent}/pipelineJobs/{job}"
        context = get_job(self._clients, name).job_detail.pipeline_run_context.name
        if not context:
            return {}
        found = self._list(f'in_context("{context}")')
        return {artifact.display_name: artifact for artifact in reversed(found)}

    def _by_uri(self, uri: str) -> Any:
        place = uri.rstrip("/")
        while place.count("/") > 2:
            found = self._list(f'uri="{place}"')
            if found:
                return found[0]
            place = place.rpartition("/")[0]
        raise InputError("no artifact is known there", where=uri, mend=_MEND)

    def _list(self, wanted: str) -> list[Any]:
        with explain("Vertex ML Metadata"):
            found = self._clients.metadata.list_artifacts(
                request={"parent": self.store, "filter": wanted, "order_by": "create_time desc"},
                retry=patiently(),
                timeout=TIMEOUT,
            )
            return list(found)

    def load(self, artifact: str) -> None:
        """Asks for all that the artifact was made from; a graph too large for one answer is walked step by step."""
        from google.api_core.exceptions import BadRequest

        with explain(f"lineage of {artifact}"):
            try:
                found = self._clients.metadata.query_artifact_lineage_subgraph(
                    artifact=artifact, retry=patiently(), timeout=TIMEOUT
                )
            except BadRequest:
                self._whole = False
                return
            self._absorb(found)

    def maker(self, artifact: str) -> Any:
        """The execution that made an artifact (the first, where later ones took it from the cache), or None."""
        if not self._whole and artifact not in self._makers:
            self._step(artifact)
        made = [self.executions[name] for name in self._makers.get(artifact, ()) if name in self.executions]
        return min(made, key=lambda execution: (execution.state.name == "CACHED", _time(execution)), default=None)

    def inputs(self, execution: str) -> list[Any]:
        """The artifacts that an execution read, by name."""
        found = [self.artifacts[name] for name in self._inputs.get(execution, ()) if name in self.artifacts]
        return sorted(found, key=lambda artifact: (artifact.display_name, artifact.name))

    def settled(self, uri: str) -> datetime | None:
        """When the last task that made or handed on what stands at `uri` ended; None where none is known.

        Tiling on Dataflow ends before its records are written: the waiting task and the checking one hand them on.
        """
        ends = [
            self.executions[execution].update_time
            for name, artifact in self.artifacts.items()
            if artifact.uri == uri
            for execution in self._makers.get(name, ())
            if execution in self.executions and self.executions[execution].state.name != "CACHED"
        ]
        return max(ends, default=None)

    def _step(self, artifact: str) -> None:
        self._makers.setdefault(artifact, set())
        with explain(f"lineage of {artifact}"):
            near = self._clients.metadata.query_artifact_lineage_subgraph(
                request={"artifact": artifact, "max_hops": 1}, retry=patiently(), timeout=TIMEOUT
            )
            self._absorb(near)
            for execution in sorted(self._makers[artifact]):
                self._absorb(
                    self._clients.metadata.query_execution_inputs_and_outputs(
                        execution=execution, retry=patiently(), timeout=TIMEOUT
                    )
                )

    def _absorb(self, found: Any) -> None:
        self.artifacts |= {artifact.name: artifact for artifact in found.artifacts}
        self.executions |= {execution.name: execution for execution in found.executions}
        for event in found.events:
            if event.type_.name == "OUTPUT":
                self._makers.setdefault(event.artifact, set()).add(event.execution)
            elif event.type_.name == "INPUT":
                inputs = self._inputs.setdefault(event.execution, [])
                inputs += [event.artifact] if event.artifact not in inputs else []


def plain(metadata: Any) -> dict[str, Any]:
    """A metadata field as plain values; whole numbers as int, for JSON in between has floats only."""
    return {str(key): _plain(value) for key, value in sorted((metadata or {}).items())}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str | bool | int | float) or value is None:
        return value
    if hasattr(value, "items"):
        return plain(value)
    if isinstance(value, Iterable):
        return [_plain(each) for each in value]
    return str(value)


def _time(execution: Any) -> str:
    return str(execution.create_time.isoformat()) if execution.create_time else ""
