"""`bagline run`: the whole-slide pipeline, or the tile classifier's, on this machine."""

from __future__ import annotations

import argparse
import json
import os
import sys

from pipelines.commands.options import add_images, add_parameters

PIPELINES = ("whole-slide", "tile-classifier")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_images(parser)
    add_parameters(parser)
    parser.add_argument(
        "--pipeline",
        choices=PIPELINES,
        default="whole-slide",
        help="which pipeline (default %(default)s); tile-classifier needs lesion masks",
    )
    parser.add_argument("--from-step", default="", metavar="STEP", help="start here, on what OUT holds")
    parser.add_argument("--to-step", default="", metavar="STEP", help="stop after this step")
    parser.add_argument(
        "--engine", choices=("subprocess", "docker"), default="subprocess", help="where tasks run (default %(default)s)"
    )
    parser.add_argument("--images", default="", metavar="images.json", help="container images, with --engine docker")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.epilog = "Options of the Beam runner follow after `--`."


def execute(arguments: argparse.Namespace) -> int:
    """Runs, publishes and sums up."""
    from components.records.errors import InputError
    from pipelines.console import ProgressHandler
    from pipelines.local.inputs import absolute
    from pipelines.local.run import RunOptions, run_locally
    from pipelines.local.summary import render_summary, summarise

    if arguments.engine == "docker" and not arguments.images:
        raise InputError("no images", where="--engine docker", mend="run `make images`, then pass --images images.json")
    options = RunOptions(
        manifest=absolute(arguments.manifest),
        images_root=absolute(arguments.images_root),
        out=os.path.abspath(arguments.out),
        config=arguments.config or "",
        assignments=tuple(arguments.assignments),
        first=arguments.from_step,
        last=arguments.to_step,
        engine=arguments.engine,
        images=arguments.images,
        beam_options=tuple(arguments.beam_options),
        debug=arguments.debug,
        pipeline=arguments.pipeline,
    )
    console = ProgressHandler()
    result = run_locally(options, lambda step, line, moving: console.write(f"{step:<9} {line}", moving=moving))
    summary = summarise(result)
    if arguments.json:
        sys.stdout.write(json.dumps(summary, indent=2, sort_keys=True) + "\n")
    else:
        sys.stdout.write(render_summary(summary) + "\n")
    if result.error:
        sys.stderr.write(f"bagline run: {result.error}\n")
        return result.exit_code
    gate = summary["gate"]
    if gate and not gate.get("blessed"):
        sys.stderr.write(f"bagline run: the model is not blessed: {gate.get('reason', '')}\n")
        return 1
    return 0
