"""How far a tiling run is, read from the results in OUT: the same for every runner that writes there."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

from components.tile_images.plan import SlidePlan, load_plan
from components.tile_images.region import load_result

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Slides done of all, tiles so far, tiles a second, and seconds left (None while that can't be said)."""

    slides_done: int
    slides: int
    tiles: int
    tiles_per_second: float
    seconds_left: float | None

    def __str__(self) -> str:
        line = f"tiled {self.slides_done:,}/{self.slides:,} slides, {self.tiles:,} tiles"
        line += f", {self.tiles_per_second:,.0f} tiles/s"
        if self.seconds_left is None:
            return line
        minutes, seconds = divmod(round(self.seconds_left), 60)
        return f"{line}, {minutes}:{seconds:02d} left"


def log_progress(progress: Progress) -> None:
    """Logs one line."""
    logger.info("%s", progress)


class ProgressMonitor:
    """A thread that tells the progress of a run every few seconds, and once at its end.

    Args:
        out: the output folder, on disk.
        image_ids: of every slide of the run.
        tell: what to call with the `Progress`.
        every: seconds.
    """

    def __init__(self, out: str, image_ids: Sequence[str], tell: Callable[[Progress], None], every: float) -> None:
        self._out, self._tell, self._every = out, tell, every
        self._waiting = list(image_ids)
        self._slides = len(image_ids)
        self._begun: dict[str, tuple[SlidePlan, set[int]]] = {}
        self._tiles = self._tiles_before = 0
        self._share_before = 0.0
        self._start = time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> ProgressMonitor:
        self._share_before = self._count()
        self._tiles_before = self._tiles
        self._start = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        if kind is None:
            self._tell(self.measure())

    def _run(self) -> None:
        while not self._end.wait(self._every):
            self._tell(self.measure())

    def measure(self) -> Progress:
        """Counts what is in OUT now; the rate is of what was done since the run began."""
        share = self._count()
        elapsed = max(time.monotonic() - self._start, 1e-3)
        gained = share - self._share_before
        left = elapsed * (1 - share) / gained if gained > 0 else None
        done = self._slides - len(self._waiting)
        return Progress(done, self._slides, self._tiles, (self._tiles - self._tiles_before) / elapsed, left)

    def _count(self) -> float:
        """The share of the work that is done; looks only at slides that were not done at the last count."""
        share = 0.0
        waiting = []
        for image_id in self._waiting:
            plan, seen = self._begun.get(image_id) or (load_plan(self._out, image_id), set())
            if plan is None:
                waiting.append(image_id)
                continue
            self._begun[image_id] = plan, seen
            for index in range(plan.regions):
                if index not in seen:
                    result = load_result(self._out, image_id, index, plan.key)
                    if result is not None:
                        seen.add(index)
                        self._tiles += result.tiles
            if len(seen) == plan.regions:
                self._begun.pop(image_id)
            else:
                waiting.append(image_id)
                share += len(seen) / plan.regions
        self._waiting = waiting
        return (share + self._slides - len(waiting)) / max(self._slides, 1)
