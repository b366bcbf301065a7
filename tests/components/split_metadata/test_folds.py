"""Folds of a cross-validation: every patient is the test once a repeat, and who is held out is in no fold."""

from __future__ import annotations

import csv
import inspect
from pathlib import Path

import pytest

from components.records.errors import InputError, WorkError
from components.records.manifest import read_manifest
from components.split_metadata.component import define_split_folds
from components.split_metadata.folds import fold_names, split_folds
from components.split_metadata.split import split_metadata


class Study:
    """A manifest of made-up patients, two slides every third, with an image file each."""

    def __init__(self, folder: Path, patients: int = 24, splits: dict[int, str] | None = None) -> None:
        self.folder = folder
        (folder / "images").mkdir()
        self.manifest = folder / "manifest.csv"
        with self.manifest.open("w", newline="") as stream:
            writer = csv.writer(stream)
            columns = ["image_id", "patient_id", "label", "center_id"] + (["split"] if splits else [])
            writer.writerow(columns)
            for number in range(patients):
                for slide in range(1 + (number % 3 == 0)):
                    row = [f"p{number}_{slide}", f"p{number}", "ab"[number % 2], f"c{number % 8}"]
                    writer.writerow([*row, splits.get(number, "")] if splits else row)
                    (folder / "images" / f"p{number}_{slide}.tif").write_bytes(f"{number} {slide}".encode())

    def split(self, folds: int = 4, repeats: int = 1, **options):
        out = self.folder / "out"
        self.summary = split_folds(
            str(self.manifest), str(self.folder / "images"), str(out / "cohort.csv"), str(out / "table.html"),
            {name: str(out / f"{name}.csv") for name in fold_names(folds, repeats)},
            folds=folds, repeats=repeats, **options,
        )  # fmt: skip
        return {name: self.places(out / f"{name}.csv") for name in self.summary.names}

    @staticmethod
    def places(path: Path) -> dict[str, str]:
        places: dict[str, str] = {}
        for row in read_manifest(str(path)).rows:
            assert places.setdefault(row.patient_id, row.split) == row.split, "a patient is in two splits"
        return places


def test_each_patient_is_the_test_once_and_the_validation_once_a_repeat(tmp_path: Path) -> None:
    found = Study(tmp_path).split(4, 2)
    assert list(found) == ["r0_f0", "r0_f1", "r0_f2", "r0_f3", "r1_f0", "r1_f1", "r1_f2", "r1_f3"]
    for repeat in ("r0", "r1"):
        splits = [found[f"{repeat}_f{fold}"] for fold in range(4)]
        for patient in splits[0]:
            assert sorted(places[patient] for places in splits) == ["test", "train", "train", "val"]
        for places in splits:
            labels = [int(patient[1:]) % 2 for patient, split in places.items() if split == "test"]
            assert labels.count(0) == labels.count(1) == 3
    assert found["r0_f0"] != found["r1_f0"]


def test_the_folds_are_those_of_a_single_fold_run(tmp_path: Path) -> None:
    study = Study(tmp_path)
    found = study.split(4, seed=5)
    split_metadata(
        str(study.manifest), str(tmp_path / "images"), str(tmp_path / "s.csv"), str(tmp_path / "s.html"),
        folds=4, fold=2, seed=5,
    )  # fmt: skip
    assert Study.places(tmp_path / "s.csv") == found["r0_f2"]


def test_the_same_seed_the_same_folds(tmp_path: Path) -> None:
    study = Study(tmp_path)
    first = study.split(4, 2)
    assert study.split(4, 2) == first
    assert study.split(4, 2, seed=1) != first


def test_the_cohort_that_is_tiled_has_no_split(tmp_path: Path) -> None:
    study = Study(tmp_path, splits={0: "test", 1: "test"})
    study.split()
    rows = read_manifest(str(tmp_path / "out" / "cohort.csv")).rows
    assert {row.split for row in rows} == {""}
    assert [row.image_id for row in rows] == [row.image_id for row in read_manifest(str(study.manifest)).rows]


def test_patients_held_out_by_the_manifest_are_in_no_fold(tmp_path: Path) -> None:
    study = Study(tmp_path, splits={**dict.fromkeys((0, 1, 2, 3), "test"), 5: "train", 6: "val"})
    for places in study.split().values():
        assert {patient for patient, split in places.items() if not split} == {"p0", "p1", "p2", "p3"}
    assert study.summary.held_out == 4


def test_given_train_and_val_without_test_hold_nobody_out(tmp_path: Path) -> None:
    study = Study(tmp_path, splits={5: "train", 6: "val"})
    assert all(all(places.values()) for places in study.split().values())
    assert study.summary.held_out == 0


def test_a_share_can_be_held_out_and_folds_of_repeats_never_see_it(tmp_path: Path) -> None:
    study = Study(tmp_path)
    found = study.split(3, 2, test_share=0.25)
    held = [{patient for patient, split in places.items() if not split} for places in found.values()]
    assert all(one == held[0] for one in held)
    assert len(held[0]) == study.summary.held_out == 6


def test_whole_centers_are_in_one_fold(tmp_path: Path) -> None:
    for places in Study(tmp_path).split(4, split_by="center").values():
        for center in range(8):
            assert len({split for patient, split in places.items() if int(patient[1:]) % 8 == center}) == 1


def test_the_same_slide_in_two_patients_is_refused(tmp_path: Path) -> None:
    study = Study(tmp_path)
    content = (tmp_path / "images" / "p0_0.tif").read_bytes()
    found = study.split()
    other = next(p for p in found["r0_f0"] if found["r0_f0"][p] != found["r0_f0"]["p0"])
    (tmp_path / "images" / f"{other}_0.tif").write_bytes(content)
    with pytest.raises(InputError, match="same content"):
        study.split()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"folds": 2}, "2 folds can't hold"),
        ({"repeats": 0}, "0 repeats are none"),
        ({"test_share": 1.5}, "1.5 is no share"),
        ({"folds": 20}, "fold"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Study(tmp_path).split(**options)


def test_held_out_twice_over_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds patients out already"):
        Study(tmp_path, splits={0: "test"}).split(test_share=0.2)


def test_a_changed_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="changed since"):
        Study(tmp_path).split(manifest_hash="sha256:0")


def test_the_face_has_an_output_a_fold() -> None:
    face = inspect.signature(define_split_folds(3, 2).python_func).parameters
    assert [name for name in face if name.startswith("r")][:6] == list(fold_names(3, 2))
    assert (face["folds"].default, face["repeats"].default) == (3, 2)
