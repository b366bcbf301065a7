"""`bagline validate`: checks the records in OUT against their manifest and schema."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

from pipelines.commands.options import add_out, add_parameters, check_workers, parse_step


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_out(parser)
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default %(default)s)")
    add_parameters(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Writes validation.json and validation.html, and prints the table."""
    from components.records import storage
    from components.records.dataset import TiledDataset
    from components.validate_records.outcome import Thresholds
    from components.validate_records.validate import validate_records
    from pipelines.local.step import step_alone
    from pipelines.parameters import signature_of_dataclass

    values = parse_step(arguments, signature_of_dataclass(Thresholds))
    check_workers(arguments.workers)
    remote = storage.is_remote(arguments.out)
    out = arguments.out.rstrip("/") if remote else os.path.abspath(arguments.out)
    TiledDataset(out)
    # Lineage events lie beside records on disk only.
    with contextlib.nullcontext() if remote else step_alone(out, "validate", values):
        validation = validate_records(
            out,
            storage.join(out, "validation.json"),
            storage.join(out, "validation.html"),
            Thresholds(**values),
            workers=arguments.workers,
        )
        sys.stdout.write(f"{validation}\n")
        validation.raise_on_failure(out)
    return 0
