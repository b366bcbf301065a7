"""TFRecord files without TensorFlow: the same bytes, a lighter import.

Framing (tensorflow/core/lib/io/record_writer.h): uint64 length, masked crc32c of the length,
the data, masked crc32c of the data, all little-endian.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import IO

import google_crc32c

from components.records import storage
from components.records.errors import WorkError

_MASK_DELTA = 0xA282EAD8
HEADER_BYTES = 12
FOOTER_BYTES = 4
_MEND = "remove the file and run the tiling step again"


def masked_crc32c(data: bytes) -> int:
    """crc32c of `data`, rotated and offset as TFRecord stores it."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """One record as it stands in the file."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, struct.pack("<I", masked_crc32c(length)), data, struct.pack("<I", masked_crc32c(data))))


def read_header(stream: IO[bytes], where: str, position: int) -> int | None:
    """The length of the record that starts here, or None at the end of the file.

    Raises:
        WorkError: the header is cut off or its checksum does not hold.
    """
    header = stream.read(HEADER_BYTES)
    if not header:
        return None
    if len(header) < HEADER_BYTES:
        raise WorkError(f"the record at byte {position} is cut off", where=where, mend=_MEND)
    length, crc = struct.unpack("<QI", header)
    if masked_crc32c(header[:8]) != crc:
        raise WorkError(f"the record header at byte {position} fails its checksum", where=where, mend=_MEND)
    return int(length)


def read_tfrecord(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """The records of a file in order, each checked against its checksums.

    Raises:
        WorkError: a record is cut off or fails its checksum; names the file and byte.
    """
    where = str(path)
    with storage.open_stream(path) as stream:
        size = stream.seek(0, os.SEEK_END)
        position = stream.seek(0)
        while (length := read_header(stream, where, position)) is not None:
            if position + HEADER_BYTES + length + FOOTER_BYTES > size:
                raise WorkError(f"the record at byte {position} is cut off", where=where, mend=_MEND)
            data = stream.read(length)
            (crc,) = struct.unpack("<I", stream.read(FOOTER_BYTES))
            if masked_crc32c(data) != crc:
                raise WorkError(f"the record at byte {position} fails its checksum", where=where, mend=_MEND)
            yield data
            position += HEADER_BYTES + length + FOOTER_BYTES


def index_tfrecord(path: str | os.PathLike[str]) -> list[tuple[int, int]]:
    """(offset, length) of every record's data, read from the headers alone.

    Raises:
        WorkError: a header fails its checksum, or the last record is cut off.
    """
    where = str(path)
    spans = []
    with storage.open_stream(path) as stream:
        size = stream.seek(0, os.SEEK_END)
        position = stream.seek(0)
        while (length := read_header(stream, where, position)) is not None:
            end = position + HEADER_BYTES + length + FOOTER_BYTES
            if end > size:
                raise WorkError(f"the record at byte {position} is cut off", where=where, mend=_MEND)
            spans.append((position + HEADER_BYTES, length))
            stream.seek(end)
            position = end
    return spans
