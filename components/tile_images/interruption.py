"""Being told to end (SIGTERM), as an exception where the work is done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from components.records.errors import WorkError


class TerminatedError(WorkError):
    """This process was told to end."""


@contextlib.contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Raises TerminatedError in the block when SIGTERM comes; only the main thread hears it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TerminatedError("stopped by SIGTERM", where="tiling", mend="run the step again to take up what it did")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
