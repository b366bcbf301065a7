"""The training loop: epochs of bags, validation, the best weights, and going on where a killed run was."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.mil.augmentation import augment_tiles
from components.mil.bags import Bag, TileSource, order_bags, sample_spans, spread_spans
from components.mil.checkpoint import State, load_state, save_state
from components.mil.embedding_source import EmbeddingSource
from components.mil.encoders.frozen import split_projection
from components.mil.encoders.small_cnn import scale_to_data
from components.mil.model import BagModel
from components.mil.optimizer import CLIPNORM, create_optimizer
from components.records.embedded import EmbeddedSchema
from components.records.provenance import derive_seed
from components.train_mil.measures import balanced_weights, mean_auc
from components.train_mil.parameters import TrainingParameters

import keras  # isort: skip  (after components.mil, which silences TensorFlow's import)
import tensorflow as tf  # isort: skip

log = logging.getLogger(__name__)

SCALE_TILES = 512


class BagTrainer:
    """Trains one bag model.

    Args:
        model: the model; its weights are trained in place.
        parameters: how.
        train, validation: the bags; without validation bags every epoch is run and the last one kept.
        embedded: the bags' spans are embeddings of this schema, not tiles.
    """

    def __init__(
        self,
        model: BagModel,
        parameters: TrainingParameters,
        train: Sequence[Bag],
        validation: Sequence[Bag],
        embedded: EmbeddedSchema | None = None,
    ) -> None:
        self.whole = model
        self.learner = model.without_frozen()
        self.embedded = embedded
        self.model = self.learner if embedded else model
        self.parameters = parameters
        self.bags = list(train)
        self.validation = list(validation)
        self.writes = True
        self.source = self._open_source()
        steps = self._steps_per_epoch() * parameters.epochs
        optimizer = create_optimizer(parameters, steps, self._clipnorm())
        if keras.mixed_precision.global_policy().name == "mixed_float16":
            optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
        optimizer.build(model.trainable_variables)
        self.optimizer = optimizer
        classes = len(model.label_names)
        labels = np.array([bag.label_index for bag in self.bags])
        weights = balanced_weights(labels, classes) if parameters.class_weights == "balanced" else np.ones(classes)
        self.class_weights = tf.constant(weights, tf.float32)
        self._step = tf.function(self._train_step, reduce_retracing=True)
        self._predict = tf.function(lambda inputs: self.model(inputs, training=False), reduce_retracing=True)

    def fit(self, work_dir: str = "", key: str = "") -> State:
        """Trains to the end; the model then carries the best weights.

        Args:
            work_dir: where the state is kept after each epoch; nowhere when empty.
            key: what a state there must carry to be gone on with.
        """
        state = load_state(work_dir, key) if work_dir else None
        if state is None:
            self._scale_to_data()
            state = self._snapshot([], [], 0)
        self._restore(state)
        self._check_start(state)
        if state.history:
            log.info("going on after epoch %d of %d", len(state.history), self.parameters.epochs)
        for epoch in range(len(state.history) + 1, self.parameters.epochs + 1):
            if self._ran_out(state):
                break
            state = self._run_epoch(epoch, state)
            if work_dir and self.writes:
                save_state(work_dir, key, state)
        self.learner.set_weights(state.best or state.weights)
        return state

    def _open_source(self) -> TileSource | EmbeddingSource:
        if self.embedded:
            return EmbeddingSource(self.embedded)
        cache_bytes = self.parameters.cache_mb << 20
        return TileSource(
            self._own_bags(), tile_px=self.whole.tile_px, side=self.whole.input_px, cache_bytes=cache_bytes
        )

    def _scale_to_data(self) -> None:
        """Gives fresh layers the scale of a sample of the train bags."""
        parts = split_projection(self.whole.encoder)
        if self.parameters.encoder == "small_cnn":
            scale_to_data(self.whole.encoder, self.source.sample(self.bags, SCALE_TILES))
        elif parts:
            sample = self.source.sample(self.bags, SCALE_TILES)
            pieces = [sample[start : start + 64] for start in range(0, len(sample), 64)]
            if not self.embedded:
                pieces = [np.asarray(parts[0](piece, training=False)) for piece in pieces]
            parts[1].get_layer("standardise").adapt(np.concatenate(pieces).astype(np.float32))

    @property
    def _augments(self) -> bool:
        return self.parameters.augment and not self.embedded

    def _own_bags(self) -> list[Bag]:
        """The bags that this process reads."""
        return [*self.bags, *self.validation]

    def _steps_per_epoch(self) -> int:
        return -(-len(self.bags) // self.parameters.bags_per_batch)

    def _clipnorm(self) -> float | None:
        return CLIPNORM

    def _check_start(self, state: State) -> None:
        """Called before the first epoch with the state that was taken up."""

    def _run_epoch(self, epoch: int, state: State) -> State:
        started = time.monotonic()
        entry: dict[str, float] = {"epoch": epoch, **self._train_epoch(epoch), **self._validate()}
        entry["seconds"] = round(time.monotonic() - started, 3)
        history = [*state.history, entry]
        improved = "val_loss" not in entry or not any(e["val_loss"] <= entry["val_loss"] for e in state.history)
        parts = [f"epoch {epoch}/{self.parameters.epochs}"]
        parts += [f"{name} {entry[name]:.3f}" for name in ("loss", "val_loss", "val_auc") if name in entry]
        parts += [f"{entry['seconds']:.0f} s"] + ["(best)"] * ("val_loss" in entry and improved)
        log.info(" ".join(parts))
        if improved:
            return self._snapshot(history, self.learner.get_weights(), epoch)
        return self._snapshot(history, state.best, state.best_epoch)

    def _ran_out(self, state: State) -> bool:
        waited = len(state.history) - state.best_epoch
        if waited < self.parameters.patience or not state.history:
            return False
        log.info("no better validation loss for %d epochs: stopping", waited)
        return True

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        chosen = self.parameters
        data = self.source.batches(
            order_bags(self.bags, chosen.seed, epoch),
            lambda bag: sample_spans(bag, chosen.tiles_per_bag, chosen.seed, epoch),
            instances=chosen.tiles_per_bag,
            bags_per_batch=chosen.bags_per_batch,
        )
        losses, right, bags = [], 0, 0
        for number, (inputs, labels) in enumerate(data):
            seed = derive_seed(chosen.seed, "augmentation", epoch, number)
            loss, correct = self._step(inputs, labels, tf.constant([seed >> 32, seed & 0x7FFFFFFF], tf.int32))
            count = int(labels.shape[0])
            losses.append(float(loss) * count)
            right += int(correct)
            bags += count
        return {"loss": sum(losses) / bags, "accuracy": right / bags}

    def _train_step(self, inputs: dict[str, Any], labels: Any, seed: Any) -> tuple[Any, Any]:
        tiles = augment_tiles(inputs["tiles"], seed) if self._augments else inputs["tiles"]
        weights = tf.gather(self.class_weights, labels)
        with tf.GradientTape() as tape:
            out = self.model({"tiles": tiles, "mask": inputs["mask"]}, training=True)
            losses = self.model.head.losses(out, labels)
            loss = tf.reduce_mean(losses * weights)
            if self.model.losses:
                loss += tf.add_n(self.model.losses)
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self.model.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.model.trainable_variables, strict=True))
        predicted = tf.argmax(out["logits"], axis=-1, output_type=tf.int32)
        return loss, tf.reduce_sum(tf.cast(predicted == labels, tf.int32))

    def _validate(self) -> dict[str, float]:
        if not self.validation:
            return {}
        found, truth = self._predict_validation(), np.array([bag.label_index for bag in self.validation])
        weights = self.class_weights.numpy().astype(np.float64)[truth]
        losses = -np.log(np.clip(found[np.arange(len(truth)), truth], 1e-7, 1.0))
        entry = {
            "val_loss": float((losses * weights).sum() / weights.sum()),
            "val_accuracy": float((found.argmax(axis=1) == truth).mean()),
        }
        auc = mean_auc(found, truth)
        return entry if auc is None else {**entry, "val_auc": auc}

    def _predict_validation(self) -> NDArray[np.float64]:
        """Probabilities [validation bags, classes]."""
        return self._predict_bags(self.validation)

    def _predict_bags(self, bags: Sequence[Bag]) -> NDArray[np.float64]:
        most = min(self.parameters.validation_tiles, max(len(bag.spans) for bag in self.validation))
        data = self.source.batches(bags, lambda bag: spread_spans(bag, most), instances=most, bags_per_batch=1)
        return np.array([self._predict(inputs)["probabilities"].numpy()[0] for inputs, _ in data], np.float64)

    def _snapshot(self, history: list[dict[str, float]], best: list[Any], best_epoch: int) -> State:
        optimizer = [variable.numpy() for variable in self.optimizer.variables]
        return State(self.learner.get_weights(), optimizer, best, best_epoch, history)

    def _restore(self, state: State) -> None:
        self.learner.set_weights(state.weights)
        for variable, value in zip(self.optimizer.variables, state.optimizer, strict=True):
            variable.assign(value)
