"""Runs over HTTP: which there are, all that the dashboard shows of one, and its report."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response

from components.records import storage
from components.viewer.answers import UnknownError, answer_json, encode_json
from components.viewer.catalog import Catalog
from components.viewer.dashboard import describe_run

# The report is one file that carries its own styles; it runs nothing, and loads nothing.
_REPORT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'"


def add_run_routes(app: FastAPI, catalog: Catalog) -> None:
    """Adds `/api/runs` and `/report`."""
    described: dict[str, bytes] = {}

    @app.get("/api/runs", tags=["runs"])
    def list_runs(request: Request) -> Response:
        """The runs, with what they hold."""
        lines = [
            {
                "key": run.key,
                "labels": list(run.labels),
                "slides": len(run.rows),
                "patients": len({row.patient_id for row in run.rows}),
                "evaluated": bool(run.metrics),
                "report": bool(run.report),
            }
            for run in catalog.runs.values()
        ]
        return answer_json(request, encode_json(lines))

    @app.get("/api/runs/{key}", tags=["runs"])
    def show_run(request: Request, key: str) -> Response:
        """One run: metrics, curves, failures, lineage; slides by image id have the key to open them."""
        run = catalog.runs.get(key)
        if run is None:
            raise UnknownError("there is no such run")
        if key not in described:
            slides = {slide.image_id: slide.key for slide in catalog.slides.values() if slide.run == key}
            described[key] = encode_json({**describe_run(run), "slides": slides, "report": bool(run.report)})
        return answer_json(request, described[key])

    @app.get("/report/{key}", include_in_schema=False)
    def send_report(key: str) -> Response:
        run = catalog.runs.get(key)
        if run is None or not run.report:
            raise UnknownError("there is no such report")
        return Response(
            storage.read_bytes(run.report),
            media_type="text/html; charset=utf-8",
            headers={"Content-Security-Policy": _REPORT_POLICY, "Cache-Control": "private, no-cache"},
        )
