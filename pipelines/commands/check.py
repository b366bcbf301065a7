"""`bagline check`: every pipeline compiles, and every config file fits the pipeline it names."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--configs", default="", metavar="DIR", help="config files to check (default: the package's)")


def execute(arguments: argparse.Namespace) -> int:
    """Checks all and prints a line each."""
    from pipelines.check import check_all

    for line in check_all(arguments.configs):
        sys.stdout.write(f"{line}\n")
    return 0
