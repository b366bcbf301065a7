"""Validates a tiled dataset: scans its parts one by one, holds what it finds against thresholds, writes the outcome."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from components.records import storage
from components.records.dataset import Part, TiledDataset
from components.records.errors import InputError, WorkError
from components.records.ledger import LedgerEntry
from components.validate_records import cohort
from components.validate_records.colour import Groups, Moments, compare_colours
from components.validate_records.duplicates import DigestStore, Duplicates, find_doubled_places, find_duplicates
from components.validate_records.outcome import (
    FAIL,
    NOT_APPLICABLE,
    PASS,
    WARN,
    Check,
    Offender,
    Tally,
    Thresholds,
    Validation,
    judge,
)
from components.validate_records.record import Expected
from components.validate_records.scan import PLACE, PartScan, PartTask, locate_tile, scan_part
from components.validate_records.table import render_table

logger = logging.getLogger(__name__)
_PROGRESS_SECONDS = 5.0

_RECORD_CHECKS = (
    ("checksums", "CRC of every record, size and sha256 of every part"),
    ("schema", "every feature that the schema asks for, of its kind, once"),
    ("decode", "every tile decodes to its last pixel"),
    ("size", "picture, record and schema.json agree"),
    ("identity", "slide, patient and digest as in manifest and ledger"),
    ("places", "inside the slide, each place once"),
    ("values", "tissue 0 to 1, flags 0 or 1"),
    ("mpp", "finite, and the ledger's mpp times the downsample"),
)


@dataclass
class _Found:
    """What the scans add up to, in part order."""

    store: DigestStore
    tallies: dict[str, Tally] = field(default_factory=dict)
    records: dict[str, int] = field(default_factory=dict)
    tiles: dict[str, int] = field(default_factory=dict)
    blank: dict[str, int] = field(default_factory=dict)
    mpp: dict[str, tuple[float, float]] = field(default_factory=dict)
    colours: Groups = field(default_factory=dict)
    slide: str = ""
    places: list[NDArray[np.void]] = field(default_factory=list)

    def tally(self, check: str) -> Tally:
        return self.tallies.setdefault(check, Tally())


def validate_records(root: str, out_json: str, out_html: str, thresholds: Thresholds, workers: int = 1) -> Validation:
    """Checks every record of a tiled dataset, and the dataset against its manifest, ledger and list of parts.

    Memory does not grow with the pixels: a record at a time in each process, and 32 bytes a tile for its digests
    (`DigestStore`). The outcome is the same bytes whatever `workers` is.

    Args:
        root: folder of the tiled dataset.
        out_json: where `validation.json` goes; written whatever the verdict.
        out_html: where the table goes; the same.
        thresholds: what is refused.
        workers: processes that scan parts; 1 scans in this one.

    Returns:
        The outcome. A failing verdict is not raised here: call `raise_on_failure`.

    Raises:
        InputError: `root` holds no tiled dataset, or `workers` is below 1.
        WorkError: a scanning process died.
    """
    if workers < 1:
        raise InputError(f"{workers} workers", where="workers", mend="give 1 or more")
    dataset = TiledDataset(root)
    validation = _validate(dataset, thresholds, workers)
    storage.write_json(out_json, validation.to_json())
    storage.write_text(out_html, render_table(validation))
    logger.info("verdict: %s", validation.verdict)
    return validation


def _validate(dataset: TiledDataset, thresholds: Thresholds, workers: int) -> Validation:
    ledger = dataset.ledger
    files, missing = cohort.check_files(dataset)
    parts = sorted(dataset.parts, key=lambda part: (part.image_id, part.path))
    tasks = _plan(dataset, ledger, parts, missing, thresholds)
    found = _Found(DigestStore(sum(max(part.tiles, 0) for part in parts)))
    centers = {row.image_id: row.center_id for row in dataset.manifest.rows}
    for scan in _scan_all(tasks, workers):
        _collect(found, scan, parts, centers)
    _close_slide(found, parts)
    patients = {row.image_id: row.patient_id for row in dataset.manifest.rows}
    duplicates = find_duplicates(
        found.store.filled,
        parts,
        [patients.get(part.image_id, "") for part in parts],
        lambda part, record: locate_tile(dataset.path(*parts[part].path.split("/")), record),
    )
    counted = cohort.Counted(found.records, found.tiles, found.blank)
    drift, colours = compare_colours(found.colours, thresholds.max_colour_drift, thresholds.colour_drift_fails)
    total = sum(found.records.values())
    checks = [
        files,
        *(judge(name, found.tally(name), f"{total} records", wanted) for name, wanted in _RECORD_CHECKS),
        judge("unknown_features", found.tally("unknown_features"), f"{total} records", "none", otherwise=WARN),
        cohort.check_counts(dataset, ledger, counted, found.tally("counts")),
        cohort.check_lost(dataset, ledger, counted),
        cohort.check_label_table(dataset, found.tally("labels")),
        cohort.check_split_leakage(dataset, ledger),
        cohort.check_classes(dataset, counted, thresholds),
        _check_mpp_asked(dataset, found, thresholds),
        _check_blank(found, thresholds),
        *_judge_duplicates(dataset, duplicates, thresholds),
        *drift,
    ]
    slides = [row for row in dataset.manifest.rows if found.tiles.get(row.image_id)]
    return Validation(
        dataset={
            "schema_version": dataset.schema.schema_version,
            "tiling_code_version": dataset.schema.code_version,
            "manifest_hash": dataset.manifest.digest,
            "tile_px": dataset.schema.tile_px,
            "mpp": dataset.schema.mpp,
            "labels": list(dataset.schema.labels),
        },
        thresholds=thresholds,
        totals={
            "patients": len({row.patient_id for row in slides}),
            "slides": len(slides),
            "tiles": sum(found.tiles.values()),
            "blank": sum(found.blank.values()),
            "records": total,
            "parts": len(parts),
            "bytes": sum(part.bytes for part in parts),
        },
        checks=tuple(checks),
        counts=tuple(cohort.count_groups(dataset, counted)),
        colours=tuple(colours),
    )


def _plan(
    dataset: TiledDataset, ledger: list[LedgerEntry], parts: list[Part], missing: set[str], thresholds: Thresholds
) -> list[PartTask]:
    rows = {row.image_id: row for row in dataset.manifest.rows}
    entries = {entry.image_id: entry for entry in ledger}
    thumbnails = dataset.thumbnails if storage.stat(dataset.path("thumbnails.json")) is not None else {}
    labels = dataset.manifest.labels
    tasks = []
    for number, part in enumerate(parts):
        if part.path in missing:
            continue
        row, entry, thumbnail = rows.get(part.image_id), entries.get(part.image_id), thumbnails.get(part.image_id)
        details = entry.details if entry else {}
        expected = Expected(
            image_id=part.image_id,
            patient_id=row.patient_id if row else "",
            label=row.label if row else "",
            label_index=labels.index(row.label) if row else -1,
            digest=entry.digest if entry else "",
            mpp=entry.mpp if entry else None,
            width=thumbnail.width if thumbnail else details.get("width"),
            height=thumbnail.height if thumbnail else details.get("height"),
            tile_px=dataset.schema.tile_px,
        )
        path = dataset.path(*part.path.split("/"))
        tasks.append(PartTask(path, number, part, expected, thresholds.blank_deviation))
    return tasks


def _scan_all(tasks: list[PartTask], workers: int) -> Iterator[PartScan]:
    started = told = time.monotonic()
    tiles = done = 0
    for scan in _run(tasks, workers):
        tiles, done = tiles + scan.records, done + 1
        now = time.monotonic()
        if now - told >= _PROGRESS_SECONDS or done == len(tasks):
            told = now
            rate = tiles / max(now - started, 1e-9)
            logger.info("validated %d of %d parts, %d tiles, %.0f tiles/s", done, len(tasks), tiles, rate)
        yield scan


def _run(tasks: list[PartTask], workers: int) -> Iterator[PartScan]:
    if workers == 1 or len(tasks) < 2:
        yield from map(scan_part, tasks)
        return
    pending: deque[Future[PartScan]] = deque()
    waiting = iter(tasks)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context) as pool:
        try:
            for task in waiting:
                pending.append(pool.submit(scan_part, task))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool:
            raise WorkError(
                "a scanning process died", where="validate_records", mend="give it more memory, or fewer workers"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _collect(found: _Found, scan: PartScan, parts: list[Part], centers: dict[str, str]) -> None:
    part = parts[scan.number]
    image_id = part.image_id
    if image_id != found.slide:
        _close_slide(found, parts)
        found.slide = image_id
    found.places.append(scan.places)
    for check, tally in scan.tallies.items():
        found.tally(check).merge(tally)
    for totals, count in ((found.records, scan.records), (found.tiles, scan.tiles), (found.blank, scan.blank)):
        totals[image_id] = totals.get(image_id, 0) + count
    if scan.mpp:
        low, high = found.mpp.get(image_id, scan.mpp)
        found.mpp[image_id] = (min(low, scan.mpp[0]), max(high, scan.mpp[1]))
    if scan.colours.count:
        key = (part.split, centers.get(image_id, ""))
        found.colours[key] = found.colours.get(key, Moments()).merge(scan.colours)
    found.store.add(scan.digests)


def _close_slide(found: _Found, parts: list[Part]) -> None:
    places = np.concatenate(found.places) if found.places else np.empty(0, PLACE)
    find_doubled_places(places, parts, found.tally("places"))
    found.places = []
    low, high = found.mpp.get(found.slide, (1.0, 1.0))
    if high > low * 1.001:
        found.tally("mpp").add(Offender(f"has tiles of {low:g} to {high:g} µm/px", found.slide))


def _check_mpp_asked(dataset: TiledDataset, found: _Found, thresholds: Thresholds) -> Check:
    asked, limit = dataset.schema.mpp, thresholds.max_mpp_deviation
    tiled = [image_id for image_id, count in found.records.items() if count]
    if not tiled or (asked is None and not found.mpp):
        return Check("mpp_asked", NOT_APPLICABLE, "no mpp asked for or known", f"{limit:g}")
    tally = Tally()
    for image_id in tiled:
        known = found.mpp.get(image_id)
        if known is None:
            tally.add(Offender("has no known mpp, its tiles may be of another scale", image_id))
        elif asked is not None and max(abs(value / asked - 1) for value in known) > limit + 1e-6:
            tally.add(Offender(f"is at {known[0]:g} µm/px, {asked:g} was asked for", image_id))
    values = [value for pair in found.mpp.values() for value in pair]
    measured = f"{min(values):g} to {max(values):g} µm/px" if values else "unknown everywhere"
    return judge("mpp_asked", tally, measured, f"within {limit:.0%} of the mpp asked for", otherwise=WARN)


def _check_blank(found: _Found, thresholds: Thresholds) -> Check:
    tiles, tally = sum(found.tiles.values()), found.tally("blank_tiles")
    share = tally.count / tiles if tiles else 0.0
    status = FAIL if share > thresholds.max_blank_share else PASS
    measured = f"{share:.1%} of {tiles} tiles"
    return Check("blank_tiles", status, measured, f"{thresholds.max_blank_share:.1%}", tally.count, tuple(tally.first))


def _judge_duplicates(dataset: TiledDataset, found: Duplicates, thresholds: Thresholds) -> list[Check]:
    across, within = thresholds.max_duplicates_across_splits, thresholds.max_duplicates_within_split
    measured = f"{found.across_splits.count} tiles, {found.identical_across} of them equal byte for byte"
    if cohort.has_splits(dataset.manifest.rows):
        first = judge("duplicates_across_splits", found.across_splits, measured, f"{across} tiles", allowed=across)
    else:
        first = Check("duplicates_across_splits", NOT_APPLICABLE, "the manifest has no split", f"{across} tiles")
    measured = f"{found.within_split.count} tiles, {found.identical_within} of them equal byte for byte"
    second = judge(
        "duplicates_within_split", found.within_split, measured, f"{within} tiles", otherwise=WARN, allowed=within
    )
    return [first, second]
