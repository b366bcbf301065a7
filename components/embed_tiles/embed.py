"""Embeds every tile of a tiled dataset, part by part: what is there and still true is left alone."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components.embed_tiles.finish import finish, note_path, part_note
from components.embed_tiles.parameters import EmbeddingParameters
from components.records import storage
from components.records.dataset import Part, RecordSpan, TiledDataset
from components.records.embedded import (
    BLOCK_TILES,
    EMBEDDED_VERSION,
    EmbeddedPart,
    EmbeddedSchema,
    encode_blocks,
)
from components.records.errors import InputError, WorkError
from components.records.manifest import Row
from components.records.provenance import code_version

if TYPE_CHECKING:  # importing it for real would import TensorFlow
    import keras

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbeddingSummary:
    """What came of an embedding.

    Attributes:
        parts: of the dataset; made by this call, and missing where other shards are still to run.
        patients, slides, tiles, manifest_hash, mpp, tile_px: of the dataset.
        dim, dtype: of an embedding.
        encoder_digest: of the encoder's weights.
        seconds: of this call.
    """

    parts: int
    made: int
    missing: int
    patients: int
    slides: int
    tiles: int
    manifest_hash: str
    mpp: float | None
    tile_px: int
    dim: int
    dtype: str
    encoder_digest: str
    seconds: float

    def facts(self) -> dict[str, Any]:
        """What `provenance.artifact_metadata` takes."""
        names = ("manifest_hash", "patients", "slides", "tiles", "mpp", "tile_px", "dim", "dtype", "encoder_digest")
        return {name: getattr(self, name) for name in names}


def embed_tiles(
    root: str, out: str, parameters: EmbeddingParameters, *, shard: int = 0, shards: int = 1
) -> EmbeddingSummary:
    """Writes the embeddings of the tiled dataset at `root` into `out`, see `components.records.embedded`.

    Every part is written whole or not at all, and noted with the digests of its record part and of the encoder: a
    call that was killed is taken up by the next, and a part whose records or encoder changed is made again. Several
    machines share the work as shards of one `out`; the one that finds every part there writes the schema.

    Args:
        root: a tiled dataset.
        out: folder or `gs://` place.
        parameters: how to embed.
        shard: this call's number among the shards, from 0.
        shards: how many there are; this one does the parts number `shard`, `shard + shards`, …

    Raises:
        InputError: parameters, or an encoder that can't be had.
        WorkError: a tile does not decode, a part is missing, or an embedding is not finite.
    """
    started = time.monotonic()
    parameters.check()
    if not 0 <= shard < shards:
        raise InputError(f"shard {shard} of {shards}", where="embedding", mend=f"give 0 to {shards - 1}")
    dataset = TiledDataset(root)
    encoder, schema = prepare_encoder(dataset, parameters)
    todo = [part for number, part in enumerate(dataset.parts) if number % shards == shard]
    todo = [part for part in todo if part_note(out, part, schema.key) is None]
    log.info("embedding %d of %d parts with %s", len(todo), len(dataset.parts), parameters.encoder)
    rows = {row.image_id: row for row in dataset.manifest.rows}
    done, tiles = 0, 0
    for part, embeddings, facts in _encode_parts(dataset, todo, encoder, parameters.batch_tiles):
        _write_part(out, part, rows[part.image_id], dataset, schema, embeddings, facts)
        done, tiles = done + 1, tiles + part.tiles
        if done % 25 == 0 or done == len(todo):
            rate = tiles / max(time.monotonic() - started, 1e-9)
            log.info("embedded %d of %d parts, %.0f tiles/s", done, len(todo), rate)
    missing = finish(out, dataset, schema, encoder)
    if missing:
        log.info("%d parts are still to be embedded by other shards", missing)
    return EmbeddingSummary(
        parts=len(dataset.parts),
        made=len(todo),
        missing=missing,
        patients=len({rows[part.image_id].patient_id for part in dataset.parts}),
        slides=len({part.image_id for part in dataset.parts}),
        tiles=sum(part.tiles for part in dataset.parts),
        manifest_hash=dataset.manifest.digest,
        mpp=dataset.schema.mpp,
        tile_px=dataset.schema.tile_px,
        dim=schema.dim,
        dtype=schema.dtype,
        encoder_digest=str(schema.encoder["digest"]),
        seconds=time.monotonic() - started,
    )


def prepare_encoder(dataset: TiledDataset, parameters: EmbeddingParameters) -> tuple[keras.Model, EmbeddedSchema]:
    """The encoder, frozen, and the schema of what it gives.

    Raises:
        InputError: see `embed_tiles`.
    """
    from components.mil.bags import index_bags
    from components.mil.determinism import seed_everything
    from components.mil.encoders.frozen import digest_encoder
    from components.mil.encoders.registry import create_encoder, default_side, input_side
    from components.mil.stain_sample import sample_reference

    seed_everything(parameters.seed)
    method = parameters.stain_normalisation
    train = index_bags(dataset, "train") if method != "none" else []
    side = min(parameters.input_px or default_side(parameters.encoder), dataset.schema.tile_px)
    reference = sample_reference(dataset, method, train, seed=parameters.seed, side=side)
    encoder = create_encoder(
        parameters.encoder,
        dataset.schema.tile_px,
        encoder_path=parameters.encoder_path,
        freeze_encoder=True,
        input_px=parameters.input_px,
        stain_normalisation=method,
        stain_reference=reference,
    )
    about = {
        "name": parameters.encoder,
        "digest": digest_encoder(encoder),
        "input_px": input_side(encoder),
        "stain_normalisation": method,
        "stain_reference": reference and {name: np.asarray(v).tolist() for name, v in reference.items()},
    }
    shapes = {"encoder": about, "dtype": parameters.embedding_dtype, "tile_px": dataset.schema.tile_px}
    shapes |= {"batch_tiles": parameters.batch_tiles, "block_tiles": BLOCK_TILES, "version": EMBEDDED_VERSION}
    return encoder, EmbeddedSchema(
        dim=int(encoder.output_shape[-1]),
        dtype=parameters.embedding_dtype,
        encoder=about,
        key=hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest(),
        manifest_hash=dataset.manifest.digest,
        tile_px=dataset.schema.tile_px,
        mpp=dataset.schema.mpp,
        code_version=code_version(),
    )


def _encode_parts(
    dataset: TiledDataset, todo: Sequence[Part], encoder: keras.Model, batch_tiles: int
) -> Iterator[tuple[Part, NDArray[Any], dict[str, NDArray[Any]]]]:
    """Each part with its embeddings [n, d] and facts [n]: one stream over all, whose batches never span two parts.

    So a part's bytes don't depend on which others are done in the same call.
    """
    import tensorflow as tf

    from components.mil.bags import FACTS, decode_instance, read_spans, stream_records

    def spans() -> Iterator[RecordSpan | None]:
        for part in todo:
            yield from dataset.spans_of(part)
            yield from [None] * (-part.tiles % batch_tiles)

    tile_px = dataset.schema.tile_px
    encode = tf.function(lambda tiles: encoder(tiles, training=False), reduce_retracing=True)
    batches = stream_records(lambda: read_spans(spans()), lambda data: decode_instance(data, tile_px), batch_tiles)
    for part in todo:
        made, facts = [], []
        try:
            for _ in range(-(-part.tiles // batch_tiles)):
                batch = next(batches)
                made.append(encode(batch["tiles"]).numpy())
                facts.append({name: batch[key].numpy() for key, name in FACTS.items()})
        except WorkError as error:
            raise WorkError(error.what, where=error.where or part.path, mend=error.mend) from None
        rows = {name: np.concatenate([fact[name] for fact in facts])[: part.tiles] for name in facts[0]}
        yield part, np.concatenate(made)[: part.tiles], rows


def _write_part(
    out: str,
    part: Part,
    row: Row,
    dataset: TiledDataset,
    schema: EmbeddedSchema,
    embeddings: NDArray[Any],
    facts: dict[str, NDArray[Any]],
) -> None:
    with np.errstate(over="ignore"):
        stored = embeddings.astype(schema.dtype)
    if not np.isfinite(stored).all():
        mend = "set embedding_dtype=float32" if np.isfinite(embeddings).all() else "check the encoder's weights"
        raise WorkError(f"an embedding is not finite as {schema.dtype}", where=part.path, mend=mend)
    constant = {
        "slide/id": row.image_id,
        "patient/id": row.patient_id,
        "image/class/text": row.label,
        "image/class/label": dataset.schema.labels.index(row.label),
    }
    content, blocks = encode_blocks(stored, facts, constant, schema.dtype)
    made = EmbeddedPart(
        path=part.path,
        image_id=part.image_id,
        split=part.split,
        source=part.sha256,
        key=schema.key,
        tiles=part.tiles,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        blocks=blocks,
    )
    storage.write_bytes(storage.join(out, *part.path.split("/")), content)
    storage.write_json(note_path(out, part), asdict(made))
