"""The training loop: epochs of tiles, validation, the best weights, and going on where a killed run was."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.mil.augmentation import augment_stain, augment_tiles
from components.mil.bags import TileSource
from components.mil.checkpoint import State, load_state, save_state
from components.mil.encoders.small_cnn import scale_to_data
from components.mil.optimizer import create_optimizer
from components.mil.tile_model import encoder_of, logits_of
from components.mil.tiles import TileTable
from components.records.provenance import derive_seed
from components.statistics.delong import estimate_auc
from components.train_tiles.losses import focal_loss, weighted_loss
from components.train_tiles.parameters import TileTrainingParameters
from components.train_tiles.sampling import choose_tiles, class_weights, spread_tiles

import keras  # isort: skip  (after components.mil, which silences TensorFlow's import)
import tensorflow as tf  # isort: skip

log = logging.getLogger(__name__)

SCALE_TILES = 512
_SMALLEST = 1e-7


class TileReader:
    """Reads tiles of a table by number, shrunk to `side` px: kept in memory where they fit, else streamed each time."""

    def __init__(self, table: TileTable, tile_px: int, side: int, cache_bytes: int) -> None:
        self._table = table
        self._source = TileSource([], tile_px=tile_px, side=side)
        self._kept: NDArray[np.uint8] | None = None
        if len(table) * side * side * 3 <= cache_bytes:
            kept = np.empty((len(table), side, side, 3), np.uint8)
            at = 0
            for tiles in self.stream(np.arange(len(table)), 64):
                kept[at : at + len(tiles)] = tiles
                at += len(tiles)
            self._kept = kept

    @property
    def bytes(self) -> int:
        """What the kept tiles take."""
        return 0 if self._kept is None else self._kept.nbytes

    def stream(self, numbers: NDArray[np.int64], size: int) -> Iterator[NDArray[np.uint8]]:
        """Batches uint8 [size, side, side, 3] of these tiles in order; the last may be smaller.

        Raises:
            WorkError: a part is missing or damaged, or a tile does not decode.
        """
        if self._kept is not None:
            yield from (self._kept[numbers[at : at + size]] for at in range(0, len(numbers), size))
        elif len(numbers):
            yield from self._source.stream(self._table.spans(numbers), size)


class TileTrainer:
    """Trains one tile classifier.

    Args:
        model: its weights are trained in place.
        parameters: how.
        train, validation: the tiles; without validation tiles every epoch is run and the last one kept.
        tile_px: side of a stored tile, px.
        side: that the encoder shrinks tiles to, px.
    """

    def __init__(
        self,
        model: keras.Model,
        parameters: TileTrainingParameters,
        train: TileTable,
        validation: TileTable,
        *,
        tile_px: int,
        side: int,
    ) -> None:
        self.model = model
        self.parameters = parameters
        self.labels = train.labels
        chosen = spread_tiles(len(validation), parameters.validation_tiles)
        self._validation, self._truth = chosen, validation.labels[chosen]
        room = parameters.cache_mb << 20
        self._train = TileReader(train, tile_px, side, room)
        self._val = TileReader(validation, tile_px, side, room - self._train.bytes)
        self._weights = class_weights(train.labels) if parameters.imbalance == "class_weights" else (1.0, 1.0)
        steps = -(-len(self._choose(1)) // parameters.batch_tiles) * parameters.epochs
        self.optimizer = create_optimizer(parameters, steps)
        self.optimizer.build(model.trainable_variables)
        self._logits = logits_of(model)
        self._step = tf.function(self._train_step, reduce_retracing=True)
        self._predict = tf.function(lambda tiles: self.model(tiles, training=False)[:, 0], reduce_retracing=True)

    def fit(self, work_dir: str = "", key: str = "") -> State:
        """Trains to the end; the model then carries the best weights.

        Args:
            work_dir: where the state is kept after each epoch; nowhere when empty.
            key: what a state there must carry to be gone on with.
        """
        state = load_state(work_dir, key) if work_dir else None
        if state is None:
            if self.parameters.encoder == "small_cnn":
                some = spread_tiles(len(self.labels), SCALE_TILES)
                scale_to_data(encoder_of(self.model), next(self._train.stream(some, len(some))))
            state = self._snapshot([], [], 0)
        self.model.set_weights(state.weights)
        for variable, value in zip(self.optimizer.variables, state.optimizer, strict=True):
            variable.assign(value)
        if state.history:
            log.info("going on after epoch %d of %d", len(state.history), self.parameters.epochs)
        for epoch in range(len(state.history) + 1, self.parameters.epochs + 1):
            if self._ran_out(state):
                break
            state = self._run_epoch(epoch, state)
            if work_dir:
                save_state(work_dir, key, state)
        self.model.set_weights(state.best or state.weights)
        return state

    def _choose(self, epoch: int) -> NDArray[np.int64]:
        given = self.parameters
        return choose_tiles(
            self.labels,
            given.imbalance,
            seed=given.seed,
            epoch=epoch,
            lesion_share=given.lesion_share,
            most=given.tiles_per_epoch,
        )

    def _run_epoch(self, epoch: int, state: State) -> State:
        started = time.monotonic()
        entry: dict[str, float] = {"epoch": epoch, **self._train_epoch(epoch), **self._validate()}
        entry["seconds"] = round(time.monotonic() - started, 3)
        told = ", ".join(f"{name} {value:.4f}" for name, value in entry.items() if name not in ("epoch", "seconds"))
        log.info("epoch %d of %d: %s", epoch, self.parameters.epochs, told)
        history = [*state.history, entry]
        if (
            not state.best_epoch
            or _rank(entry) > _rank(state.history[state.best_epoch - 1])
            or not self._has_validation
        ):
            return self._snapshot(history, self.model.get_weights(), epoch)
        return self._snapshot(history, state.best, state.best_epoch)

    @property
    def _has_validation(self) -> bool:
        return len(self._truth) > 0

    def _ran_out(self, state: State) -> bool:
        if not self._has_validation or len(state.history) - state.best_epoch < self.parameters.patience:
            return False
        log.info("no better validation AUC for %d epochs: stopping", self.parameters.patience)
        return True

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        chosen = self._choose(epoch)
        losses, at = 0.0, 0
        for number, tiles in enumerate(self._train.stream(chosen, self.parameters.batch_tiles)):
            labels = self.labels[chosen[at : at + len(tiles)]]
            seed = derive_seed(self.parameters.seed, "augmentation", epoch, number)
            loss = self._step(tiles, tf.constant(labels), tf.constant([seed >> 32, seed & 0x7FFFFFFF], tf.int32))
            losses += float(loss) * len(tiles)
            at += len(tiles)
        return {"loss": losses / at, "lesion_share": float((self.labels[chosen] == 1).mean())}

    def _train_step(self, tiles: Any, labels: Any, seed: Any) -> Any:
        given = self.parameters
        if given.augment:
            tiles = augment_tiles(tiles[None], seed)[0]
        if given.hed:
            tiles = augment_stain(tiles, seed, given.hed)
        with tf.GradientTape() as tape:
            logits = self._logits(tiles, training=True)[:, 0]
            if given.imbalance == "focal":
                losses = focal_loss(logits, labels, given.focal_gamma, given.focal_alpha)
            else:
                losses = weighted_loss(logits, labels, self._weights)
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, self.model.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.model.trainable_variables, strict=True))
        return loss

    def _validate(self) -> dict[str, float]:
        if not self._has_validation:
            return {}
        size = self.parameters.batch_tiles
        found = [self._predict(tiles).numpy() for tiles in self._val.stream(self._validation, size)]
        probabilities = np.concatenate(found).astype(np.float64)
        right = np.where(self._truth == 1, probabilities, 1 - probabilities)
        entry = {"val_loss": float(-np.log(np.clip(right, _SMALLEST, 1)).mean())}
        auc = estimate_auc(self._truth == 1, probabilities).auc
        return entry if auc is None else {**entry, "val_auc": auc}

    def _snapshot(self, history: list[dict[str, float]], best: list[Any], best_epoch: int) -> State:
        optimizer = [variable.numpy() for variable in self.optimizer.variables]
        return State(self.model.get_weights(), optimizer, best, best_epoch, history)


def _rank(entry: dict[str, float]) -> tuple[float, float]:
    """The higher the better: validation AUC where there is one, then validation loss."""
    return entry.get("val_auc", 0.0), -entry.get("val_loss", 0.0)
