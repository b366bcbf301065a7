"""Where a slide's bytes come from: a file on disk today, ranges of an object in a bucket with the same two calls."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from components.records.errors import SlideError

# A gap of up to so many bytes between two blocks is read along with them, and a run is at most so many bytes.
_GAP = 16 << 10
_RUN = 4 << 20


class ByteSource(Protocol):
    """Random access to the bytes of one slide; safe to share between threads."""

    name: str
    size: int

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, fewer only where the file ends before."""
        ...

    def close(self) -> None:
        """Gives the file back."""
        ...


@runtime_checkable
class RangedSource(ByteSource, Protocol):
    """A source to which each read is a request, so that it joins neighbours itself."""

    def expect(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Announces the (offset, length) that will be read."""
        ...

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each (offset, length), in the order given."""
        ...


class LocalFile:
    """A file on disk, read with `pread`; it has no position that threads could disturb, and pickles as its path.

    Raises:
        SlideError: there is no such file, or it can't be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.name = os.path.basename(self.path)
        self._descriptor = -1
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            self.size = os.fstat(self._descriptor).st_size
        except OSError as error:
            raise SlideError(f"can't be opened: {error.strerror}", where=self.name) from error

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, fewer only where the file ends before."""
        if not 0 <= offset < self.size:
            return b""
        try:
            return os.pread(self._descriptor, min(length, self.size - offset), offset)
        except OSError as error:
            raise SlideError(f"can't be read at byte {offset}: {error.strerror}", where=self.name) from error

    def close(self) -> None:
        """Gives the file back; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[LocalFile], tuple[str]]:
        return LocalFile, (self.path,)


def read_ranges(source: ByteSource, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """The bytes of each (offset, length), in the order given, neighbours in the file being fetched together.

    Memory is the ranges' own and one run of at most 4 MiB (or one range, where that is longer).
    """
    if isinstance(source, RangedSource):
        return source.read_many(ranges)
    found: list[bytes] = [b""] * len(ranges)
    order = sorted(range(len(ranges)), key=ranges.__getitem__)
    first = 0
    while first < len(order):
        start, length = ranges[order[first]]
        stop, last = start + length, first + 1
        while last < len(order):
            offset, length = ranges[order[last]]
            end = offset + length
            if offset > stop + _GAP or end - start > _RUN:
                break
            stop, last = max(stop, end), last + 1
        run = source.read(start, stop - start)
        for index in order[first:last]:
            offset, length = ranges[index]
            found[index] = run[offset - start : offset - start + length]
        first = last
    return found
