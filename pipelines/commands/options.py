"""Options that several commands share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from components.records.errors import InputError
from pipelines.parameters import Signature, check_parameters, parse_assignments, read_config

if TYPE_CHECKING:
    from pipelines.vertex.request import Order


def add_images(parser: argparse.ArgumentParser) -> None:
    """`MANIFEST --images-root DIR --out OUT`."""
    parser.add_argument("manifest", metavar="MANIFEST", help="CSV, one row an image")
    parser.add_argument("--images-root", required=True, metavar="DIR", help="folder (or gs://) that holds the images")
    parser.add_argument("--out", required=True, metavar="OUT", help="folder to write to")


def add_out(parser: argparse.ArgumentParser) -> None:
    """`OUT`, a folder that an earlier step wrote."""
    parser.add_argument("out", metavar="OUT", help="folder that holds the records")


def add_parameters(parser: argparse.ArgumentParser) -> None:
    """`--config FILE` and `--set key=value`."""
    parser.add_argument("--config", metavar="FILE", help="YAML with `parameters:`")
    parser.add_argument(
        "--set", action="append", default=[], dest="assignments", metavar="key=value", help="one parameter; repeatable"
    )


def add_environment(parser: argparse.ArgumentParser) -> None:
    """`--env NAME` and `--config FILE`."""
    parser.add_argument(
        "--env", default="", metavar="NAME", help="environment, a file of pipelines/configs/ (dev, prod)"
    )
    parser.add_argument(
        "--config", default="", metavar="FILE", help="another such file; with --env, its keys take the place of those"
    )


def add_order(parser: argparse.ArgumentParser) -> None:
    """What is to run on Vertex AI: `[MANIFEST] --images-root --env --config --set --pipeline --images --template`."""
    parser.add_argument("manifest", metavar="MANIFEST", nargs="?", default="", help="CSV (default: the environment's)")
    parser.add_argument(
        "--images-root", default="", metavar="DIR", help="gs:// folder of the images (default: the environment's)"
    )
    add_environment(parser)
    parser.add_argument(
        "--set", action="append", default=[], dest="assignments", metavar="key=value", help="one parameter; repeatable"
    )
    parser.add_argument("--pipeline", default="", metavar="NAME", help="which pipeline (default: the config's)")
    parser.add_argument("--images", default="", metavar="images.json", help="image references by digest")
    parser.add_argument("--allow-tags", action="store_true", help="accept images by tag: their content may change")
    parser.add_argument(
        "--template",
        default="",
        metavar="TAG",
        help="run the template of that tag (or sha256:…) in the template repository, not this code's pipeline",
    )
    parser.add_argument("--no-preflight", action="store_true", help="don't look at bucket, account and images before")


def parse_order(arguments: argparse.Namespace, *, pinned: bool = True) -> Order:
    """The order that `add_order`'s options make.

    Raises:
        InputError: the environment, or the template, can't be had.
    """
    from pipelines.vertex.environment import load_config
    from pipelines.vertex.request import Order

    config = load_config(arguments.env, arguments.config)
    spec, template = None, ""
    if arguments.template:
        if arguments.images:
            raise InputError("a template holds its own images", where="--images", mend="leave one of the two out")
        from pipelines.vertex.template import fetch_template

        environment = config.need_environment()
        spec, template = fetch_template(environment, arguments.pipeline or config.pipeline, arguments.template)
    return Order(
        config,
        manifest=arguments.manifest,
        images_root=arguments.images_root,
        pipeline=arguments.pipeline,
        images=arguments.images,
        allow_tags=arguments.allow_tags,
        assignments=tuple(arguments.assignments),
        spec=spec,
        template=template,
        pinned=pinned,
    )


def parse_step(arguments: argparse.Namespace, step: Signature) -> dict[str, Any]:
    """What `--config` and `--set` say of one step's parameters.

    A config of the whole pipeline is taken in part.

    Raises:
        InputError: a key that no step knows (suggests the right one), or `--set` of another step's key.
    """
    values: dict[str, Any] = {}
    if arguments.config:
        from pipelines.signatures import whole_signature

        everything = {**whole_signature(), **step}
        found = check_parameters(read_config(arguments.config)["parameters"], everything, arguments.config)
        values = {name: value for name, value in found.items() if name in step}
    return {**values, **parse_assignments(arguments.assignments, step)}


def check_workers(workers: int) -> None:
    """Raises InputError unless there is at least one worker."""
    if workers < 1:
        raise InputError(f"{workers} workers can't work", where="--workers", mend="give 1 or more")
