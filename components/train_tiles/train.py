"""Trains a tile classifier on a tiled dataset with lesion masks and saves it with its history."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from components.mil.tile_model import (
    create_tile_model,
    encoder_of,
    save_tile_model,
)  # first: it silences TensorFlow's import

import keras  # isort: skip
import tensorflow as tf  # isort: skip

from components.mil.checkpoint import State, training_key
from components.mil.encoders.registry import input_side
from components.mil.tiles import LabelledSlide, LeftOut, TileTable, index_slides
from components.records import storage
from components.records.dataset import TiledDataset
from components.records.errors import InputError, WorkError
from components.records.provenance import code_version, derive_seed
from components.records.schema import SCHEMA_VERSION
from components.train_tiles.loop import TileTrainer
from components.train_tiles.parameters import TileTrainingParameters

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TileTrainingSummary:
    """What came of a training.

    Attributes:
        epochs: epochs run; best_epoch is the one whose weights were kept (1-based).
        val_auc: of that epoch; None without validation tiles of both kinds.
        patients, slides, tiles, marked: of the train split, what was trained on.
        left_out: slides of train and val that were not used.
        seconds: of this process, without the epochs of an earlier one.
        manifest_hash, mpp, tile_px: of the dataset.
    """

    epochs: int
    best_epoch: int
    val_auc: float | None
    patients: int
    slides: int
    tiles: int
    marked: int
    left_out: int
    seconds: float
    manifest_hash: str
    mpp: float | None
    tile_px: int

    def facts(self) -> dict[str, Any]:
        """What `provenance.artifact_metadata` takes."""
        names = ("manifest_hash", "patients", "slides", "tiles", "mpp", "tile_px")
        return {name: getattr(self, name) for name in names}


def train_tiles(
    root: str, model_dir: str, training_dir: str, parameters: TileTrainingParameters, work_dir: str = ""
) -> TileTrainingSummary:
    """Trains on the labelled tiles of the train split, watching those of the validation split.

    Args:
        root: a tiled dataset whose slides have lesion masks.
        model_dir: the saved Keras model goes here.
        training_dir: `history.json` and `left_out.jsonl`, every slide that was not used with the reason, go here.
        parameters: how to train.
        work_dir: the state after each epoch is kept here; a training killed before goes on from it.

    Raises:
        InputError: parameters, or a split that can't be trained on.
        WorkError: records are damaged.
    """
    started = time.monotonic()
    parameters.check()
    dataset = TiledDataset(root)
    slides: dict[str, list[LabelledSlide]] = {}
    left_out: list[LeftOut] = []
    for split in ("train", "val"):
        options = {"min_tiles": parameters.min_tiles_per_slide, "negative_label": parameters.negative_label}
        slides[split], without = index_slides(dataset, (split,), **options)  # type: ignore[arg-type]
        left_out += without
    storage.write_json_lines(storage.join(training_dir, "left_out.jsonl"), [asdict(slide) for slide in left_out])
    train, validation = TileTable(slides["train"]), TileTable(slides["val"])
    _check_tiles(dataset, train, validation, left_out)
    marked = int((train.labels == 1).sum())
    log.info("training on %d tiles of %d slides, %d of them marked", len(train), len(slides["train"]), marked)
    if left_out:
        log.warning("%d slides are left out; see left_out.jsonl: the first %s", len(left_out), _tell(left_out))
    keras.utils.set_random_seed(derive_seed(parameters.seed, "weights") % 2**32)
    tf.config.experimental.enable_op_determinism()
    model = create_tile_model(tile_px=dataset.schema.tile_px, **_of_model(parameters))
    side = input_side(encoder_of(model))
    trainer = TileTrainer(model, parameters, train, validation, tile_px=dataset.schema.tile_px, side=side)
    state = trainer.fit(work_dir, training_key(parameters, dataset))
    if not all(abs(value) < float("inf") for entry in state.history for value in entry.values()):
        raise WorkError("the loss is not finite", where="training", mend="lower learning_rate")
    save_tile_model(model, model_dir, _card(dataset, parameters))
    _write_history(training_dir, state, parameters, model)
    best = state.history[state.best_epoch - 1]
    return TileTrainingSummary(
        epochs=len(state.history),
        best_epoch=state.best_epoch,
        val_auc=best.get("val_auc"),
        patients=len({slide.patient_id for slide in slides["train"]}),
        slides=len(slides["train"]),
        tiles=len(train),
        marked=marked,
        left_out=len(left_out),
        seconds=time.monotonic() - started,
        manifest_hash=dataset.manifest.digest,
        mpp=dataset.schema.mpp,
        tile_px=dataset.schema.tile_px,
    )


def _of_model(parameters: TileTrainingParameters) -> dict[str, Any]:
    names = ("encoder", "encoder_path", "freeze_encoder", "embedding_dim", "input_px", "dropout")
    return {name: getattr(parameters, name) for name in names}


def _tell(left_out: Sequence[LeftOut]) -> str:
    return f"{left_out[0].image_id} ({left_out[0].reason})"


def _check_tiles(dataset: TiledDataset, train: TileTable, validation: TileTable, left_out: Sequence[LeftOut]) -> None:
    if not any(row.split for row in dataset.manifest.rows):
        raise InputError(
            "its records have no split",
            where=dataset.root,
            mend="run `bagline split`, then tile the split.csv it writes",
        )
    if not len(train):
        told = f"; the first is {_tell(left_out)}" if left_out else ""
        raise InputError(
            f"no train slide can be used{told}",
            where=dataset.root,
            mend="give mask_path in the manifest, or negative_label, or lower min_tiles_per_slide",
        )
    for kind, name in ((1, "marked"), (0, "unmarked")):
        if not (train.labels == kind).any():
            raise InputError(
                f"the train split has no {name} tile", where=dataset.root, mend="split again, or add slides"
            )
    if len(set(validation.labels.tolist())) < 2:
        log.warning("the validation split has no tiles of both kinds: there is no AUC to choose the epoch by")


def _card(dataset: TiledDataset, parameters: TileTrainingParameters) -> dict[str, Any]:
    schema = dataset.schema
    return {
        "schema_version": SCHEMA_VERSION,
        "code_version": code_version(),
        "manifest_hash": dataset.manifest.digest,
        "tile_px": schema.tile_px,
        "mpp": schema.mpp,
        "tiling": schema.parameters,
        "parameters": parameters.to_json(),
        "label_names": ["other", "lesion"],
    }


def _write_history(training_dir: str, state: State, parameters: TileTrainingParameters, model: keras.Model) -> None:
    storage.write_json(
        storage.join(training_dir, "history.json"),
        {
            "epochs": state.history,
            "best_epoch": state.best_epoch,
            "weights": model.count_params(),
            "parameters": parameters.to_json(),
        },
    )
