"""The JPEG streams that TIFF blocks store: completed, with the right colours for any decoder, and checked.

A block may be abbreviated (ISO/IEC 10918-1 B.5): its tables stand once in the file's `JPEGTables`. And a TIFF says in
its photometric tag what the components are, where a decoder goes by the JFIF and Adobe markers (T.871, T.872).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

RGB, YCBCR = 2, 6
_ADOBE = struct.pack(">HH5sHHHB", 0xFFEE, 14, b"Adobe", 100, 0, 0, 0)
_JFIF = struct.pack(">HH5sHBHHBB", 0xFFE0, 16, b"JFIF\0", 0x0101, 0, 1, 1, 0, 0)
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_FRAMES = frozenset((0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF))
_APP0, _APP14, _SOS, _DQT, _DHT, _DRI, _COMMENT = 0xE0, 0xEE, 0xDA, 0xDB, 0xC4, 0xDD, 0xFE
# Longer than any run of zeros that coefficients coded with the usual tables make; a hole in a file is one.
_HOLE = bytes(64)
_MARKER = re.compile(rb"\xff[^\x00]")


class StreamError(ValueError):
    """A stored stream is no JPEG this file may hold there; the message is the reason."""


@dataclass(frozen=True)
class Frame:
    """What a stream's frame header says.

    Attributes:
        marker: second byte of the SOF marker: 0xC0 baseline, 0xC2 progressive.
        bits: bits a sample.
        width, height: px.
        components: (id, horizontal sampling, vertical sampling, quantisation table) of each.
        scan_components: (id, DC table, AC table) of each component of the first scan.
        restart_interval: MCUs between restart markers, 0 for none.
    """

    marker: int
    bits: int
    width: int
    height: int
    components: tuple[tuple[int, int, int, int], ...]
    scan_components: tuple[tuple[int, int, int], ...]
    restart_interval: int

    @property
    def sequential(self) -> bool:
        """Baseline, or Huffman-coded sequential with 8 bits, all components in one scan."""
        return self.marker in (0xC0, 0xC1) and self.bits == 8 and len(self.scan_components) == len(self.components)

    @property
    def subsampling(self) -> tuple[int, int]:
        """How many luma samples share a chroma sample, across and down."""
        across = max(h for _, h, _, _ in self.components) // self.components[-1][1]
        return across, max(v for _, _, v, _ in self.components) // self.components[-1][2]


@dataclass(frozen=True)
class Header:
    """All of a stream that precedes its entropy-coded data.

    Attributes:
        stored: these bytes as the block stores them.
        complete: the same with the tables and colour markers every decoder needs.
        size_at: where in `complete` the frame's height and width stand, two bytes each.
        tables: payloads of its Huffman tables.
        zeros_end: zeros alone may code empty data units, as they do with tables made for glass. Where they don't, a run
            of zeros is a hole in the file.
    """

    stored: bytes
    complete: bytes
    frame: Frame
    size_at: int
    tables: tuple[bytes, ...]
    zeros_end: bool


def read_tables(stream: bytes | None) -> bytes:
    """The marker segments of a `JPEGTables` stream without its SOI and EOI.

    Raises:
        StreamError: they are damaged.
    """
    if not stream:
        return b""
    kept = bytearray()
    for marker, segment in _segments(stream, stop=0xD9):
        if marker in (_DQT, _DHT, _DRI):
            kept += segment
    return bytes(kept)


def read_header(stream: bytes, tables: bytes, photometric: int) -> Header:
    """The header of a stored stream, and what it must be to stand alone.

    Args:
        stream: the block's bytes.
        tables: what `read_tables` gave.
        photometric: the TIFF's own word on the components: 2 RGB, 6 YCbCr.

    Raises:
        StreamError: no JPEG of three components, or a damaged one.
    """
    segments = list(_segments(stream, stop=_SOS))
    names = [marker for marker, _ in segments]
    frames = [segment for marker, segment in segments if marker in _FRAMES]
    if len(frames) != 1 or not names or names[-1] != _SOS:
        raise StreamError("its JPEG has no single frame and scan")
    every = [*_segments(_SOI + tables, stop=-1), *segments]
    frame = _read_frame(frames[0], segments[-1][1], [s for marker, s in every if marker == _DRI])
    # A decoder believes JFIF first, then Adobe, then the components' names; OpenSlide and libtiff believe the TIFF.
    colour = _ADOBE if photometric == RGB else b""
    if photometric == YCBCR and not _says_ycbcr(segments, frame):
        colour = _JFIF
    complete = bytearray(_SOI)
    complete += colour
    complete += tables
    size_at = 0
    for marker, segment in segments:
        if marker == _COMMENT or (marker == _APP0 and photometric == RGB) or (marker == _APP14 and colour):
            continue
        if marker in _FRAMES:
            size_at = len(complete) + 5
        complete += segment
    length = 2 + sum(len(segment) for _, segment in segments)
    # Fill bytes between segments are allowed but make the stored header longer than its parts.
    stored = (
        stream[:length]
        if stream[:length].endswith(segments[-1][1])
        else stream[: stream.index(segments[-1][1]) + len(segments[-1][1])]
    )
    huffman = tuple(segment[4:] for marker, segment in every if marker == _DHT)
    return Header(stored, bytes(complete), frame, size_at, huffman, _zeros_end(huffman, frame))


def find_cut(stream: bytes, header: Header) -> str | None:
    """The reason why a stream can't be whole as decoders may not see it: no end, or a hole of zeros; None for none."""
    if stream.rfind(_EOI) < len(header.stored):
        return "its JPEG has no end"
    return "its JPEG has a hole of zeros" if has_hole(stream, header) else None


def find_damage(stream: bytes, header: Header) -> str | None:
    """The reason why a stream can't be whole, found without decoding it; None where nothing speaks against it.

    A cut stream has no EOI, a hole in the file shows as zeros, overwritten bytes as impossible markers. A few flipped
    bits may pass: only decoding finds those that can be found at all.
    """
    reason = find_cut(stream, header)
    if reason or header.frame.restart_interval or not header.frame.sequential:
        return reason
    body, stop = len(header.stored), stream.rfind(_EOI)
    # Inside the data 0xFF stands before a zero only; of its last byte the end's own 0xFF is seen too.
    if _MARKER.search(stream, body, stop + 1):
        return "its JPEG has a marker inside its data"
    return None


def has_hole(stream: bytes, header: Header) -> bool:
    """Whether a stream holds so many zero bytes as its tables never code."""
    return not header.zeros_end and _HOLE in stream


def is_doubtful(stream: bytes, header: Header) -> bool:
    """Whether a stream holds many zero bytes that may be a hole in the file: reason to decode it first."""
    return header.zeros_end and _HOLE in stream


def complete_stream(stream: bytes, header: Header) -> bytes:
    """The stream as one standard JPEG that stands alone; what follows its EOI is left out."""
    stop = len(stream) if stream.endswith(_EOI) else stream.rfind(_EOI) + 2
    return header.complete + stream[len(header.stored) : stop]


def shares_chroma(stream: bytes) -> bool:
    """Whether several luma samples of a complete JPEG share a chroma sample, so that decoders interpolate colours.

    Raises:
        StreamError: it is damaged.
    """
    frames = [segment for marker, segment in _segments(stream, stop=_SOS) if marker in _FRAMES]
    sampling = [frames[0][at + 1] for at in range(10, len(frames[0]) - 2, 3)] if frames else []
    return len(set(sampling)) > 1


def _says_ycbcr(segments: list[tuple[int, bytes]], frame: Frame) -> bool:
    for marker, segment in segments:
        if marker == _APP0 and segment[4:9] == b"JFIF\0":
            return True
    for marker, segment in segments:
        if marker == _APP14 and segment[4:9] == b"Adobe" and len(segment) >= 16:
            return segment[15] == 1
    return tuple(name for name, *_ in frame.components) == (1, 2, 3)


def _zeros_end(payloads: tuple[bytes, ...], frame: Frame) -> bool:
    if not frame.sequential:
        return True
    luma = {16 + ac for _, _, ac in frame.scan_components[:1]}
    # The first code of a canonical table is all zeros; symbol 0 ends the data unit.
    return any(table[0] in luma and table[17:18] == b"\0" for table in split_tables(payloads))


def split_tables(payloads: Sequence[bytes]) -> list[bytes]:
    """The single tables of the payloads of DHT segments."""
    found = []
    for payload in payloads:
        position = 0
        while position + 17 <= len(payload):
            length = 17 + sum(payload[position + 1 : position + 17])
            found.append(payload[position : position + length])
            position += length
    return found


def _segments(stream: bytes, stop: int) -> list[tuple[int, bytes]]:
    """Marker and whole segment of each, from after SOI to the segment `stop`, which is the last."""
    if stream[:2] != _SOI:
        raise StreamError("it holds no JPEG")
    found: list[tuple[int, bytes]] = []
    position = 2
    while position < len(stream):
        if stream[position] != 0xFF:
            raise StreamError("its JPEG has a damaged header")
        if stream[position + 1 : position + 2] == b"\xff":
            position += 1
            continue
        marker = stream[position + 1] if position + 1 < len(stream) else 0
        if marker == 0xD9 and stop == 0xD9:
            return found
        if marker < 0xC0 or 0xD0 <= marker <= 0xD9 or position + 4 > len(stream):
            raise StreamError("its JPEG has a damaged header")
        end = position + 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
        if end > len(stream) or end < position + 4:
            raise StreamError("its JPEG is cut off in its header")
        found.append((marker, stream[position:end]))
        position = end
        if marker == stop:
            return found
    if stop in (-1, 0xD9):
        return found
    raise StreamError("its JPEG is cut off in its header")


def _read_frame(frame: bytes, scan: bytes, restarts: list[bytes]) -> Frame:
    count = frame[9] if len(frame) > 9 else 0
    scanned = scan[4] if len(scan) > 4 else 0
    if count != 3 or len(frame) < 10 + 3 * count or not 0 < scanned <= count or len(scan) < 5 + 2 * scanned:
        raise StreamError("its JPEG doesn't have three components")
    bits, height, width = struct.unpack_from(">BHH", frame, 4)
    components = tuple((frame[at], frame[at + 1] >> 4, frame[at + 1] & 15, frame[at + 2]) for at in range(10, 19, 3))
    if not width or not height or any(not 1 <= h <= 4 or not 1 <= v <= 4 for _, h, v, _ in components):
        raise StreamError("its JPEG has a damaged frame header")
    scans = tuple((scan[at], scan[at + 1] >> 4, scan[at + 1] & 15) for at in range(5, 5 + 2 * scanned, 2))
    interval = int.from_bytes(restarts[-1][4:6], "big") if restarts else 0
    return Frame(frame[1], bits, width, height, components, scans, interval)
