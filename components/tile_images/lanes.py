"""Child processes that do the work, so that a reader that crashes or hangs takes one work item with it, not the run.

A lane is a plain Python process that imports only what its work needs (no Beam). It is told a function and its
arguments over a socket pair and answers with the result. Work on many tiles marks the one it is at in memory that the
caller sees too: after a crash it is known which it was. When the parent goes away, however it dies, the lane ends at
once, whatever it is doing.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import queue
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection, Pipe
from typing import Any, TypeVar

from components.readers.spool import hold_spool, release_spool

_Result = TypeVar("_Result")
_CODE = "import sys; from components.tile_images.lanes import serve; serve(*map(int, sys.argv[1:]))"
_MARK = struct.Struct("<q")
_LOOK_EVERY = 1.0
NOWHERE = -1
# Seconds that planning a slide may take; of a flat slide that is reading all of it.
TIMEOUT = 3600.0
_shared: dict[tuple[int, float], LanePool] = {}
_shared_lock = threading.Lock()
_own_mark: mmap.mmap | None = None


class LaneLostError(Exception):
    """The process that did the work crashed, or took longer than it may.

    Attributes:
        position: what `mark` said last, `NOWHERE` where it said nothing.
        crashed: not too slow.
    """

    def __init__(self, what: str, position: int, crashed: bool) -> None:
        super().__init__(what)
        self.position, self.crashed = position, crashed


class Lane:
    """One child process, started at once; its imports run while the caller goes on."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Any = None
        self._lifeline = -1
        with tempfile.TemporaryFile() as shared:
            shared.truncate(_MARK.size)
            self._mark = mmap.mmap(shared.fileno(), _MARK.size)
            self._mark_file = os.dup(shared.fileno())
        self._start()

    def _start(self) -> None:
        mine, theirs = Pipe()
        hears, self._lifeline = os.pipe()
        paths = [path or os.getcwd() for path in sys.path]
        handles = (theirs.fileno(), self._mark_file, hears)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CODE, *map(str, handles)],
                stdin=subprocess.DEVNULL,
                pass_fds=handles,
                # One lane is one thread: the threads of a BLAS would only take memory.
                env={"OPENBLAS_NUM_THREADS": "1", **os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )
        finally:
            theirs.close()
            os.close(hears)
        self._pipe = mine

    def call(self, work: Callable[..., _Result], *arguments: Any, timeout: float) -> _Result:
        """What `work(*arguments)` returns, or raises, in the child.

        Raises:
            LaneLostError: the child died, or neither ended nor marked a new position for `timeout` seconds; the next
                call has a new one.
        """
        if self._process is None:
            self._start()
        _MARK.pack_into(self._mark, 0, NOWHERE)
        try:
            self._pipe.send((work, arguments))
            self._wait(timeout)
            good, value = self._pipe.recv()
        except (EOFError, ConnectionError):
            raise LaneLostError(f"crashed ({self._end()})", self._position(), True) from None
        if good:
            result: _Result = value
            return result
        raise value

    def _wait(self, timeout: float) -> None:
        seen, since = self._position(), time.monotonic()
        while not self._pipe.poll(min(timeout, _LOOK_EVERY)):
            now = self._position()
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since >= timeout:
                self.close()
                raise LaneLostError(f"took longer than {timeout:g} s", now, False)

    def _position(self) -> int:
        position: int = _MARK.unpack_from(self._mark)[0]
        return position

    def _end(self) -> str:
        if self._process is None:
            return "it was closed"
        code = self._process.wait()
        self.close()
        if code < 0:
            return signal.Signals(-code).name
        return f"exit code {code}"

    def close(self) -> None:
        """Ends the child at once; what it was writing never gets its name."""
        process, self._process = self._process, None
        if process is not None:
            self._pipe.close()
            os.close(self._lifeline)
            process.kill()
            process.wait()

    def __del__(self) -> None:
        os.close(self._mark_file)


class LanePool:
    """Work spread over several lanes, each item to the lane that is free first."""

    def __init__(self, workers: int, timeout: float) -> None:
        self.timeout = timeout
        self._lanes = [Lane() for _ in range(workers)]
        self._free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        for lane in self._lanes:
            self._free.put(lane)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="lane")

    def submit(self, work: Callable[..., _Result], *arguments: Any) -> Future[_Result]:
        """The result to be of `work(*arguments)` in a thread of this process, which `call`s lanes."""
        return self._threads.submit(work, *arguments)

    def call(self, work: Callable[..., _Result], *arguments: Any, timeout: float | None = None) -> _Result:
        """What `work(*arguments)` returns in a lane; `work` is a function at the top of a module.

        Raises:
            LaneLostError: as `Lane.call`.
        """
        lane = self._free.get()
        try:
            return lane.call(work, *arguments, timeout=timeout or self.timeout)
        finally:
            self._free.put(lane)

    def close(self) -> None:
        """Ends every lane; work that has not begun is dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for lane in self._lanes:
            lane.close()


def share_pool(workers: int, timeout: float) -> LanePool:
    """The pool of this process for that many workers, started on first use."""
    with _shared_lock:
        hold_spool()
        if (workers, timeout) not in _shared:
            _shared[workers, timeout] = LanePool(workers, timeout)
        return _shared[workers, timeout]


def close_pools() -> None:
    """Ends the pools that `share_pool` started in this process."""
    with _shared_lock:
        while _shared:
            _shared.popitem()[1].close()
        release_spool()


def mark(position: int) -> None:
    """Tells the caller of this lane where the work is; outside a lane it does nothing."""
    if _own_mark is not None:
        _MARK.pack_into(_own_mark, 0, position)


def serve(descriptor: int, mark_file: int, lifeline: int) -> None:
    """A lane's own loop: receives work, answers, and ends with its parent."""
    global _own_mark
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _own_mark = mmap.mmap(mark_file, _MARK.size)
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()
    # What the first work item would otherwise wait for.
    import components.readers.openslide_reader
    import components.tile_images.work  # noqa: F401

    pipe: Any = Connection(descriptor)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            work, arguments = pipe.recv()
            try:
                answer = True, work(*arguments)
            except Exception as error:  # noqa: BLE001 - it is raised again where the work was asked for
                answer = False, error
            pipe.send(answer)


def _end_with_parent(lifeline: int) -> None:
    """Waits for the parent's end of a pipe to close, which nothing but its end does."""
    os.read(lifeline, 1)
    os._exit(1)
