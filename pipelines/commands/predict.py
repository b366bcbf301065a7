"""`bagline predict`: a trained model over new slides, on this machine."""

from __future__ import annotations

import argparse
import json
import os
import sys

from pipelines.commands.options import add_images, add_parameters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_images(parser)
    parser.add_argument(
        "--model", required=True, metavar="MODEL", help="OUT/model of a run, gs://…, or projects/…/models/ID@alias"
    )
    add_parameters(parser)
    parser.add_argument(
        "--engine", choices=("subprocess", "docker"), default="subprocess", help="where tasks run (default %(default)s)"
    )
    parser.add_argument("--images", default="", metavar="images.json", help="container images, with --engine docker")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.epilog = "Labels may be missing in the manifest. Options of the Beam runner follow after `--`."


def execute(arguments: argparse.Namespace) -> int:
    """Runs, publishes and sums up."""
    from components.records.errors import InputError
    from pipelines.console import ProgressHandler
    from pipelines.local.inputs import absolute
    from pipelines.local.run import RunOptions, run_locally
    from pipelines.local.summary import render_predictions, summarise, summarise_predictions

    if arguments.engine == "docker" and not arguments.images:
        raise InputError("no images", where="--engine docker", mend="run `make images`, then pass --images images.json")
    registered = arguments.model.startswith("projects/")
    model = arguments.model if registered else absolute(arguments.model)
    if "://" not in model and not registered and not os.path.isdir(model):
        raise InputError("no such folder", where=f"--model {arguments.model}", mend="name OUT/model of a finished run")
    options = RunOptions(
        manifest=absolute(arguments.manifest),
        images_root=absolute(arguments.images_root),
        out=os.path.abspath(arguments.out),
        config=arguments.config or "",
        assignments=tuple(arguments.assignments),
        engine=arguments.engine,
        images=arguments.images,
        beam_options=tuple(arguments.beam_options),
        debug=arguments.debug,
        pipeline="batch-predict",
        model=model,
    )
    console = ProgressHandler()
    result = run_locally(options, lambda step, line, moving: console.write(f"{step:<9} {line}", moving=moving))
    summary = {**summarise(result), **summarise_predictions(result)}
    if arguments.json:
        sys.stdout.write(json.dumps(summary, indent=2, sort_keys=True) + "\n")
    else:
        sys.stdout.write(render_predictions(summary) + "\n")
    if result.error:
        sys.stderr.write(f"bagline predict: {result.error}\n")
    return result.exit_code
