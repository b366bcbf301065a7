"""Scores of single tiles of whole slides, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.mil.bags import Feature, decode_tile, read_spans, translated_errors
from components.mil.tiles import LabelledSlide

Facts = dict[str, NDArray[Any]]


def score_tiles(
    model: Callable[..., Any], tile_px: int, slides: Sequence[LabelledSlide], *, batch_tiles: int = 64
) -> Iterator[Facts]:
    """The figures of each slide's tiles, in order; tiles stream through the model in batches, across slides.

    Args:
        model: uint8 [n, h, w, 3] to the probability of a lesion, [n] or [n, 1].
        tile_px: side of a stored tile, px.
        slides: which; each has a tile at least.
        batch_tiles: tiles a batch.

    Yields:
        `x`, `y`, `width`, `height` int64, `tissue` and `probability` float32; each [tiles of the slide].

    Raises:
        WorkError: a tile does not decode, or a part is missing or damaged.
    """
    score = tf.function(lambda tiles: tf.reshape(model(tiles, training=False), (-1,)), reduce_retracing=True)
    waiting: list[Facts] = []
    held, at = 0, 0
    for batch in _batches(slides, tile_px, batch_tiles):
        facts = {name: value.numpy() for name, value in batch.items() if name != "tiles"}
        waiting.append({**facts, "probability": score(batch["tiles"]).numpy()})
        held += len(facts["x"])
        while at < len(slides) and held >= len(slides[at]):
            count = len(slides[at])
            joined = {name: np.concatenate([piece[name] for piece in waiting]) for name in waiting[0]}
            waiting = [{name: value[count:] for name, value in joined.items()}] if held > count else []
            held -= count
            yield {name: value[:count] for name, value in joined.items()}
            at += 1


def _batches(slides: Sequence[LabelledSlide], tile_px: int, batch_tiles: int) -> Iterator[dict[str, Any]]:
    def generate() -> Iterator[bytes]:
        for slide in slides:
            yield from read_spans(slide.spans())

    def decode(data: Any) -> dict[str, Any]:
        found = tf.io.parse_single_example(
            data,
            {
                "image/encoded": Feature([], tf.string),
                "tile/x": Feature([], tf.int64),
                "tile/y": Feature([], tf.int64),
                "tile/level0_width": Feature([], tf.int64),
                "tile/level0_height": Feature([], tf.int64),
                "tile/tissue": Feature([], tf.float32),
            },
        )
        return {
            "tiles": decode_tile(found["image/encoded"], tile_px),
            "x": found["tile/x"],
            "y": found["tile/y"],
            "width": found["tile/level0_width"],
            "height": found["tile/level0_height"],
            "tissue": found["tile/tissue"],
        }

    with translated_errors() as guard:
        data = tf.data.Dataset.from_generator(lambda: guard(generate()), output_signature=tf.TensorSpec([], tf.string))
        data = data.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        yield from data.batch(batch_tiles).prefetch(2)
