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


def step_parameters(arguments: argparse.Namespace, step: Signature, whole: Signature) -> dict[str, Any]:
    """What `--config` and `--set` say of one step; a config of the whole pipeline is taken in part.

    Raises:
        InputError: a key that neither the step nor the pipeline knows, or `--set` of another step's key.
    """
    values: dict[str, Any] = {}
    if arguments.config:
        everything = {**whole, **step}
        found = check_parameters(read_config(arguments.config)["parameters"], everything, arguments.config)
        values = {name: value for name, value in found.items() if name in step}
    for word in arguments.assignments:
        name = word.partition("=")[0].strip()
        if name in whole and name not in step:
            raise InputError(f"{name} is no parameter of this step", where="--set", mend="leave it out here")
    return {**values, **parse_assignments(arguments.assignments, step)}
