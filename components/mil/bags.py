"""Bags of a tiled dataset as tf.data: every slide of a patient in one bag, tiles read where they lie."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from components.mil.encoders.preprocessing import shrink_tiles
from components.records.dataset import RecordSpan, TiledDataset
from components.records.errors import WorkError
from components.records.provenance import derive_seed, shuffled

Feature = tf.io.FixedLenFeature


@dataclass(frozen=True)
class Bag:
    """A patient: every tile of every slide, in manifest and file order."""

    patient_id: str
    label: str
    label_index: int
    split: str
    image_ids: tuple[str, ...]
    spans: tuple[RecordSpan, ...]


def index_bags(dataset: TiledDataset, split: str | None = None) -> list[Bag]:
    """The bags of a split (or of all), patients in manifest order; patients without a tile are left out.

    Raises:
        WorkError: a part is missing or damaged.
    """
    tiled = {part.image_id for part in dataset.parts}
    bags = []
    for patient_id, rows in dataset.patients(split).items():
        spans: list[RecordSpan] = []
        image_ids: list[str] = []
        for row in rows:
            found = dataset.spans(row.image_id) if row.image_id in tiled else []
            spans += found
            image_ids += [row.image_id] * len(found)
        if spans:
            label = rows[0].label
            index = dataset.schema.labels.index(label)
            bags.append(Bag(patient_id, label, index, rows[0].split, tuple(image_ids), tuple(spans)))
    return bags


def patients_without_tiles(dataset: TiledDataset, split: str | None = None) -> list[str]:
    """Patients of a split (or of all) none of whose slides gave a tile, in manifest order."""
    tiled = {part.image_id for part in dataset.parts if part.tiles}
    return [
        patient_id
        for patient_id, rows in dataset.patients(split).items()
        if not any(row.image_id in tiled for row in rows)
    ]


def sample_spans(bag: Bag, count: int, seed: int, epoch: int) -> tuple[RecordSpan, ...]:
    """`count` tiles of a bag without repeats, in file order: another choice each epoch, the same in each run."""
    if len(bag.spans) <= count:
        return bag.spans
    generator = np.random.default_rng(derive_seed(seed, "tiles", epoch, bag.patient_id))
    chosen = np.sort(generator.choice(len(bag.spans), count, replace=False))
    return tuple(bag.spans[index] for index in chosen)


def spread_spans(bag: Bag, count: int) -> tuple[RecordSpan, ...]:
    """`count` tiles of a bag at even distances: the same ones every time."""
    if len(bag.spans) <= count:
        return bag.spans
    return tuple(bag.spans[index] for index in np.linspace(0, len(bag.spans) - 1, count).round().astype(int))


def order_bags(bags: Sequence[Bag], seed: int, epoch: int) -> list[Bag]:
    """The bags in this epoch's order."""
    return shuffled(bags, seed, "order", epoch)


def read_spans(spans: Sequence[RecordSpan]) -> Iterator[bytes]:
    """The serialised Example at each span, with one file open at a time.

    Raises:
        WorkError: a part is gone or shorter than it was.
    """
    opened, handle = "", -1
    try:
        for span in spans:
            if span.path != opened:
                if handle >= 0:
                    os.close(handle)
                handle = -1
                handle, opened = os.open(span.path, os.O_RDONLY), span.path
            data = os.pread(handle, span.length, span.offset)
            if len(data) != span.length:
                raise WorkError(
                    f"the record at byte {span.offset} is cut off", where=span.path, mend="run the tiling step again"
                )
            yield data
    except FileNotFoundError:
        raise WorkError("is missing", where=span.path, mend="run the tiling step again") from None
    finally:
        if handle >= 0:
            os.close(handle)


def decode_tile(encoded: Any, tile_px: int, side: int | None = None) -> Any:
    """A JPEG or PNG as uint8 [side, side, 3]; a tile of another size than `tile_px` is resized to it first."""
    tile = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    tile.set_shape([None, None, 3])
    shape = tf.shape(tile)
    fits = tf.logical_and(tf.equal(shape[0], tile_px), tf.equal(shape[1], tile_px))
    tile = tf.cond(
        fits,
        lambda: tile,
        lambda: tf.cast(tf.round(tf.image.resize(tile, (tile_px, tile_px), antialias=True)), tf.uint8),
    )
    tile = tf.ensure_shape(tile, [tile_px, tile_px, 3])
    if side is None or side == tile_px:
        return tile
    return tf.cast(shrink_tiles(tile[None], side)[0], tf.uint8)


def bag_batches(
    bags: Sequence[Bag],
    choose: Callable[[Bag], Sequence[RecordSpan]],
    *,
    instances: int,
    bags_per_batch: int,
    tile_px: int,
    side: int | None = None,
) -> Any:
    """Padded batches of bags, in the order of `bags`; decoding runs in parallel, the order does not depend on it.

    Args:
        bags: what to read.
        choose: the tiles to take of a bag, at most `instances`.
        instances: tiles a bag is padded to.
        bags_per_batch: bags a batch; the last may hold fewer.
        tile_px: side of a stored tile, px.
        side: side the tiles are shrunk to while they are read, px.

    Returns:
        tf.data.Dataset of ({"tiles": uint8 [b, n, s, s, 3], "mask": bool [b, n]}, labels int32 [b]).
    """
    px = side or tile_px

    def generate() -> Iterator[tuple[bytes, int]]:
        for bag in bags:
            spans = choose(bag)
            for data in read_spans(spans):
                yield data, bag.label_index
            for _ in range(instances - len(spans)):
                yield b"", bag.label_index

    def decode(data: Any, label: Any) -> tuple[Any, Any, Any]:
        real = tf.strings.length(data) > 0

        def tile() -> Any:
            encoded = tf.io.parse_single_example(data, {"image/encoded": Feature([], tf.string)})["image/encoded"]
            return decode_tile(encoded, tile_px, side)

        return tf.cond(real, tile, lambda: tf.zeros([px, px, 3], tf.uint8)), real, label

    signature = (tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int32))
    data = tf.data.Dataset.from_generator(generate, output_signature=signature)
    data = data.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    data = data.batch(instances, drop_remainder=True).batch(bags_per_batch)
    return data.map(lambda tiles, mask, label: ({"tiles": tiles, "mask": mask}, label[:, 0])).prefetch(2)
