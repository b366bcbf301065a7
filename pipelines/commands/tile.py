"""`bagline tile`: the tiling step alone."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import sys
import threading
from collections.abc import Callable
from typing import Any

from pipelines.commands.options import add_images, add_parameters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_images(parser)
    parser.add_argument("--tile-px", type=int, metavar="N", help="side of a tile, px (default 256)")
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument("--mpp", type=float, metavar="M", help="µm/px of the tiles (default 0.5)")
    scale.add_argument("--level", type=int, metavar="L", help="pyramid level, instead of --mpp")
    parser.add_argument("--stride", type=int, metavar="N", help="px between tile corners (default: no overlap)")
    parser.add_argument("--runner", default="DirectRunner", help="Beam runner (default %(default)s)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    add_parameters(parser)
    parser.epilog = "Options of the Beam runner follow after `--`."


def execute(arguments: argparse.Namespace) -> int:
    """Tiles into OUT and prints the totals."""
    from components.tile_images import lanes
    from pipelines.commands.options import check_workers, parse_step

    check_workers(arguments.workers)
    if arguments.runner == "DirectRunner":
        # Begun before anything else is imported, which they then do at the same time.
        lanes.share_pool(arguments.workers, lanes.TIMEOUT)
    try:
        return _tile(arguments, parse_step)
    finally:
        lanes.close_pools()


def _tile(arguments: argparse.Namespace, parse_step: Callable[..., dict[str, Any]]) -> int:
    from components.records.storage import is_remote
    from components.tile_images.parameters import TilingParameters
    from components.tile_images.run import run_tiling
    from pipelines.lineage.artifacts import trace_manifest, trace_slides
    from pipelines.local.inputs import absolute, look_at_inputs
    from pipelines.local.step import step_alone
    from pipelines.parameters import Parameter, signature_of_dataclass

    signature = {**signature_of_dataclass(TilingParameters), "dataflow": Parameter(dict, {})}
    values = parse_step(arguments, signature)
    dataflow = values.pop("dataflow", {})
    for name in ("tile_px", "stride", "mpp", "level"):
        if getattr(arguments, name) is not None:
            values[name] = getattr(arguments, name)
    if arguments.level is not None:
        values["mpp"] = 0.0
    parameters = TilingParameters(**values)
    manifest, _ = look_at_inputs(arguments.manifest, arguments.images_root)
    out, root = absolute(arguments.out), absolute(arguments.images_root)
    # The lineage client takes long to import: that is done while the slides are read.
    threading.Thread(target=importlib.import_module, args=("pipelines.lineage.events",), daemon=True).start()
    alone = step_alone(
        out, "tile", values, lambda: [trace_manifest(arguments.manifest, manifest.digest), trace_slides(out, root)]
    )
    # A bucket can't be held, and its lineage is what Vertex AI records.
    with contextlib.nullcontext() if is_remote(out) else alone:
        summary = run_tiling(
            absolute(arguments.manifest),
            root,
            out,
            parameters,
            runner=arguments.runner,
            workers=arguments.workers,
            beam_options=arguments.beam_options,
            dataflow=dataflow,
        )
    if not summary:
        sys.stdout.write("the job's description is written; nothing was run\n")
        return 0
    sys.stdout.write(f"{json.dumps(summary, sort_keys=True) if arguments.json else _describe(summary)}\n")
    return 0


def _describe(summary: dict[str, Any]) -> str:
    statuses = ", ".join(f"{count} {status}" for status, count in summary["slides_by_status"].items() if count)
    joined = f", {summary['tiles_joined']} are stored blocks joined, not coded again" if summary["tiles_joined"] else ""
    return (
        f"{summary['slides']} slides of {summary['patients']} patients: {statuses}\n"
        f"{summary['tiles']} tiles in {summary['parts']} parts, {summary['bytes'] / 1e6:.1f} MB; "
        f"{summary['tiles_failed']} tiles lost; {summary['tiles_lossless']} are the stored pixels untouched{joined}"
    )
