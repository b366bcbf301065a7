"""A tiled dataset on disk: its files, and where each record of each slide lies.

<root>/schema.json            how to read the records
<root>/split.csv              the split manifest that was tiled
<root>/records/<split>/<image_id>-<part>.tfrecord
<root>/parts.json             every part: slide, split, tiles, bytes, sha256
<root>/ledger.jsonl, failed_tiles.jsonl, summary.json
<root>/thumbnails/<image_id>.jpg, and thumbnails.json: level-0 size and downsample of each
<root>/thumbnails/<image_id>.mask.png  the lesion mask of a slide that has one, at low resolution, 1 bit a px
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from typing import Any

from components.records import storage
from components.records.errors import InputError, WorkError, name_first
from components.records.ledger import LedgerEntry, read_ledger
from components.records.manifest import Manifest, Row, read_manifest
from components.records.schema import DatasetSchema
from components.records.tfrecord import index_tfrecord


@dataclass(frozen=True)
class Part:
    """One TFRecord file: `path` is relative to the dataset's root, `sha256` is of its bytes (hex)."""

    path: str
    image_id: str
    split: str
    tiles: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Thumbnail:
    """A slide's low-resolution picture: `downsample` level-0 px a thumbnail px; width and height at level 0."""

    path: str
    downsample: float
    width: int
    height: int


@dataclass(frozen=True)
class RecordSpan:
    """Where the serialised Example of one tile lies: path of a file on disk, byte offset, byte length."""

    path: str
    offset: int
    length: int


class TiledDataset:
    """A finished tiling output, opened for reading.

    Args:
        root: its folder.
        split_table: a manifest of the same slides whose `split` counts instead of that of `split.csv`, such as a
            fold's; a row without a split is in none. Empty for `split.csv`.

    Raises:
        InputError: `root` holds no tiled dataset, or one of another schema version; the split table is of other slides.
    """

    def __init__(self, root: str, split_table: str = "") -> None:
        self.root = str(root)
        self._fetched: tempfile.TemporaryDirectory[str] | None = None
        if storage.stat(self.path("schema.json")) is None:
            raise InputError("holds no tiled records", where=self.root, mend="run `bagline tile` into it first")
        self.schema = DatasetSchema.load(self.path("schema.json"))
        self.manifest: Manifest = read_manifest(self.path("split.csv"))
        if split_table:
            self.manifest = _read_split_table(split_table, self.manifest)
        parts = self.path("parts.json")
        try:
            self.parts = [Part(**part) for part in storage.read_json(parts)]
        except TypeError:
            raise InputError("is no list of parts", where=parts, mend="run the tiling step again") from None

    def path(self, *names: str) -> str:
        """The path of a file of this dataset."""
        return storage.join(self.root, *names)

    @property
    def ledger(self) -> list[LedgerEntry]:
        """The ledger, in manifest order."""
        return read_ledger(self.path("ledger.jsonl"))

    @property
    def summary(self) -> dict[str, Any]:
        """`summary.json`: totals."""
        return dict(storage.read_json(self.path("summary.json")))

    @property
    def thumbnails(self) -> dict[str, Thumbnail]:
        """The thumbnail of each image id that has one."""
        return {key: Thumbnail(**value) for key, value in storage.read_json(self.path("thumbnails.json")).items()}

    def patients(self, split: str | None = None) -> dict[str, list[Row]]:
        """Each patient's rows in manifest order, of one split or of all; patients in order of first appearance."""
        bags: dict[str, list[Row]] = {}
        for row in self.manifest.rows:
            if split is None or row.split == split:
                bags.setdefault(row.patient_id, []).append(row)
        return bags

    def spans(self, image_id: str) -> list[RecordSpan]:
        """Where each record of a slide lies, in part and file order; reads the record headers only.

        The parts of a dataset in a bucket are fetched to this machine's disk, each once; they stay as long as this.

        Raises:
            WorkError: a part is missing, cut off, or holds another number of records than it should.
        """
        return [span for part in self.parts if part.image_id == image_id for span in self.spans_of(part)]

    def spans_of(self, part: Part) -> list[RecordSpan]:
        """As `spans`, of one part."""
        path = self._part_on_disk(part)
        found = index_tfrecord(path)
        if len(found) != part.tiles:
            raise WorkError(
                f"holds {len(found)} records, not {part.tiles}", where=path, mend="run the tiling step again"
            )
        return [RecordSpan(path, offset, length) for offset, length in found]

    def _part_on_disk(self, part: Part) -> str:
        path = self.path(*part.path.split("/"))
        if not storage.is_remote(path):
            if not os.path.exists(path):
                raise WorkError("is missing", where=path, mend="run the tiling step again")
            return path
        if self._fetched is None:
            self._fetched = tempfile.TemporaryDirectory(prefix="bagline-records-")
        target = os.path.join(self._fetched.name, *part.path.split("/"))
        if not os.path.exists(target):
            with contextlib.ExitStack() as stack:
                try:
                    source = stack.enter_context(storage.open_stream(path))
                except FileNotFoundError:
                    raise WorkError("is missing", where=path, mend="run the tiling step again") from None
                shutil.copyfileobj(source, stack.enter_context(storage.open_atomic(target)), 8 << 20)
        return target


def _read_split_table(path: str, tiled: Manifest) -> Manifest:
    table = read_manifest(path)
    wanted, found = ({row.image_id: (row.patient_id, row.label) for row in m.rows} for m in (tiled, table))
    other = sorted(image_id for image_id in wanted.keys() | found.keys() if wanted.get(image_id) != found.get(image_id))
    if other:
        raise InputError(
            f"is not a split of the tiled slides: {name_first(other)} missing, new, or of another patient or label",
            where=path,
            mend="split the manifest that was tiled",
        )
    return table


def truth_path(image_id: str) -> str:
    """Where the low-resolution lesion mask of a slide lies, relative to the dataset's root.

    It spans the whole slide at a downsample that is a power of two; any px that the mask touches is marked.
    """
    return f"thumbnails/{image_id}.mask.png"


def write_parts(root: str, parts: list[Part]) -> None:
    """Writes `parts.json`, sorted by path."""
    storage.write_json(
        storage.join(root, "parts.json"), [asdict(part) for part in sorted(parts, key=lambda part: part.path)]
    )


def write_thumbnails(root: str, thumbnails: dict[str, Thumbnail]) -> None:
    """Writes `thumbnails.json`."""
    storage.write_json(storage.join(root, "thumbnails.json"), {key: asdict(value) for key, value in thumbnails.items()})
