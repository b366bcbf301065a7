"""Embeddings of a tiled dataset on disk: made once of each record part, read by the row or by the bag.

<root>/schema.json            length, dtype and encoder of the embeddings, and what they were made from
<root>/parts.json             every part: its record part, tiles, bytes, sha256, and where its blocks lie
<root>/records/<split>/<image_id>-<part>.tfrecord, one Example a block of up to 1,024 tiles
<root>/ledger.jsonl, summary.json
<root>/encoder/               the encoder, a saved Keras model

A block's features are bytes, little-endian: `embedding` [n, d]; `tile/x`, `tile/y`, `tile/level0_width` and
`tile/level0_height` int64 [n], level-0 px; `tile/tissue` float32 [n]; `tile/label` int8 [n], -1 where there is none.
With them `slide/id`, `patient/id`, `image/class/text`, `image/class/label`, and `tile/first`, the place in its part.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from components.records import storage
from components.records.dataset import RecordSpan, TiledDataset
from components.records.errors import InputError, WorkError, name_first
from components.records.example import encode_example, encode_features, parse_example
from components.records.tfrecord import FOOTER_BYTES, HEADER_BYTES, frame

EMBEDDED_VERSION = "1"
BLOCK_TILES = 1024
DTYPES = ("float16", "float32")
FACTS = {
    "tile/x": "<i8",
    "tile/y": "<i8",
    "tile/level0_width": "<i8",
    "tile/level0_height": "<i8",
    "tile/tissue": "<f4",
    "tile/label": "i1",
}
FOLDER = "embeddings"
Block = tuple[int, int, int]
_MEND = "run `bagline embed` again"


@dataclass(frozen=True)
class EmbeddedSchema:
    """What `schema.json` beside embeddings says.

    Attributes:
        dim, dtype: of one embedding.
        encoder: its name, `digest` of its weights, `input_px`, `stain_normalisation` and `stain_reference`.
        key: of all that shapes an embedding; another key means other embeddings.
        manifest_hash, tile_px, mpp: of the records.
    """

    dim: int
    dtype: str
    encoder: dict[str, Any]
    key: str
    manifest_hash: str
    tile_px: int
    mpp: float | None
    code_version: str
    schema_version: str = EMBEDDED_VERSION

    def save(self, path: str) -> None:
        """Writes `schema.json`."""
        storage.write_json(path, {**asdict(self), "kind": "embeddings", "block_tiles": BLOCK_TILES})

    @classmethod
    def load(cls, path: str) -> EmbeddedSchema:
        """Reads `schema.json`; raises InputError where it is missing, of another version, or lacks a key."""
        found = storage.read_json(path)
        if found.get("kind") != "embeddings" or found.get("schema_version") != EMBEDDED_VERSION:
            raise InputError(f"is no schema {EMBEDDED_VERSION!r} of embeddings", where=path, mend=_MEND)
        try:
            return cls(**{name: found[name] for name in cls.__dataclass_fields__})
        except KeyError as error:
            raise InputError(f"lacks {error}", where=path, mend=_MEND) from None


@dataclass(frozen=True)
class EmbeddedPart:
    """The embeddings of one record part.

    Attributes:
        path: relative to the root of the embeddings; the same as the record part's.
        source: sha256 of the record part (hex).
        key: of the encoder, see `EmbeddedSchema`.
        sha256: of this file's bytes (hex).
        blocks: of each the byte offset of `embedding`, its tiles, and the bytes of the features after it.
    """

    path: str
    image_id: str
    split: str
    source: str
    key: str
    tiles: int
    bytes: int
    sha256: str
    blocks: tuple[Block, ...]

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> EmbeddedPart:
        """The part of a line of `parts.json`; raises TypeError or KeyError where it is none."""
        return cls(
            **{**found, "blocks": tuple((int(at), int(tiles), int(rest)) for at, tiles, rest in found["blocks"])}
        )


def encode_blocks(
    embeddings: NDArray[Any], facts: Mapping[str, NDArray[Any]], constant: Mapping[str, Any], dtype: str
) -> tuple[bytes, tuple[Block, ...]]:
    """The content of a part, and its blocks as `EmbeddedPart` keeps them.

    Args:
        embeddings: [n, d].
        facts: [n] each, named as in `FACTS`.
        constant: further features, the same in every block.
        dtype: of the stored embeddings.
    """
    kind = np.dtype(dtype).newbyteorder("<")
    written, blocks, position = [], [], 0
    for first in range(0, len(embeddings), BLOCK_TILES):
        rows = slice(first, first + BLOCK_TILES)
        values = np.ascontiguousarray(embeddings[rows], kind)
        columns = {name: np.ascontiguousarray(facts[name][rows], FACTS[name]).tobytes() for name in FACTS}
        rest = encode_features({**columns, **constant, "tile/first": first})
        example = encode_example(encode_features({"embedding": values.tobytes()}), rest)
        at = position + HEADER_BYTES + len(example) - len(rest) - values.nbytes
        blocks.append((at, len(values), len(rest)))
        written.append(frame(example))
        position += HEADER_BYTES + len(example) + FOOTER_BYTES
    return b"".join(written), tuple(blocks)


class EmbeddedDataset:
    """Finished embeddings, opened for reading.

    Args:
        root: their folder, on disk or in a bucket; parts in a bucket are fetched to this machine's disk, each once.

    Raises:
        InputError: there are none.
    """

    def __init__(self, root: str) -> None:
        self.root = str(root)
        self._fetched: tempfile.TemporaryDirectory[str] | None = None
        where = storage.join(self.root, "schema.json")
        if storage.stat(where) is None:
            raise InputError("holds no embeddings", where=self.root, mend="run `bagline embed` first")
        self.schema = EmbeddedSchema.load(where)
        listed = storage.join(self.root, "parts.json")
        try:
            self.parts = [EmbeddedPart.from_json(part) for part in storage.read_json(listed)]
        except (TypeError, KeyError):
            raise InputError("is no list of parts", where=listed, mend=_MEND) from None
        self._of_image: dict[str, list[EmbeddedPart]] = {}
        for part in self.parts:
            self._of_image.setdefault(part.image_id, []).append(part)

    def check_source(self, dataset: TiledDataset) -> None:
        """Raises InputError unless these are the embeddings of exactly the dataset's parts."""
        mine = {part.path: part.source for part in self.parts}
        wanted = {part.path: part.sha256 for part in dataset.parts}
        other = sorted(path for path in mine.keys() | wanted.keys() if mine.get(path) != wanted.get(path))
        if other:
            raise InputError(f"are of other records: {name_first(other, 2)}", where=self.root, mend=_MEND)

    def spans(self, image_id: str) -> list[RecordSpan]:
        """Where each tile's embedding lies, in the order of `TiledDataset.spans`.

        Raises:
            WorkError: a part is missing.
        """
        length = self.schema.dim * np.dtype(self.schema.dtype).itemsize
        found = []
        for part in self._of_image.get(image_id, ()):
            path = self._part_on_disk(part)
            for offset, tiles, _ in part.blocks:
                found += [RecordSpan(path, offset + number * length, length) for number in range(tiles)]
        return found

    def facts(self, image_id: str) -> dict[str, NDArray[Any]]:
        """The columns of `FACTS` of a slide's tiles, [n] each, in the order of `spans`.

        Raises:
            WorkError: a part is missing or damaged.
        """
        columns: dict[str, list[NDArray[Any]]] = {name: [] for name in FACTS}
        for part in self._of_image.get(image_id, ()):
            for name, values in self._facts_of(part).items():
                columns[name].append(values)
        return {name: np.concatenate([np.empty(0, FACTS[name]), *values]) for name, values in columns.items()}

    def _facts_of(self, part: EmbeddedPart) -> dict[str, NDArray[Any]]:
        """Reads what follows the embeddings of each block, and not the embeddings."""
        path = self._part_on_disk(part)
        size = self.schema.dim * np.dtype(self.schema.dtype).itemsize
        columns: dict[str, list[NDArray[Any]]] = {name: [] for name in FACTS}
        with _open_part(path) as stream:
            for offset, tiles, rest in part.blocks:
                stream.seek(offset + tiles * size)
                features = parse_example(encode_example(stream.read(rest)))
                for name, kind in FACTS.items():
                    values = np.frombuffer((features.get(name) or [b""])[0], kind)
                    if len(values) != tiles:
                        raise WorkError(f"lacks {name} of a block", where=path, mend=_MEND)
                    columns[name].append(values)
        return {name: np.concatenate(values) for name, values in columns.items()}

    def _part_on_disk(self, part: EmbeddedPart) -> str:
        path = storage.join(self.root, *part.path.split("/"))
        if not storage.is_remote(path):
            return path
        if self._fetched is None:
            self._fetched = tempfile.TemporaryDirectory(prefix="bagline-embeddings-")
        target = os.path.join(self._fetched.name, *part.path.split("/"))
        if not os.path.exists(target):
            with contextlib.ExitStack() as stack:
                try:
                    source = stack.enter_context(storage.open_stream(path))
                except FileNotFoundError:
                    raise WorkError("is missing", where=path, mend=_MEND) from None
                shutil.copyfileobj(source, stack.enter_context(storage.open_atomic(target)), 8 << 20)
        return target


def _open_part(path: str) -> IO[bytes]:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise WorkError("is missing", where=path, mend=_MEND) from None


def read_rows(spans: Iterable[RecordSpan], dim: int, dtype: str) -> NDArray[Any]:
    """The embeddings at `spans`, [n, dim]; neighbours in a file are read at once.

    Raises:
        WorkError: a part is missing or shorter than it was.
    """
    chosen = list(spans)
    kind = np.dtype(dtype).newbyteorder("<")
    rows = np.empty((len(chosen), dim), kind)
    if not chosen:
        return rows
    flat: Any = rows.view(np.uint8).reshape(-1)
    length, at = chosen[0].length, 0
    with contextlib.ExitStack() as stack:
        opened: dict[str, IO[bytes]] = {}
        while at < len(chosen):
            first, until = chosen[at], at + 1
            while until < len(chosen) and _follows(chosen[until], first, (until - at) * length):
                until += 1
            if first.path not in opened:
                stack.close()
                opened = {first.path: stack.enter_context(_open_part(first.path))}
            target = flat[at * length : until * length]
            if os.preadv(opened[first.path].fileno(), [target], first.offset) != len(target):
                raise WorkError(f"the block at byte {first.offset} is cut off", where=first.path, mend=_MEND)
            at = until
    return rows


def _follows(span: RecordSpan, first: RecordSpan, distance: int) -> bool:
    return span.offset == first.offset + distance and span.path == first.path
