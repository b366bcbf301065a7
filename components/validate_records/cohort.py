"""What can be said of a dataset from its manifest, ledger and list of files, with what the scan counted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from components.records import storage
from components.records.dataset import TiledDataset
from components.records.ledger import LedgerEntry
from components.records.manifest import Row
from components.records.schema import SPLITS
from components.validate_records.outcome import (
    FAIL,
    NOT_APPLICABLE,
    WARN,
    Check,
    Offender,
    Tally,
    Thresholds,
    judge,
)

_NO_SPLIT = "the manifest has no split"


@dataclass(frozen=True)
class Counted:
    """Records, sound tiles and near-blank tiles of each image id, as the scan found them."""

    records: Mapping[str, int]
    tiles: Mapping[str, int]
    blank: Mapping[str, int]


def has_splits(rows: Iterable[Row]) -> bool:
    """Whether any row says its split."""
    return any(row.split for row in rows)


def check_files(dataset: TiledDataset) -> tuple[Check, set[str]]:
    """Holds `records/` against parts.json and the manifest.

    Returns:
        The check, and the paths of parts that are missing.
    """
    folder = dataset.path("records")
    listed = storage.list_files(folder) if storage.is_remote(folder) or os.path.isdir(folder) else {}
    found = {f"records/{name}" for name in listed}
    left_over = {name for name in found if name.endswith(".tmp") and name.rsplit("/", 1)[-1].startswith(".")}
    rows = {row.image_id: row for row in dataset.manifest.rows}
    known = Counter(part.path for part in dataset.parts)
    tally = Tally()
    for part in dataset.parts:
        row = rows.get(part.image_id)
        if part.path not in found:
            tally.add(Offender("is in parts.json and not on disk", part.image_id, part.path))
        if row is None:
            tally.add(Offender("its image id is not in the manifest", part.image_id, part.path))
        elif not part.path.startswith(f"records/{row.split}/" if row.split else "records/"):
            tally.add(Offender(f"lies outside the folder of its split {row.split}", part.image_id, part.path))
    for path, times in known.items():
        if times > 1:
            tally.add(Offender(f"stands {times} times in parts.json", part=path))
    for path in sorted(found - left_over - set(known)):
        tally.add(Offender("is on disk and not in parts.json", part=path))
    measured = f"{len(dataset.parts)} parts, {len(found - left_over)} files"
    check = judge("files", tally, measured, "every file in parts.json, and the reverse")
    if left_over and check.status != FAIL:
        stray = tuple(Offender("is left over from a write that was broken off", part=p) for p in sorted(left_over)[:20])
        check = Check("files", WARN, f"{measured}, {len(left_over)} left over", check.threshold, len(left_over), stray)
    return check, {path for path in known if path not in found}


def check_counts(dataset: TiledDataset, ledger: list[LedgerEntry], counted: Counted, tally: Tally) -> Check:
    """Holds records, ledger, failed tiles and summary against each other; `tally` brings what the scan found."""
    rows = [row.image_id for row in dataset.manifest.rows]
    lines = Counter(entry.image_id for entry in ledger)
    failed: Counter[str] = Counter(str(line.get("image_id")) for line in _read_failed_tiles(dataset, tally))
    for image_id in rows:
        if lines[image_id] != 1:
            tally.add(Offender(f"stands {lines[image_id]} times in the ledger, not once", image_id))
    for image_id in sorted(set(lines) - set(rows)):
        tally.add(Offender("stands in the ledger and not in the manifest", image_id))
    for entry in ledger:
        found = counted.records.get(entry.image_id, 0)
        if found != entry.tiles:
            tally.add(Offender(f"has {found} records, the ledger says {entry.tiles}", entry.image_id))
        if failed[entry.image_id] != entry.tiles_failed:
            what = f"has {failed[entry.image_id]} failed tiles listed, the ledger says {entry.tiles_failed}"
            tally.add(Offender(what, entry.image_id))
        if (entry.status in ("tiled", "partial")) != (entry.tiles > 0):
            tally.add(Offender(f"is {entry.status} with {entry.tiles} tiles", entry.image_id))
    total = sum(entry.tiles for entry in ledger)
    _check_summary(dataset, total, tally)
    measured = f"{sum(counted.records.values())} records, {total} in the ledger"
    return judge("counts", tally, measured, "records, ledger, failed tiles and summary agree")


def _read_failed_tiles(dataset: TiledDataset, tally: Tally) -> list[dict[str, Any]]:
    path = dataset.path("failed_tiles.jsonl")
    if storage.stat(path) is None:
        tally.add(Offender("failed_tiles.jsonl is missing"))
        return []
    return [line for line in storage.read_json_lines(path) if isinstance(line, dict)]


def _check_summary(dataset: TiledDataset, total: int, tally: Tally) -> None:
    if storage.stat(dataset.path("summary.json")) is None:
        tally.add(Offender("summary.json is missing"))
        return
    stated = dataset.summary.get("tiles")
    if isinstance(stated, int) and stated != total:
        tally.add(Offender(f"summary.json says {stated} tiles, the ledger {total}"))


def check_lost(dataset: TiledDataset, ledger: list[LedgerEntry], counted: Counted) -> Check:
    """Names slides that lost tiles, and patients that have none left: nobody should learn of it later."""
    tally = Tally()
    for entry in ledger:
        if entry.status in ("failed", "partial", "empty"):
            reason = f": {entry.reason}" if entry.reason else ""
            tally.add(Offender(f"is {entry.status}{reason}", entry.image_id))
    for patient, rows in dataset.patients().items():
        if not any(counted.tiles.get(row.image_id) for row in rows):
            tally.add(Offender(f"patient {patient} has no tile"))
    whole = sum(entry.status == "tiled" for entry in ledger)
    return judge("lost", tally, f"{whole} of {len(ledger)} slides whole", "every slide and patient", otherwise=WARN)


def check_split_leakage(dataset: TiledDataset, ledger: list[LedgerEntry]) -> Check:
    """Every patient, and every image content, in one split only; every part in its row's split."""
    threshold = "a patient and an image content in one split only"
    if not has_splits(dataset.manifest.rows) and not any(part.split for part in dataset.parts):
        return Check("split_leakage", NOT_APPLICABLE, _NO_SPLIT, threshold)
    tally = Tally()
    rows = {row.image_id: row for row in dataset.manifest.rows}
    for patient, bag in dataset.patients().items():
        splits = sorted({row.split or "none" for row in bag})
        if len(splits) > 1:
            tally.add(Offender(f"patient {patient} is in {' and '.join(splits)}", bag[0].image_id))
    for part in dataset.parts:
        row = rows.get(part.image_id)
        if row is not None and part.split != row.split:
            what = f"is filed under {part.split or 'no split'}, the manifest says {row.split or 'none'}"
            tally.add(Offender(what, part.image_id, part.path))
    for row in rows.values():
        if not row.split:
            tally.add(Offender("has no split, others have", row.image_id))
    first: dict[str, Row] = {}
    for entry in ledger:
        row = rows.get(entry.image_id)
        if row is None or not entry.digest:
            continue
        twin = first.setdefault(entry.digest, row)
        if twin.split != row.split:
            what = f"({row.split}) has the same content as {twin.image_id} ({twin.split})"
            tally.add(Offender(what, entry.image_id))
    measured = f"{len(dataset.patients())} patients in {len({row.split for row in rows.values() if row.split})} splits"
    return judge("split_leakage", tally, measured, threshold)


def check_label_table(dataset: TiledDataset, tally: Tally) -> Check:
    """The labels of schema.json and of patients; `tally` brings what the scan found in records."""
    stated = dataset.schema.labels
    if stated != dataset.manifest.labels:
        tally.add(Offender(f"schema.json has {', '.join(stated)}; the manifest {', '.join(dataset.manifest.labels)}"))
    for patient, bag in dataset.patients().items():
        labels = sorted({row.label for row in bag})
        if len(labels) > 1:
            tally.add(Offender(f"patient {patient} is {' and '.join(labels)}", bag[0].image_id))
    return judge("labels", tally, f"{len(stated)} labels: {', '.join(stated)}", "as in the manifest, sorted")


def check_classes(dataset: TiledDataset, counted: Counted, thresholds: Thresholds) -> Check:
    """Every class has patients with tiles in every split there is."""
    wanted = thresholds.min_patients_per_class
    threshold = f"{wanted} patients of a class in a split"
    if not has_splits(dataset.manifest.rows):
        return Check("classes", NOT_APPLICABLE, _NO_SPLIT, threshold)
    tally, least = Tally(), None
    for split in SPLITS:
        if not any(row.split == split for row in dataset.manifest.rows):
            continue
        present: Counter[str] = Counter()
        for bag in dataset.patients(split).values():
            present[bag[0].label] += any(counted.tiles.get(row.image_id) for row in bag)
        for label in dataset.manifest.labels:
            least = present[label] if least is None else min(least, present[label])
            if present[label] < wanted:
                tally.add(Offender(f"{split} has {present[label]} patients of {label}"))
    return judge("classes", tally, f"at least {least} patients of a class in a split", threshold)


def count_groups(dataset: TiledDataset, counted: Counted) -> list[dict[str, Any]]:
    """A row a (split, center, label): patients, slides and tiles of the manifest."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in dataset.manifest.rows:
        groups.setdefault((row.split, row.center_id, row.label), []).append(row)
    order = {split: place for place, split in enumerate(SPLITS)}
    return [
        {
            "split": split,
            "center": center,
            "label": label,
            "patients": len({row.patient_id for row in rows}),
            "slides": len(rows),
            "tiles": sum(counted.tiles.get(row.image_id, 0) for row in rows),
            "blank": sum(counted.blank.get(row.image_id, 0) for row in rows),
        }
        for (split, center, label), rows in sorted(
            groups.items(), key=lambda item: (order.get(item[0][0], len(order)), item[0])
        )
    ]
