"""A small cross-validation as a user drives it: folds, a grid, and patients held out."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.cli import main

SETTINGS = [
    "epochs=1", "tiles_per_bag=8", "input_px=32", "embedding_dim=16", "attention_dim=8", "validation_tiles=8",
    "bootstrap_samples=50", "qc=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """OUT of three folds over sixteen patients, four of them held out."""
    folder = tmp_path_factory.mktemp("cohort")
    build = [sys.executable, "-m", "components.sample_cohort.build", "--out", str(folder)]
    subprocess.run([*build, "--patients", "16", "--size", "1024"], check=True, capture_output=True)
    rows = list(csv.DictReader((folder / "manifest.csv").open()))
    labels = {row["patient_id"]: row["label"] for row in rows}
    held = {p for label in set(labels.values()) for p in sorted(q for q in labels if labels[q] == label)[:2]}
    with (folder / "held.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*rows[0], "split"])
        writer.writeheader()
        writer.writerows({**row, "split": "test" if row["patient_id"] in held else ""} for row in rows)
    (folder / "grid.yaml").write_text("- learning_rate: 0.001\n- {learning_rate: 0.0001, dropout: 0.1}\n")
    out = tmp_path_factory.mktemp("out") / "cv"
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    code = main(
        ["cross-validate", str(folder / "held.csv"), "--images-root", str(folder), "--out", str(out), "--folds", "3",
         "--grid", str(folder / "grid.yaml"), *settings]
    )  # fmt: skip
    return out, code, held, set(labels)


@pytest.mark.slow
def test_every_patient_is_tested_once_and_the_held_out_by_all(finished):
    out, code, held, patients = finished
    assert code == 0
    tested = [row["patient_id"] for row in csv.DictReader((out / "predictions.csv").open())]
    assert sorted(tested) == sorted(patients - held)
    assert {row["patient_id"] for row in csv.DictReader((out / "held_out.csv").open())} == held
    metrics = json.loads((out / "metrics.json").read_text())
    assert [fold["name"] for fold in metrics["folds"]] == ["r0_f0", "r0_f1", "r0_f2"]
    assert sum(fold["n_patients"] for fold in metrics["folds"]) == metrics["test"]["n_patients"] == 12
    assert metrics["held_out"]["n_patients"] == 4
    assert all(fold["chosen"] in [c["parameters"] for c in fold["candidates"]] for fold in metrics["folds"])


@pytest.mark.slow
def test_tiles_are_shared_and_each_fold_has_its_own_split_and_model(finished):
    out, _, held, _ = finished
    assert list((out / "records").glob("*.tfrecord"))
    for fold in ("r0_f0", "r0_f1", "r0_f2"):
        place = out / "folds" / fold
        for name in ("split.csv", "model/config.json", "training/choice.json", "evaluation/metrics.json"):
            assert (place / name).is_file(), name
        rows = list(csv.DictReader((place / "split.csv").open()))
        assert {row["patient_id"] for row in rows if not row["split"]} == held
        card = json.loads((place / "model" / "bagline.json").read_text())
        metrics = json.loads((place / "evaluation" / "metrics.json").read_text())
        assert card["manifest_hash"] == metrics["manifest_hash"]
    assert (out / "report" / "index.html").is_file()
    assert Path(out, "pipeline.json").is_file()


@pytest.mark.slow
def test_the_lineage_reaches_from_the_summary_through_a_fold_to_the_slides(finished, capsys):
    out = finished[0]
    for target in ("metrics.json", "folds/r0_f1/model"):
        assert main(["lineage", target, "--out", str(out)]) == 0
        text = capsys.readouterr().out
        assert "folds/r0_f1/split.csv" in text
        assert "slides" in text
