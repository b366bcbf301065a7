"""Why a run on this machine failed, by the events that it left in OUT."""

from __future__ import annotations

from typing import Any

from components.records.errors import InputError
from pipelines.lineage.query import find_out, read_events


def diagnose_out(out: str) -> dict[str, Any]:
    """The newest run's state, and the steps whose last word is a failure.

    Raises:
        InputError: no run has left its events there.
    """
    folder, _ = find_out(out, out)
    last: dict[str, dict[str, Any]] = {}
    for event in read_events(folder):
        last[event["job"]["name"]] = event
    if not last:
        raise InputError("holds no finished task", where=out, mend="run the pipeline first")
    failed = []
    for job, event in last.items():
        if event["eventType"] == "FAIL":
            facets = event["run"]["facets"]
            task = facets["bagline_task"]
            failed.append(
                {
                    "step": job.rpartition(".")[2],
                    "message": facets.get("errorMessage", {}).get("message", ""),
                    "ended": event["eventTime"],
                    "code_version": task["code_version"],
                    "parameters": task["parameters"],
                }
            )
    return {"out": folder, "state": "FAILED" if failed else "SUCCEEDED", "failed": failed}


def render_local(found: dict[str, Any]) -> str:
    """The diagnosis as text."""
    lines = [f"{found['out']}  {found['state']}"]
    for each in found["failed"]:
        lines += [
            "",
            f"{each['step']} failed  {each['ended']}  code {each['code_version']}",
            f"  error    {each['message']}",
            "  mend     run it again: the steps before it come from the cache; --debug shows the traceback",
        ]
    return "\n".join(lines)
