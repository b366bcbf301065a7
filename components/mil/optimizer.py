"""The optimizer of every training: AdamW under a warm-up and a cosine."""

from __future__ import annotations

from typing import Protocol

from components.mil import quiet as quiet

import keras  # isort: skip

CLIPNORM = 1.0


class Pace(Protocol):
    """How fast a training goes."""

    @property
    def learning_rate(self) -> float:
        """The highest of the schedule."""
        ...

    @property
    def weight_decay(self) -> float:
        """Of every weight but biases and scales."""
        ...


def create_optimizer(parameters: Pace, steps: int, clip: float | None = CLIPNORM) -> keras.optimizers.Optimizer:
    """AdamW: a twentieth of the steps up to the learning rate, then a cosine down to a tenth of it.

    Args:
        parameters: learning rate and weight decay; biases and scales don't decay.
        steps: of the whole training.
        clip: most that the norm of a weight's gradient may be.
    """
    schedule = keras.optimizers.schedules.CosineDecay(
        parameters.learning_rate / 10,
        decay_steps=max(1, steps - steps // 20),
        alpha=0.1,
        warmup_target=parameters.learning_rate,
        warmup_steps=max(1, steps // 20),
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=parameters.weight_decay, clipnorm=clip)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
