"""The task after tiling on Vertex AI: waits for the Dataflow job, finalises its records; without a job it is done.

It is the container's own process (`python3 -m`), so that the SIGTERM of a cancelled pipeline reaches it: behind the
shell that KFP puts around a Python function it would not.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from typing import Any

from components.records import storage
from components.records.errors import BaglineError, WorkError
from components.tile_images.dataflow_job import read_gcp_resources
from components.tile_images.face import describe_run, list_totals
from components.tile_images.interruption import TerminatedError
from components.tile_images.launch import find_in_bucket, find_run, finish, load_launch, relaunch
from components.tile_images.parameters import TilingParameters

logger = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """The task: exit code 0, or 1 and 2 with one line on standard error."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--executor_input", required=True, help="what KFP hands to a task, as JSON")
    parsed = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        run_task(json.loads(parsed.executor_input))
    except BaglineError as error:
        logger.error("bagline wait: %s", error)
        return error.exit_code
    return 0


def run_task(executor_input: dict[str, Any]) -> None:
    """Does the task and writes what KFP reads of it.

    Raises:
        BaglineError: as `await_tiling`.
    """
    given, made = executor_input["inputs"], executor_input["outputs"]
    tiled = given["artifacts"]["tiled"]["artifacts"][0]
    records, summary = (made["artifacts"][name]["artifacts"][0] for name in ("records", "summary"))
    metadata, totals = await_tiling(
        tiled["uri"], given["parameterValues"]["gcp_resources"], tiled.get("metadata", {}), records["uri"]
    )
    outputs = {
        "records": {"name": records["name"], "uri": tiled["uri"], "metadata": metadata},
        "summary": {"name": summary["name"], "uri": summary["uri"], "metadata": {**metadata, **totals}},
    }
    storage.write_json(
        made["outputFile"], {"artifacts": {name: {"artifacts": [value]} for name, value in outputs.items()}}
    )


def await_tiling(
    out: str, gcp_resources: str, metadata: dict[str, Any], own_uri: str
) -> tuple[dict[str, Any], dict[str, float]]:
    """Waits for the job that `gcp_resources` names, and finalises its records.

    The tiling task may have come from the cache: then its job is one of an earlier run. Where that one ended badly, or
    lost slides, a new one is started, which takes up what was done.

    Args:
        out: the URI of the records.
        gcp_resources: the tiling task's output; where it names no job there is nothing to wait for.
        metadata: of the records as the tiling task left them.
        own_uri: of this task's own output, which tells what pipeline run it is in.

    Returns:
        The metadata of the records, and the totals as metrics.

    Raises:
        WorkError: the job failed, or more slides were lost than may be. TerminatedError: this process was told to end.
    """
    if read_gcp_resources(gcp_resources) is None:
        return metadata, list_totals(storage.read_json(storage.join(out, "summary.json")))
    out, run = find_in_bucket(out, "records"), find_run(own_uri)
    launched = load_launch(out)
    try:
        summary = finish(launched, out)
    except TerminatedError:
        raise
    except WorkError as error:
        if launched.launched_by == run:
            raise
        logger.warning("of an earlier run: %s", error)
        launched = relaunch(launched, out, run)
        summary = finish(launched, out)
    described = describe_run(summary, TilingParameters(**launched.parameters), launched.images_fingerprint)
    return described, list_totals(summary)


if __name__ == "__main__":
    raise SystemExit(main())
