"""One tiling run at a time in one OUT, whoever started it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator

from components.records import storage
from components.records.errors import InputError
from components.tile_images.lease import Lease


@contextlib.contextmanager
def hold_out(out: str) -> Iterator[Callable[[], None]]:
    """Holds `out` while the block runs.

    On disk the kernel lets go of it when the process dies, however it dies; it is a file of its own, so that a caller
    that holds the folder by its own lock may tile into it. In a bucket it is an object that has to be kept (`Lease`).

    Yields:
        What raises WorkError where `out` is no longer held: to be called before what only its holder may write.

    Raises:
        InputError: another process tiles into it, or it can't be written.
    """
    if storage.is_remote(out):
        lease = Lease(out)
        lease.acquire()
        try:
            yield lease.check
        finally:
            lease.release()
        return
    home = storage.join(out, ".tiling")
    with storage.translate_os_errors(out):
        os.makedirs(home, exist_ok=True)
        handle = os.open(storage.join(home, "lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                "another run tiles into it now", where=out, mend="wait for it, or choose another --out"
            ) from None
        yield lambda: None
    finally:
        os.close(handle)
