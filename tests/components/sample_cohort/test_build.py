import json

import numpy as np
import pytest
import tifffile
from skimage.color import rgb2hed

from components.records.manifest import read_manifest, resolve_images
from components.records.provenance import tree_digest
from components.sample_cohort import build

PATIENTS = 6
SIZE = 1024


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    out = tmp_path_factory.mktemp("cohort")
    build.build_cohort(str(out), patients=PATIENTS, seed=3, size=SIZE)
    return out


@pytest.fixture(scope="module")
def manifest(cohort):
    return read_manifest(str(cohort / "manifest.csv"))


@pytest.fixture(scope="module")
def truth(cohort):
    return json.loads((cohort / "truth.json").read_text())


def test_every_row_has_its_image_and_mask_and_there_is_nothing_else(cohort, manifest, truth):
    found, problems = resolve_images(manifest, str(cohort))
    ids = {row.image_id for row in manifest.rows}
    assert not problems
    assert set(found) == ids == set(truth)
    assert {path.stem for path in (cohort / "masks").iterdir()} == ids
    assert sorted(path.name for path in cohort.iterdir()) == ["images", "manifest.csv", "masks", "truth.json"]


def test_default_cohort_is_16_patients_of_both_labels_and_all_centers():
    rows = [plan.row for plan in build._plan(16, 0)]
    patients = {row.patient_id: row.label for row in rows}
    assert len(patients) == 16
    assert sorted(patients.values()) == ["normal"] * 8 + ["tumour"] * 8
    assert {row.center_id for row in rows} == {"1", "2", "3"}
    slides = [sum(row.patient_id == patient for row in rows) for patient in patients]
    assert set(slides) == {1, 2, 3}
    assert sum(plan.pen for plan in build._plan(16, 0)) == 2


def test_only_patients_with_a_lesion_are_called_tumour(manifest, truth):
    largest = {}
    for row in manifest.rows:
        share = truth[row.image_id]["lesion_share"]
        largest[row.patient_id, row.label] = max(share, largest.get((row.patient_id, row.label), 0))
    assert len(largest) == PATIENTS
    for (patient, label), share in largest.items():
        assert 0.08 < share < 0.42 if label == "tumour" else share == 0, patient


def test_flat_and_pyramidal_files_with_both_block_sizes(cohort, truth):
    kinds = set()
    for image_id, told in truth.items():
        with tifffile.TiffFile(cohort / "images" / f"{image_id}.tif") as tif:
            first = tif.pages[0]
            assert first.shape == (SIZE, SIZE, 3)
            assert (first.tilewidth, len(tif.pages)) == (told["block"], told["levels"])
            assert [page.shape[0] for page in tif.pages] == [SIZE >> level for level in range(told["levels"])]
            kinds.add((first.tilewidth, len(tif.pages)))
    assert kinds == {(256, 3), (256, 1), (128, 3), (128, 1)}


def test_one_patient_has_its_mpp_in_the_manifest_and_the_others_in_the_file(cohort, manifest):
    stated = {row.patient_id for row in manifest.rows if row.mpp is not None}
    assert len(stated) == 1
    for row in manifest.rows:
        with tifffile.TiffFile(cohort / row.image_path) as tif:
            x_resolution = tif.pages[0].tags.get("XResolution")
            unit = tif.pages[0].tags.get("ResolutionUnit")
        if row.mpp is None:
            pixels, centimeters = x_resolution.value
            assert unit.value == tifffile.RESUNIT.CENTIMETER
            assert 1e4 * centimeters / pixels == pytest.approx(build.MPP)
        else:
            assert row.mpp == build.MPP
            assert unit is None or unit.value == tifffile.RESUNIT.NONE


def test_the_mask_marks_the_brown_tissue(cohort, truth):
    seen = 0
    for image_id, told in truth.items():
        mask = tifffile.imread(cohort / "masks" / f"{image_id}.tif")
        assert mask.shape == (SIZE // 16, SIZE // 16)
        assert set(np.unique(mask)) <= {0, 255}
        assert bool(mask.any()) == (told["lesion_share"] > 0)
        picture = tifffile.imread(cohort / "images" / f"{image_id}.tif", key=0)
        tissue = picture[8::16, 8::16].min(axis=2) < 225
        dab = rgb2hed(picture)[..., 2].reshape(SIZE // 16, 16, SIZE // 16, 16).mean(axis=(1, 3))
        if mask.any():
            assert np.median(dab[mask > 0]) > 4 * max(np.median(dab[tissue & (mask == 0)]), 0.01)
            seen += 1
    assert seen


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(cohort, tmp_path):
    for name, seed in (("same", 3), ("other", 4)):
        build.build_cohort(str(tmp_path / name), patients=PATIENTS, seed=seed, size=SIZE)
    assert tree_digest(tmp_path / "same") == tree_digest(cohort)
    assert tree_digest(tmp_path / "other") != tree_digest(cohort)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--patients", "1"], "--patients: 1 patients"),
        (["--size", "500"], "--size: 500 px"),
        (["--size", "1001"], "a multiple of 16"),
        (["--size", "99999"], "from 512 to 16384"),
    ],
)
def test_a_wrong_argument_is_one_line_and_exit_code_2(arguments, words, tmp_path, capsys):
    assert build.main(["--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_out_that_is_a_file_is_one_line_and_exit_code_2(tmp_path, capsys):
    (tmp_path / "out").write_text("in the way")
    assert build.main(["--out", str(tmp_path / "out"), "--patients", "2", "--size", "512"]) == 2
    assert "a file is in the way" in capsys.readouterr().err


def test_the_command_line_says_where_the_manifest_is(tmp_path, capsys):
    assert build.main(["--out", str(tmp_path / "out"), "--patients", "2", "--size", "512"]) == 0
    assert capsys.readouterr().out.strip().endswith("out/manifest.csv")
