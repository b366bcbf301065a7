"""Probabilities and attention of whole bags: every tile, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.mil.bags import (
    Bag,
    Feature,
    decode_tile,
    index_bags,
    patients_without_tiles,
    read_spans,
    translated_errors,
)
from components.mil.model import BagModel, load_bag_model
from components.records.dataset import RecordSpan, TiledDataset
from components.records.errors import InputError

__all__ = ["BagPrediction", "load_bag_model", "patients_without_tiles", "predict_bags"]

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class BagPrediction:
    """What the model says about one patient, from all n tiles.

    Attributes:
        label, split: as in the manifest.
        logits, probabilities: float32 [classes].
        image_ids: the slide of each tile, [n].
        x, y, width, height: int64 [n], level-0 px.
        tissue: float32 [n], 0–1.
        attention: float32 [n], sums to 1.
        tile_labels: int8 [n]; -1 where the record has none.
        spans: where each tile's record lies, [n].
    """

    patient_id: str
    label: str
    split: str
    logits: Floats
    probabilities: Floats
    image_ids: tuple[str, ...]
    x: Integers
    y: Integers
    width: Integers
    height: Integers
    tissue: Floats
    attention: Floats
    tile_labels: NDArray[np.int8]
    spans: tuple[RecordSpan, ...]


def predict_bags(
    model: BagModel, dataset: TiledDataset, split: str | None = None, *, batch_tiles: int = 64, labelled: bool = True
) -> Iterator[BagPrediction]:
    """Every patient of a split (or of all) that has a tile, in manifest order.

    Tiles stream through the encoder in batches of `batch_tiles`, across patients; only the embeddings of the
    current patient are held. The head then goes over them in pieces. With `labelled` False the dataset's labels are
    not looked at: new slides have none.

    Raises:
        InputError: the dataset's tile size or labels are not the model's.
        WorkError: a tile does not decode, or a part is missing or damaged.
    """
    _check_match(model, dataset, labelled)
    bags = index_bags(dataset, split)
    encode = tf.function(lambda tiles: model.encoder(tiles, training=False), reduce_retracing=True)
    waiting: list[dict[str, NDArray[Any]]] = []
    held, at = 0, 0
    for batch in _tile_batches(model, bags, batch_tiles):
        facts = {name: value.numpy() for name, value in batch.items() if name != "tiles"}
        waiting.append({**facts, "embedding": encode(batch["tiles"]).numpy()})
        held += len(facts["x"])
        while at < len(bags) and held >= len(bags[at].spans):
            count = len(bags[at].spans)
            joined = {name: np.concatenate([piece[name] for piece in waiting]) for name in waiting[0]}
            waiting = [{name: value[count:] for name, value in joined.items()}] if held > count else []
            held -= count
            yield _predict(model, bags[at], {name: value[:count] for name, value in joined.items()})
            at += 1


def _check_match(model: BagModel, dataset: TiledDataset, labelled: bool) -> None:
    if model.tile_px != dataset.schema.tile_px:
        raise InputError(
            f"tiles are {dataset.schema.tile_px} px, the model takes {model.tile_px} px",
            where=dataset.root,
            mend=f"tile with --tile-px {model.tile_px}, or train on these tiles",
        )
    if labelled and set(dataset.schema.labels) - set(model.label_names):
        raise InputError(
            f"labels {', '.join(dataset.schema.labels)} are not the model's {', '.join(model.label_names)}",
            where=dataset.root,
            mend="evaluate on a manifest with the model's labels",
        )


def _predict(model: BagModel, bag: Bag, facts: dict[str, NDArray[Any]]) -> BagPrediction:
    logits, attention = model.head.stream(facts["embedding"])
    powers = np.exp(logits.astype(np.float64) - float(logits.max()))
    return BagPrediction(
        patient_id=bag.patient_id,
        label=bag.label,
        split=bag.split,
        logits=logits.astype(np.float32),
        probabilities=(powers / powers.sum()).astype(np.float32),
        image_ids=bag.image_ids,
        x=facts["x"],
        y=facts["y"],
        width=facts["width"],
        height=facts["height"],
        tissue=facts["tissue"],
        attention=attention,
        tile_labels=facts["label"].astype(np.int8),
        spans=bag.spans,
    )


def _tile_batches(model: BagModel, bags: Sequence[Bag], batch_tiles: int) -> Iterator[dict[str, Any]]:
    def generate() -> Iterator[bytes]:
        for bag in bags:
            yield from read_spans(bag.spans)

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
                "tile/label": Feature([], tf.int64, default_value=-1),
            },
        )
        return {
            "tiles": decode_tile(found["image/encoded"], model.tile_px),
            "x": found["tile/x"],
            "y": found["tile/y"],
            "width": found["tile/level0_width"],
            "height": found["tile/level0_height"],
            "tissue": found["tile/tissue"],
            "label": found["tile/label"],
        }

    with translated_errors() as guard:
        data = tf.data.Dataset.from_generator(lambda: guard(generate()), output_signature=tf.TensorSpec([], tf.string))
        data = data.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        yield from data.batch(batch_tiles).prefetch(2)
