"""The training loop of several workers or GPUs: each reads its own bags, and every step is of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.mil.augmentation import augment_tiles
from components.mil.bags import Bag, order_bags, sample_spans
from components.mil.checkpoint import State
from components.mil.model import BagModel
from components.mil.optimizer import CLIPNORM
from components.records.embedded import EmbeddedSchema
from components.records.errors import InputError, WorkError
from components.records.provenance import derive_seed
from components.train_mil.loop import BagTrainer
from components.train_mil.parameters import TrainingParameters
from components.train_mil.workers import Workers, deal_bags

import tensorflow as tf  # isort: skip  (after components.mil, which silences TensorFlow's import)


class SharedBagTrainer(BagTrainer):
    """Trains one bag model on several devices; to be made and used inside `workers.scope()`.

    A step is of `bags_per_batch` bags in all, so that a training means the same on one device and on many. A device
    without a bag left in a step takes part with one that has no weight. Gradients are added up over all devices and
    clipped then; validation bags are dealt too, and every worker comes to the same loss and the same decisions.

    Args:
        model, parameters, train, validation, embedded: as in `BagTrainer`, the same in every worker.
        workers: who trains along.

    Raises:
        InputError: there are more workers than bags.
    """

    def __init__(
        self,
        model: BagModel,
        parameters: TrainingParameters,
        train: Sequence[Bag],
        validation: Sequence[Bag],
        workers: Workers,
        embedded: EmbeddedSchema | None = None,
    ) -> None:
        if len(train) < workers.count:
            raise InputError(
                f"{workers.count} workers for {len(train)} train patients",
                where="training",
                mend=f"ask for {len(train)} workers or fewer",
            )
        self.workers = workers
        self.strategy = workers.strategy
        self.local = workers.replicas // workers.count
        self.per_replica = -(-parameters.bags_per_batch // workers.replicas)
        self.shards = deal_bags(train, workers.count)
        super().__init__(model, parameters, train, validation, embedded)
        self.writes = workers.is_chief
        self._shared_step = tf.function(
            lambda *given: self.strategy.run(self._replica_step, given), reduce_retracing=True
        )

    def fit(self, work_dir: str = "", key: str = "") -> State:
        """As `BagTrainer.fit`; the chief alone writes the state, and every worker goes on from it."""
        state = super().fit(work_dir, key)
        self.meet()
        return state

    def meet(self) -> None:
        """Waits until every worker is here."""
        self._add_up(np.zeros(1))

    def _own_bags(self) -> list[Bag]:
        return [*self.shards[self.workers.index], *self._own_validation()]

    def _own_validation(self) -> list[Bag]:
        return self.validation[self.workers.index :: self.workers.count]

    def _steps_per_epoch(self) -> int:
        return -(-max(len(shard) for shard in self.shards) // (self.per_replica * self.local))

    def _clipnorm(self) -> float | None:
        return None  # Keras would clip each device's gradients before they are added up

    def _check_start(self, state: State) -> None:
        total = self._add_up(np.array([len(state.history)], np.float64))[0]
        if total != len(state.history) * self.workers.count:
            raise WorkError(
                "the workers found different checkpoints", where="training", mend="give them one checkpoint folder"
            )

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        chosen, each = self.parameters, self.per_replica * self.local
        mine = order_bags(self.shards[self.workers.index], chosen.seed, epoch)
        steps = self._steps_per_epoch()
        data = self.source.batches(
            mine + [mine[0]] * (steps * each - len(mine)),
            lambda bag: sample_spans(bag, chosen.tiles_per_bag, chosen.seed, epoch),
            instances=chosen.tiles_per_bag,
            bags_per_batch=each,
        )
        losses, right = 0.0, 0
        for number, (inputs, labels) in enumerate(data):
            bags = sum(min(each, max(0, len(shard) - number * each)) for shard in self.shards)
            real = np.arange(number * each, (number + 1) * each) < len(mine)
            shares = tf.constant(real / bags, tf.float32)
            seeds = tf.constant([self._seed(epoch, number, replica) for replica in range(self.local)], tf.int32)
            given = [self._spread(value) for value in (inputs["tiles"], inputs["mask"], labels, shares)]
            loss, correct = self._shared_step(*given, self._spread(seeds))
            losses += float(self._here(loss)) * bags
            right += int(self._here(correct))
        return {"loss": losses / len(self.bags), "accuracy": right / len(self.bags)}

    def _seed(self, epoch: int, number: int, replica: int) -> list[int]:
        seed = derive_seed(
            self.parameters.seed, "augmentation", epoch, number, self.workers.index * self.local + replica
        )
        return [seed >> 32, seed & 0x7FFFFFFF]

    def _replica_step(self, tiles: Any, mask: Any, labels: Any, shares: Any, seeds: Any) -> tuple[Any, Any]:
        context = tf.distribute.get_replica_context()
        tiles = augment_tiles(tiles, seeds[0]) if self._augments else tiles
        weights = tf.gather(self.class_weights, labels) * shares
        with tf.GradientTape() as tape:
            out = self.model({"tiles": tiles, "mask": mask}, training=True)
            losses = self.model.head.losses(out, labels)
            loss = tf.reduce_sum(losses * weights)
            if self.model.losses:
                loss += tf.add_n(self.model.losses) * tf.reduce_sum(shares)
            scaled = self.optimizer.scale_loss(loss)
        variables = self.model.trainable_variables
        pairs = [pair for pair in zip(tape.gradient(scaled, variables), variables, strict=True) if pair[0] is not None]
        limit = self.optimizer.scale_loss(tf.constant(CLIPNORM))
        added = context.all_reduce(tf.distribute.ReduceOp.SUM, [gradient for gradient, _ in pairs])
        clipped = [
            tf.clip_by_norm(gradient, limit) / self.workers.replicas for gradient in added
        ]  # Keras adds up again
        self.optimizer.apply_gradients(zip(clipped, [variable for _, variable in pairs], strict=True))
        predicted = tf.argmax(out["logits"], axis=-1, output_type=tf.int32)
        correct = tf.reduce_sum(tf.cast((predicted == labels) & (shares > 0), tf.int32))
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, [loss, tf.cast(correct, tf.float32)])
        return total[0], total[1]

    def _predict_validation(self) -> NDArray[np.float64]:
        found = np.zeros((len(self.validation), len(self.model.label_names)))
        own = self._predict_bags(self._own_validation())
        found[self.workers.index :: self.workers.count] = own.reshape(-1, found.shape[1])
        return self._add_up(found)

    def _spread(self, values: Any) -> Any:
        """Cuts a tensor [local replicas × n, …] of this worker into one [n, …] a replica."""
        pieces = tf.split(values, self.local)
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: pieces[context.replica_id_in_sync_group % self.local]
        )

    def _here(self, value: Any) -> Any:
        return self.strategy.experimental_local_results(value)[0]

    def _add_up(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum over workers, the same in each."""
        zeros = np.zeros_like(values)
        spread = self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(values if context.replica_id_in_sync_group % self.local == 0 else zeros)
        )
        return np.asarray(self.strategy.reduce(tf.distribute.ReduceOp.SUM, spread, axis=None))
