"""Work in lanes, tried again where a lane is lost, so that a crash or a hang costs no more than the tile at fault."""

from __future__ import annotations

import logging
import time

from components.records import storage
from components.tile_images.lanes import NOWHERE, LaneLostError, LanePool
from components.tile_images.parameters import TilingParameters
from components.tile_images.plan import SlideTask, load_plan
from components.tile_images.region import RegionTask, lose_region
from components.tile_images.work import lose_slide, plan_or_record, tile_or_record

logger = logging.getLogger(__name__)

_MOST_ATTEMPTS = 64
_TILE_TIMEOUT = 300.0


class Attempts:
    """The two kinds of work of a run, in the lanes of a pool; safe to call from several threads.

    A crash may have been nobody's fault (a full memory, a stray signal), so it counts against a slide or a tile only
    when it happens there twice; what takes too long is not tried again.
    """

    def __init__(self, pool: LanePool, parameters: TilingParameters, out: str) -> None:
        self._pool, self._parameters, self._out = pool, parameters, out

    def plan(self, task: SlideTask) -> list[RegionTask]:
        """The regions of a slide that are still to be done; none where its planning was lost, which is recorded.

        Raises:
            BaglineError: the output can't be written.
        """
        for again in (True, False):
            try:
                return self._pool.call(plan_or_record, task, self._parameters, self._out)
            except LaneLostError as error:
                if not (again and error.crashed):
                    return lose_slide(task, self._parameters, self._out, f"the reader {error}")
        raise AssertionError("unreachable")

    def plan_and_begin(self, task: SlideTask, seconds: float) -> tuple[list[RegionTask], int, int]:
        """Plans a slide, and where that fetched most of it from a bucket tiles it too, for so many seconds.

        What was fetched lies on this worker's disk only: another worker would have to fetch it again.

        Returns:
            The regions that are left, and the tiles written and lost.

        Raises:
            BaglineError: the output can't be written.
        """
        end = time.monotonic() + seconds
        regions = self.plan(task)
        written = lost = 0
        if regions and seconds and _was_fetched(task, self._out):
            while regions and time.monotonic() < end:
                done = self.tile(regions[0])
                regions, written, lost = regions[1:], written + done[0], lost + done[1]
        return regions, written, lost

    def tile(self, region: RegionTask) -> tuple[int, int]:
        """Tiles written and lost of a region; a tile at which the lane is lost is left out, recorded, by the next try.

        Raises:
            BaglineError: the output can't be written.
        """
        lost: dict[int, str] = {}
        crashed_at: set[int] = set()
        timeout = min(self._pool.timeout, _TILE_TIMEOUT)
        for _ in range(_MOST_ATTEMPTS):
            try:
                return self._pool.call(tile_or_record, region, self._parameters, self._out, lost, timeout=timeout)
            except LaneLostError as error:
                at, reason = error.position, f"the reader {error}"
                if error.crashed and at not in crashed_at:
                    crashed_at.add(at)
                elif at == NOWHERE:
                    break
                else:
                    logger.warning("slide %s: a tile is lost, %s", region.slide.image_id, reason)
                    lost[at] = reason
        return 0, len(lose_region(region, self._out, reason).failed)


def _was_fetched(task: SlideTask, out: str) -> bool:
    """Whether planning fetched a good part of a slide's object, as it does of a flat one and of one that it copies."""
    if not storage.is_remote(task.image):
        return False
    plan, info = load_plan(out, task.image_id), storage.stat(task.image)
    return plan is not None and info is not None and plan.details.get("bytes_read", 0) * 4 > info.size
