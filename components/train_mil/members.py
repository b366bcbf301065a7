"""Several trainings at once on bags of embeddings: folds and seeds as members of one stack of weights.

Small models on small sets spend their time between the steps. Here every step is one compiled graph for all members,
whose weights lie stacked [members, ...]; each member has its own bags, its own order and its own optimizer state.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.mil.model import BagModel
from components.mil.optimizer import create_optimizer
from components.mil.standardise import measure_scale
from components.records.provenance import derive_seed
from components.train_mil.measures import balanced_weights
from components.train_mil.parameters import TrainingParameters

import keras  # isort: skip  (after components.mil, which silences TensorFlow's import)
import tensorflow as tf  # isort: skip

log = logging.getLogger(__name__)

Integers = NDArray[np.int64]
PREDICT_VALUES = 1 << 24


@dataclass(frozen=True)
class EmbeddedBags:
    """Bags of embeddings, one after the other.

    Attributes:
        instances: float16 or float32 [instances, d].
        starts: int [bags + 1]; bag b holds instances starts[b] to starts[b + 1].
        labels: int [bags].
    """

    instances: NDArray[Any]
    starts: Integers
    labels: Integers

    @property
    def sizes(self) -> Integers:
        """Instances of each bag."""
        return np.diff(self.starts)

    def rows(self, bag: int) -> Integers:
        """Where the bag's instances lie."""
        return np.arange(self.starts[bag], self.starts[bag + 1])


@dataclass(frozen=True)
class Member:
    """One training: its bags, and the seed of its weights and of all its choices."""

    bags: Sequence[int]
    seed: int


class MemberTrainer:
    """Trains models of one kind side by side.

    Args:
        build: a fresh model whose encoder is `build_dense`'s; called once a seed.
        parameters: how; `bags_per_batch`, `tiles_per_bag`, `epochs`, rates and class weights are each member's.
        bags: what all members draw from.
        members: the trainings.
        compiled: through XLA; on a CPU its start costs more than these steps.
    """

    def __init__(
        self,
        build: Callable[[], BagModel],
        parameters: TrainingParameters,
        bags: EmbeddedBags,
        members: Sequence[Member],
        compiled: bool = False,
    ) -> None:
        self.parameters, self.bags, self.members = parameters, bags, list(members)
        self.most = int(min(parameters.tiles_per_bag, bags.sizes.max()))
        self.instances = tf.constant(np.asarray(bags.instances, np.float32))
        self._stack_models(build)
        if hasattr(self.model.head, "pool"):
            self._scale_pooled()
        counts = [len(member.bags) for member in self.members]
        self.steps = max(1, round(max(counts) / parameters.bags_per_batch))
        self.batch = -(-max(counts) // self.steps)
        self.optimizer = create_optimizer(parameters, self.steps * parameters.epochs, clip=None)
        self.optimizer.build(self.trained)
        classes = len(self.model.label_names)
        self.class_weights = np.ones((len(self.members), classes), np.float32)
        if parameters.class_weights == "balanced":
            for number, member in enumerate(self.members):
                self.class_weights[number] = balanced_weights(bags.labels[list(member.bags)], classes)
        self._step = tf.function(self._train_step, jit_compile=compiled)
        self._predict = tf.function(self._predict_step, reduce_retracing=True)

    def _stack_models(self, build: Callable[[], BagModel]) -> None:
        fresh: dict[int, tuple[list[Any], list[Any]]] = {}
        for seed in {member.seed: None for member in self.members}:
            keras.utils.set_random_seed(derive_seed(seed, "weights") % 2**32)
            self.model = build()
            trained = [variable.numpy() for variable in self.model.trainable_variables]
            fresh[seed] = trained, [variable.numpy() for variable in self.model.non_trainable_variables]
        trained = [np.stack(values) for values in zip(*(fresh[member.seed][0] for member in self.members), strict=True)]
        fixed = [np.stack(values) for values in zip(*(fresh[member.seed][1] for member in self.members), strict=True)]
        scales = [self._measure_scale(member) for member in self.members]
        for number, variable in enumerate(self.model.non_trainable_variables):
            if "seed" in variable.name:
                for at, member in enumerate(self.members):
                    fixed[number][at] = derive_seed(member.seed, "dropout", number) % 2**31, at
            elif variable.path.startswith("standardise/"):
                fixed[number] = np.stack([scale[variable.name] for scale in scales])
        self.trained = [
            keras.Variable(values, name=variable.name)
            for values, variable in zip(trained, self.model.trainable_variables, strict=True)
        ]
        self.fixed = [
            keras.Variable(values, name=variable.name, dtype=variable.dtype, trainable=False)
            for values, variable in zip(fixed, self.model.non_trainable_variables, strict=True)
        ]

    def _measure_scale(self, member: Member) -> dict[str, Any]:
        rows = np.concatenate([self.bags.rows(bag) for bag in member.bags])
        mean, deviation = measure_scale(self.bags.instances[rows])
        return {"mean": mean, "deviation": deviation}

    def _scale_pooled(self) -> None:
        """Brings what the head pools of a member's bags to mean 0 and deviation 1 (Salimans & Kingma 2016, eq. 5)."""
        fixed = self.model.non_trainable_variables
        at = {variable.path.rpartition("head/")[2]: number for number, variable in enumerate(fixed)}
        places = [at["scale/mean"], at["scale/deviation"]]
        values = [self.fixed[place].numpy() for place in places]
        for number, member in enumerate(self.members):
            model, pooled = self.model_of(number), []
            for start in range(0, len(member.bags), 16):
                rows, mask = self._lay_out(np.asarray(member.bags[start : start + 16]))
                found = model.encoder(tf.gather(self.instances, rows.reshape(-1)))
                pooled.append(model.head.pool(tf.reshape(found, (*rows.shape, -1)), mask)[0].numpy())
            for value, measured in zip(values, measure_scale(np.concatenate(pooled)), strict=True):
                value[number] = measured
        for place, value in zip(places, values, strict=True):
            self.fixed[place].assign(value)

    def _lay_out(self, chosen: Integers) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Rows int32 [bags, n] and mask of whole bags, padded to the longest of them."""
        sizes = self.bags.sizes[chosen]
        rows = self.bags.starts[chosen][:, None] + np.arange(sizes.max())[None]
        mask = np.arange(sizes.max())[None] < sizes[:, None]
        return np.where(mask, rows, 0).astype(np.int32), mask

    def fit(self) -> list[dict[str, float]]:
        """Trains every member for all epochs; gives each epoch's mean loss over the members."""
        history = []
        for epoch in range(1, self.parameters.epochs + 1):
            losses = [self._step(*batch) for batch in self._draw_epoch(epoch)]
            history.append({"epoch": epoch, "loss": float(np.mean([loss.numpy() for loss in losses]))})
        return history

    def _draw_epoch(self, epoch: int) -> Iterator[tuple[Any, ...]]:
        """Batches: rows int32 [members, b, n], mask bool of that shape, labels int32 and weights [members, b]."""
        shape = (len(self.members), self.steps * self.batch)
        rows = np.zeros((*shape, self.most), np.int32)
        mask = np.zeros((*shape, self.most), bool)
        labels, weights = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        for number, member in enumerate(self.members):
            generator = np.random.default_rng(derive_seed(member.seed, "order", number, epoch))
            order = generator.permutation(np.asarray(member.bags))
            # the empty places of the last batches are shared out over all
            places = np.arange(shape[1]).reshape(self.batch, self.steps).T.ravel().argsort(kind="stable")
            for place, bag in zip(places, order, strict=False):
                found = self.bags.rows(bag)
                if len(found) > self.most:
                    found = np.sort(generator.choice(found, self.most, replace=False))
                rows[number, place, : len(found)] = found
                mask[number, place, : len(found)] = True
            filled = places[: len(order)]
            labels[number, filled] = self.bags.labels[order]
            weights[number, filled] = self.class_weights[number][self.bags.labels[order]]
        for start in range(0, shape[1], self.batch):
            at = slice(start, start + self.batch)
            yield tuple(tf.constant(values[:, at]) for values in (rows, mask, labels, weights))

    def _forward(self, trained: Any, fixed: Any, rows: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        tiles = tf.gather(self.instances, rows)
        out, fixed = self.model.stateless_call(trained, fixed, {"tiles": tiles, "mask": mask}, training=training)
        return out, fixed

    def _train_step(self, rows: Any, mask: Any, labels: Any, weights: Any) -> Any:
        trained = [variable.value for variable in self.trained]

        def one(given: tuple[Any, ...]) -> tuple[Any, Any]:
            weights_of, fixed, rows, mask, labels, weights = given
            out, fixed = self._forward(weights_of, fixed, rows, mask, training=True)
            losses = self.model.head.losses(out, labels)
            return tf.reduce_sum(losses * weights) / tf.reduce_sum(tf.cast(weights > 0, tf.float32)), fixed

        with tf.GradientTape() as tape:
            tape.watch(trained)
            fixed = [variable.value for variable in self.fixed]
            losses, fixed = tf.vectorized_map(one, (trained, fixed, rows, mask, labels, weights))
            total = tf.reduce_sum(losses)
        gradients = [_clip_members(gradient) for gradient in tape.gradient(total, trained)]
        self.optimizer.apply(gradients, self.trained)
        for variable, value in zip(self.fixed, fixed, strict=True):
            variable.assign(value)
        return losses

    def _predict_step(self, rows: Any, mask: Any) -> Any:
        def one(given: tuple[Any, Any]) -> Any:
            return self._forward(given[0], given[1], rows, mask, training=False)[0]["probabilities"]

        stacked = [variable.value for variable in self.trained], [variable.value for variable in self.fixed]
        return tf.vectorized_map(one, stacked)

    def predict(self, chosen: Sequence[int] | None = None) -> NDArray[np.float64]:
        """What every member says of bags (of all, or of `chosen`), each with all its instances.

        Returns:
            float64 [members, bags, classes].
        """
        wanted = np.arange(len(self.bags.labels)) if chosen is None else np.asarray(chosen)
        sizes = self.bags.sizes[wanted]
        room = 2 ** np.ceil(np.log2(np.maximum(sizes, 4))).astype(int)
        made = np.zeros((len(self.members), len(wanted), len(self.model.label_names)))
        for most in np.unique(room):
            group = np.flatnonzero(room == most)
            width = max(self.instances.shape[1], 128)
            each = max(1, PREDICT_VALUES // (int(most) * width * len(self.members)))
            for start in range(0, len(group), each):
                at = group[start : start + each]
                rows, mask = np.zeros((len(at), most), np.int32), np.zeros((len(at), most), bool)
                for number, index in enumerate(at):
                    found = self.bags.rows(wanted[index])
                    rows[number, : len(found)], mask[number, : len(found)] = found, True
                made[:, at] = self._predict(tf.constant(rows), tf.constant(mask)).numpy()
        return made

    def model_of(self, number: int) -> BagModel:
        """The model with that member's weights; the next call changes it."""
        for variable, values in zip(self.model.trainable_variables, self.trained, strict=True):
            variable.assign(values.value[number])
        for variable, values in zip(self.model.non_trainable_variables, self.fixed, strict=True):
            variable.assign(values.value[number])
        return self.model


def _clip_members(gradient: Any, most: float = 1.0) -> Any:
    """Each member's gradient of one weight, brought down to norm `most`."""
    axes = list(range(1, len(gradient.shape)))
    norm = tf.sqrt(tf.reduce_sum(tf.square(gradient), axes, keepdims=True))
    return gradient * tf.minimum(1.0, most / tf.maximum(norm, 1e-12))
