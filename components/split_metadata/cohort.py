"""Who is in the manifest, and everything in it that makes a split without a leak impossible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from components.records.errors import InputError, name_first
from components.records.manifest import Manifest, Row, RowProblem, read_manifest
from components.records.schema import SPLITS
from components.split_metadata.centers import CenterGroup, tie_centers
from components.split_metadata.options import SplitOptions

_ONE_SPLIT = "give each patient one split"
_ONE_CENTER_SPLIT = "give each center one split, or use split_by=patient"
_FEWER = {"split": "add patients, or want fewer splits", "fold": "add patients, or take fewer folds"}


@dataclass
class Cohort:
    """The patients of a manifest.

    Attributes:
        labels: the label of each patient.
        given: the split of each patient where the manifest gives one, else empty.
        centers: the centers of each patient; filled for a split by centers only.
        center_splits: the given split of each center; likewise.
    """

    labels: dict[str, str] = field(default_factory=dict)
    given: dict[str, str] = field(default_factory=dict)
    centers: dict[str, list[str]] = field(default_factory=dict)
    center_splits: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Previous:
    """Where an earlier split put patients and centers."""

    patients: dict[str, str] = field(default_factory=dict)
    centers: dict[str, str] = field(default_factory=dict)


def gather_cohort(manifest: Manifest, options: SplitOptions) -> tuple[Cohort, list[RowProblem]]:
    """Reads patients, labels, given splits and centers out of the rows, with a problem for each row that contradicts.

    Rows with an empty patient id or label are the manifest's problem and are passed over.
    """
    cohort = Cohort()
    problems: list[RowProblem] = []
    has_split = any(row.split for row in manifest.rows)
    by_center = options.split_by == "center"
    if by_center and "center_id" not in manifest.columns:
        problems.append(RowProblem(0, "lacks the column center_id", "add it, or use split_by=patient"))
        by_center = False
    label_line: dict[str, int] = {}
    split_line: dict[str, int] = {}
    for row in manifest.rows:
        patient = row.patient_id
        if not patient:
            continue
        if row.label and cohort.labels.setdefault(patient, row.label) != row.label:
            seen = f"label {cohort.labels[patient]} on line {label_line[patient]}"
            text = f"patient {patient} has label {row.label}, but {seen}"
            problems.append(RowProblem(row.line, text, "give each patient one label"))
        label_line.setdefault(patient, row.line)
        if has_split:
            problems += _read_given(row, cohort, split_line)
        if by_center:
            problems += _read_center(row, cohort)
    return cohort, problems


def _read_given(row: Row, cohort: Cohort, split_line: dict[str, int]) -> Iterable[RowProblem]:
    if not row.split:
        yield RowProblem(row.line, f"{row.image_id}: no split", "fill split on every row, or on none")
    elif row.split in SPLITS:
        first = cohort.given.setdefault(row.patient_id, row.split)
        line = split_line.setdefault(row.patient_id, row.line)
        if first != row.split:
            text = f"patient {row.patient_id} is in {row.split}, but in {first} on line {line}"
            yield RowProblem(row.line, text, _ONE_SPLIT)


def _read_center(row: Row, cohort: Cohort) -> Iterable[RowProblem]:
    if not row.center_id:
        yield RowProblem(row.line, f"{row.image_id}: empty center_id", "fill it, or use split_by=patient")
        return
    centers = cohort.centers.setdefault(row.patient_id, [])
    if row.center_id not in centers:
        centers.append(row.center_id)
    if row.split in SPLITS:
        first = cohort.center_splits.setdefault(row.center_id, row.split)
        if first != row.split:
            text = f"center {row.center_id} is in {row.split} (patient {row.patient_id}), but in {first} above"
            yield RowProblem(row.line, text, _ONE_CENTER_SPLIT)


def check_labels(cohort: Cohort, options: SplitOptions) -> list[RowProblem]:
    """A problem for each label with fewer patients than there are wanted splits (or splits in use, where given)."""
    needed = len(set(cohort.given.values())) if cohort.given else len(options.shares)
    unit = options.unit
    return [
        RowProblem(0, f"label {label} has {number} patient{'s'[: number > 1]} for {needed} {unit}s", _FEWER[unit])
        for label, number in sorted(Counter(cohort.labels.values()).items())
        if number < needed
    ]


def check_masks(rows: Iterable[Row], files: Mapping[str, object]) -> list[RowProblem]:
    """A problem for each row whose mask is not there."""
    return [
        RowProblem(row.line, f"{row.image_id}: no mask file {row.mask_path}", "put it there, or empty mask_path")
        for row in rows
        if row.mask_path and str(PurePosixPath(row.mask_path)) not in files
    ]


def check_same_content(
    groups: Iterable[list[Row]], place_of: Callable[[Row], str | None], unit: str
) -> list[RowProblem]:
    """A problem for each image whose content lies in another split (or fold) under another id."""
    problems = []
    for group in groups:
        placed = [(row, place) for row in group if (place := place_of(row)) is not None]
        for row, place in placed[1:]:
            first, first_place = placed[0]
            if place != first_place:
                text = (
                    f"image {row.image_id} of patient {row.patient_id} ({unit} {place}) has the same content as image "
                    f"{first.image_id} of patient {first.patient_id} ({unit} {first_place}) on line {first.line}"
                )
                mend = "remove one of the two images, or give both the same patient_id"
                problems.append(RowProblem(row.line, text, mend))
    return problems


def read_previous(path: str, options: SplitOptions) -> Previous:
    """Reads where an earlier split put each patient, and each center for a split by centers.

    Raises:
        InputError: it lists every row that contradicts another one; the file has no split (or fold) on
            every row, or has another number of folds.
    """
    earlier = read_manifest(path)
    unit = options.unit
    places: set[str] = set()
    found = Previous()
    problems: list[str] = []
    for row in earlier.rows:
        place = row.extra.get("fold", "").strip() if options.folds else row.split
        if not place:
            problems.append(f"line {row.line}: no {unit}")
            continue
        places.add(place)
        before = found.patients.setdefault(row.patient_id, place)
        if before != place:
            problems.append(f"line {row.line}: patient {row.patient_id} is in {unit} {place}, but in {before} above")
        elif options.split_by == "center" and row.center_id:
            before = found.centers.setdefault(row.center_id, place)
            if before != place:
                problems.append(f"line {row.line}: center {row.center_id} is in {unit} {place}, but in {before} above")
    if problems:
        mend = f"give an earlier split with one {unit} on each row, patient and (for split_by=center) center"
        raise InputError("; ".join(problems), where=path, mend=mend)
    if options.folds and places != set(options.shares):
        listed = name_first(sorted(places), 10)
        raise InputError(f"has the folds {listed}, not 0 to {options.folds - 1}", where=path, mend="keep folds as then")
    return found


def check_previous(manifest: Manifest, cohort: Cohort, previous: Previous) -> list[RowProblem]:
    """A problem for each row whose given split is another than in the earlier split."""
    return [
        RowProblem(row.line, f"patient {row.patient_id} is in {row.split}, but was in {was}", "keep it where it was")
        for row in manifest.rows
        if row.split and (was := previous.patients.get(row.patient_id, row.split)) != row.split
    ]


def group_centers(
    cohort: Cohort, previous: Previous, options: SplitOptions
) -> tuple[list[CenterGroup], list[RowProblem]]:
    """The groups of centers that move together, with their place where an earlier split gives one.

    A patient with slides at two centers ties these centers together. A problem tells of centers tied now that
    lie in different splits already, and of labels at fewer groups than there are splits.
    """
    groups = [CenterGroup(centers) for centers in tie_centers(cohort.centers)]
    group_of = {center: group for group in groups for center in group.centers}
    places: dict[tuple[str, ...], set[str]] = {group.centers: set() for group in groups}
    for patient, centers in cohort.centers.items():
        group = group_of[centers[0]]
        if patient in cohort.labels:
            group.patients[cohort.labels[patient]] += 1
        if patient in previous.patients:
            places[group.centers].add(previous.patients[patient])
    problems: list[RowProblem] = []
    for group in groups:
        known = places[group.centers] | {previous.centers[c] for c in group.centers if c in previous.centers}
        if len(known) > 1:
            names = ("centers " if len(group.centers) > 1 else "center ") + name_first(group.centers, 10)
            text = f"{names} would have to stay in {' and '.join(sorted(known))}, where its patients were"
            problems.append(RowProblem(0, text, "use split_by=patient, or split afresh without previous_split"))
        group.fixed = min(known, default="")
    if not previous.patients:
        problems += _check_groups(cohort, groups, options)
    return groups, problems


def _check_groups(cohort: Cohort, groups: list[CenterGroup], options: SplitOptions) -> list[RowProblem]:
    needed = len(options.shares)
    at: Counter[str] = Counter(label for group in groups for label in group.patients)
    return [
        RowProblem(
            0,
            f"label {label} is at {at[label]} center{'s'[: at[label] > 1]} (those that share patients count once) "
            f"for {needed} {options.unit}s",
            f"use split_by=patient, or want fewer {options.unit}s",
        )
        for label, patients in sorted(Counter(cohort.labels.values()).items())
        if at[label] < needed <= patients
    ]
