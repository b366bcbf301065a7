"""Child processes that do the work, so that a reader that crashes or hangs takes one work item with it, not the run.

A lane is a plain Python process that imports only what its work needs (no Beam). It is told a function and its
arguments over a socket pair and answers with the result; when the parent goes away it ends.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection, Pipe
from typing import Any, TypeVar

_Result = TypeVar("_Result")
_CODE = "import sys; from components.tile_images.lanes import serve; serve(int(sys.argv[1]))"
_shared: dict[tuple[int, float], LanePool] = {}
_shared_lock = threading.Lock()


class LaneLostError(Exception):
    """The process that did the work crashed, or took longer than it may."""


class Lane:
    """One child process, started at once; its imports run while the caller goes on."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Any = None
        self._start()

    def _start(self) -> None:
        mine, theirs = Pipe()
        paths = [path or os.getcwd() for path in sys.path]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CODE, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )
        self._pipe = mine

    def call(self, work: Callable[..., _Result], *arguments: Any, timeout: float) -> _Result:
        """What `work(*arguments)` returns, or raises, in the child.

        Raises:
            LaneLostError: the child died or was still at it after `timeout` seconds; the next call has a new one.
        """
        if self._process is None:
            self._start()
        try:
            self._pipe.send((work, arguments))
            if not self._pipe.poll(timeout):
                self.close()
                raise LaneLostError(f"took longer than {timeout:g} s")
            good, value = self._pipe.recv()
        except (EOFError, ConnectionError):
            raise LaneLostError(f"crashed ({self._end()})") from None
        if good:
            result: _Result = value
            return result
        raise value

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
            process.kill()
            process.wait()


class LanePool:
    """Work spread over several lanes, each item to the lane that is free first."""

    def __init__(self, workers: int, timeout: float) -> None:
        self._timeout = timeout
        self._lanes = [Lane() for _ in range(workers)]
        self._free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        for lane in self._lanes:
            self._free.put(lane)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="lane")

    def submit(self, work: Callable[..., _Result], *arguments: Any) -> Future[_Result]:
        """The result to be of `work(*arguments)`; `work` is a function at the top of a module."""
        return self._threads.submit(self._call, work, *arguments)

    def _call(self, work: Callable[..., _Result], *arguments: Any) -> _Result:
        lane = self._free.get()
        try:
            return lane.call(work, *arguments, timeout=self._timeout)
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
        if (workers, timeout) not in _shared:
            _shared[workers, timeout] = LanePool(workers, timeout)
        return _shared[workers, timeout]


def close_pools() -> None:
    """Ends the pools that `share_pool` started in this process."""
    with _shared_lock:
        while _shared:
            _shared.popitem()[1].close()


def serve(descriptor: int) -> None:
    """A lane's own loop: receives work, answers, and ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe: Any = Connection(descriptor)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            work, arguments = pipe.recv()
            try:
                answer = True, work(*arguments)
            except Exception as error:  # noqa: BLE001 - it is raised again where the work was asked for
                answer = False, error
            pipe.send(answer)
