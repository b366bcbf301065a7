"""How far a tiling run is, read from the results in OUT: the same for every runner that writes there."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

from components.records import storage
from components.tile_images.parameters import TilingParameters
from components.tile_images.plan import SlidePlan, SlideTask, load_plan
from components.tile_images.region import load_result
from components.tile_images.work import fits

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

    A bucket is listed once a look, and looked at so seldom that looking takes a twentieth of the time at most.

    Args:
        out: the output folder.
        tasks: every slide of the run.
        parameters: of the run; plans of others don't count.
        tell: what to call with the `Progress`.
        every: seconds; on disk.
    """

    def __init__(
        self,
        out: str,
        tasks: Sequence[SlideTask],
        parameters: TilingParameters,
        tell: Callable[[Progress], None],
        every: float,
    ) -> None:
        self._out, self._parameters, self._tell = out, parameters, tell
        self._remote = storage.is_remote(out)
        self._every = 15 * every if self._remote else every
        self._waiting = list(tasks)
        self._slides = len(tasks)
        self._begun: dict[str, tuple[SlidePlan, set[int]]] = {}
        self._listed: dict[str, storage.FileInfo] = {}
        self._stale: dict[str, str | None] = {}
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
        pause = self._every
        while not self._end.wait(pause):
            began = time.monotonic()
            try:
                self._tell(self.measure())
            except Exception as error:  # noqa: BLE001 - a look that fails must not end a run that goes on
                logger.warning("the progress could not be looked at (%s)", type(error).__name__)
            pause = max(self._every, 20 * (time.monotonic() - began)) if self._remote else self._every

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
        if self._remote:
            self._listed = storage.list_files(storage.join(self._out, ".tiling"))
        for task in self._waiting:
            image_id = task.image_id
            plan, seen = self._begun.get(image_id) or (self._find_plan(task), set())
            if plan is None:
                waiting.append(task)
                continue
            self._begun[image_id] = plan, seen
            for index in range(plan.regions):
                if index not in seen and self._may_hold(f"{image_id}/region-{index:05d}.json"):
                    result = load_result(self._out, image_id, index, plan.key)
                    if result is not None:
                        seen.add(index)
                        self._tiles += result.tiles
            if len(seen) == plan.regions:
                self._begun.pop(image_id)
            else:
                waiting.append(task)
                share += len(seen) / plan.regions
        self._waiting = waiting
        return (share + self._slides - len(waiting)) / max(self._slides, 1)

    def _may_hold(self, name: str) -> bool:
        return not self._remote or name in self._listed

    def _find_plan(self, task: SlideTask) -> SlidePlan | None:
        """A slide's plan; in a bucket that of an earlier run may still stand there, which is not read twice."""
        if not self._remote:
            return load_plan(self._out, task.image_id)
        info = self._listed.get(f"{task.image_id}/plan.json")
        if info is None or self._stale.get(task.image_id, "") == info.digest:
            return None
        plan = load_plan(self._out, task.image_id)
        if plan is not None and plan.status != "failed" and not fits(plan, task, self._parameters):
            self._stale[task.image_id] = info.digest
            return None
        return plan
