"""`bagline train`: trains a model on the records in OUT."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from pipelines.commands.options import add_out, add_parameters, parse_step


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_out(parser)
    add_parameters(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Writes OUT/model and OUT/training."""
    from components.records.dataset import TiledDataset
    from components.train_mil.parameters import TrainingParameters
    from pipelines.local.step import step_alone
    from pipelines.parameters import signature_of_dataclass

    values = parse_step(arguments, signature_of_dataclass(TrainingParameters))
    out = os.path.abspath(arguments.out)
    TiledDataset(out)
    parameters = TrainingParameters(**values)
    parameters.check()
    if parameters.embeddings:
        _embed(out, values)
    from components.train_mil.train import train_mil

    with step_alone(out, "train", values):
        summary = train_mil(
            out,
            os.path.join(out, "model"),
            os.path.join(out, "training"),
            parameters,
            work_dir=os.path.join(out, ".bagline", "checkpoints"),
        )
    scores = f", validation loss {summary.val_loss:.4f}" if summary.val_loss is not None else ""
    sys.stdout.write(f"{os.path.join(out, 'model')}: best of {summary.epochs} epochs is {summary.best_epoch}{scores}\n")
    return 0


def _embed(out: str, values: dict[str, Any]) -> None:
    """Makes the embeddings that are not there, or no longer true."""
    from components.embed_tiles.embed import embed_tiles
    from components.embed_tiles.parameters import EmbeddingParameters
    from components.records import storage
    from components.records.embedded import FOLDER
    from pipelines.local.step import step_alone

    place = os.path.join(out, FOLDER)
    known = {name: value for name, value in values.items() if name in EmbeddingParameters.__dataclass_fields__}
    if os.path.exists(os.path.join(place, "schema.json")):  # what `bagline embed` was told, and train has no word for
        known["embedding_dtype"] = storage.read_json(os.path.join(place, "schema.json"))["dtype"]
    with step_alone(out, "embed", known):
        embed_tiles(out, place, EmbeddingParameters(**known))
