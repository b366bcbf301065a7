"""The losses of a tile classifier, from logits."""

from __future__ import annotations

from typing import Any

from components.mil import quiet as quiet

import tensorflow as tf  # isort: skip


def weighted_loss(logits: Any, labels: Any, weights: tuple[float, float]) -> Any:
    """Cross-entropy of each tile times the weight of its kind, [n].

    Args:
        logits: float32 [n].
        labels: 0 or 1, [n].
        weights: of an unmarked and of a marked tile.
    """
    truth = tf.cast(labels, tf.float32)
    losses = tf.nn.sigmoid_cross_entropy_with_logits(truth, logits)
    return losses * tf.where(truth > 0.5, weights[1], weights[0])


def focal_loss(logits: Any, labels: Any, gamma: float, alpha: float) -> Any:
    """-α_t (1 - p_t)^γ ln p_t of each tile, [n]: Lin et al. 2017 (Focal loss for dense object detection), eq. 5.

    Args:
        logits: float32 [n].
        labels: 0 or 1, [n].
        gamma: 0 gives the cross-entropy weighted by alpha.
        alpha: α_t of marked tiles; 1 - alpha of others.
    """
    truth = tf.cast(labels, tf.float32)
    losses = tf.nn.sigmoid_cross_entropy_with_logits(truth, logits)
    # 1 - p_t is the probability of the other kind
    missed = tf.sigmoid(tf.where(truth > 0.5, -logits, logits))
    return tf.where(truth > 0.5, alpha, 1 - alpha) * tf.pow(missed, gamma) * losses
