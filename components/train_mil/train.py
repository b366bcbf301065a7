"""Trains a bag model on a tiled dataset and saves it with its history."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from components.mil.bags import (  # first: it silences TensorFlow's import
    Bag,
    index_bags,
    patients_without_tiles,
)

import tensorflow as tf  # isort: skip

from components.mil.checkpoint import State, training_key
from components.mil.determinism import seed_everything
from components.mil.embedding_source import load_encoder
from components.mil.encoders.registry import default_side
from components.mil.model import BagModel, create_bag_model, save_bag_model
from components.mil.stain import Reference
from components.mil.stain_sample import sample_reference
from components.records import storage
from components.records.dataset import TiledDataset
from components.records.embedded import FOLDER, EmbeddedDataset, EmbeddedSchema
from components.records.errors import InputError, WorkError, name_first
from components.records.provenance import code_version
from components.records.schema import SCHEMA_VERSION
from components.train_mil.loop import BagTrainer
from components.train_mil.parameters import TrainingParameters
from components.train_mil.shared_loop import SharedBagTrainer
from components.train_mil.workers import Workers, join_workers

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSummary:
    """What came of a training.

    Attributes:
        epochs: epochs run; best_epoch is the one whose weights were kept (1-based).
        val_loss, val_auc: of that epoch; None without a validation split.
        patients, slides, tiles: of the train split, those with tiles.
        seconds: of this process, without the epochs of an earlier one.
        manifest_hash, mpp, tile_px: of the dataset.
    """

    epochs: int
    best_epoch: int
    val_loss: float | None
    val_auc: float | None
    patients: int
    slides: int
    tiles: int
    seconds: float
    manifest_hash: str
    mpp: float | None
    tile_px: int

    def facts(self) -> dict[str, Any]:
        """What `provenance.artifact_metadata` takes."""
        names = ("manifest_hash", "patients", "slides", "tiles", "mpp", "tile_px")
        return {name: getattr(self, name) for name in names}


def train_mil(
    root: str,
    model_dir: str,
    training_dir: str,
    parameters: TrainingParameters,
    work_dir: str = "",
    split_table: str = "",
    embedded: str = "",
) -> TrainingSummary:
    """Trains on the train split of the tiled dataset at `root`, watching its validation split.

    With `TF_CONFIG` of several workers, or several GPUs, they train together; the chief alone writes.

    Args:
        root: a tiled dataset.
        model_dir: the saved Keras model goes here.
        training_dir: `history.json` and TensorBoard logs go here.
        parameters: how to train.
        work_dir: the state after each epoch is kept here; a training killed before goes on from it.
        split_table: a split manifest that counts instead of the dataset's, such as a fold's; empty for none.
        embedded: the dataset's embeddings, read instead of its tiles with `parameters.embeddings`.

    Raises:
        InputError: parameters, or a split that can't be trained on; embeddings of other records or another encoder.
        WorkError: records are damaged.
    """
    started = time.monotonic()
    parameters.check()
    workers = join_workers()
    dataset = TiledDataset(root, split_table)
    source = open_embedded(embedded, dataset, parameters) if parameters.embeddings else None
    train, validation = (index_bags(dataset, split, source.spans if source else None) for split in ("train", "val"))
    _check_bags(dataset, train, validation)
    prepare_determinism(parameters)
    reference = None if source else fit_stain(dataset, parameters, train)
    log.info(
        "training %s on %d patients, %d tiles; %d patients to validate",
        parameters.head,
        len(train),
        sum(len(bag.spans) for bag in train),
        len(validation),
    )
    if workers.strategy:
        log.info("worker %d of %d, %d devices in all", workers.index + 1, workers.count, workers.replicas)
    with workers.scope():
        model = build_model(dataset, parameters, reference, source)
        trainer = make_trainer(model, parameters, train, validation, workers, source.schema if source else None)
        state = trainer.fit(work_dir, training_key(parameters, dataset))
        check_history(state)
        if workers.is_chief:
            save_bag_model(model, model_dir)
            write_history(training_dir, state, parameters, model)
        if isinstance(trainer, SharedBagTrainer):
            trainer.meet()  # a worker that leaves takes the others down
    best = state.history[state.best_epoch - 1]
    return TrainingSummary(
        epochs=len(state.history),
        best_epoch=state.best_epoch,
        val_loss=best.get("val_loss"),
        val_auc=best.get("val_auc"),
        patients=len(train),
        slides=len({image_id for bag in train for image_id in bag.image_ids}),
        tiles=sum(len(bag.spans) for bag in train),
        seconds=time.monotonic() - started,
        manifest_hash=dataset.manifest.digest,
        mpp=dataset.schema.mpp,
        tile_px=dataset.schema.tile_px,
    )


def prepare_determinism(parameters: TrainingParameters) -> None:
    """Seeds Keras, asks TensorFlow for the same result from the same input, and sets the precision."""
    seed_everything(parameters.seed, mixed_precision=parameters.mixed_precision)


def open_embedded(root: str, dataset: TiledDataset, parameters: TrainingParameters) -> EmbeddedDataset:
    """The dataset's embeddings.

    Raises:
        InputError: there are none, or they are of other records, or of another encoder than the parameters'.
    """
    source = EmbeddedDataset(root or storage.join(dataset.root, FOLDER))
    source.check_source(dataset)
    made, mend = source.schema.encoder, "run `bagline embed` with these parameters"
    wanted: dict[str, Any] = {"name": parameters.encoder, "stain_normalisation": parameters.stain_normalisation}
    wanted |= {"input_px": parameters.input_px} if parameters.input_px else {}
    for name, value in wanted.items():
        if made[name] != value:
            raise InputError(f"are of {name} {made[name]!r}, not {value!r}", where=source.root, mend=mend)
    return source


def fit_stain(dataset: TiledDataset, parameters: TrainingParameters, train: Sequence[Bag]) -> Reference | None:
    """The colours that tiles are brought to, from a sample of the train slides; None without normalisation.

    Raises:
        InputError: no tile of the sample holds enough stain.
    """
    side = min(parameters.input_px or default_side(parameters.encoder), dataset.schema.tile_px)
    return sample_reference(dataset, parameters.stain_normalisation, train, seed=parameters.seed, side=side)


def build_model(
    dataset: TiledDataset,
    parameters: TrainingParameters,
    stain_reference: Reference | None = None,
    embedded: EmbeddedDataset | None = None,
) -> BagModel:
    """A fresh model for this dataset's tiles and labels, with its metadata; of tiles even where trained on embeddings.

    Raises:
        InputError: an encoder that can't be had, or isn't the one that the embeddings say.
    """
    schema = dataset.schema
    options: dict[str, Any] = parameters.to_json()
    metadata = {
        "schema_version": SCHEMA_VERSION,
        "code_version": code_version(),
        "manifest_hash": dataset.manifest.digest,
        "tile_px": schema.tile_px,
        "mpp": schema.mpp,
        "tiling": schema.parameters,
        "parameters": dict(options),
    }
    if stain_reference:
        metadata["stain_reference"] = stain_reference
        options["stain_reference"] = stain_reference
    frozen = load_encoder(embedded) if embedded else None
    if embedded:
        metadata["embeddings"] = dict(embedded.schema.encoder)
    return create_bag_model(
        tile_px=schema.tile_px, label_names=list(schema.labels), metadata=metadata, frozen=frozen, **options
    )


def _check_bags(dataset: TiledDataset, train: Sequence[Bag], validation: Sequence[Bag]) -> None:
    if not any(row.split for row in dataset.manifest.rows):
        raise InputError(
            "its records have no split",
            where=dataset.root,
            mend="run `bagline split`, then tile the split.csv it writes",
        )
    mend = "split again with other shares or another seed, or add patients"
    if len(dataset.schema.labels) < 2:
        raise InputError(f"has the one label {dataset.schema.labels[0]!r}", where=dataset.root, mend="add patients")
    if not train:
        raise InputError("has no train patient with a tile", where=dataset.root, mend=mend)
    missing = sorted(set(dataset.schema.labels) - {bag.label for bag in train})
    if missing:
        raise InputError(
            f"the train split has no patient labelled {', '.join(missing)} with a tile", where=dataset.root, mend=mend
        )
    if not validation:
        log.warning("there is no validation split: every epoch is run and the last one kept")
    elif len({bag.label for bag in validation}) < 2:
        raise InputError(
            f"every val patient is labelled {validation[0].label}: early stopping would see one class",
            where=dataset.root,
            mend=mend,
        )
    for split in ("train", "val"):
        empty = patients_without_tiles(dataset, split)
        if empty:
            log.warning("%d %s patients have no tile and are left out: %s", len(empty), split, name_first(empty))


def make_trainer(
    model: BagModel,
    parameters: TrainingParameters,
    train: Sequence[Bag],
    validation: Sequence[Bag],
    workers: Workers,
    embedded: EmbeddedSchema | None = None,
) -> BagTrainer:
    """The trainer for one device, or for several; to be called inside `workers.scope()`."""
    if workers.strategy is None:
        return BagTrainer(model, parameters, train, validation, embedded)
    return SharedBagTrainer(model, parameters, train, validation, workers, embedded)


def check_history(state: State) -> None:
    """Raises WorkError where a loss is not finite."""
    if not all(abs(value) < float("inf") for entry in state.history for value in entry.values()):
        raise WorkError("the loss is not finite", where="training", mend="lower learning_rate")


def write_history(training_dir: str, state: State, parameters: TrainingParameters, model: BagModel) -> None:
    """Writes `history.json` and the TensorBoard logs of the whole training."""
    storage.write_json(
        storage.join(training_dir, "history.json"),
        {
            "epochs": state.history,
            "best_epoch": state.best_epoch,
            "label_names": model.label_names,
            "weights": model.count_params(),
            "parameters": parameters.to_json(),
        },
    )
    for split in ("train", "val"):
        writer = tf.summary.create_file_writer(storage.join(training_dir, "tensorboard", split))
        with writer.as_default():
            for entry in state.history:
                _log_entry(split, entry)
        writer.close()


def _log_entry(split: str, entry: dict[str, float]) -> None:
    # tf.summary.scalar needs the tensorboard package; the event it writes does not
    kind = tf.compat.v1.SummaryMetadata(plugin_data={"plugin_name": "scalars"})
    for name, value in entry.items():
        of, _, measure = name.rpartition("_")
        if name not in ("epoch", "seconds") and (of == "val") == (split == "val"):
            tf.summary.write(measure, tf.constant(value, tf.float32), step=int(entry["epoch"]), metadata=kind)
