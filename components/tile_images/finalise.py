"""The end of a run, in one process: plans and region results become the ledger and the dataset's own files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from components.records import storage
from components.records.dataset import Part, Thumbnail, truth_path, write_parts, write_thumbnails
from components.records.errors import WorkError, name_first
from components.records.ledger import STATUSES, LedgerEntry, write_ledger
from components.records.manifest import Manifest
from components.records.provenance import code_version
from components.records.schema import SPLITS, DatasetSchema
from components.tile_images.contact_sheet import write_contact_sheet
from components.tile_images.parameters import TilingParameters
from components.tile_images.plan import SlidePlan, SlideTask, fail_plan, load_plan, load_tiles
from components.tile_images.qc_sheet import FOLDER, sheet_path
from components.tile_images.region import RegionResult, load_result, make_regions

JOINED_REASON = "stored blocks joined, not coded again; not lossless: their chroma is smoothed across seams"
COMMIT_FILES = ("schema.json", "parts.json", "summary.json", "ledger.jsonl", "failed_tiles.jsonl", "thumbnails.json")


@dataclass
class Outcome:
    """What a whole run came to, slide by slide in manifest order."""

    entries: list[LedgerEntry] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    failed_tiles: list[dict[str, Any]] = field(default_factory=list)
    thumbnails: dict[str, Thumbnail] = field(default_factory=dict)
    lossless: int = 0
    joined: int = 0
    planned: int = 0
    blurred: int = 0


def finalise(manifest: Manifest, tasks: Sequence[SlideTask], parameters: TilingParameters, out: str) -> dict[str, Any]:
    """Writes ledger, failed tiles, summary, parts, thumbnails' index, split manifest and, last of all, schema.

    Files of an earlier run that are not part of this one are removed.

    Returns:
        The summary.

    Raises:
        WorkError: the totals don't add up.
    """
    outcome = Outcome()
    for task in tasks:
        add_slide(outcome, task, parameters, out)
    summary = summarise(outcome, tasks, manifest)
    write_parts(out, outcome.parts)
    write_ledger(storage.join(out, "ledger.jsonl"), outcome.entries)
    storage.write_json_lines(storage.join(out, "failed_tiles.jsonl"), outcome.failed_tiles)
    storage.write_json(storage.join(out, "summary.json"), summary)
    write_thumbnails(out, outcome.thumbnails)
    pages = write_contact_sheet(out, outcome.entries) if parameters.qc else []
    if manifest.path != storage.join(out, "split.csv"):
        storage.write_bytes(storage.join(out, "split.csv"), storage.read_bytes(manifest.path))
    remove_stale(out, outcome, tasks, pages)
    DatasetSchema(
        labels=manifest.labels,
        tile_px=parameters.tile_px,
        mpp=parameters.mpp or None,
        parameters=parameters.record_parameters(),
        code_version=code_version(),
    ).save(storage.join(out, "schema.json"))
    return summary


def add_slide(outcome: Outcome, task: SlideTask, parameters: TilingParameters, out: str) -> None:
    """Adds what became of one slide."""
    plan = load_plan(out, task.image_id) or fail_plan(task, parameters, "was never planned; run the step again")
    results = load_results(task, plan, parameters, out)
    tiles = sum(result.tiles for result in results)
    failed = [lost for result in results for lost in result.failed]
    blurred = sum(result.blurred for result in results)
    status, reason = judge_slide(plan, tiles, failed, blurred)
    outcome.blurred += blurred
    outcome.planned += plan.tiles
    outcome.lossless += sum(result.lossless for result in results)
    outcome.joined += sum(result.joined for result in results)
    outcome.failed_tiles += [{"image_id": task.image_id, "x": x, "y": y, "reason": why} for x, y, why in failed]
    outcome.parts += [
        Part(result.part, task.image_id, task.split, result.tiles, result.bytes, result.sha256)
        for result in results
        if result.part
    ]
    if plan.thumbnail is not None:
        outcome.thumbnails[task.image_id] = Thumbnail(**plan.thumbnail)
    outcome.entries.append(
        LedgerEntry(
            image_id=task.image_id,
            status=status,
            reason=reason,
            tiles=tiles,
            tiles_failed=len(failed),
            seconds=round(plan.seconds + sum(result.seconds for result in results), 3),
            path=task.path,
            digest=plan.digest,
            reader=plan.reader,
            mpp=plan.mpp,
            mpp_source=plan.mpp_source,
            details=count_details(plan, results),
        )
    )


def count_details(plan: SlidePlan, results: list[RegionResult]) -> dict[str, Any]:
    """The plan's details, with what only its regions know: tiles left out as blurred, tiles joined, bytes fetched."""
    if not plan.details:
        return {}
    details = {**plan.details, "tiles_blurred": sum(result.blurred for result in results)}
    details["tiles_joined"] = joined = sum(result.joined for result in results)
    if joined > sum(min(result.joined, result.lossless) for result in results):
        details["joined_reason"] = JOINED_REASON
    if "bytes_read" in details:
        details["bytes_read"] += sum(result.bytes_read for result in results)
    return details


def load_results(task: SlideTask, plan: SlidePlan, parameters: TilingParameters, out: str) -> list[RegionResult]:
    """The result of every region of a slide; a region without one has lost all its tiles."""
    if not plan.regions:
        return []
    results = []
    for region in make_regions(task, plan, load_tiles(out, task.image_id), parameters):
        result = load_result(out, task.image_id, region.index, region.key)
        if result is None:
            reason = "was never read; run the step again"
            failed = [[int(tile["x"]), int(tile["y"]), reason] for tile in region.positions()]
            result = RegionResult(region.key, region.index, "", 0, 0, "", 0.0, failed=failed)
        results.append(result)
    return results


def judge_slide(plan: SlidePlan, tiles: int, failed: list[list[Any]], blurred: int = 0) -> tuple[str, str]:
    """A slide's status and its reason."""
    if not failed and not tiles and blurred:
        return "empty", f"every tile with tissue ({blurred}) is less sharp than min_sharpness"
    if not failed:
        return plan.status, plan.reason
    x, y, why = failed[0]
    if tiles:
        return "partial", f"{len(failed)} of {tiles + len(failed)} tiles lost, the first at ({x}, {y}): {why}"
    return "failed", f"all {len(failed)} tiles lost, the first at ({x}, {y}): {why}"


def summarise(outcome: Outcome, tasks: Sequence[SlideTask], manifest: Manifest) -> dict[str, Any]:
    """The totals of `summary.json`; raises WorkError where they don't add up."""
    entries, parts = outcome.entries, outcome.parts
    status = Counter(entry.status for entry in entries)
    lost = status["failed"] + status["partial"]
    split_of = {task.image_id: task.split for task in tasks}
    summary: dict[str, Any] = {
        "slides": len(entries),
        "slides_by_status": {name: status[name] for name in STATUSES},
        "slides_lost_share": lost / max(len(entries), 1),
        "slides_by_reader": dict(Counter(entry.reader or "none" for entry in entries)),
        "slides_by_mpp_source": dict(Counter(entry.mpp_source for entry in entries)),
        "patients": len({task.patient_id for task in tasks}),
        "tiles": sum(entry.tiles for entry in entries),
        "tiles_failed": sum(entry.tiles_failed for entry in entries),
        "tiles_planned": outcome.planned,
        "tiles_blurred": outcome.blurred,
        "tiles_lossless": outcome.lossless,
        "tiles_joined": outcome.joined,
        "parts": len(parts),
        "bytes": sum(part.bytes for part in parts),
        "splits": {
            split or "all": {
                "slides": sum(split_of[entry.image_id] == split for entry in entries),
                "patients": len({task.patient_id for task in tasks if task.split == split}),
                "tiles": sum(entry.tiles for entry in entries if split_of[entry.image_id] == split),
            }
            for split in ("", *SPLITS)
            if split in split_of.values()
        },
        "manifest_hash": manifest.digest,
    }
    check_totals(summary, outcome, manifest)
    return summary


def check_totals(summary: dict[str, Any], outcome: Outcome, manifest: Manifest) -> None:
    """Raises WorkError where the summary, ledger, parts and manifest contradict each other."""
    pairs = {
        "slides and manifest rows": (summary["slides"], len(manifest.rows)),
        "slides and their statuses": (summary["slides"], sum(summary["slides_by_status"].values())),
        "tiles of ledger and parts": (summary["tiles"], sum(part.tiles for part in outcome.parts)),
        "tiles planned and accounted for": (
            summary["tiles_planned"],
            summary["tiles"] + summary["tiles_failed"] + summary["tiles_blurred"],
        ),
        "tiles lost and listed": (summary["tiles_failed"], len(outcome.failed_tiles)),
        "tiles and those of the splits": (summary["tiles"], sum(s["tiles"] for s in summary["splits"].values())),
    }
    wrong = [f"{name} ({one} and {other})" for name, (one, other) in pairs.items() if one != other]
    if wrong:
        raise WorkError(f"totals differ: {name_first(wrong)}", where="tiling", mend="run the step again")


def remove_stale(out: str, outcome: Outcome, tasks: Sequence[SlideTask], pages: Sequence[str] = ()) -> None:
    """Removes parts, thumbnails, QC sheets and temporary files that this run has no use for."""
    wanted = {part.path for part in outcome.parts} | {thumbnail.path for thumbnail in outcome.thumbnails.values()}
    wanted |= {truth_path(task.image_id) for task in tasks if task.mask}
    if pages:
        wanted |= {*pages, *(sheet_path(image_id) for image_id in outcome.thumbnails)}
    for folder in ("records", "thumbnails", FOLDER):
        root = storage.join(out, folder)
        if not storage.is_remote(root) and not os.path.isdir(root):
            continue
        for name, info in storage.list_files(root).items():
            if f"{folder}/{name}" not in wanted and is_ours(name):
                storage.remove(info.path)


def is_ours(name: str) -> bool:
    """Whether a file below records/, thumbnails/ or qc/ is of a kind that tiling writes."""
    path = PurePosixPath(name)
    return (
        path.suffix in (".tfrecord", ".jpg", ".html")
        or path.name.endswith(".mask.png")
        or (path.name.startswith(".") and path.suffix == ".tmp")
    )


def check_losses(summary: dict[str, Any], entries: Sequence[LedgerEntry], parameters: TilingParameters) -> None:
    """Raises WorkError, naming the first, where more slides were lost than `max_failed_share` allows."""
    lost = [entry for entry in entries if entry.status in ("failed", "partial")]
    if lost and summary["slides_lost_share"] > parameters.max_failed_share:
        named = name_first([f"{entry.image_id} ({entry.reason})" for entry in lost], 3)
        raise WorkError(
            f"{len(lost)} of {summary['slides']} slides lost tiles: {named}",
            where="tiling",
            mend="see ledger.jsonl; correct the slides, or raise max_failed_share",
        )
