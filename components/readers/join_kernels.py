"""The two loops over coded bits that joining blocks needs, compiled by numba.

Bits lie in 32-bit words, most significant first. A window is the 64 bits that begin with the wanted one; at least the
first 33 of it are right.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

import numba
import numpy as np

# Bits ahead that the table of several symbols at once is asked for.
PEEK = 12
MARKER, WRONG_CODE, TOO_MANY, TOO_SHORT, TOO_LONG = 1, 2, 3, 4, 5
NO_CODE = 6
_PEEK_SHIFT = np.uint64(64 - PEEK)
_32 = np.uint64(32)
_48 = np.uint64(48)


def _compiled(function: Any) -> Any:
    try:
        return numba.njit(function, cache=True, nogil=True)
    except RuntimeError:
        # Neither the package's folder nor the user's takes compiled code.
        numba.config.CACHE_DIR = _own_folder()
    try:
        return numba.njit(function, cache=bool(numba.config.CACHE_DIR), nogil=True)
    except RuntimeError:
        return numba.njit(function, nogil=True)


def _own_folder() -> str:
    """A folder among the temporary ones that nobody else may write to (compiled code is run), empty for none."""
    folder = os.path.join(tempfile.gettempdir(), f"bagline-numba-{os.getuid()}")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        found = os.lstat(folder)
    except OSError:
        return ""
    return folder if found.st_uid == os.getuid() and found.st_mode == 0o40700 else ""


@_compiled
def _window(words: Any, base: Any, position: Any) -> Any:
    at = base + (position >> 5)
    return ((np.uint64(words[at]) << _32) | np.uint64(words[at + 1])) << np.uint64(position & 31)


@_compiled
def _difference(window: Any, length: Any, size: Any) -> Any:
    """The DC difference of `size` bits after a code of `length` bits (T.81 F.2.2.1)."""
    if size == 0:
        return 0
    bits = np.int64((window << np.uint64(length)) >> np.uint64(64 - size))
    return bits if bits >> (size - 1) else bits - (1 << size) + 1


@_compiled
def _skip_coefficients(words: Any, base: Any, position: Any, ac: Any, several: Any) -> Any:
    """The position after the AC coefficients of a data unit, or minus what is wrong with them."""
    k: Any = 0
    window = _window(words, base, position)
    right = 64 - (position & 31)
    while k < 63:
        if right < 16:
            window = _window(words, base, position)
            right = 64 - (position & 31)
        step: Any = np.int64(several[window >> _PEEK_SHIFT])
        if step == 0 or k + ((step >> 5) & 63) >= 63:
            # One symbol only: the next may belong to the data unit after this one.
            step = np.int64(ac[window >> _48])
            if step == 0:
                return -WRONG_CODE
        position += step & 31
        right -= step & 31
        window <<= np.uint64(step & 31)
        k += (step >> 5) & 63
        if step >> 15:
            return position
    return position if k == 63 else -TOO_MANY


@_compiled
def _unpack(stored: Any, start: Any, stop: Any, words: Any, base: Any) -> Any:
    """Takes the zero after each 0xFF out of coded bytes, packs them into words, and returns how many bits they are."""
    at = start
    count = 0
    held = np.uint64(0)
    while at < stop:
        if at + 4 <= stop:
            four = (
                (np.uint32(stored[at]) << np.uint32(24)) | (np.uint32(stored[at + 1]) << np.uint32(16))
                | (np.uint32(stored[at + 2]) << np.uint32(8)) | np.uint32(stored[at + 3])
            )  # fmt: skip
            if not _holds_255(four):
                held = (held << _32) | np.uint64(four)
                words[base + (count >> 2)] = np.uint32(held >> np.uint64(8 * (count & 3)))
                count += 4
                at += 4
                continue
        byte = stored[at]
        at += 1
        if byte == 255:
            if at >= stop or stored[at] != 0:
                return -1
            at += 1
        held = (held << np.uint64(8)) | np.uint64(byte)
        count += 1
        if count & 3 == 0:
            words[base + (count >> 2) - 1] = np.uint32(held)
    rest = -count & 3
    if rest:
        words[base + (count >> 2)] = np.uint32(held << np.uint64(8 * rest))
    return 8 * count


@_compiled
def _holds_255(four: Any) -> Any:
    """Whether any of the four bytes of a uint32 is 255: one of its complement is zero."""
    return (~four - np.uint32(0x01010101)) & four & np.uint32(0x80808080) != 0


@_compiled
def _pack(words: Any, count: Any, packed: Any) -> Any:
    """The first `count` bytes of words, a zero after each 0xFF; returns how many bytes that makes."""
    out = 0
    at = 0
    while at < count:
        word = words[at >> 2]
        if at & 3 == 0 and at + 4 <= count and not _holds_255(word):
            packed[out] = np.uint8(word >> np.uint32(24))
            packed[out + 1] = np.uint8((word >> np.uint32(16)) & np.uint32(255))
            packed[out + 2] = np.uint8((word >> np.uint32(8)) & np.uint32(255))
            packed[out + 3] = np.uint8(word & np.uint32(255))
            out += 4
            at += 4
            continue
        byte = np.uint8((word >> np.uint32(24 - 8 * (at & 3))) & np.uint32(255))
        at += 1
        packed[out] = byte
        out += 1
        if byte == 255:
            packed[out] = 0
            out += 1
    return out


@_compiled
def _find_rows(
    words: Any, base: Any, end: Any, mcus: Any, units: Any, dc: Any, ac: Any, several: Any, spans: Any
) -> Any:
    """Walks through a block's symbols and notes where its rows of MCUs lie.

    Args:
        words: uint32, the coded bits.
        base: the word where the block's begin.
        end: how many bits it has.
        mcus: MCUs a row.
        units: int64, the component of each data unit of an MCU.
        dc: as in `join_blocks`.
        ac: as there.
        several: as there.
        spans: int64, shape [rows, components, 4], to fill: the bit after the component's first DC in the row, the bit
            where the next component's begins, the DC of its first and of its last data unit.

    Returns:
        0, or what is wrong: WRONG_CODE, TOO_MANY, TOO_SHORT, TOO_LONG.
    """
    last = np.zeros(dc.shape[0], np.int64)
    position: Any = 0
    for row in range(spans.shape[0]):
        for mcu in range(mcus):
            previous = -1
            for unit in range(len(units)):
                c = units[unit]
                before = position
                window = _window(words, base, position)
                step: Any = np.int64(dc[c, window >> _48])
                if step == 0:
                    return WRONG_CODE
                last[c] += _difference(window, step >> 4, step & 15)
                position += (step >> 4) + (step & 15)
                if mcu == 0 and c != previous:
                    spans[row, c - 1, 1] = before
                    spans[row, c, 0] = position
                    spans[row, c, 2] = last[c]
                previous = c
                position = _skip_coefficients(words, base, position, ac[c], several[c])
                if position < 0:
                    return -position
                if position > end:
                    return TOO_SHORT
        spans[row, -1, 1] = position
        spans[row, :, 3] = last
    return TOO_LONG if end - position >= 8 else 0


@_compiled
def _put(joined: Any, state: Any, piece: Any, count: Any) -> None:
    """Appends `count` bits, 32 at most, to the words; state: bits held, how many are free of 64, words written."""
    free = np.int64(state[1]) - count
    held = state[0] | (piece << np.uint64(free))
    if free <= 32:
        joined[state[2]] = np.uint32(held >> _32)
        held <<= _32
        free += 32
        state[2] += np.uint64(1)
    state[0], state[1] = held, np.uint64(free)


@_compiled
def _copy_words(joined: Any, state: Any, words: Any, base: Any, position: Any, end: Any) -> Any:
    """Appends as many times 32 bits as lie before `end`, and returns where it stopped; state: as in `_put`."""
    held = state[0]
    filled = np.uint64(64) - state[1]
    out = np.int64(state[2])
    while position + 32 <= end:
        held |= (_window(words, base, position) >> _32) << (_32 - filled)
        joined[out] = np.uint32(held >> _32)
        held <<= _32
        out += 1
        position += 32
    state[0], state[2] = held, np.uint64(out)
    return position


@_compiled
def _copy_rows(words: Any, bases: Any, spans: Any, across: Any, dc_code: Any, dc_length: Any, joined: Any) -> Any:
    """Copies the blocks' rows of MCUs into the order of the joined picture, with the DC differences that hold there.

    Args:
        words: uint32, the coded bits.
        bases: the word where each block's begin.
        spans: int64, shape [blocks, rows, components, 4], what `_find_rows` found.
        across: blocks in a row of blocks.
        dc_code: as in `join_blocks`.
        dc_length: as there.
        joined: uint32, zeros, to fill.

    Returns:
        Bits of the joined stream, padded to whole bytes with ones, or -1 where the tables lack a code that is needed.
    """
    blocks, rows, components, _ = spans.shape
    state = np.array([0, 64, 0], np.uint64)
    last = np.zeros(components, np.int64)
    for line in range(blocks // across * rows):
        for column in range(across):
            block, row = line // rows * across + column, line % rows
            for c in range(components):
                difference = spans[block, row, c, 2] - last[c]
                last[c] = spans[block, row, c, 3]
                size = 0
                while abs(difference) >> size:
                    size += 1
                if size > 11 or dc_length[c, size] == 0:
                    return -1
                value = difference if difference >= 0 else difference + (1 << size) - 1
                _put(joined, state, (dc_code[c, size] << np.uint64(size)) | np.uint64(value), dc_length[c, size] + size)
                position, end = spans[block, row, c, 0], spans[block, row, c, 1]
                position = _copy_words(joined, state, words, bases[block], position, end)
                if position < end:
                    count = end - position
                    _put(joined, state, _window(words, bases[block], position) >> np.uint64(64 - count), count)
    free = np.int64(state[1])
    fill = free % 8
    _put(joined, state, (np.uint64(1) << np.uint64(fill)) - np.uint64(1), fill)
    joined[state[2]] = np.uint32(state[0] >> _32)
    return 32 * np.int64(state[2]) + 64 - np.int64(state[1])


@_compiled
def join_blocks(
    stored: Any, starts: Any, stops: Any, across: Any, rows: Any, mcus: Any, units: Any, dc: Any, ac: Any,
    several: Any, dc_code: Any, dc_length: Any, packed: Any,
) -> Any:  # fmt: skip
    """Joins the coded data of blocks.

    Args:
        stored: uint8, the blocks' bytes.
        starts: int64, where each block's coded data begin in them.
        stops: int64, where they end.
        across: blocks in a row of blocks.
        rows: rows of MCUs in a block.
        mcus: MCUs a row.
        units: int64, the component of each data unit of an MCU.
        dc: uint16, shape [components, 65536], for the 16 bits ahead: code length << 4 | bits of the difference.
        ac: uint16, shape [components, 65536], for the 16 bits ahead the step over one AC symbol: its bits |
            coefficients << 5 | ends the data unit << 15. 0 stands for no code.
        several: uint16, shape [components, 4096], the same over as many symbols as 12 bits tell.
        dc_code: uint64, shape [components, 12], the code of each size of a difference.
        dc_length: int64, shape [components, 12], its length, 0 for none.
        packed: uint8, to fill with the joined coded data.

    Returns:
        Bytes of the joined data, or minus what is wrong: one of this module's constants.
    """
    blocks = len(starts)
    bases = np.zeros(blocks, np.int64)
    words = np.empty(len(stored) // 4 + 4 * blocks, np.uint32)
    spans = np.zeros((blocks, rows, dc.shape[0], 4), np.int64)
    base = 0
    for block in range(blocks):
        bases[block] = base
        end = _unpack(stored, starts[block], stops[block], words, base)
        if end < 0:
            return -MARKER
        used = (end + 31) // 32
        words[base + used : base + used + 2] = 0
        damage = _find_rows(words, base, end, mcus, units, dc, ac, several, spans[block])
        if damage:
            return -damage
        base += used + 2
    joined = np.empty(base + blocks * rows * dc.shape[0] + 4, np.uint32)
    bits = _copy_rows(words, bases, spans, across, dc_code, dc_length, joined)
    return -NO_CODE if bits < 0 else _pack(joined, bits // 8, packed)
