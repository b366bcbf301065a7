"""`bagline split`: gives every patient a split."""

from __future__ import annotations

import argparse
import os
import sys

from pipelines.commands.options import add_images, add_parameters, parse_step


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_images(parser)
    add_parameters(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Writes OUT/split.csv and OUT/split.html."""
    from components.split_metadata.split import split_metadata
    from pipelines.lineage.artifacts import trace_manifest
    from pipelines.local.inputs import look_at_inputs
    from pipelines.local.step import step_alone
    from pipelines.parameters import signature_of_function

    values = parse_step(arguments, signature_of_function(split_metadata, but=("manifest_hash", "files")))
    manifest, _ = look_at_inputs(arguments.manifest, arguments.images_root)
    out = os.path.abspath(arguments.out)
    with step_alone(out, "split", values, lambda: [trace_manifest(arguments.manifest, manifest.digest)]):
        split_metadata(
            arguments.manifest,
            arguments.images_root,
            os.path.join(out, "split.csv"),
            os.path.join(out, "split.html"),
            **values,
        )
    sys.stdout.write(f"{os.path.join(out, 'split.csv')}\n")
    return 0
