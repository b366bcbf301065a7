"""TransMIL: self-attention among the instances, and their places."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from components.mil.heads.nystrom import NystromAttention
from components.mil.heads.protocol import CHUNK, BagHead, Floats, Pieces


@keras.saving.register_keras_serializable(package="bagline")
class TransMIL(BagHead):
    """TransMIL (Shao et al. 2021, Transformer based Correlated Multiple Instance Learning, algorithms 2 and 3).

    Instances are projected (dense, ReLU), their sequence is filled up to a square with its own beginning, a class token
    is put before it, and it goes through Nyström attention, PPEG and Nyström attention, both with a residual after
    layer normalisation; the class token then gives the logits. PPEG lays the sequence out as a square and adds
    depthwise convolutions of 7, 5 and 3. So the order of the instances matters, by design: with tiles in reading order
    it stands for their place. Only a bag of one instance has no order.

    Attention is the class token's in the last layer, mean over its heads, with what the approximation makes negative
    taken as 0.

    Args:
        classes: number of classes.
        width: length of a token, a multiple of 8; the paper's is 512.
        landmarks: of each layer; the paper's is half the width.
        dropout: share of each layer's output dropped in training.
    """

    def __init__(
        self, classes: int, width: int = 128, landmarks: int = 64, dropout: float = 0.0, **options: Any
    ) -> None:
        super().__init__(classes, **options)
        self.width, self.landmarks, self.dropout = width, landmarks, dropout
        self.project = keras.layers.Dense(width, activation="relu", name="project")
        self.norms = [keras.layers.LayerNormalization(epsilon=1e-5, name=f"norm_{number}") for number in (1, 2, 3)]
        self.attentions = [
            NystromAttention(width, landmarks=landmarks, name=f"attention_{number}") for number in (1, 2)
        ]
        self.drops = [keras.layers.Dropout(dropout, name=f"drop_{number}", seed=number) for number in (1, 2)]
        self.places = [keras.layers.DepthwiseConv2D(side, padding="same", name=f"places_{side}") for side in (7, 5, 3)]
        self.classifier = keras.layers.Dense(classes, dtype="float32", name="classifier")

    def build(self, input_shape: Any) -> None:
        """Makes the weights for instances of `input_shape` [b, n, d]."""
        self.project.build((None, input_shape[-1]))
        initial = keras.initializers.RandomNormal(stddev=1.0)
        self.token = self.add_weight(shape=(self.width,), initializer=initial, name="token")
        for layer in (*self.norms, *self.attentions):
            layer.build((None, None, self.width))
        for layer in self.places:
            layer.build((None, None, None, self.width))
        self.classifier.build((None, self.width))
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = ("width", "landmarks", "dropout")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    def call(self, instances: Any, mask: Any, training: bool | None = None) -> dict[str, Any]:
        """Logits and attention of padded bags."""
        return self._correlate(self.project(instances), mask, training=training)

    def _correlate(self, tokens: Any, mask: Any, training: bool | None = None, together: bool = True) -> dict[str, Any]:
        count = ops.sum(ops.cast(mask, "int32"), axis=1, keepdims=True)
        most = ops.shape(tokens)[1]
        side, longest = _side(count), _side(most)
        at = ops.expand_dims(ops.arange(longest * longest), 0)
        held = ops.logical_and(at < side * side, count > 0)
        repeated = ops.where(at < count, at, at - count)  # the beginning again, to fill the square
        repeated = ops.clip(repeated, 0, most - 1)
        square = _take(tokens, repeated) * _like(held, tokens)
        first = ops.broadcast_to(self.token, (ops.shape(tokens)[0], 1, self.width))
        sequence = ops.concatenate([ops.cast(first, square.dtype), square], axis=1)
        held = ops.concatenate([ops.ones_like(held[:, :1]), held], axis=1)
        made, _ = self.attentions[0](self.norms[0](sequence), held, together=together)
        sequence = (sequence + self.drops[0](made, training=training)) * _like(held, sequence)
        square = self._place(sequence[:, 1:], at, side, longest)
        sequence = ops.concatenate([sequence[:, :1], square], axis=1) * _like(held, sequence)
        made, row = self.attentions[1](self.norms[1](sequence), held, together=together)
        first = sequence[:, 0] + self.drops[1](made, training=training)[:, 0]
        logits = self.classifier(self.norms[2](first))
        return {"logits": logits, "attention": self._fold(row[:, 1:], repeated, mask, count)}

    def _place(self, square: Any, at: Any, side: Any, longest: Any) -> Any:
        """PPEG: tokens [b, s², w] that fill a square of `side` [b, 1] in a plane of `longest` × `longest`."""
        row, column = at // longest, at % longest
        inside = ops.logical_and(row < side, column < side)
        laid = _take(square, ops.where(inside, row * side + column, 0)) * _like(inside, square)
        plane = ops.reshape(laid, (-1, longest, longest, self.width))
        plane = sum((layer(plane) for layer in self.places), start=plane)
        return _take(
            ops.reshape(plane, ops.shape(laid)), ops.where(at < side * side, at // side * longest + at % side, 0)
        )

    def _fold(self, row: Any, repeated: Any, mask: Any, count: Any) -> Any:
        """The class token's attention to each instance [b, n], its repeat's added, as shares of 1."""
        row = ops.maximum(row, 0.0)
        most = ops.shape(mask)[1]
        at = ops.expand_dims(ops.arange(most), 0)
        again = ops.minimum(at + count, ops.shape(row)[1] - 1)
        came_again = ops.logical_and(at + count < ops.shape(row)[1], ops.take_along_axis(repeated, again, axis=1) == at)
        values = row[:, :most] + ops.where(came_again, ops.take_along_axis(row, again, axis=1), 0.0)
        values = (values + 1e-12) * ops.cast(mask, "float32")
        return values / ops.maximum(ops.sum(values, axis=1, keepdims=True), 1e-12)

    def stream(self, instances: Floats, chunk: int = CHUNK) -> tuple[Floats, Floats]:
        """One bag, projected in pieces; the attention heads one after the other."""
        tokens = ops.convert_to_tensor(Pieces(instances, chunk).apply(self.project)[None])
        out = self._correlate(tokens, ops.ones((1, len(instances)), "bool"), training=False, together=False)
        return ops.convert_to_numpy(out["logits"])[0], ops.convert_to_numpy(out["attention"])[0]


def _side(count: Any) -> Any:
    """The side of the smallest square that holds `count`."""
    if isinstance(count, int):
        return int(np.ceil(np.sqrt(count)))
    side = ops.cast(ops.floor(ops.sqrt(ops.cast(count, "float32"))), "int32")
    return ops.where(side * side < count, side + 1, side)


def _take(tokens: Any, at: Any) -> Any:
    return tf.gather(tokens, at, batch_dims=1)  # Keras's own would spread the indices over the width


def _like(held: Any, tokens: Any) -> Any:
    return ops.cast(ops.expand_dims(held, -1), tokens.dtype)
