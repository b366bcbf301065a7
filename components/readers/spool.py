"""A worker's disk for slides from object storage: shared by its processes, bounded, and emptied by the last of them.

Everything lies in one folder of the user below the temporary folder. Each process that uses it holds a shared lock,
which the kernel gives back even for a process that is killed; who finds nobody else there removes what was left behind.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import io
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from components.records.errors import SlideError

# The spool takes no more of the disk than this, nor more than half of what is free, unless BAGLINE_SPOOL_BYTES says.
_MOST_BYTES = 32 << 30
_LOOK_AGAIN = 64 << 20
_held: list[int] = []
_guard = threading.Lock()


def spool_folder() -> str:
    """The folder; it need not be there."""
    return os.path.join(tempfile.gettempdir(), f"bagline-spool-{os.getuid()}")


def hold_spool() -> None:
    """Joins the processes that use the spool; a second call does nothing. Leftovers go if nobody else is there."""
    with _guard:
        if _held:
            return
        path = os.path.join(spool_folder(), "lock")
        while True:
            os.makedirs(spool_folder(), mode=0o700, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                if _try_alone(lock):
                    _empty(spool_folder())
                fcntl.flock(lock, fcntl.LOCK_SH)
                with contextlib.suppress(FileNotFoundError):
                    if os.stat(path).st_ino == os.fstat(lock).st_ino:
                        _held.append(lock)
                        return
                os.close(lock)


def release_spool() -> None:
    """Leaves; the last one removes the spool."""
    with _guard:
        while _held:
            lock = _held.pop()
            if _try_alone(lock):
                shutil.rmtree(spool_folder(), ignore_errors=True)
            os.close(lock)


atexit.register(release_spool)


def _try_alone(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _empty(folder: str) -> None:
    for name in os.listdir(folder):
        if name != "lock":
            _remove(os.path.join(folder, name))


def _remove(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def room() -> int:
    """Bytes that the spool may still take."""
    used = sum(_taken(os.path.join(folder, name)) for folder, _, names in os.walk(spool_folder()) for name in names)
    limit = int(os.environ.get("BAGLINE_SPOOL_BYTES") or 0)
    return (limit or min(_MOST_BYTES, (shutil.disk_usage(spool_folder()).free + used) // 2)) - used


def _taken(path: str) -> int:
    try:
        return os.stat(path).st_blocks * 512
    except FileNotFoundError:
        return 0


class SparseCopy:
    """Some ranges of an object in a sparse file of the object's size, which readers of files open like the whole.

    Args:
        key: names the object and its content.
        name: of the file.
        size: bytes of the object.
    """

    def __init__(self, key: str, name: str, size: int) -> None:
        hold_spool()
        _make_room(size, key)
        self._final = os.path.join(spool_folder(), key)
        self._folder = tempfile.mkdtemp(prefix=f"{key}.", suffix=".tmp", dir=spool_folder())
        self.path = os.path.join(self._folder, name)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._descriptor, size)
        self._spans: list[tuple[int, int]] = []
        self._merged = np.zeros((0, 2), np.int64)
        self._left = room()
        self._until_look = _LOOK_AGAIN
        self._lock = threading.Lock()

    @classmethod
    def find(cls, key: str, name: str) -> SparseCopy | None:
        """What an earlier reader of this worker kept of the object."""
        folder = os.path.join(spool_folder(), key)
        if not os.path.isdir(folder):
            return None
        hold_spool()
        copy = cls.__new__(cls)
        copy._final, copy._folder, copy.path = folder, "", os.path.join(folder, name)
        try:
            os.utime(folder)
            copy._merged = np.load(os.path.join(folder, "ranges.npy"), allow_pickle=False)
            copy._descriptor = os.open(copy.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        copy._spans, copy._left, copy._until_look, copy._lock = [], 0, 0, threading.Lock()
        return copy

    def write(self, offset: int, content: bytes) -> None:
        """Keeps a range, where there is room."""
        with self._lock:
            self._until_look -= len(content)
            if self._until_look < 0:
                self._left, self._until_look = room(), _LOOK_AGAIN
            if self._descriptor < 0 or not self._folder or len(content) > self._left:
                return
            self._left -= len(content)
        try:
            written = os.pwrite(self._descriptor, content, offset)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            written = 0
        with self._lock:
            if written == len(content):
                self._spans.append((offset, offset + written))
            else:
                self._left = 0

    def read(self, offset: int, stop: int) -> bytes | None:
        """The bytes from `offset` to `stop`, None where they are not all kept."""
        return os.pread(self._descriptor, stop - offset, offset) if self.has(offset, stop) else None

    def has(self, offset: int, stop: int) -> bool:
        """Whether every byte from `offset` to `stop` is kept."""
        with self._lock:
            if self._spans:
                self._merged = merge_spans(np.concatenate([self._merged, np.array(self._spans, np.int64)]))
                self._spans = []
            at = int(np.searchsorted(self._merged[:, 0], offset, "right")) - 1
            return at >= 0 and stop <= int(self._merged[at, 1])

    def close(self) -> None:
        """Leaves what was kept to later readers; a second call does nothing."""
        if self._descriptor < 0:
            return
        self.has(0, 0)
        os.close(self._descriptor)
        self._descriptor = -1
        if not self._folder:
            return
        try:
            with open(os.path.join(self._folder, "ranges.npy"), "wb") as stream:
                np.save(stream, self._merged, allow_pickle=False)
            os.rename(self._folder, self._final)
        except OSError:
            # No space for the list of ranges, or another process was first: nothing is kept.
            shutil.rmtree(self._folder, ignore_errors=True)


def merge_spans(spans: NDArray[np.int64]) -> NDArray[np.int64]:
    """Spans (start, stop) in order, those that touch or overlap as one."""
    if len(spans) < 2:
        return spans
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    reach = np.maximum.accumulate(spans[:, 1])
    first = np.concatenate([[True], spans[1:, 0] > reach[:-1]])
    last = np.concatenate([first[1:], [True]])
    return np.stack([spans[first, 0], reach[last]], axis=1)


@contextlib.contextmanager
def whole_copy(key: str, name: str, size: int, fetch: Callable[[io.BufferedIOBase], None]) -> Iterator[str]:
    """A file on disk with the whole object, fetched by the first of this worker's processes that wants it.

    Args:
        key: names the object and its content.
        name: of the file, whose ending readers may look at.
        size: bytes of the object; files that nobody reads make room for it, the longest unused first.
        fetch: writes the object's bytes into the file it is given.

    Yields:
        The path, valid inside the block.

    Raises:
        SlideError: the disk has no room for it.
    """
    hold_spool()
    folder = os.path.join(spool_folder(), key)
    os.makedirs(folder, exist_ok=True)
    target = os.path.join(folder, name)
    lock = os.open(os.path.join(spool_folder(), f"{key}.use"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            fcntl.flock(lock, fcntl.LOCK_SH)
            if os.path.exists(target):
                break
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.exists(target):
                if not _make_room(size, key):
                    raise SlideError(
                        f"needs {size:,} bytes of the worker's disk, where {max(room(), 0):,} may be used",
                        where=name,
                        mend="give the workers larger disks, or set TMPDIR or BAGLINE_SPOOL_BYTES",
                    )
                _fetch_whole(folder, target, fetch)
        os.utime(folder)
        yield target
    finally:
        os.close(lock)


def _fetch_whole(folder: str, target: str, fetch: Callable[[io.BufferedIOBase], None]) -> None:
    os.makedirs(folder, exist_ok=True)
    temporary = f"{target}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as stream:
            fetch(stream)
        os.rename(temporary, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SlideError("no space is left on the worker's disk", where=os.path.basename(target)) from None
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _make_room(size: int, key: str) -> bool:
    """Removes slides that no process reads, the longest unused first, until `size` bytes fit; whether they do."""
    root = spool_folder()
    others = [entry for entry in os.scandir(root) if entry.is_dir() and not entry.name.endswith(".tmp")]
    for entry in sorted(others, key=lambda entry: entry.stat().st_mtime_ns):
        if room() >= size:
            return True
        if entry.name == key:
            continue
        use = os.open(os.path.join(root, f"{entry.name}.use"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if _try_alone(use):
                shutil.rmtree(entry.path, ignore_errors=True)
        finally:
            os.close(use)
    return room() >= size
