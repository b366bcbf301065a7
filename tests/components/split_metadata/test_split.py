import csv
import hashlib
import logging
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.records.errors import InputError, WorkError
from components.records.manifest import read_manifest
from components.records.storage import FileInfo
from components.split_metadata.split import split_metadata

COLUMNS = ["image_id", "center_id", "patient_id", "image_num", "label"]


class Study:
    """A manifest, a listing of its images, and the split of both."""

    def __init__(self, folder):
        self.folder = folder
        self.rows = []
        self.columns = list(COLUMNS)
        self.digests = {}
        self.no_image = set()

    def add(self, patient, label, images=1, center="c1", **more):
        for number in range(images):
            self.rows.append(
                {
                    "image_id": f"{patient}_{number}",
                    "center_id": center,
                    "patient_id": patient,
                    "image_num": str(number),
                    "label": label,
                    **more,
                }
            )
        return self

    @property
    def manifest(self):
        path = self.folder / "manifest.csv"
        columns = self.columns + sorted({key for row in self.rows for key in row} - set(self.columns))
        with open(path, "w", newline="") as stream:
            writer = csv.DictWriter(stream, columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        return str(path)

    @property
    def files(self):
        return {
            f"{row['image_id']}.tif": FileInfo(
                f"gs://b/{row['image_id']}", 9, self.digests.get(row["image_id"], f"md5:{row['image_id']}")
            )
            for row in self.rows
            if row["image_id"] not in self.no_image
        } | {"spare.tif": FileInfo("gs://b/spare", 1, "md5:spare")}

    def split(self, **options):
        out = str(self.folder / "out" / "split.csv")
        self.summary = split_metadata(
            self.manifest, "gs://b", out, str(self.folder / "out" / "split.html"), files=self.files, **options
        )
        return read_manifest(out)

    def places(self, **options):
        rows = self.split(**options).rows
        places = {}
        for row in rows:
            assert places.setdefault(row.patient_id, row.split) == row.split
        return places

    def refusal(self, **options):
        with pytest.raises(InputError) as caught:
            self.split(**options)
        assert not (self.folder / "out").exists()
        assert "\n" not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path)


@pytest.fixture
def cohort(study):
    for number in range(20):
        study.add(f"p{number:02d}", "CE" if number % 2 else "LAA", 1 + number % 3, f"c{number % 5}", scanner="x, y")
    return study


def test_every_row_is_kept_in_order_with_its_columns_and_a_split(cohort):
    result = cohort.split()
    assert result.columns == (*COLUMNS, "scanner", "split")
    assert [row.image_id for row in result.rows] == [row["image_id"] for row in cohort.rows]
    assert {row.extra["scanner"] for row in result.rows} == {"x, y"}
    by_label = Counter((row.label, row.split) for row in {row.patient_id: row for row in result.rows}.values())
    for label in ("CE", "LAA"):
        assert by_label[label, "train"] == 7
        assert sorted((by_label[label, "val"], by_label[label, "test"])) == [1, 2]
    summary = cohort.summary
    assert summary.manifest_hash == hashlib.sha256(Path(cohort.manifest).read_bytes()).hexdigest()
    assert (summary.patients, summary.slides, summary.labels) == (20, len(cohort.rows), ("CE", "LAA"))
    assert summary.split_patients == {"train": 14, "val": 3, "test": 3}
    assert sum(summary.split_slides.values()) == len(cohort.rows)
    assert (summary.same_content, summary.warnings) == (0, ())


def test_the_same_call_writes_the_same_bytes(cohort):
    cohort.split(seed=3)
    first = [(cohort.folder / "out" / name).read_bytes() for name in ("split.csv", "split.html")]
    cohort.split(seed=3)
    assert [(cohort.folder / "out" / name).read_bytes() for name in ("split.csv", "split.html")] == first
    assert cohort.split(seed=4).digest != hashlib.sha256(first[0]).hexdigest()


def test_everything_wrong_is_listed_at_once(study):
    for number in range(6):
        study.add(f"p{number}", "CE", split="train" if number < 4 else "test")
    study.rows += [
        {"image_id": "two", "patient_id": "p0", "label": "LAA", "split": "train", "center_id": "c"},
        {"image_id": "leak", "patient_id": "p1", "label": "CE", "split": "test", "center_id": "c"},
        {"image_id": "p2_0", "patient_id": "p2", "label": "CE", "split": "train", "center_id": "c"},
        {"image_id": "gone", "patient_id": "p7", "label": "CE", "split": "train", "center_id": "c"},
        {"image_id": "open", "patient_id": "p8", "label": "CE", "split": "", "center_id": "c"},
        {"image_id": "copy", "patient_id": "p9", "label": "CE", "split": "test", "center_id": "c"},
        {"image_id": "rare", "patient_id": "p10", "label": "Rare", "split": "train", "center_id": "c"},
        {"image_id": "mask", "patient_id": "p11", "label": "CE", "split": "train", "mask_path": "m/none.png"},
        {"image_id": "bad", "patient_id": "p12", "label": "CE", "split": "train", "mpp": "-2"},
    ]
    study.no_image = {"gone"}
    study.digests = {"copy": "md5:p3_0"}
    message = study.refusal()
    for part in (
        "line 8: patient p0 has label LAA, but label CE on line 2",
        "line 9: patient p1 is in test, but in train on line 3",
        "line 10: image_id p2_0 is already on line 4",
        "line 11: gone: no file of that stem",
        "line 12: open: no split",
        "line 13: image copy of patient p9 (split test) has the same content as image p3_0 of patient p3 (split train) "
        "on line 5",
        "label Rare has 1 patient for 2 splits",
        "line 15: mask: no mask file m/none.png",
        "line 16: mpp '-2' is not a positive number",
        "give each patient one label",
        "give each patient one split",
        "put the images below --images-root",
        "fill split on every row, or on none",
        "remove one of the two images, or give both the same patient_id",
        "add patients, or want fewer splits",
        "put it there, or empty mask_path",
    ):
        assert part in message
    assert message.count("line 1") == 6, "each once"


def test_label_with_fewer_patients_than_splits(cohort):
    cohort.add("q1", "Rare", 5).add("q2", "Rare", 5)
    assert "label Rare has 2 patients for 3 splits; add patients, or want fewer splits" in cohort.refusal()
    assert "label Rare has 2 patients for 5 folds; add patients, or take fewer folds" in cohort.refusal(folds=5)
    assert {place for patient, place in cohort.places(val_share=0).items() if patient[0] == "q"} == {"train", "test"}


def test_a_given_split_is_taken_as_given(study):
    wanted = {}
    for number in range(9):
        wanted[f"p{number}"] = ("test", "train", "val")[number % 3]
        study.add(f"p{number}", "CE", 2, split=wanted[f"p{number}"])
    assert study.places(val_share=0.4, seed=9) == wanted
    assert "as given in the manifest" in (study.folder / "out" / "split.html").read_text()


def test_an_empty_split_column_is_filled(cohort):
    for row in cohort.rows:
        row["split"] = ""
    assert cohort.split().columns == (*COLUMNS, "scanner", "split")


def test_folds_rotate_and_agree_with_each_other(cohort):
    by_fold = [cohort.split(folds=4, fold=fold) for fold in range(4)]
    folds = {row.patient_id: row.extra["fold"] for row in by_fold[0].rows}
    assert set(folds.values()) == {"0", "1", "2", "3"}
    for fold, result in enumerate(by_fold):
        assert result.columns[-2:] == ("split", "fold")
        for row in result.rows:
            assert row.extra["fold"] == folds[row.patient_id]
            ahead = (int(row.extra["fold"]) - fold) % 4
            assert row.split == ("test", "val", "train", "train")[ahead]
    per_fold = Counter(
        (row.label, folds[row.patient_id]) for row in {r.patient_id: r for r in by_fold[0].rows}.values()
    )
    assert set(per_fold.values()) <= {2, 3}


def test_folds_need_a_manifest_without_split_and_fold(cohort):
    for row in cohort.rows:
        row["fold"] = "1"
    assert "has a column fold already; remove it, or set folds=0" in cohort.refusal(folds=5)
    for row in cohort.rows:
        row["split"] = "train"
    assert "gives a split already; empty its column split, or set folds=0" in cohort.refusal(folds=5)


def test_previous_split_keeps_its_patients(cohort):
    before = cohort.places(seed=1)
    previous = cohort.folder / "previous.csv"
    (cohort.folder / "out" / "split.csv").rename(previous)
    cohort.rows = [row for row in cohort.rows if row["patient_id"] != "p03"]
    for number in range(20, 32):
        cohort.add(f"p{number:02d}", "CE" if number % 2 else "LAA")
    after = cohort.places(seed=2, previous_split=str(previous))
    assert {patient: after[patient] for patient in before if patient in after} == {
        patient: place for patient, place in before.items() if patient != "p03"
    }
    counts = Counter(after.values())
    assert abs(counts["val"] - 31 * 0.15) < 2
    assert abs(counts["test"] - 31 * 0.15) < 2


def test_previous_folds_are_kept(cohort):
    before = {row.patient_id: row.extra["fold"] for row in cohort.split(folds=4, fold=1).rows}
    previous = cohort.folder / "previous.csv"
    (cohort.folder / "out" / "split.csv").rename(previous)
    cohort.add("new", "CE")
    after = {row.patient_id: row.extra["fold"] for row in cohort.split(folds=4, previous_split=str(previous)).rows}
    assert {patient: after[patient] for patient in before} == before
    (cohort.folder / "out" / "split.csv").unlink()
    (cohort.folder / "out" / "split.html").unlink()
    (cohort.folder / "out").rmdir()
    refusal = cohort.refusal(folds=5, previous_split=str(previous))
    assert "previous.csv: has the folds 0, 1, 2, 3, not 0 to 4; keep folds as then" in refusal
    previous.write_text("image_id,patient_id,label,split\na,p01,CE,train\n")
    assert "previous.csv: line 2: no fold; give an earlier split" in cohort.refusal(
        folds=5, previous_split=str(previous)
    )


def test_previous_split_that_contradicts_is_refused(cohort):
    previous = cohort.folder / "previous.csv"
    previous.write_text(
        "image_id,patient_id,label,split,center_id\n"
        "a,p01,CE,train,c1\nb,p01,CE,test,c1\nc,p02,CE,val,c1\nd,p03,CE,,c1\n"
    )
    message = cohort.refusal(previous_split=str(previous))
    assert f"{previous}: line 3: patient p01 is in split test, but in train above; line 5: no split; give" in message
    assert "center" not in message.partition("; give")[0]
    message = cohort.refusal(previous_split=str(previous), split_by="center")
    assert "line 4: center c1 is in split val, but in train above" in message
    assert "no such file" in cohort.refusal(previous_split=str(cohort.folder / "none.csv"))


def test_given_split_and_previous_split_must_agree(study):
    for number in range(4):
        study.add(f"p{number}", "CE", split="train" if number < 2 else "test")
    previous = study.folder / "previous.csv"
    previous.write_text("image_id,patient_id,label,split\na,p1,CE,test\nb,p2,CE,test\n")
    message = study.refusal(previous_split=str(previous))
    assert "line 3: patient p1 is in train, but was in test; keep it where it was" in message
    assert "p2" not in message


def test_a_label_that_previous_split_keeps_out_is_told(study, caplog):
    study.add("p0", "CE").add("p1", "CE").add("p2", "CE")
    previous = study.folder / "previous.csv"
    previous.write_text("image_id,patient_id,label,split\na,p0,CE,train\nb,p1,CE,train\nc,p2,CE,val\n")
    with caplog.at_level(logging.WARNING):
        study.split(previous_split=str(previous))
    assert study.summary.warnings == ("label CE has no patient in split test",)
    assert "label CE has no patient in split test" in caplog.text


def test_same_content_in_two_splits_is_refused_and_within_one_is_told(cohort, caplog):
    places = cohort.places()
    train = [patient for patient, place in places.items() if place == "train"]
    test = next(patient for patient, place in places.items() if place == "test")
    cohort.digests = {f"{train[1]}_0": f"md5:{train[0]}_0"}
    cohort.split()
    assert cohort.summary.same_content == 1
    note = f"images {train[0]}_0 (patient {train[0]}), {train[1]}_0 (patient {train[1]}) have the same content"
    assert cohort.summary.warnings == (note,)
    assert note in caplog.text
    assert note in (cohort.folder / "out" / "split.html").read_text()
    cohort.digests = {f"{test}_0": f"md5:{train[0]}_0"}
    with pytest.raises(InputError) as caught:
        cohort.split()
    assert f"{test} (split test)" in str(caught.value)
    assert f"{train[0]} (split train)" in str(caught.value)
    assert "remove one of the two images, or give both the same patient_id" in str(caught.value)


def test_same_content_on_disk(study):
    root = study.folder / "images"
    root.mkdir()
    for number in range(6):
        study.add(f"p{number}", "CE", split="train" if number % 2 else "test")
        (root / f"p{number}_0.tif").write_bytes(b"same" if number in (1, 3, 4) else b"content %d" % number)
    with pytest.raises(
        InputError, match=r"line 6: image p4_0 of patient p4 \(split test\) has the same content as image p1"
    ):
        split_metadata(study.manifest, str(root), str(study.folder / "s.csv"), str(study.folder / "s.html"))


def test_whole_centers_are_held_out(study):
    for number in range(40):
        study.add(f"p{number:02d}", "CE" if number % 3 else "LAA", center=f"c{number % 8}")
    study.add("both", "CE", center="c1").add("both2", "CE", center="c2")
    study.rows.append({**study.rows[-1], "image_id": "again", "center_id": "c1"})
    result = study.split(split_by="center", val_share=0.2, test_share=0.2)
    places = {}
    for row in result.rows:
        assert places.setdefault(row.center_id, row.split) == row.split
    assert set(places.values()) == {"train", "val", "test"}
    assert places["c1"] == places["c2"]
    assert study.summary.warnings == ("centers c1, c2 share patients and were placed together",)
    previous = study.folder / "previous.csv"
    (study.folder / "out" / "split.csv").rename(previous)
    study.add("new", "CE", center="c3").add("newer", "CE", center="c99")
    after = {
        row.center_id: row.split for row in study.split(split_by="center", seed=8, previous_split=str(previous)).rows
    }
    assert {center: after[center] for center in places} == places


def test_what_whole_centers_can_t_do_is_refused(study):
    for number in range(12):
        study.add(f"p{number:02d}", "CE", center=f"c{number % 4}")
    for number in range(12, 16):
        study.add(f"p{number:02d}", "LAA", center=f"c{number % 2}")
    message = study.refusal(split_by="center")
    assert (
        "label LAA is at 2 centers (those that share patients count once) for 3 splits; use split_by=patient" in message
    )
    study.rows[3]["center_id"] = ""
    message = study.refusal(split_by="center")
    assert "line 5: p03_0: empty center_id; label" in message
    assert "; fill it, or use split_by=patient" in message
    for row in study.rows:
        del row["center_id"]
    study.columns.remove("center_id")
    assert "lacks the column center_id; add it, or use split_by=patient" in study.refusal(split_by="center")


def test_labels_that_no_holding_out_can_balance(study):
    # two labels, each at three centers of its own but for one: any three splits miss a label somewhere
    for number, labels in enumerate((("A", "B"), ("A",), ("B",), ("A", "B"))):
        for label in labels:
            study.add(f"{label}{number}", label, center=f"c{number}")
    study.places(split_by="center", val_share=0.3, test_share=0.3)
    study.rows = [row for row in study.rows if row["patient_id"] != "B3"]
    study.add("B9", "B", center="c2").add("C1", "C", center="c0").add("C2", "C", center="c1").add(
        "C3", "C", center="c3"
    )
    with pytest.raises(InputError, match="label B is at 2 centers"):
        study.places(split_by="center")
    study.rows = []
    for center, labels in (("c0", "ABC"), ("c1", "AB"), ("c2", "AC"), ("c3", "BC")):
        for label in labels:
            study.add(f"{label}{center}", label, center=center)
    with pytest.raises(InputError) as caught:
        study.places(split_by="center")
    assert "no way was found to hold out whole centers: label" in str(caught.value)
    assert "; use split_by=patient, or want fewer splits" in str(caught.value)


def test_given_and_previous_splits_that_tear_a_center(study):
    for number in range(8):
        study.add(f"p{number}", "CE", center=f"c{number // 2}", split="test" if number in (0, 2, 3) else "train")
    message = study.refusal(split_by="center")
    assert "line 3: center c0 is in train (patient p1), but in test above; give each center one split" in message
    assert "c1" not in message
    for row in study.rows:
        del row["split"]
    previous = study.folder / "previous.csv"
    previous.write_text("image_id,patient_id,label,split,center_id\na,p0,CE,test,c0\nb,p2,CE,train,c1\n")
    study.rows.append({**study.rows[0], "image_id": "tie", "center_id": "c1"})
    message = study.refusal(split_by="center", previous_split=str(previous))
    assert (
        "centers c0, c1 would have to stay in test and train, where its patients were; use split_by=patient" in message
    )


def test_calls_that_can_t_be(cohort, tmp_path):
    manifest, out = cohort.manifest, str(tmp_path / "t.html")
    with pytest.raises(InputError, match="images_root: is not given; name the folder of the images"):
        split_metadata(manifest, "", str(tmp_path / "s.csv"), out)
    with pytest.raises(InputError, match="would replace the manifest; choose another place"):
        split_metadata(manifest, "x", manifest, out)
    with pytest.raises(InputError, match="no such folder"):
        split_metadata(manifest, str(tmp_path / "nowhere"), str(tmp_path / "s.csv"), out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is an empty folder; point --images-root at the images"):
        split_metadata(manifest, str(tmp_path / "empty"), str(tmp_path / "s.csv"), out)
    assert "'foo' is neither patient nor center" in cohort.refusal(split_by="foo")


def test_a_manifest_that_changed_since_it_was_submitted(cohort):
    digest = hashlib.sha256(Path(cohort.manifest).read_bytes()).hexdigest()
    cohort.split(manifest_hash=digest)
    with pytest.raises(WorkError, match="manifest changed since it was submitted; submit the run again"):
        cohort.split(manifest_hash=digest[::-1])


cohorts = st.lists(st.tuples(st.sampled_from("AB"), st.integers(1, 3), st.integers(0, 7)), min_size=0, max_size=25).map(
    lambda drawn: [("A", 1, 0), ("A", 1, 1), ("A", 1, 2), ("B", 1, 0), ("B", 1, 1), ("B", 1, 2), *drawn]
)
relaxed = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@relaxed
@given(cohorts, st.integers(0, 99), st.randoms(), st.sampled_from([{}, {"folds": 3, "fold": 1}]))
def test_no_patient_is_split_no_row_lost_and_row_order_is_nothing(tmp_path_factory, drawn, seed, random, options):
    study = Study(tmp_path_factory.mktemp("study"))
    for number, (label, images, center) in enumerate(drawn):
        study.add(f"p{number}", label, images, f"c{center}")
    result = study.split(seed=seed, **options)
    assert [row.image_id for row in result.rows] == [row["image_id"] for row in study.rows]
    places = study.places(seed=seed, **options)
    for label in "AB":
        assert {places[row.patient_id] for row in result.rows if row.label == label} == {"train", "val", "test"}
    random.shuffle(study.rows)
    assert study.places(seed=seed, **options) == places


@relaxed
@given(cohorts, cohorts, st.integers(0, 99))
def test_an_earlier_split_is_stable_under_new_patients(tmp_path_factory, drawn, added, seed):
    study = Study(tmp_path_factory.mktemp("study"))
    for number, (label, images, _) in enumerate(drawn):
        study.add(f"p{number}", label, images)
    before = study.places(seed=seed)
    previous = study.folder / "previous.csv"
    (study.folder / "out" / "split.csv").rename(previous)
    for number, (label, images, _) in enumerate(added):
        study.add(f"a{number}", label, images)
    after = study.places(seed=seed + 1, previous_split=str(previous))
    assert {patient: after[patient] for patient in before} == before


@relaxed
@given(cohorts, st.integers(0, 99))
def test_no_center_is_ever_in_two_splits(tmp_path_factory, drawn, seed):
    study = Study(tmp_path_factory.mktemp("study"))
    for number, (label, images, center) in enumerate(drawn):
        study.add(f"p{number}", label, images, f"c{center}")
    study.rows.append({**study.rows[0], "image_id": "elsewhere", "center_id": "c5"})
    result = study.split(split_by="center", seed=seed)
    places = {}
    for row in result.rows:
        assert places.setdefault(("center", row.center_id), row.split) == row.split
        assert places.setdefault(("patient", row.patient_id), row.split) == row.split


@pytest.mark.parametrize("known", ["patients", "centers"])
def test_centers_stay_by_their_patients_or_by_their_name(study, known):
    for number in range(30):
        study.add(f"p{number:02d}", "CE", center=f"c{number % 10}")
    lines = ["image_id,patient_id,label,split,center_id"]
    for center in range(10):
        wanted = ("val", "test", "train")[center % 3]
        if known == "patients":
            lines.append(f"i{center},p{center:02d},CE,{wanted},")
        else:
            lines.append(f"i{center},gone{center},CE,{wanted},c{center}")
    previous = study.folder / "previous.csv"
    previous.write_text("\n".join(lines) + "\n")
    rows = study.split(split_by="center", previous_split=str(previous)).rows
    assert {row.center_id: row.split for row in rows} == {f"c{n}": ("val", "test", "train")[n % 3] for n in range(10)}
