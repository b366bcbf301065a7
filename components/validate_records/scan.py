"""One part read from end to end: its frames, its records, its tiles. The unit of work of a process."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.records import storage
from components.records.dataset import Part
from components.records.errors import WorkError
from components.records.example import parse_example
from components.records.schema import FEATURES
from components.records.tfrecord import FOOTER_BYTES, HEADER_BYTES, masked_crc32c, read_header
from components.validate_records.colour import STATISTICS, Moments
from components.validate_records.outcome import Offender, Tally
from components.validate_records.picture import TileError, decode_tile
from components.validate_records.record import Expected, check_schema, check_values

DIGEST = np.dtype([("high", "<u8"), ("low", "<u8"), ("encoded", "<u8"), ("part", "<i4"), ("record", "<i4")])
PLACE = np.dtype([("x", "<i8"), ("y", "<i8"), ("axis", "<i8"), ("index", "<i8"), ("part", "<i4"), ("record", "<i4")])
_LARGEST_TILE = 16384


@dataclass(frozen=True)
class PartTask:
    """What a process needs to scan one part: `number` is the part's place in the dataset's order."""

    path: str
    number: int
    part: Part
    expected: Expected
    blank_deviation: float


@dataclass
class PartScan:
    """What one part holds.

    Attributes:
        records: frames found, sound or not; `tiles` of them decoded, `blank` of those near-blank.
        tallies: offenders by check.
        places: `PLACE` a record: where it lies, to find doubled tiles of a slide.
        digests: `DIGEST` a decoded tile that is not near-blank.
        colours: moments of `STATISTICS` over the tiles that are not near-blank.
        mpp: the tiles' µm/px: smallest and largest, None where no tile has one.
    """

    number: int
    records: int = 0
    tiles: int = 0
    blank: int = 0
    tallies: dict[str, Tally] = field(default_factory=dict)
    places: NDArray[np.void] = field(default_factory=lambda: np.empty(0, PLACE))
    digests: NDArray[np.void] = field(default_factory=lambda: np.empty(0, DIGEST))
    colours: Moments = field(default_factory=Moments)
    mpp: tuple[float, float] | None = None

    def note(self, check: str, offender: Offender) -> None:
        """Counts an offender of a check."""
        self.tallies.setdefault(check, Tally()).add(offender)


@dataclass
class _Columns:
    places: list[tuple[int, ...]] = field(default_factory=list)
    digests: list[tuple[int, ...]] = field(default_factory=list)
    colours: list[NDArray[np.float64]] = field(default_factory=list)


def scan_part(task: PartTask) -> PartScan:
    """Reads a part once, a record at a time; whatever is wrong is counted, and the scan goes on where it can.

    A record that fails its checksum is skipped, a broken record header ends the part.
    """
    scan = PartScan(task.number)
    columns = _Columns()
    for number, data in _read_frames(task, scan):
        scan.records = number + 1
        if data is not None:
            _scan_record(task, scan, columns, number, data)
    scan.places = np.array(columns.places, PLACE)
    scan.digests = np.array(columns.digests, DIGEST)
    if columns.colours:
        scan.colours = Moments.of(np.stack(columns.colours))
    if scan.records != task.part.tiles:
        what = f"holds {scan.records} records, parts.json says {task.part.tiles}"
        scan.note("counts", Offender(what, task.part.image_id, task.part.path))
    return scan


def _read_frames(task: PartTask, scan: PartScan) -> Iterator[tuple[int, bytes | None]]:
    part = task.part
    whole = hashlib.sha256()
    with storage.open_stream(task.path) as stream:
        size = stream.seek(0, os.SEEK_END)
        number, position = 0, stream.seek(0)
        while True:
            try:
                header = stream.read(HEADER_BYTES)
                whole.update(header)
                length = read_header(io.BytesIO(header), task.path, position)
                if length is None:
                    break
                data, footer = stream.read(length), stream.read(FOOTER_BYTES)
                whole.update(data)
                whole.update(footer)
                if len(data) < length or len(footer) < FOOTER_BYTES:
                    raise WorkError(f"the record at byte {position} is cut off")
            except WorkError as error:
                scan.note("checksums", Offender(error.what, part.image_id, part.path, number))
                while rest := stream.read(1 << 20):
                    whole.update(rest)
                break
            if struct.unpack("<I", footer)[0] == masked_crc32c(data):
                yield number, data
            else:
                what = f"the record at byte {position} fails its checksum"
                scan.note("checksums", Offender(what, part.image_id, part.path, number))
                yield number, None
            number, position = number + 1, stream.tell()
    if size != part.bytes:
        scan.note("checksums", Offender(f"is {size} bytes, parts.json says {part.bytes}", part.image_id, part.path))
    if whole.hexdigest() != part.sha256:
        what = f"sha256 is {whole.hexdigest()[:12]}…, parts.json says {part.sha256[:12]}…"
        scan.note("checksums", Offender(what, part.image_id, part.path))


def _scan_record(task: PartTask, scan: PartScan, columns: _Columns, number: int, data: bytes) -> None:
    part = task.part
    try:
        features = parse_example(data)
    except WorkError as error:
        scan.note("schema", Offender(error.what, part.image_id, part.path, number))
        return
    problems = check_schema(features)
    for problem in problems:
        scan.note("schema", Offender(problem, part.image_id, part.path, number))
    unknown = sorted(set(features) - set(FEATURES))
    if unknown:
        what = f"carries {', '.join(unknown)}"
        scan.note("unknown_features", Offender(what, part.image_id, part.path, number))
    if problems:
        return
    record = {name: features[name][0] for name in FEATURES if name in features}
    x, y = record["tile/x"], record["tile/y"]
    for check, problem in check_values(record, task.expected):
        scan.note(check, Offender(problem, part.image_id, part.path, number, x, y))
    axis = zlib.crc32(record.get("slice/axis", b""))
    columns.places.append((x, y, axis, record.get("slice/index", -1), task.number, number))
    mpp = record.get("tile/mpp")
    if mpp is not None:
        low, high = scan.mpp or (mpp, mpp)
        scan.mpp = (min(low, mpp), max(high, mpp))
    _scan_tile(task, scan, columns, number, record)


def _scan_tile(task: PartTask, scan: PartScan, columns: _Columns, number: int, record: dict[str, Any]) -> None:
    part, x, y = task.part, record["tile/x"], record["tile/y"]
    encoded = record["image/encoded"]
    try:
        tile = decode_tile(encoded, record["image/format"].decode(), _LARGEST_TILE)
    except TileError as error:
        scan.note("decode", Offender(str(error), part.image_id, part.path, number, x, y))
        return
    if (tile.width, tile.height) != (record["image/width"], record["image/height"]):
        what = f"decodes to {tile.width} x {tile.height} px, says {record['image/width']} x {record['image/height']}"
        scan.note("size", Offender(what, part.image_id, part.path, number, x, y))
    scan.tiles += 1
    if tile.deviation.max() < task.blank_deviation:
        scan.blank += 1
        scan.note("blank_tiles", Offender("is near-blank", part.image_id, part.path, number, x, y))
        return
    high, low = struct.unpack("<QQ", tile.digest)
    (exact,) = struct.unpack("<Q", hashlib.blake2b(encoded, digest_size=8).digest())
    columns.digests.append((high, low, exact, task.number, number))
    columns.colours.append(np.concatenate([tile.mean, tile.deviation]))
    assert len(columns.colours[-1]) == len(STATISTICS)


def locate_tile(path: str, record: int) -> tuple[int, int]:
    """(x, y) of one record of a part, found by its number; what comes after it is not read."""
    with storage.open_stream(path) as stream:
        position = 0
        for _ in range(record):
            length = read_header(stream, path, position) or 0
            position = stream.seek(length + FOOTER_BYTES, os.SEEK_CUR)
        features = parse_example(stream.read(read_header(stream, path, position) or 0))
    return int(features["tile/x"][0]), int(features["tile/y"][0])
