"""What the service tells of itself: one JSON line a request, and figures for Prometheus."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

REQUESTS = "bagline.viewer.requests"
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class JsonLines(logging.Formatter):
    """One JSON object a line; `fields` of a record are added to it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; a traceback is a field of it."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "severity": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_json_logs() -> None:
    """Sends every log to standard error as JSON lines, in place of what was set up before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = name != "uvicorn.access"


class Figures:
    """The service's Prometheus figures.

    Args:
        state: what the caches hold, by name.
    """

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, state: Callable[[], Mapping[str, int]]) -> None:
        self._registry = CollectorRegistry()
        self.seconds = Histogram(
            "bagline_viewer_request_seconds",
            "Time to answer a request",
            ["route", "status"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.tiles = Counter(
            "bagline_viewer_tiles_total", "Tiles sent, by how they were made", ["made"], registry=self._registry
        )
        self.unreadable = Counter(
            "bagline_viewer_unreadable_tiles_total", "Tiles of which a part can't be read", registry=self._registry
        )
        self.failures = Counter(
            "bagline_viewer_failures_total", "Requests that ended in an unexpected error", registry=self._registry
        )
        for name in state():
            gauge = Gauge(f"bagline_viewer_{name}", f"Held now: {name.replace('_', ' ')}", registry=self._registry)
            gauge.set_function(partial(_look, state, name))

    def render(self) -> bytes:
        """The figures in Prometheus's text format."""
        return generate_latest(self._registry)


def _look(state: Callable[[], Mapping[str, int]], name: str) -> float:
    return float(state()[name])
