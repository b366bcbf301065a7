"""The step itself: manifest in; split manifest and table out."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from components.records import storage
from components.records.errors import InputError, WorkError, name_first
from components.records.manifest import Manifest, Row, find_images, refuse_rows, scan_manifest, write_manifest
from components.records.storage import FileInfo
from components.split_metadata.centers import CenterGroup, place_centers
from components.split_metadata.cohort import (
    Cohort,
    Previous,
    check_labels,
    check_masks,
    check_previous,
    check_same_content,
    gather_cohort,
    group_centers,
    read_previous,
)
from components.split_metadata.options import SplitOptions, check_options
from components.split_metadata.placement import place_patients
from components.split_metadata.same_content import find_same_content
from components.split_metadata.table import count_split, render_table

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitSummary:
    """What became of a cohort.

    Attributes:
        manifest_hash: sha256 hex of the input manifest's bytes.
        patients, slides: in all; of each split in use in `split_patients` and `split_slides`.
        labels: sorted.
        same_content: images that repeat the content of another one in the same split.
        warnings: one line each, as shown in the table.
    """

    manifest_hash: str
    patients: int
    slides: int
    labels: tuple[str, ...]
    split_patients: dict[str, int]
    split_slides: dict[str, int]
    same_content: int
    warnings: tuple[str, ...]


def split_metadata(
    manifest: str,
    images_root: str,
    out_manifest: str,
    out_table: str,
    *,
    split_by: str = "patient",
    val_share: float = 0.15,
    test_share: float = 0.15,
    folds: int = 0,
    fold: int = 0,
    seed: int = 0,
    previous_split: str = "",
    manifest_hash: str = "",
    files: Mapping[str, FileInfo] | None = None,
) -> SplitSummary:
    """Checks a manifest, gives every patient a split, and writes the split manifest and an HTML table.

    Patients are stratified by label. The same patients, shares and seed give the same split whatever the order of
    rows. A `split` column that is filled is taken as given after the checks.

    Args:
        manifest: CSV, on disk or in `gs://`.
        images_root: folder or `gs://` prefix of the images.
        out_manifest: CSV to write: the manifest's rows and columns in order, `split` on every row, `fold` with folds.
        out_table: HTML to write.
        split_by: `patient`, or `center` to hold out whole centers; a patient with slides at two centers ties them.
        val_share: of each label's patients for validation; 0 leaves it out (also with folds).
        test_share: the same for the test.
        folds: number of folds, or 0 for a split by shares.
        fold: this fold is the test split, the next one val, the rest train.
        seed: of the placement.
        previous_split: split manifest of an earlier run: its patients stay where they were; empty for none.
        manifest_hash: sha256 hex that the manifest's bytes must have; empty for any.
        files: the listing of `images_root` where the caller has it.

    Raises:
        InputError: an unusable parameter or file, or one line that lists every offending row.
        WorkError: the manifest is not the one of `manifest_hash`.
    """
    options = check_options(split_by, val_share, test_share, folds, fold, seed)
    if not images_root:
        raise InputError("is not given", where="images_root", mend="name the folder of the images")
    if os.path.realpath(manifest) == os.path.realpath(out_manifest):
        raise InputError("the output would replace the manifest", where=out_manifest, mend="choose another place")
    source, problems = scan_manifest(manifest)
    if manifest_hash and manifest_hash.removeprefix("sha256:") != source.digest:
        raise WorkError("manifest changed since it was submitted", where=manifest, mend="submit the run again")
    previous = read_previous(previous_split, options) if previous_split else Previous()
    cohort, found = gather_cohort(source, options)
    _check_columns(source, cohort, options)
    problems += found
    problems += check_labels(cohort, options)
    problems += check_previous(source, cohort, previous)
    groups: list[CenterGroup] = []
    if cohort.centers and not cohort.given:
        groups, found = group_centers(cohort, previous, options)
        problems += found
    listing = storage.list_files(images_root) if files is None else files
    images, found = find_images((row for row in source.rows if row.image_id), images_root, listing)
    problems += found
    problems += check_masks(source.rows, listing)
    known = cohort.given or previous.patients
    same: list[list[Row]] = []
    unread: list[str] = []
    if known or not problems:
        same, unread = find_same_content(source.rows, images)
        problems += check_same_content(same, lambda row: known.get(row.patient_id), options.unit)
    refuse_rows(manifest, problems)

    places = cohort.given or _place(manifest, cohort, groups, previous, options)
    if not cohort.given:
        refuse_rows(manifest, check_same_content(same, lambda row: places[row.patient_id], options.unit))
    warnings = _warn(cohort, places, groups, same, unread, options)
    split_of = dict.fromkeys(places.values(), "")
    for place in split_of:
        split_of[place] = place if cohort.given else options.split_of(place)
    splits = {patient: split_of[place] for patient, place in places.items()}
    columns = source.columns if "split" in source.columns else (*source.columns, "split")
    if options.folds:
        columns = (*columns, "fold")
    write_manifest(out_manifest, columns, _placed_rows(source, splits, places if options.folds else None))
    counts = count_split(source.rows, splits)
    storage.write_text(out_table, render_table(counts, options, source.digest, bool(cohort.given), warnings))
    return SplitSummary(
        manifest_hash=source.digest,
        patients=len(places),
        slides=len(source.rows),
        labels=source.labels,
        split_patients=counts.total("patients"),
        split_slides=counts.total("slides"),
        same_content=sum(len(group) - 1 for group in same),
        warnings=tuple(warnings),
    )


def _check_columns(source: Manifest, cohort: Cohort, options: SplitOptions) -> None:
    if options.folds and cohort.given:
        raise InputError("gives a split already", where=source.path, mend="empty its column split, or set folds=0")
    if options.folds and "fold" in source.columns:
        raise InputError("has a column fold already", where=source.path, mend="remove it, or set folds=0")


def _place(
    path: str, cohort: Cohort, groups: list[CenterGroup], previous: Previous, options: SplitOptions
) -> dict[str, str]:
    """The place of each patient."""
    if not groups:
        return place_patients(cohort.labels, options.shares, previous.patients, options.seed)
    group_places = place_centers(groups, options.shares, options.seed)
    place_of = {c: place for group, place in zip(groups, group_places, strict=True) for c in group.centers}
    places = {patient: place_of[centers[0]] for patient, centers in cohort.centers.items()}
    missing = _missing_labels(cohort, places, options)
    if missing and not previous.patients:
        raise InputError(
            f"no way was found to hold out whole centers: {'; '.join(missing)}",
            where=path,
            mend=f"use split_by=patient, or want fewer {options.unit}s",
        )
    return places


def _missing_labels(cohort: Cohort, places: Mapping[str, str], options: SplitOptions) -> list[str]:
    wanted = dict.fromkeys(places.values()) if cohort.given else options.shares
    present = {(cohort.labels[patient], place) for patient, place in places.items()}
    return [
        f"label {label} has no patient in {options.unit} {place}"
        for label in sorted(set(cohort.labels.values()))
        for place in wanted
        if (label, place) not in present
    ]


def _warn(
    cohort: Cohort,
    places: Mapping[str, str],
    groups: list[CenterGroup],
    same: list[list[Row]],
    unread: list[str],
    options: SplitOptions,
) -> list[str]:
    """What is allowed but worth knowing; logged, and shown in the table."""
    warnings = _missing_labels(cohort, places, options)
    warnings += [
        f"centers {name_first(group.centers, 10)} share patients and were placed together"
        for group in groups
        if len(group.centers) > 1
    ]
    warnings += [
        f"images {name_first((f'{row.image_id} (patient {row.patient_id})' for row in group), 5)} have the same content"
        for group in same
    ]
    if unread:
        warnings.append(f"could not be read to compare their content: {name_first(unread, 10)}")
    for line in warnings[:100]:
        log.warning("%s", line)
    if len(warnings) > 100:
        log.warning("and %d more warnings, which the table shows", len(warnings) - 100)
    return warnings


def _placed_rows(source: Manifest, splits: Mapping[str, str], folds: Mapping[str, str] | None) -> Iterator[Row]:
    for row in source.rows:
        extra = row.extra if folds is None else {**row.extra, "fold": folds[row.patient_id]}
        # dataclasses.replace takes three times as long, which shows on a million rows
        yield Row(
            row.image_id,
            row.patient_id,
            row.label,
            row.line,
            row.center_id,
            row.image_num,
            row.image_path,
            row.mask_path,
            row.mpp,
            splits[row.patient_id],
            extra,
        )
