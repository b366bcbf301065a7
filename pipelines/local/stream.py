"""Follows a `kfp.local` run by what it prints: which task runs, what it says, how it ends."""

from __future__ import annotations

import io
import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from pipelines.lineage.events import now

_COLOUR = re.compile(r"\x1b\[\d+m")
_BEGIN = re.compile(r"Executing task '([^']+)'")
_END = re.compile(r"Task '([^']+)' finished with status (\w+)")
_HIT = re.compile(r"Task (\S+) cache hit \(key=([0-9a-f]+)\)")
_LOG = re.compile(r"^\[KFP Executor [^\]]* (DEBUG|INFO|WARNING|ERROR|CRITICAL)\]: (.*)$")
_OURS = re.compile(r"^components\.records\.errors\.(\w+): (.*)$")
_FAULT = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Warning|Failure|Fault)\b.*$")
_NOISE = (
    "Looking for component",
    "Loading KFP component",
    "Got executor_input",
    "Wrote executor output",
    "Did not write",
)
_TAIL_LINES = 200


@dataclass
class TaskState:
    """What became of one task: `cached`, or its times, error and the last lines it printed."""

    task: str
    cached: str = ""
    started: datetime = field(default_factory=now)
    ended: datetime = field(default_factory=now)
    seconds: float = 0.0
    succeeded: bool = False
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL_LINES))

    def error(self) -> tuple[str, int]:
        """The one-line error of a failed task, and its exit code."""
        found = error_in_lines(self.tail)
        if found[0]:
            return found
        last = next((line for line in reversed(self.tail) if line.strip()), "it was killed or printed nothing")
        return last, 1


def error_in_lines(lines: Iterable[str]) -> tuple[str, int]:
    """The last error among the lines a task wrote, and its exit code; our own go before others, empty for none."""
    tail = list(lines)
    for line in reversed(tail):
        ours = _OURS.match(line)
        if ours:
            return ours.group(2), 2 if ours.group(1) == "InputError" else 1
    for line in reversed(tail):
        if _FAULT.match(line):
            return f"unexpected {line}", 1
    return "", 1


class TaskStream(io.TextIOBase):
    """Takes the place of standard output while `kfp.local` runs.

    Args:
        show: called with (task, line, moving) for each line a task logs, when it starts and when it ends; a moving
            line is progress, which the next one may replace.
        debug: whether everything is shown, KFP's own lines too.
    """

    def __init__(self, show: Callable[[str, str, bool], None], *, debug: bool = False) -> None:
        self.tasks: dict[str, TaskState] = {}
        self._show = show
        self._debug = debug
        self._current: TaskState | None = None
        self._began = 0.0
        self._buffer = ""

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str) -> int:
        """Takes whole lines out of what is printed."""
        self._buffer += text
        *lines, self._buffer = self._buffer.split("\n")
        for line in lines:
            self._take(_COLOUR.sub("", line).rstrip())
        return len(text)

    def hit(self, task: str, key: str) -> None:
        """Records that a task's outputs came from the cache."""
        self.tasks[task] = TaskState(task, cached=key, succeeded=True)
        self._show(task, "unchanged, taken from the cache", False)

    def _take(self, line: str) -> None:
        begin, end = _BEGIN.search(line), _END.search(line)
        if begin:
            self._current = self.tasks[begin.group(1)] = TaskState(begin.group(1))
            self._began = time.monotonic()
            self._show(begin.group(1), "starts", True)
        elif end and self._current:
            self._current.seconds = time.monotonic() - self._began
            self._current.ended = now()
            self._current.succeeded = end.group(2) == "SUCCESS"
            ending = "done" if self._current.succeeded else "failed"
            self._show(self._current.task, f"{ending} in {self._current.seconds:.1f} s", False)
            self._current = None
        elif self._current:
            self._take_task_line(self._current, line)

    def _take_task_line(self, state: TaskState, line: str) -> None:
        text = line.removeprefix("    ")
        state.tail.append(text)
        log = _LOG.match(text)
        if self._debug:
            self._show(state.task, text, False)
        elif log and not log.group(2).startswith(_NOISE):
            calm = log.group(1) in ("DEBUG", "INFO")
            self._show(state.task, log.group(2) if calm else f"{log.group(1).lower()}: {log.group(2)}", calm)


class CacheHits(logging.Handler):
    """Tells a stream of the cache hits that `kfp.local` logs."""

    def __init__(self, stream: TaskStream) -> None:
        super().__init__(logging.INFO)
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        """Looks at one record."""
        found = _HIT.search(record.getMessage())
        if found:
            self._stream.hit(found.group(1), found.group(2))
