"""One run at a time in one OUT."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from components.records.errors import InputError
from components.records.storage import translate_os_errors


@contextlib.contextmanager
def hold(out: str) -> Iterator[None]:
    """Holds OUT while the block runs; the kernel lets go of it when the process dies, however it dies.

    Raises:
        InputError: another process holds it, or OUT can't be written.
    """
    home = os.path.join(out, ".bagline")
    with translate_os_errors(out):
        os.makedirs(home, exist_ok=True)
        handle = os.open(os.path.join(home, "lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                "another bagline works in it now", where=out, mend="wait for it, or choose another --out"
            ) from None
        yield
    finally:
        os.close(handle)
