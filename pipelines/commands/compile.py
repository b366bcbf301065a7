"""`bagline compile`: the spec that Vertex AI takes."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--pipeline", default="whole-slide", metavar="NAME", help="which pipeline (default %(default)s)"
    )
    parser.add_argument("--images", default="", metavar="images.json", help="image references by digest")
    parser.add_argument("--allow-tags", action="store_true", help="accept images by tag: their content may change")
    parser.add_argument("--config", default="", metavar="FILE", help="YAML with `resources:` of the steps")
    parser.add_argument("--to", required=True, metavar="FILE.json", help="file to write")


def execute(arguments: argparse.Namespace) -> int:
    """Compiles and writes the spec."""
    from components.records import storage
    from components.records.errors import InputError
    from pipelines.compile import compile_pipeline, render

    if not arguments.to.endswith(".json"):
        raise InputError(f"{arguments.to} is no .json file", where="--to", mend="name it FILE.json")
    spec = compile_pipeline(
        arguments.pipeline, images=arguments.images, allow_tags=arguments.allow_tags, config=arguments.config
    )
    storage.write_text(arguments.to, render(spec))
    sys.stdout.write(f"{arguments.to}\n")
    return 0
