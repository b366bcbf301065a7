"""A slide in `gs://`, read by ranges: pinned to one generation, tried again where the network fails, and counted."""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import google_crc32c
import numpy as np
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from numpy.typing import NDArray
from urllib3 import exceptions as wire

from components.readers.spool import SparseCopy, merge_spans
from components.records import storage
from components.records.errors import SlideError

logger = logging.getLogger(__name__)

# A read shorter than a page fetches a page from there on: an index is read in small pieces that lie together.
_PAGE = 32 << 10
# Gaps between wanted ranges are fetched along as long as they are at most this share of what is wanted.
_WASTE = 0.05
_RUN = 1 << 20
_AHEAD = 8
_CACHE_BYTES = 32 << 20
_WAITS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_TIMEOUT = (10.0, 60.0)
# What the network raises is an OSError, or urllib3's own where a body ends too soon.
_PASSING = (api.TooManyRequests, api.ServerError, auth.TransportError, wire.HTTPError, OSError)
_CHANGED = "the object changed while the run was reading it"
_MEND_CHANGED = "run again; slides must not be overwritten during a run"


class BucketObject:
    """The bytes of one object, as `components.readers.byte_source.ByteSource`; safe to share between threads.

    Holds at most 32 MiB of fetched ranges, and 8 more on their way.

    Args:
        uri: `gs://bucket/name`.
        digest: the content it has to have, as the store tells it; empty takes it as it is.
        keep: keep what is fetched on the worker's disk, for this reader and those that come after.

    Attributes:
        digest: the store's own, `md5:…` or `crc32c:…`; empty where it keeps none.
        fetched, requests: bytes of answers to range requests, and how many were sent.
        failed: the store refused or failed lastingly, so that nothing is to be learnt of the slide itself.

    Raises:
        SlideError: there is no such object, it may not be read, or it has another content.
    """

    def __init__(self, uri: str, *, digest: str = "", keep: bool = False) -> None:
        self.uri, self.name = uri, uri.rpartition("/")[2]
        self.failed = False
        self._blob = self._guard(lambda: storage.bucket(uri).get_blob(storage.object_name(uri)))
        if self._blob is None:
            raise SlideError("there is no such object", where=self.name, mend="check image_path")
        self.size, self.generation = int(self._blob.size), int(self._blob.generation)
        self.digest = storage.blob_digest(self._blob) or ""
        if digest and self.digest and digest != self.digest:
            raise SlideError(_CHANGED, where=self.name, mend=_MEND_CHANGED)
        self.fetched = self.requests = 0
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._pages: OrderedDict[int, bytes] = OrderedDict()
        self._plan: NDArray[np.int64] = np.zeros((0, 2), np.int64)
        self._runs: OrderedDict[int, Future[bytes]] = OrderedDict()
        self._next = self._held = 0
        self.kept = SparseCopy.find(self.key, self.name)
        if self.kept is None and keep:
            self.kept = SparseCopy(self.key, self.name, self.size)

    @property
    def key(self) -> str:
        """Names the object and its generation, in 32 hex digits."""
        return hashlib.sha256(f"{self.uri}\0{self.generation}".encode()).hexdigest()[:32]

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, fewer only where the object ends before.

        Raises:
            SlideError: the object changed or is gone, or the store keeps failing.
        """
        stop = min(offset + length, self.size)
        if offset < 0 or offset >= stop:
            return b""
        kept = self.kept.read(offset, stop) if self.kept is not None else None
        if kept is not None:
            return kept
        at = int(np.searchsorted(self._plan[:, 0], offset, "right")) - 1
        if at >= 0 and stop <= self._plan[at, 1]:
            start = int(self._plan[at, 0])
            return self._fetch_ahead(at)[offset - start : stop - start]
        if length >= _PAGE:
            return self._fetch(offset, stop)
        with self._lock:
            for start, page in self._pages.items():
                if start <= offset and stop <= start + len(page):
                    return page[offset - start : stop - start]
        page = self._fetch(offset, min(offset + _PAGE, self.size))
        with self._lock:
            self._pages[offset] = page
            if len(self._pages) > 32:
                self._pages.popitem(last=False)
        return page[: stop - offset]

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each (offset, length), in the order given."""
        return [self.read(offset, length) for offset, length in ranges]

    def expect(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Announces the (offset, length) that will be read: neighbours are fetched together, and ahead of their use."""
        spans = [(offset, min(offset + length, self.size)) for offset, length in ranges]
        kept = self.kept
        missing = [span for span in spans if span[0] < span[1] and not (kept is not None and kept.has(*span))]
        with self._lock:
            for future in self._runs.values():
                future.cancel()
            self._runs.clear()
            self._plan = coalesce(missing)
            self._next = self._held = 0

    def download(self, stream: io.BufferedIOBase) -> None:
        """Writes the whole object, held against the store's checksum.

        Raises:
            SlideError: as `read`; or the bytes that came are not those that are stored.
        """
        checksum = google_crc32c.Checksum()
        starts = range(0, self.size, _RUN)
        self.expect([(start, _RUN) for start in starts])
        for start in starts:
            piece = self.read(start, _RUN)
            checksum.update(piece)
            stream.write(piece)
        if self._blob.crc32c and base64.b64decode(self._blob.crc32c) != checksum.digest():
            raise SlideError("its bytes came damaged", where=self.name, mend="run again")

    def close(self) -> None:
        """Gives up what is on its way; a closed source is not used again."""
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
            self._threads = None
        if self.kept is not None:
            self.kept.close()
        self._runs.clear()
        self._pages.clear()

    def __reduce__(self) -> tuple[object, ...]:
        return _reopen, (self.uri, self.digest)

    def _fetch_ahead(self, at: int) -> bytes:
        """The run `at`, the next few being on their way."""
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_AHEAD, thread_name_prefix="fetch")
            wanted = [at] if at not in self._runs else []
            self._next = max(self._next, at + 1)
            while self._next < len(self._plan) and self._next < at + _AHEAD:
                wanted.append(self._next)
                self._next += 1
            for index in wanted:
                start, stop = (int(place) for place in self._plan[index])
                self._runs[index] = self._threads.submit(self._fetch, start, stop)
                self._held += stop - start
            future = self._runs[at]
            self._runs.move_to_end(at)
            for index in list(self._runs):
                if self._held <= _CACHE_BYTES:
                    break
                if index != at and self._runs[index].done():
                    del self._runs[index]
                    self._held -= int(self._plan[index, 1] - self._plan[index, 0])
        return future.result()

    def _fetch(self, start: int, stop: int) -> bytes:
        for wait in (*_WAITS, None):
            found, reason = self._try(start, stop)
            if len(found) == stop - start:
                if self.kept is not None:
                    self.kept.write(start, found)
                return found
            if wait is None:
                break
            logger.info("%s: fetching at byte %d again: %s", self.name, start, reason)
            time.sleep(wait * random.uniform(0.5, 1))
        self.failed = True
        raise SlideError(
            f"can't be fetched at byte {start} in {len(_WAITS) + 1} tries: {reason}",
            where=self.name,
            mend="run again when the store answers",
        )

    def _try(self, start: int, stop: int) -> tuple[bytes, str]:
        """One request: what came, and what was wrong with it."""
        found, reason = b"", ""
        try:
            found = self._guard(
                lambda: self._blob.download_as_bytes(
                    start=start,
                    end=stop - 1,
                    if_generation_match=self.generation,
                    raw_download=True,
                    checksum=None,
                    retry=None,
                    timeout=_TIMEOUT,
                )
            )
        except _PASSING as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        with self._lock:
            self.requests += 1
            self.fetched += len(found)
        return found, reason or f"{len(found)} of {stop - start} bytes came"

    def _guard(self, ask: Callable[[], Any]) -> Any:
        """What the store answers; its lasting refusals become SlideErrors."""
        what, mend = "", ""
        try:
            return ask()
        except (api.NotFound, api.PreconditionFailed, api.RequestRangeNotSatisfiable):
            what, mend = _CHANGED, _MEND_CHANGED
        except (api.Forbidden, api.Unauthorized):
            what, mend = "may not be read", "grant the account storage.objects.get"
        except auth.DefaultCredentialsError:
            what = "no credentials were found"
            mend = "run `gcloud auth application-default login`, or give a service account"
        self.failed = True
        raise SlideError(what, where=self.name, mend=mend)


def _reopen(uri: str, digest: str) -> BucketObject:
    return BucketObject(uri, digest=digest)


def coalesce(spans: Sequence[tuple[int, int]], waste: float = _WASTE, most: int = _RUN) -> NDArray[np.int64]:
    """Spans (start, stop) as runs to fetch: the smallest gaps are fetched along, up to `waste` of what is wanted.

    A run is at most `most` bytes long, or one span where that is longer; no span is cut.

    Returns:
        int64, shape [runs, 2], in order; each span lies in the last run that begins at or before it.
    """
    if not spans:
        return np.zeros((0, 2), np.int64)
    wanted = np.unique(np.array(spans, np.int64), axis=0)
    reach = np.maximum.accumulate(wanted[:, 1])
    gaps = np.maximum(wanted[1:, 0] - reach[:-1], 0)
    order = np.argsort(gaps, kind="stable")
    joined = np.zeros(len(gaps), bool)
    whole = merge_spans(wanted)
    joined[order] = np.cumsum(gaps[order]) <= waste * int((whole[:, 1] - whole[:, 0]).sum())
    runs: list[list[int]] = []
    for index, (start, stop) in enumerate(wanted.tolist()):
        overlaps = index > 0 and start < runs[-1][1]
        if index and (overlaps or (joined[index - 1] and max(stop, runs[-1][1]) - runs[-1][0] <= most)):
            runs[-1][1] = max(runs[-1][1], stop)
        else:
            runs.append([start, stop])
    return np.array(runs, np.int64)
