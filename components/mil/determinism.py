"""The same result from the same input, and the precision that a computation is done in."""

from __future__ import annotations

import keras
import tensorflow as tf

from components.records.provenance import derive_seed


def seed_everything(seed: int, *, mixed_precision: bool = False) -> str:
    """Seeds Keras, asks TensorFlow for repeatable operations, and sets the precision of what is built from now on.

    Returns:
        The precision: `float32`; or, mixed, `mixed_float16` on a GPU and `mixed_bfloat16` elsewhere, which processors
        have instructions for and which needs no scaling of the loss.
    """
    keras.utils.set_random_seed(derive_seed(seed, "weights") % 2**32)
    tf.config.experimental.enable_op_determinism()
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    policy = ("mixed_float16" if on_gpu else "mixed_bfloat16") if mixed_precision else "float32"
    keras.mixed_precision.set_global_policy(policy)
    return policy
