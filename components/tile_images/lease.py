"""The lock object of an OUT in a bucket: whoever creates it has it, and keeps it by writing it anew every few seconds.

Every write names the generation that it replaces (`ifGenerationMatch`), so that of two runs one is refused. A run that
was killed stops writing; what has not been written for `STALE` seconds by the store's own clock may be taken over.
"""

from __future__ import annotations

import contextlib
import email.utils
import logging
import os
import threading
from datetime import UTC, datetime
from typing import Any

from components.records import storage
from components.records.errors import InputError, WorkError

logger = logging.getLogger(__name__)

NAME = "lock"
BEAT, STALE = 20.0, 120.0


class Lease:
    """The lock object of one OUT, held from `acquire` to `release`.

    Args:
        out: `gs://…`.
        beat: seconds between writes.
        stale: seconds without a write after which another run may take it.
    """

    def __init__(self, out: str, beat: float = BEAT, stale: float = STALE) -> None:
        path = storage.join(out, ".tiling", NAME)
        self._out, self._beat, self._stale = out, beat, stale
        self._blob = storage.bucket(path).blob(storage.object_name(path))
        self._token = os.urandom(16).hex().encode()
        self._generation = 0
        self._taken = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def acquire(self) -> None:
        """Takes the lock and begins to keep it; raises InputError where another run has it."""
        from google.api_core.exceptions import NotFound, PreconditionFailed

        try:
            self._write(0)
        except PreconditionFailed as refusal:
            with contextlib.suppress(NotFound):
                self._blob.reload()
            left = self._stale - (_store_time(refusal) - (self._blob.updated or _EPOCH)).total_seconds()
            if left > 0:
                self._refuse(left)
            logger.warning("%s: takes over from a run that has not been heard of for %.0f s", self._out, self._stale)
            try:
                self._write(int(self._blob.generation or 0))
            except PreconditionFailed:
                self._refuse(self._stale)
        self._thread.start()

    def _refuse(self, left: float) -> None:
        raise InputError(
            "another run tiles into it now",
            where=self._out,
            mend=f"wait for it, choose another --out, or if that run was killed try again in {max(left, 1):.0f} s",
        ) from None

    def check(self) -> None:
        """Raises WorkError where another run has taken the lock, as this one was not heard of for too long."""
        if self._taken:
            raise WorkError(
                "another run took it over while this one was not heard of",
                where=self._out,
                mend="run it again when the other has ended",
            )

    def release(self) -> None:
        """Stops keeping the lock and removes it, unless it is another run's by now."""
        from google.api_core.exceptions import NotFound, PreconditionFailed

        self._end.set()
        if self._thread.is_alive():
            self._thread.join()
        if not self._taken:
            with contextlib.suppress(NotFound, PreconditionFailed):
                self._blob.delete(if_generation_match=self._generation)

    def _keep(self) -> None:
        from google.api_core.exceptions import GoogleAPIError, NotFound, PreconditionFailed
        from google.auth.exceptions import GoogleAuthError

        while not self._end.wait(self._beat):
            try:
                self._write(self._generation)
            except (NotFound, PreconditionFailed):
                self._taken = True
                return
            except (GoogleAPIError, GoogleAuthError, OSError) as error:
                logger.warning("%s: its lock could not be renewed (%s)", self._out, type(error).__name__)

    def _write(self, replaces: int) -> None:
        from google.api_core.exceptions import PreconditionFailed

        try:
            self._blob.upload_from_string(self._token, if_generation_match=replaces, timeout=self._beat)
        except PreconditionFailed:
            # An answer that got lost is tried again, and then finds what this very run has written.
            if not self._is_own():
                raise
        self._generation = int(self._blob.generation)

    def _is_own(self) -> bool:
        from google.api_core.exceptions import NotFound

        try:
            found = self._blob.download_as_bytes()
            self._blob.reload()
        except NotFound:
            return False
        return bool(found == self._token)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _store_time(refusal: Any) -> datetime:
    """When the store answered, by its own clock, by which objects are stamped too."""
    told = getattr(getattr(refusal, "response", None), "headers", {}).get("Date")
    return email.utils.parsedate_to_datetime(told) if told else datetime.now(UTC)
