"""Whole JPEG blocks joined into one JPEG without loss: their coded coefficients are moved, not decoded.

In a sequential JPEG (ISO/IEC 10918-1 F.1) all that ties an MCU to the one before it is the DC difference. Where the
blocks share their tables, each row of MCUs of a block can be copied bit for bit into the joined stream, and only the
DC difference of each component's first data unit in that row is coded anew. To find the rows the symbols are walked
through, which finds damage on the way that decoders pass over in silence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from components.readers.join_kernels import (
    MARKER,
    NO_CODE,
    PEEK,
    TOO_LONG,
    TOO_MANY,
    TOO_SHORT,
    WRONG_CODE,
    join_blocks,
)
from components.readers.jpeg_stream import Header, StreamError, find_cut, split_tables

_DAMAGE = {
    MARKER: "its JPEG has a marker inside its data",
    WRONG_CODE: "its JPEG has an impossible code in its data",
    TOO_MANY: "its JPEG has a block of more than 64 coefficients",
    TOO_SHORT: "its JPEG ends before its last MCU",
    TOO_LONG: "its JPEG has data after its last MCU",
}


def can_join(header: Header) -> bool:
    """Whether streams of this header can be joined without loss: sequential, no restarts, sides whole MCUs."""
    frame = header.frame
    across, down = (max(component[at] for component in frame.components) for at in (1, 2))
    whole = frame.width % (8 * across) == 0 and frame.height % (8 * down) == 0
    tables = {table[:1][0] for table in split_tables(header.tables)}
    needed = {dc for _, dc, _ in frame.scan_components} | {16 + ac for _, _, ac in frame.scan_components}
    units = sum(h * v for _, h, v, _ in frame.components)
    named = [name for name, *_ in frame.components] == [name for name, *_ in frame.scan_components]
    return frame.sequential and not frame.restart_interval and whole and needed <= tables and units <= 10 and named


class BlockJoiner:
    """Joins blocks that all have the header given.

    Raises:
        StreamError: its Huffman tables are damaged.
    """

    def __init__(self, header: Header) -> None:
        self._header = header
        frame = header.frame
        tables = {table[0]: table for table in split_tables(header.tables)}
        count = len(frame.components)
        self._across = frame.width // (8 * max(h for _, h, _, _ in frame.components))
        self._rows = frame.height // (8 * max(v for _, _, v, _ in frame.components))
        self._units = np.repeat(np.arange(count), [h * v for _, h, v, _ in frame.components]).astype(np.int64)
        self._dc = np.zeros((count, 1 << 16), np.uint16)
        self._ac = np.zeros((count, 1 << 16), np.uint16)
        self._several = np.zeros((count, 1 << PEEK), np.uint16)
        self._dc_code = np.zeros((count, 12), np.uint64)
        self._dc_length = np.zeros((count, 12), np.int64)
        for at, (_, dc, ac) in enumerate(frame.scan_components):
            self._dc[at] = _dc_steps(tables[dc], self._dc_code[at], self._dc_length[at])
            self._ac[at], self._several[at] = _ac_steps(tables[16 + ac])

    def join(self, blocks: Sequence[bytes], across: int) -> bytes | None:
        """One JPEG of the blocks, given row by row with `across` in each; None where their tables can't code it.

        Raises:
            StreamError: a block's data is damaged.
        """
        starts, stops, start = [], [], 0
        for block in blocks:
            reason = find_cut(block, self._header)
            if reason:
                raise StreamError(reason)
            stop = block.rfind(b"\xff\xd9")
            starts.append(start + len(self._header.stored))
            stops.append(start + stop)
            start += len(block)
        stored = np.frombuffer(b"".join(blocks), np.uint8)
        # A DC difference coded anew takes up to 27 bits more, and every byte may need a zero after it.
        packed = np.empty(
            2 * (start + 4 * len(blocks) * self._rows * len(self._header.frame.components)) + 16, np.uint8
        )
        length = join_blocks(
            stored, np.array(starts), np.array(stops), across, self._rows, self._across, self._units,
            self._dc, self._ac, self._several, self._dc_code, self._dc_length, packed,
        )  # fmt: skip
        if length == -NO_CODE:
            return None
        if length < 0:
            raise StreamError(_DAMAGE[-length])
        body = packed[:length].tobytes()
        frame, at = self._header.frame, self._header.size_at
        height, width = frame.height * (len(blocks) // across), frame.width * across
        head = self._header.complete
        size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
        return b"".join((head[:at], size, head[at + 4 :], body, b"\xff\xd9"))


def _codes(table: bytes) -> list[tuple[int, int, int]]:
    """(code, its length, symbol) of each entry, T.81 annex C."""
    counts, symbols = table[1:17], table[17:]
    if len(symbols) != sum(counts):
        raise StreamError("its JPEG has damaged tables")
    found, code, at = [], 0, 0
    for length, count in enumerate(counts, start=1):
        for _ in range(count):
            found.append((code, length, symbols[at]))
            code, at = code + 1, at + 1
        if code > 1 << length:
            raise StreamError("its JPEG has damaged tables")
        code <<= 1
    return found


def _dc_steps(table: bytes, code_of: NDArray[np.uint64], length_of: NDArray[np.int64]) -> NDArray[np.uint16]:
    """For 16 bits ahead: code length << 4 | bits of the difference; 0 for no code. Fills the codes of each size too."""
    steps = np.zeros(1 << 16, np.uint16)
    for code, length, size in _codes(table):
        if size > 11:
            raise StreamError("its JPEG has damaged tables")
        steps[code << (16 - length) : (code + 1) << (16 - length)] = length << 4 | size
        code_of[size], length_of[size] = code, length
    return steps


def _ac_steps(table: bytes) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """For 16 bits ahead the step over one symbol, for 12 bits over as many as are told by them.

    A step is bits | coefficients << 5 | ends the data unit << 15; 0 for no code.
    """
    one = np.zeros(1 << 16, np.uint16)
    lengths = np.full(1 << 16, 99, np.int64)
    for code, length, symbol in _codes(table):
        run, size = symbol >> 4, symbol & 15
        if size > 10 or (size == 0 and run not in (0, 15)):
            raise StreamError("its JPEG has damaged tables")
        ahead = slice(code << (16 - length), (code + 1) << (16 - length))
        one[ahead] = (length + size) | ((run + 1) << 5 if symbol else 1 << 15)
        lengths[ahead] = length
    several = np.zeros(1 << PEEK, np.uint16)
    ahead_bits = np.arange(1 << PEEK) << (16 - PEEK)
    used = np.zeros(1 << PEEK, np.int64)
    steps = np.zeros(1 << PEEK, np.int64)
    open_ = np.ones(1 << PEEK, bool)
    for _ in range(PEEK):
        peek = (ahead_bits << np.minimum(used, 16)) & 0xFFFF
        step = one[peek].astype(np.int64)
        open_ &= (used + lengths[peek] <= PEEK) & (used + (step & 31) <= 31) & (steps + (step >> 5 & 63) < 63)
        several[open_] = (used + (step & 31) | (steps + (step >> 5 & 63)) << 5 | step & 1 << 15)[open_]
        used = np.where(open_, used + (step & 31), used)
        steps = np.where(open_, steps + (step >> 5 & 63), steps)
        open_ &= (step >> 15) == 0
    return one, several
