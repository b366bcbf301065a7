"""Bags of embeddings that were made before, read in place of tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.mil.bags import Bag, spread_spans
from components.mil.encoders.fetch import fetch_model
from components.mil.encoders.frozen import digest_encoder
from components.records import storage
from components.records.dataset import RecordSpan
from components.records.embedded import EmbeddedDataset, EmbeddedSchema, read_rows
from components.records.errors import InputError

_MEND = "run `bagline embed` again"


def load_encoder(embedded: EmbeddedDataset) -> keras.Model:
    """The encoder that the embeddings were made with, frozen.

    Raises:
        InputError: it is missing, does not open, or is another one.
    """
    where = storage.join(embedded.root, "encoder")
    folder = fetch_model(where, _MEND)
    try:
        encoder = keras.models.load_model(folder, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError, KeyError) as error:
        reason = str(error).partition("\n")[0][:120]
        raise InputError(f"holds no encoder that opens ({reason})", where=where, mend=_MEND) from None
    if digest_encoder(encoder) != embedded.schema.encoder["digest"]:
        raise InputError("is not the encoder of these embeddings", where=where, mend=_MEND)
    encoder.trainable = False
    return encoder


class EmbeddingSource:
    """Reads the chosen embeddings of bags; the next batch is read while one is worked on.

    Args:
        schema: of the embeddings that the bags' spans point at.
    """

    def __init__(self, schema: EmbeddedSchema) -> None:
        self.schema = schema

    def batches(
        self,
        bags: Sequence[Bag],
        choose: Callable[[Bag], Sequence[RecordSpan]],
        *,
        instances: int,
        bags_per_batch: int,
    ) -> Iterator[tuple[dict[str, Any], Any]]:
        """As `TileSource.batches`, but a batch is padded to the next power of two of its largest bag's instances.

        Yields:
            {"tiles": [b, n, d] of the schema's dtype, "mask": bool [b, n]}, labels int32 [b].
        """

        def read(start: int) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.int32]]:
            group = bags[start : start + bags_per_batch]
            chosen = [choose(bag) for bag in group]
            most = min(instances, 1 << (max(1, *map(len, chosen)) - 1).bit_length())
            values = np.zeros((len(group), most, self.schema.dim), self.schema.dtype)
            mask = np.zeros((len(group), most), bool)
            for number, spans in enumerate(chosen):
                values[number, : len(spans)] = read_rows(spans, self.schema.dim, self.schema.dtype)
                mask[number, : len(spans)] = True
            return values, mask, np.array([bag.label_index for bag in group], np.int32)

        with ThreadPoolExecutor(1) as reader:
            waiting = reader.submit(read, 0) if bags else None
            for start in range(0, len(bags), bags_per_batch):
                values, mask, labels = waiting.result() if waiting else read(start)
                after = start + bags_per_batch
                waiting = reader.submit(read, after) if after < len(bags) else None
                yield {"tiles": tf.constant(values), "mask": tf.constant(mask)}, tf.constant(labels)

    def sample(self, bags: Sequence[Bag], count: int) -> NDArray[Any]:
        """About `count` embeddings [n, d], as many of each bag as of the others."""
        spans = [span for bag in bags for span in spread_spans(bag, max(1, count // len(bags)))][:count]
        return read_rows(spans, self.schema.dim, self.schema.dtype)
