"""Options that several commands share."""

from __future__ import annotations

import argparse
from typing import Any

from components.records.errors import InputError
from pipelines.parameters import Signature, check_parameters, parse_assignments, read_config


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
