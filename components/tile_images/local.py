"""The default runner: the same work as the Beam pipeline's, handed to the lanes by this process itself.

Beam's import alone takes longer than the tiling of a slide, and its local runner holds every slide's plan until the
last is made; here a slide's regions are begun as soon as they are known, before further slides. What is written is the
same to the byte: the work is done by the same functions, and results lie in OUT, not in elements.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from components.tile_images.attempts import Attempts
from components.tile_images.lanes import LanePool
from components.tile_images.parameters import TilingParameters
from components.tile_images.plan import SlideTask
from components.tile_images.region import RegionTask


def run_in_lanes(
    tasks: Sequence[SlideTask], parameters: TilingParameters, out: str, pool: LanePool, workers: int
) -> None:
    """Plans and tiles every slide.

    Raises:
        BaglineError: the output can't be written.
    """
    attempts = Attempts(pool, parameters, out)
    slides: deque[SlideTask] = deque(tasks)
    regions: deque[RegionTask] = deque()
    running: set[Future[Any]] = set()
    plans: set[Future[Any]] = set()
    while slides or regions or running:
        while (slides or regions) and len(running) < 2 * workers:
            if regions:
                running.add(pool.submit(attempts.tile, regions.popleft()))
            else:
                future = pool.submit(attempts.plan, slides.popleft())
                running.add(future)
                plans.add(future)
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            found = future.result()
            if future in plans:
                plans.remove(future)
                regions.extend(found)
