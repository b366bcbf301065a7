"""Caches that can't grow: by bytes for what was made, by number for slides that are open."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from components.readers.protocol import SlideReader

_LOCK = type(threading.Lock())
Key = TypeVar("Key")
Value = TypeVar("Value")


class ByteCache(Generic[Key, Value]):
    """What was used last, up to `most_bytes`; a value larger than that is not kept. Safe to share between threads."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._held: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0

    def get(self, key: Key) -> Value | None:
        """The value, None where it is not kept."""
        with self._lock:
            found = self._held.get(key)
            if found is None:
                return None
            self._held.move_to_end(key)
            return found[0]

    def put(self, key: Key, value: Value, size: int) -> None:
        """Keeps a value of `size` bytes, and lets go of the ones that were not used for longest."""
        with self._lock:
            before = self._held.pop(key, None)
            if before is not None:
                self.bytes -= before[1]
            if size > self._most:
                return
            self._held[key] = value, size
            self.bytes += size
            while self.bytes > self._most:
                self.bytes -= self._held.popitem(last=False)[1][1]


class OneAtATime(Generic[Key]):
    """A lock for each key that is in use, so that a costly thing is made once while others wait for it."""

    def __init__(self) -> None:
        self._locks: dict[Key, tuple[threading.Lock, int]] = {}
        self._guard = threading.Lock()

    @contextlib.contextmanager
    def hold(self, key: Key) -> Iterator[None]:
        """Holds the key's lock."""
        with self._guard:
            lock, users = self._locks.get(key, (threading.Lock(), 0))
            self._locks[key] = lock, users + 1
        try:
            with lock:
                yield
        finally:
            with self._guard:
                users = self._locks[key][1] - 1
                if users:
                    self._locks[key] = lock, users
                else:
                    del self._locks[key]


@dataclass
class OpenedSlide:
    """An open slide; `lock` is held while a reader that threads can't share reads."""

    reader: SlideReader
    lock: contextlib.AbstractContextManager[object]
    users: int = 0

    @property
    def busy(self) -> bool:
        """Whether somebody reads who has to be waited for."""
        return isinstance(self.lock, _LOCK) and self.lock.locked()


class SlidePool(Generic[Key]):
    """Slides that stay open while they are looked at, at most `most` of those that nobody uses at the moment."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: OrderedDict[Key, OpenedSlide] = OrderedDict()
        self._guard = threading.Lock()
        self._opening: OneAtATime[Key] = OneAtATime()

    @contextlib.contextmanager
    def lease(self, key: Key, open_slide: Callable[[], SlideReader]) -> Iterator[OpenedSlide]:
        """The open slide of `key`; it is not closed before the block ends."""
        with self._opening.hold(key):
            slide = self._take(key)
            if slide is None:
                reader = open_slide()
                shared = reader.name == "jpeg-blocks"
                slide = OpenedSlide(reader, contextlib.nullcontext() if shared else threading.Lock(), users=1)
                with self._guard:
                    self._open[key] = slide
        try:
            yield slide
        finally:
            with self._guard:
                slide.users -= 1
                idle = self._idle()
            for reader in idle:
                reader.close()

    def __len__(self) -> int:
        return len(self._open)

    def close(self) -> None:
        """Closes what nobody uses."""
        with self._guard:
            self._most = 0
            idle = self._idle()
        for reader in idle:
            reader.close()

    def _take(self, key: Key) -> OpenedSlide | None:
        with self._guard:
            slide = self._open.get(key)
            if slide is not None:
                slide.users += 1
                self._open.move_to_end(key)
            return slide

    def _idle(self) -> list[SlideReader]:
        """Takes the idle slides over the bound out of the pool, to be closed."""
        found = []
        for key in [key for key, slide in self._open.items() if not slide.users]:
            if len(self._open) <= self._most:
                break
            found.append(self._open.pop(key).reader)
        return found
