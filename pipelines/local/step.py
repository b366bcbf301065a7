"""One step alone, on an OUT: held, timed and recorded like a task of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from components.records.errors import BaglineError
from pipelines.lineage.artifacts import Traced, trace_artifact
from pipelines.local.flow import FLOW, MADE_BESIDE
from pipelines.local.lock import hold


@contextmanager
def step_alone(
    out: str, name: str, parameters: dict[str, Any], more_inputs: Callable[[], list[Traced | None]] | None = None
) -> Iterator[None]:
    """Holds OUT while the block does the step's work, then writes its lineage events.

    Args:
        out: the folder the step works in.
        name: the step.
        parameters: what it is called with, for the record.
        more_inputs: what it reads besides what earlier steps made; called after the work.
    """
    with hold(out):
        started = datetime.now(UTC)
        reads, makes = FLOW[name]
        read = [trace_artifact(out, artifact) for artifact in reads]
        try:
            yield
        except BaglineError as error:
            _record(out, name, parameters, [*read, *(more_inputs() if more_inputs else [])], [], started, str(error))
            raise
        made = [trace_artifact(out, artifact) for artifact in (makes, *MADE_BESIDE.get(makes, ()))]
        _record(out, name, parameters, [*read, *(more_inputs() if more_inputs else [])], made, started, "")


def _record(
    out: str,
    name: str,
    parameters: dict[str, Any],
    inputs: list[Traced | None],
    outputs: list[Traced | None],
    started: datetime,
    error: str,
) -> None:
    # Imported where it is needed: its client takes longer to import than a slide to tile.
    from pipelines.lineage.events import TaskRecord, write_events

    write_events(
        out,
        TaskRecord(
            job=f"whole-slide.{name}",
            parameters=parameters,
            inputs=[artifact for artifact in inputs if artifact],
            outputs=[artifact for artifact in outputs if artifact],
            started=started,
            ended=datetime.now(UTC),
            error=error,
        ),
    )
