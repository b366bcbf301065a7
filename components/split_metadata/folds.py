"""Cross-validation by patient: every repeat deals the patients out to folds anew, and each fold is the test once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from components.records import storage
from components.records.errors import InputError, WorkError
from components.records.manifest import Manifest, Row, read_manifest, scan_manifest, write_manifest
from components.records.provenance import derive_seed
from components.split_metadata.options import check_options, fold_names
from components.split_metadata.split import split_metadata
from components.split_metadata.table import count_split, render_table

_SHARE = 0.15  # with folds a share only says that there is such a split


@dataclass(frozen=True)
class FoldsSummary:
    """What became of a cohort: `held_out` patients are in no fold; `names` are the folds', repeat by repeat."""

    manifest_hash: str
    patients: int
    slides: int
    held_out: int
    names: tuple[str, ...]


def repeat_seed(seed: int, repeat: int) -> int:
    """The seed of one repeat's placement; the first is the run's own, so that its folds are those of `folds=K`."""
    return derive_seed(seed, "repeat", repeat) % 2**31 if repeat else seed


def split_folds(
    manifest: str,
    images_root: str,
    out_cohort: str,
    out_table: str,
    out_splits: Mapping[str, str],
    *,
    folds: int = 5,
    repeats: int = 1,
    split_by: str = "patient",
    test_share: float = 0.0,
    seed: int = 0,
    manifest_hash: str = "",
) -> FoldsSummary:
    """Checks a manifest and writes one split manifest a fold.

    In each the fold is `test`, the next one `val`, the others `train`. Patients that the manifest puts in `test`, or
    a share of `test_share`, are held out: they have no split in any fold, so that nothing is fitted or chosen on
    them, and all folds' models together can be tested there. Given `train` and `val` are not kept apart.

    Args:
        manifest: CSV, on disk or in `gs://`.
        images_root: folder or `gs://` prefix of the images.
        out_cohort: CSV to write: every row, without a split; this is what is tiled, once for all folds.
        out_table: HTML to write, of the held-out split where there is one, else of the first fold.
        out_splits: fold name (see `fold_names`) → CSV to write.
        folds: number of folds, at least 3.
        repeats: how often patients are dealt out anew.
        split_by: `patient`, or `center`: every center is in one fold.
        test_share: share of each label's patients to hold out; 0 where the manifest holds some out.
        seed: of the placement.
        manifest_hash: sha256 hex that the manifest's bytes must have; empty for any.

    Raises:
        InputError: as `split_metadata`; too few folds; held-out patients are given twice over.
        WorkError: the manifest is not the one of `manifest_hash`.
    """
    check_options(split_by, _SHARE, _SHARE, folds, 0, seed)
    if repeats < 1:
        raise InputError(f"{repeats} repeats are none", where="repeats", mend="take 1 or more")
    source = scan_manifest(manifest)[0]
    if manifest_hash and manifest_hash.removeprefix("sha256:") != source.digest:
        raise WorkError("manifest changed since it was submitted", where=manifest, mend="submit the run again")
    given = any(row.split == "test" for row in source.rows)
    if given and test_share:
        raise InputError(
            "holds patients out already", where=source.path, mend="empty its column split, or test_share=0"
        )
    listing = storage.list_files(images_root) if images_root else {}
    common: dict[str, Any] = {"images_root": images_root, "split_by": split_by, "files": listing}
    with tempfile.TemporaryDirectory() as scratch:
        held = _hold_out(source, scratch, test_share, seed, common) if given or test_share else set()
        cleared = manifest
        if any(row.split for row in source.rows) or held:
            cleared = os.path.join(scratch, "development.csv")
            kept = [replace(row, split="") for row in source.rows if row.patient_id not in held]
            write_manifest(cleared, source.columns, kept)
        for repeat in range(repeats):
            again = repeat_seed(seed, repeat)
            places = _deal(cleared, scratch, again, folds, common)
            for fold in range(folds):
                options = check_options(split_by, _SHARE, _SHARE, folds, fold, again)
                splits = {patient: options.split_of(place) for patient, place in places.items()}
                write_splits(out_splits[f"r{repeat}_f{fold}"], source, splits)
    write_splits(out_cohort, source, {})
    splits = {row.patient_id: "test" if row.patient_id in held else "train" for row in source.rows}
    if not held:
        splits = {row.patient_id: row.split for row in read_manifest(out_splits["r0_f0"]).rows}
    options = check_options(split_by, 0.0 if held else _SHARE, test_share or _SHARE, 0 if held else folds, 0, seed)
    storage.write_text(out_table, render_table(count_split(source.rows, splits), options, source.digest, given, []))
    return FoldsSummary(source.digest, len(splits), len(source.rows), len(held), fold_names(folds, repeats))


def _hold_out(source: Manifest, scratch: str, test_share: float, seed: int, common: Mapping[str, Any]) -> set[str]:
    """The patients held out: those that the manifest puts in test, or a share of each label's."""
    asked, checked = os.path.join(scratch, "manifest.csv"), os.path.join(scratch, "checked.csv")
    rest = "" if test_share else "train"
    rows = [replace(row, split="test" if row.split == "test" else rest) for row in source.rows]
    write_manifest(asked, source.columns, rows)
    page = os.path.join(scratch, "table.html")
    shares: dict[str, Any] = {"val_share": 0.0, "test_share": test_share}
    split_metadata(asked, out_manifest=checked, out_table=page, seed=seed, **shares, **common)
    return {row.patient_id for row in read_manifest(checked).rows if row.split == "test"}


def _deal(manifest: str, scratch: str, seed: int, folds: int, common: Mapping[str, Any]) -> dict[str, str]:
    """The fold of each patient."""
    dealt, page = os.path.join(scratch, "dealt.csv"), os.path.join(scratch, "table.html")
    split_metadata(manifest, out_manifest=dealt, out_table=page, seed=seed, folds=folds, **common)
    return {row.patient_id: row.extra["fold"] for row in read_manifest(dealt).rows}


def write_splits(path: str, source: Manifest, splits: Mapping[str, str]) -> None:
    """The manifest with each patient's split; empty for a patient that has none."""
    columns = source.columns if "split" in source.columns else (*source.columns, "split")
    write_manifest(path, columns, _with_splits(source.rows, splits))


def _with_splits(rows: Sequence[Row], splits: Mapping[str, str]) -> list[Row]:
    return [replace(row, split=splits.get(row.patient_id, "")) for row in rows]
