"""`bagline embed`: the tiles in OUT through a frozen encoder, for `train` to go on from."""

from __future__ import annotations

import argparse
import os
import re
import sys

from pipelines.commands.options import add_out, add_parameters, parse_step


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_out(parser)
    add_parameters(parser)
    parser.add_argument(
        "--shard",
        default="1/1",
        metavar="I/N",
        help="share the parts with other machines: this is I of N (default 1/1)",
    )


def execute(arguments: argparse.Namespace) -> int:
    """Writes OUT/embeddings."""
    from components.embed_tiles.embed import embed_tiles
    from components.embed_tiles.parameters import EmbeddingParameters
    from components.records.dataset import TiledDataset
    from components.records.embedded import FOLDER
    from components.records.errors import InputError
    from pipelines.local.step import step_alone
    from pipelines.parameters import signature_of_dataclass

    values = parse_step(arguments, signature_of_dataclass(EmbeddingParameters))
    shard = re.fullmatch(r"(\d+)/(\d+)", arguments.shard)
    if not shard or not 1 <= int(shard[1]) <= int(shard[2]):
        raise InputError(f"{arguments.shard!r} is no shard", where="--shard", mend="write it like 1/4")
    if "encoder" not in values:
        raise InputError("no encoder", where="--set", mend="give --set encoder=NAME, such as resnet50 or saved")
    out = os.path.abspath(arguments.out)
    TiledDataset(out)
    parameters = EmbeddingParameters(**values)
    place, share = os.path.join(out, FOLDER), {"shard": int(shard[1]) - 1, "shards": int(shard[2])}
    if share["shards"] > 1:  # several at once on one OUT: each part has one writer, so nothing is held
        summary = embed_tiles(out, place, parameters, **share)
    else:
        with step_alone(out, "embed", values):
            summary = embed_tiles(out, place, parameters)
    sys.stdout.write(
        f"{place}: {summary.tiles} tiles, {summary.dim} values each; {summary.made} of {summary.parts} parts made now"
        f"{f', {summary.missing} missing' if summary.missing else ''}\n"
    )
    return 0
