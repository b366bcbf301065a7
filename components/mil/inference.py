"""Probabilities and attention of whole bags: every tile, in bounded memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.mil.bags import (
    FACTS,
    Bag,
    decode_instance,
    index_bags,
    patients_without_tiles,
    read_spans,
    stream_records,
)
from components.mil.encoders.frozen import digest_encoder, split_projection
from components.mil.heads.protocol import CHUNK
from components.mil.model import BagModel, load_bag_model
from components.records import storage
from components.records.dataset import RecordSpan, TiledDataset
from components.records.embedded import EmbeddedDataset, read_rows
from components.records.errors import InputError

__all__ = ["BagPrediction", "fitting_embeddings", "load_bag_model", "patients_without_tiles", "predict_bags"]

log = logging.getLogger(__name__)

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
    model: BagModel,
    dataset: TiledDataset,
    split: str | None = None,
    *,
    batch_tiles: int = 64,
    labelled: bool = True,
    embedded: EmbeddedDataset | None = None,
) -> Iterator[BagPrediction]:
    """Every patient of a split (or of all) that has a tile, in manifest order.

    Tiles stream through the encoder in batches of `batch_tiles`, across patients; only the embeddings of the
    current patient are held. The head then goes over them in pieces. With `labelled` False the dataset's labels are
    not looked at: new slides have none. With `embedded`, the dataset's embeddings by the model's own encoder, no tile
    is decoded; see `fitting_embeddings`.

    Raises:
        InputError: the dataset's tile size or labels are not the model's.
        WorkError: a tile does not decode, or a part is missing or damaged.
    """
    _check_match(model, dataset, labelled)
    bags = index_bags(dataset, split)
    if embedded:
        for bag in bags:
            yield _predict(model, bag, _read_bag(model, bag, embedded))
        return
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


def fitting_embeddings(model: BagModel, dataset: TiledDataset, root: str) -> EmbeddedDataset | None:
    """The embeddings at `root` where they are of exactly these records by exactly this model's encoder; else None."""
    parts = split_projection(model.encoder)
    if not root or parts is None or storage.stat(storage.join(root, "schema.json")) is None:
        return None
    found = EmbeddedDataset(root)
    try:
        found.check_source(dataset)
    except InputError as error:
        log.warning("%s: the tiles are read instead", error.what)
        return None
    made, trained_on = found.schema.encoder, model.metadata.get("embeddings")
    if made["digest"] != digest_encoder(parts[0]) or (trained_on or made) != made:
        log.warning("the embeddings are of another encoder than the model's: the tiles are read instead")
        return None
    # without embeddings in training, only the colours and the side can still tell two encoders apart
    if trained_on is None and not _same_preparation(model, made):
        return None
    return found


def _same_preparation(model: BagModel, made: dict[str, Any]) -> bool:
    given = model.metadata.get("parameters", {})
    same_colours = made["stain_normalisation"] == given.get("stain_normalisation", "none") == "none"
    return bool(same_colours and made["input_px"] == model.input_px)


def _read_bag(model: BagModel, bag: Bag, embedded: EmbeddedDataset) -> dict[str, NDArray[Any]]:
    """A bag's facts, and its embeddings through the model's projection, a piece at a time."""
    parts = split_projection(model.encoder)
    if parts is None:
        raise InputError("is trained along", where="the model's encoder", mend="predict from tiles")
    images = list(dict.fromkeys(bag.image_ids))
    facts = [embedded.facts(image_id) for image_id in images]
    found = {key: np.concatenate([fact[name] for fact in facts]) for key, name in FACTS.items()}
    spans = [span for image_id in images for span in embedded.spans(image_id)]
    pieces = []
    for start in range(0, len(spans), CHUNK):
        rows = read_rows(spans[start : start + CHUNK], embedded.schema.dim, embedded.schema.dtype)
        pieces.append(parts[1](rows.astype(np.float32), training=False).numpy())
    return {**found, "embedding": np.concatenate(pieces)}


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

    yield from stream_records(generate, lambda data: decode_instance(data, model.tile_px), batch_tiles)
