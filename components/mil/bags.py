"""Bags of a tiled dataset as tf.data: every slide of a patient in one bag, tiles read where they lie."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

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


def index_bags(
    dataset: TiledDataset, split: str | None = None, locate: Callable[[str], list[RecordSpan]] | None = None
) -> list[Bag]:
    """The bags of a split (or of all), patients in manifest order; patients without a tile are left out.

    Args:
        dataset: where the patients are.
        split: `train`, `val` or `test`.
        locate: where each tile of a slide lies (default: its record, `dataset.spans`; of embeddings, their own).

    Raises:
        WorkError: a part is missing or damaged.
    """
    tiled = {part.image_id for part in dataset.parts}
    bags = []
    for patient_id, rows in dataset.patients(split).items():
        spans: list[RecordSpan] = []
        image_ids: list[str] = []
        for row in rows:
            found = (locate or dataset.spans)(row.image_id) if row.image_id in tiled else []
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


@contextlib.contextmanager
def translated_errors() -> Iterator[Callable[[Iterator[bytes]], Iterator[bytes]]]:
    """Reading inside tf.data: what fails there leaves as the error it was.

    Yields:
        A wrapper for the generator that feeds tf.data.

    Raises:
        WorkError: the generator's own, or a tile does not decode.
    """
    failures: list[WorkError] = []

    def guard(items: Iterator[bytes]) -> Iterator[bytes]:
        try:
            yield from items
        except WorkError as error:
            failures.append(error)
            raise

    try:
        yield guard
    except tf.errors.OpError as error:
        if failures:
            raise failures[0] from None
        reason = str(error.message).partition("\n")[0][:120]
        raise WorkError(f"a tile does not decode ({reason})", mend="run `bagline validate` to find it") from None


def read_spans(spans: Iterable[RecordSpan | None]) -> Iterator[bytes]:
    """The serialised Example at each span, with one file open at a time; empty bytes for None.

    Raises:
        WorkError: a part is gone or shorter than it was.
    """
    opened, handle = "", -1
    try:
        for span in spans:
            if span is None:
                yield b""
                continue
            if span.path != opened:
                if handle >= 0:
                    os.close(handle)
                handle = -1
                handle, opened = _open_part(span.path), span.path
            data = os.pread(handle, span.length, span.offset)
            if len(data) != span.length:
                raise WorkError(
                    f"the record at byte {span.offset} is cut off", where=span.path, mend="run the tiling step again"
                )
            yield data
    finally:
        if handle >= 0:
            os.close(handle)


def _open_part(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise WorkError("is missing", where=path, mend="run the tiling step again") from None


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
    if tile_px % side == 0 and tile_px // side <= 128:
        return _average_blocks(tile, tile_px // side, side)
    return tf.cast(shrink_tiles(tile[None], side)[0], tf.uint8)


def _average_blocks(tile: Any, block: int, side: int) -> Any:
    """What `shrink_tiles` gives of one tile, several times as fast on a CPU: sums of whole numbers are exact."""
    lines = tf.reshape(tile, (side, block, side * block * 3))
    rows = tf.cast(lines[:, 0], tf.int16)
    for number in range(1, block):
        rows += tf.cast(lines[:, number], tf.int16)
    pieces = tf.cast(tf.reshape(rows, (side * side, block * 3)), tf.float32)
    total = tf.matmul(pieces, tf.constant(np.tile(np.eye(3, dtype=np.float32), (block, 1))))
    return tf.cast(tf.round(tf.reshape(total, (side, side, 3)) / block**2), tf.uint8)


def stream_records(records: Callable[[], Iterator[bytes]], decode: Callable[[Any], Any], batch: int) -> Iterator[Any]:
    """Batches of decoded records, in order, the decoding spread over the cores.

    Args:
        records: yields serialised Examples.
        decode: of a serialised Example (a string tensor) whatever tf.data can batch.
        batch: records a batch; the last may hold fewer.

    Raises:
        WorkError: what `records` raised, or a record does not decode.
    """
    with translated_errors() as guard:
        data = tf.data.Dataset.from_generator(
            lambda: _in_chunks(guard(records())), output_signature=tf.TensorSpec([None], tf.string)
        )
        data = data.prefetch(4).unbatch().map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        yield from data.batch(batch).prefetch(2)


def _in_chunks(records: Iterator[bytes]) -> Iterator[list[bytes]]:
    """Lists of 64: each thing that a generator hands to tf.data costs as much as a tile's decoding."""
    while chunk := list(itertools.islice(records, 64)):
        yield chunk


FACTS = {
    "x": "tile/x",
    "y": "tile/y",
    "width": "tile/level0_width",
    "height": "tile/level0_height",
    "tissue": "tile/tissue",
    "label": "tile/label",
}


def decode_instance(data: Any, tile_px: int) -> dict[str, Any]:
    """A serialised Example as `tiles` uint8 [tile_px, tile_px, 3] and the scalars of `FACTS`; all 0 for empty bytes."""
    kinds = {key: tf.float32 if key == "tissue" else tf.int64 for key in FACTS}

    def parse() -> dict[str, Any]:
        wanted = {name: Feature([], kinds[key], *([-1] * (key == "label"))) for key, name in FACTS.items()}
        found = tf.io.parse_single_example(data, {"image/encoded": Feature([], tf.string), **wanted})
        scalars = {key: found[name] for key, name in FACTS.items()}
        return {"tiles": decode_tile(found["image/encoded"], tile_px), **scalars}

    def blank() -> dict[str, Any]:
        return {"tiles": tf.zeros([tile_px, tile_px, 3], tf.uint8), **{k: tf.zeros([], kinds[k]) for k in FACTS}}

    return dict(tf.cond(tf.strings.length(data) > 0, parse, blank))


class TileSource:
    """Reads the chosen tiles of bags, shrunk to `side` px.

    Where all tiles of the bags fit into `cache_bytes` they are decoded once and kept; else they are read and decoded
    each time. Either way the pixels are the same.

    Args:
        bags: the bags that will be asked for.
        tile_px: side of a stored tile, px.
        side: side the tiles are shrunk to, px.
        cache_bytes: memory the shrunk tiles may take.
    """

    def __init__(self, bags: Sequence[Bag], *, tile_px: int, side: int, cache_bytes: int = 0) -> None:
        self.tile_px = tile_px
        self.side = side
        self.kept: dict[RecordSpan, int] = {}
        spans = [span for bag in bags for span in bag.spans]
        if len(spans) * side * side * 3 <= cache_bytes:
            self.pixels = np.empty((len(spans), side, side, 3), np.uint8)
            at = 0
            for tiles in self.stream(lambda: iter(spans), 64):
                self.pixels[at : at + len(tiles)] = tiles
                at += len(tiles)
            self.kept = {span: number for number, span in enumerate(spans)}

    def stream(self, spans: Callable[[], Iterator[RecordSpan]], batch: int) -> Iterator[NDArray[np.uint8]]:
        """Batches of decoded tiles uint8 [batch, side, side, 3] in the order of `spans`.

        Raises:
            WorkError: a part is missing or damaged, or a tile does not decode.
        """

        def decode(data: Any) -> Any:
            encoded = tf.io.parse_single_example(data, {"image/encoded": Feature([], tf.string)})["image/encoded"]
            return decode_tile(encoded, self.tile_px, self.side)

        for tiles in stream_records(lambda: read_spans(spans()), decode, batch):
            yield tiles.numpy()

    def batches(
        self,
        bags: Sequence[Bag],
        choose: Callable[[Bag], Sequence[RecordSpan]],
        *,
        instances: int,
        bags_per_batch: int,
    ) -> Iterator[tuple[dict[str, Any], Any]]:
        """Padded batches of bags in the order of `bags`.

        Args:
            bags: what to read.
            choose: the tiles to take of a bag, at most `instances`.
            instances: tiles a bag is padded to.
            bags_per_batch: bags a batch; the last may hold fewer.

        Yields:
            {"tiles": uint8 [b, instances, side, side, 3], "mask": bool [b, instances]}, labels int32 [b].
        """
        chosen = [list(choose(bag)) for bag in bags]
        rows = (self._take(spans) for spans in chosen) if self.kept else self._regroup(chosen)
        for start in range(0, len(bags), bags_per_batch):
            group = range(start, min(start + bags_per_batch, len(bags)))
            tiles = np.zeros((len(group), instances, self.side, self.side, 3), np.uint8)
            for index, found in zip(range(len(group)), rows, strict=False):
                tiles[index, : len(found)] = found
            mask = np.array([[number < len(chosen[index]) for number in range(instances)] for index in group])
            labels = np.array([bags[index].label_index for index in group], np.int32)
            yield {"tiles": tf.constant(tiles), "mask": tf.constant(mask)}, tf.constant(labels)

    def sample(self, bags: Sequence[Bag], count: int) -> NDArray[np.uint8]:
        """About `count` tiles uint8 [n, side, side, 3], as many of each bag as of the others."""
        spans = [span for bag in bags for span in spread_spans(bag, max(1, count // len(bags)))][:count]
        return next(self.stream(lambda: iter(spans), len(spans)))

    def _take(self, spans: Sequence[RecordSpan]) -> NDArray[np.uint8]:
        return self.pixels[[self.kept[span] for span in spans]]

    def _regroup(self, chosen: Sequence[Sequence[RecordSpan]]) -> Iterator[NDArray[np.uint8]]:
        """The tiles of each bag, out of one stream over all of them."""
        stream = self.stream(lambda: (span for spans in chosen for span in spans), 64)
        rest = np.empty((0, self.side, self.side, 3), np.uint8)
        for spans in chosen:
            pieces, held = [rest], len(rest)
            while held < len(spans):
                pieces.append(next(stream))
                held += len(pieces[-1])
            joined = np.concatenate(pieces)
            rest = joined[len(spans) :]
            yield joined[: len(spans)]
