"""The two kinds of work, with what went wrong recorded: plan a slide, tile a region."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from components.records import storage
from components.records.errors import BaglineError, SlideError
from components.tile_images.parameters import TilingParameters
from components.tile_images.plan import (
    SlidePlan,
    SlideTask,
    draw_sheet_again,
    fail_plan,
    load_plan,
    load_tiles,
    plan_key,
    plan_slide,
    save_plan,
    stamp_files,
)
from components.tile_images.qc_sheet import sheet_path
from components.tile_images.region import RegionTask, load_result, lose_region, make_regions, tile_region

logger = logging.getLogger(__name__)


def plan_or_record(task: SlideTask, parameters: TilingParameters, out: str) -> list[RegionTask]:
    """Plans a slide, or takes up its stored plan, and tells which of its regions are still to be done.

    Raises:
        BaglineError: the output can't be written; everything else is recorded in the slide's plan.
    """
    plan = find_plan(task, parameters, out)
    if plan is None:
        plan = plan_slide(task, parameters, out)
    elif parameters.qc and storage.stat(storage.join(out, *sheet_path(task.image_id).split("/"))) is None:
        draw_missing_sheet(task, plan, parameters, out)
    if plan.status == "failed":
        logger.warning("slide %s failed: %s", task.image_id, plan.reason)
    if not plan.tiles:
        return []
    regions = make_regions(task, plan, load_tiles(out, task.image_id), parameters)
    return [region for region in regions if not _is_done(region, out)]


def find_plan(task: SlideTask, parameters: TilingParameters, out: str) -> SlidePlan | None:
    """The stored plan of a slide where it still holds: same row, same parameters, files untouched, not failed."""
    plan = load_plan(out, task.image_id)
    if plan is None or plan.status == "failed" or task.problem:
        return None
    return plan if fits(plan, task, parameters) and plan.stamps == stamp_files(task) else None


def fits(plan: SlidePlan, task: SlideTask, parameters: TilingParameters) -> bool:
    """Whether a plan is of this very row and these parameters; the files are not looked at."""
    return plan.key == plan_key(task, plan.digest, plan.mask_digest, plan.reader, parameters)


def draw_missing_sheet(task: SlideTask, plan: SlidePlan, parameters: TilingParameters, out: str) -> None:
    """Draws the QC sheet of a slide that was planned without; what keeps it from being read costs the sheet only."""
    try:
        draw_sheet_again(task, plan, parameters, out)
    except SlideError as error:
        logger.warning("slide %s: no QC sheet, %s", task.image_id, error)


def lose_slide(task: SlideTask, parameters: TilingParameters, out: str, reason: str) -> list[RegionTask]:
    """Records that a slide can't be tiled."""
    save_plan(out, fail_plan(task, parameters, reason))
    logger.warning("slide %s failed: %s", task.image_id, reason)
    return []


def tile_or_record(
    task: RegionTask, parameters: TilingParameters, out: str, lost: Mapping[int, str] | None = None
) -> tuple[int, int]:
    """Tiles a region; how many tiles were written, and how many lost.

    Args:
        task: the region.
        parameters: of the run.
        out: where to write.
        lost: tiles that are not tried, by their number in the region, and why.

    Raises:
        BaglineError: the output can't be written; everything else is recorded in the region's result.
    """
    try:
        result = tile_region(task, parameters, out, lost or {})
    except SlideError as error:
        result = lose_region(task, out, str(error))
    except BaglineError:
        raise
    except Exception as error:  # noqa: BLE001 - one region must not end the run; the ledger tells what it was
        result = lose_region(task, out, f"{type(error).__name__}: {error}")
    return result.tiles, len(result.failed)


def _is_done(region: RegionTask, out: str) -> bool:
    result = load_result(out, region.slide.image_id, region.index, region.key)
    return result is not None and not result.failed
