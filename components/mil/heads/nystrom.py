"""Self-attention that grows linearly with the instances: softmax attention through landmarks."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from components.mil.heads.protocol import softmax_over_instances


@keras.saving.register_keras_serializable(package="bagline")
class NystromAttention(keras.layers.Layer):
    """Nyström attention (Xiong et al. 2021, Nyströmformer, eq. 13) as TransMIL uses it (Shao et al. 2021, eq. 6).

    Landmarks Q̃, K̃ are means over equal stretches of the sequence, softmax(QKᵀ) is taken to be
    softmax(QK̃ᵀ) softmax(Q̃K̃ᵀ)⁺ softmax(Q̃Kᵀ), the inverse comes of `iterations` steps of eq. 11, and a depthwise
    convolution of the values along the sequence is added. A sequence no longer than `landmarks` is its own landmarks,
    which makes it the exact attention as far as the inverse has converged. Landmarks are counted over what is there,
    so padding changes nothing.

    Args:
        width: length of a token, a multiple of `heads`.
        heads: attention heads.
        landmarks: at most.
        iterations: of the inverse.
        reach: tokens the convolution spans.
    """

    def __init__(
        self, width: int, heads: int = 8, landmarks: int = 64, iterations: int = 6, reach: int = 33, **options: Any
    ) -> None:
        super().__init__(**options)
        self.width, self.heads, self.landmarks = width, heads, landmarks
        self.iterations, self.reach = iterations, reach
        self.mix = keras.layers.Dense(width, name="mix")

    def build(self, input_shape: Any) -> None:
        """Makes the weights for tokens of `input_shape` [b, t, width]."""
        initial = keras.initializers.GlorotUniform()
        self.kernel = self.add_weight(shape=(self.width, 3 * self.width), initializer=initial, name="kernel")
        self.near = self.add_weight(shape=(self.reach, 1, self.heads, 1), initializer=initial, name="near")
        self.mix.build((None, self.width))
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = ("width", "heads", "landmarks", "iterations", "reach")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    def call(self, tokens: Any, mask: Any, together: bool = True) -> tuple[Any, Any]:
        """What each token becomes, and how much the first attends to each.

        Args:
            tokens: [b, t, width]; those of a sequence come first, padding last.
            mask: bool [b, t].
            together: all attention heads at once; one after the other takes an eighth of the memory.

        Returns:
            [b, t, width], and [b, t] as the mean over heads, 0 at padding; a little below 0 where the inverse is.
        """
        member = self._landmark_shares(mask)
        groups = [range(self.heads)] if together else [range(head, head + 1) for head in range(self.heads)]
        found = [self._attend(tokens, mask, member, group) for group in groups]
        mixed = self.mix(ops.concatenate([value for value, _ in found], axis=-1))
        return mixed, sum(row for _, row in found) / self.heads

    def _landmark_shares(self, mask: Any) -> tuple[Any, Any]:
        """The share of each token in each landmark [b, t, m], and which landmarks there are [b, m]."""
        length = ops.sum(ops.cast(mask, "int32"), axis=1, keepdims=True)
        count = ops.minimum(length, self.landmarks)
        at = ops.expand_dims(ops.arange(ops.shape(mask)[1]), 0) * count // ops.maximum(length, 1)
        numbers = ops.arange(self.landmarks)
        member = ops.logical_and(ops.expand_dims(at, -1) == numbers, ops.expand_dims(mask, -1))
        shares = ops.cast(member, "float32")
        return shares / ops.maximum(ops.sum(shares, axis=1, keepdims=True), 1.0), ops.expand_dims(numbers, 0) < count

    def _attend(self, tokens: Any, mask: Any, member: tuple[Any, Any], group: range) -> tuple[Any, Any]:
        """The attention heads of `group`: values [b, t, g × w] and the first token's attention, summed, [b, t]."""
        shares, there = member
        size = self.width // self.heads
        columns = slice(group.start * size, group.stop * size)

        def project(part: int) -> Any:
            kernel = self.kernel[:, part * self.width : (part + 1) * self.width][:, columns]
            made = ops.cast(ops.matmul(tokens, kernel), "float32")
            made = ops.reshape(made, (*ops.shape(made)[:2], len(group), size))
            return made * ops.cast(mask, "float32")[..., None, None]

        query, key, value = project(0) / size**0.5, project(1), project(2)
        near_query = ops.einsum("btm,btgw->bgmw", shares, query)
        near_key = ops.einsum("btm,btgw->bgmw", shares, key)
        landmark = ops.expand_dims(ops.expand_dims(there, 1), 1)
        to_landmarks = softmax_over_instances(ops.einsum("btgw,bgmw->bgtm", query, near_key), landmark)
        among = softmax_over_instances(ops.einsum("bgmw,bgkw->bgmk", near_query, near_key), landmark)
        both = ops.logical_and(landmark, ops.swapaxes(landmark, -1, -2))
        among = ops.where(both, among, ops.eye(self.landmarks))  # landmarks that are not there stay by themselves
        from_landmarks = softmax_over_instances(
            ops.einsum("bgmw,btgw->bgmt", near_query, key), ops.expand_dims(ops.expand_dims(mask, 1), 1)
        )
        inverse = self._invert(among)
        pooled = ops.matmul(inverse, ops.einsum("bgmt,btgw->bgmw", from_landmarks, value))
        made = ops.einsum("bgtm,bgmw->btgw", to_landmarks, pooled)
        near = self.near[:, :, group.start : group.stop]
        made += ops.swapaxes(
            ops.depthwise_conv(ops.swapaxes(value, 2, 3), ops.cast(near, "float32"), padding="same"), 2, 3
        )
        first = ops.matmul(ops.matmul(to_landmarks[:, :, :1], inverse), from_landmarks)
        return ops.reshape(made, (*ops.shape(made)[:2], len(group) * size)), ops.sum(first[:, :, 0], axis=1)

    def _invert(self, matrix: Any) -> Any:
        """The Moore–Penrose inverse of [..., m, m] (Xiong et al. 2021, eq. 11), each matrix scaled by itself."""
        eye = ops.eye(self.landmarks)
        columns = ops.max(ops.sum(matrix, axis=-2, keepdims=True), axis=-1, keepdims=True)
        rows = ops.max(ops.sum(matrix, axis=-1, keepdims=True), axis=-2, keepdims=True)
        inverse = ops.swapaxes(matrix, -1, -2) / (columns * rows)
        for _ in range(self.iterations):
            product = ops.matmul(matrix, inverse)
            inner = 15 * eye - ops.matmul(product, 7 * eye - product)
            inverse = ops.matmul(inverse, 13 * eye - ops.matmul(product, inner)) / 4
        return inverse
