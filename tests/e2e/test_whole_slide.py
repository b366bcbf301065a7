"""The whole road on a tiny cohort, as a user drives it: `bagline run`, then everything that stands on its output."""

import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from components.records.provenance import artifact_metadata
from pipelines.cli import main

SETTINGS = [
    "val_share=0.25", "test_share=0.25", "epochs=2", "tiles_per_bag=8", "input_px=32", "embedding_dim=16",
    "attention_dim=8", "validation_tiles=8", "bootstrap_samples=50",
]  # fmt: skip


def run(cohort, out, *words):
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    manifest = str(Path(cohort, "manifest.csv"))
    return main(["run", manifest, "--images-root", str(cohort), "--out", str(out), *settings, *words])


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Eight patients, one empty slide among theirs."""
    folder = tmp_path_factory.mktemp("cohort")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "components.sample_cohort.build",
            "--out",
            str(folder),
            "--patients",
            "8",
            "--size",
            "1024",
        ],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="module")
def finished(cohort, tmp_path_factory):
    """OUT of a finished run, with its exit code."""
    out = tmp_path_factory.mktemp("out") / "run"
    return out, run(cohort, out)


def test_a_run_leaves_everything_that_the_interface_names(finished):
    out, code = finished
    assert code == 0
    for name in (
        "pipeline.json", "split.csv", "schema.json", "ledger.jsonl", "failed_tiles.jsonl", "summary.json",
        "validation.json", "metrics.json", "predictions.csv", "report/index.html", "model/config.json",
    ):  # fmt: skip
        assert (out / name).is_file(), name
    assert list((out / "records/train").glob("*.tfrecord"))
    assert list((out / "heatmaps").glob("*.png"))
    assert list((out / "heatmaps").glob("*.geojson"))
    assert list((out / "lineage").glob("*complete.json"))
    assert not [path for path in out.rglob("*.tmp") if ".bagline" not in path.parts]


def test_every_artifact_carries_where_it_came_from(finished):
    """What DESIGN.md asks of metadata; on Vertex AI `image_digest` is the task's `BAGLINE_IMAGE`."""
    wanted = set(artifact_metadata(manifest_hash=""))
    found = {}
    for path in (finished[0] / ".bagline" / "runs").glob("*/*/executor_output.json"):
        for name, held in json.loads(path.read_text()).get("artifacts", {}).items():
            found[path.parent.name, name] = held["artifacts"][0].get("metadata", {})
    assert len(found) >= 10
    assert {place: sorted(wanted - set(metadata)) for place, metadata in found.items() if wanted - set(metadata)} == {}
    assert all(metadata["manifest_hash"] and metadata["code_version"] for metadata in found.values())


def test_the_ledger_has_every_row_once_and_adds_up(finished, cohort):
    out, _ = finished
    ledger = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    with open(cohort / "manifest.csv") as stream:
        rows = [row["image_id"] for row in csv.DictReader(stream)]
    assert [line["image_id"] for line in ledger] == rows
    summary = json.loads((out / "summary.json").read_text())
    assert summary["tiles"] == sum(line["tiles"] for line in ledger)


def test_every_patient_is_predicted_and_measured(finished):
    out, _ = finished
    with open(out / "predictions.csv") as stream:
        predictions = list(csv.DictReader(stream))
    assert len(predictions) == 8
    assert all(abs(float(p["prob_normal"]) + float(p["prob_tumour"]) - 1) < 1e-4 for p in predictions)
    metrics = json.loads((out / "metrics.json").read_text())
    assert {"n_patients", "auc", "auc_ci95", "log_loss", "weighted_log_loss", "ece"} <= set(metrics["test"])
    assert sum(metrics[split]["n_patients"] for split in ("train", "val", "test")) == 8


def test_a_second_run_takes_every_step_from_the_cache_and_changes_nothing(finished, cohort, capsys):
    out, _ = finished
    before = digests(out / "records") | digests(out / "model") | digests(out / "report")
    assert run(cohort, out, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["seconds"] == {"split": None, "tile": None, "validate": None, "train": None, "evaluate": None}
    assert before == digests(out / "records") | digests(out / "model") | digests(out / "report")


def test_lineage_leads_from_a_prediction_to_a_slides_bytes(finished, cohort, capsys):
    out, _ = finished
    with open(out / "predictions.csv") as stream:
        patient = next(csv.DictReader(stream))["patient_id"]
    assert main(["lineage", patient, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "whole-slide.evaluate" in text
    assert hashlib.sha256((cohort / "images" / f"{patient}_0.tif").read_bytes()).hexdigest() in text


def test_a_tile_leads_to_its_slide(finished, capsys):
    from components.records.dataset import TiledDataset
    from components.records.example import parse_example
    from components.records.tfrecord import read_tfrecord

    out, _ = finished
    part = TiledDataset(str(out)).parts[0]
    features = parse_example(next(iter(read_tfrecord(out / part.path))))
    tile = f"{part.image_id}@{features['tile/x'][0]},{features['tile/y'][0]}"
    assert main(["lineage", tile, "--out", str(out)]) == 0
    assert features["slide/digest"][0].decode() in capsys.readouterr().out


def predict(cohort, manifest, model, out, *words):
    given = ["predict", str(manifest), "--images-root", str(cohort), "--model", str(model), "--out", str(out)]
    return main([*given, *words])


def test_a_prediction_of_new_slides_is_what_the_run_itself_predicted(finished, cohort, tmp_path, capsys):
    """The manifest has no labels: tiles cut as the model says and the same weights give the same probabilities."""
    out, new = finished[0], tmp_path / "new"
    with Path(cohort, "manifest.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    chosen = sorted({row["patient_id"] for row in rows})[:2]
    manifest = tmp_path / "new.csv"
    with manifest.open("w") as stream:
        writer = csv.DictWriter(stream, ["image_id", "patient_id", "image_path"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(row for row in rows if row["patient_id"] in chosen)
    assert predict(cohort, manifest, out / "model", new) == 0
    said = capsys.readouterr().out
    assert "called " in said
    assert str(new / "report" / "index.html") in said
    with (out / "predictions.csv").open() as one, (new / "predictions.csv").open() as other:
        before = {row["patient_id"]: row for row in csv.DictReader(one)}
        after = {row["patient_id"]: row for row in csv.DictReader(other)}
    assert set(after) <= set(chosen)
    for patient_id, row in after.items():
        assert row["label"] == "unknown"
        for name in [name for name in row if name.startswith("prob_")]:
            assert float(row[name]) == pytest.approx(float(before[patient_id][name]), abs=1e-5)
    assert digests(new / "model") == digests(out / "model")
    ids = {row["image_id"] for row in rows if row["patient_id"] in chosen}
    assert {path.stem for path in (new / "heatmaps").glob("*.png")} == ids
    assert json.loads((new / "validation.json").read_text())["verdict"] != "fail"
    assert main(["lineage", str(new)]) == 0
    tree = capsys.readouterr().out
    for fact in (
        "predictions  sha256",
        "batch-predict.predict",
        "batch-predict.prepare",
        "model  sha256",
        str(manifest),
    ):
        assert fact in tree
    assert predict(cohort, manifest, out / "model", new) == 0
    assert capsys.readouterr().out.count("cached") == 4
    assert predict(cohort, manifest, out / "model", new, "--set", "tile_px=64") == 2
    assert "64 is not the model's 256; leave it out" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_refused(cohort, tmp_path, capsys):
    assert predict(cohort, cohort / "manifest.csv", tmp_path / "nothing", tmp_path / "out") == 2
    assert "no such folder" in capsys.readouterr().err


def test_a_changed_output_is_noticed_by_lineage_and_made_again_by_a_run(finished, cohort, capsys):
    out, _ = finished
    path = out / "predictions.csv"
    kept = path.read_bytes()
    path.write_bytes(kept.replace(b"0.", b"1.", 1))
    assert main(["lineage", str(path)]) == 1
    assert "predictions.csv: changed since" in capsys.readouterr().err
    assert run(cohort, out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["seconds"]["evaluate"] is not None
    assert path.read_bytes() == kept
    assert main(["lineage", str(path)]) == 0


def test_the_steps_alone_work_on_its_output(finished, capsys):
    out, _ = finished
    assert main(["validate", str(out)]) == 0
    assert "pass" in capsys.readouterr().out
    assert main(["evaluate", str(out), "--set", "bootstrap_samples=10"]) == 0
    assert "report:" in capsys.readouterr().out


def test_a_model_that_does_not_beat_the_gate_ends_in_1(finished, capsys):
    out, _ = finished
    assert main(["evaluate", str(out), "--set", "gate_threshold=1.5", "--set", "bootstrap_samples=10"]) == 1
    error = capsys.readouterr().err
    assert "not blessed" in error
    assert json.loads((out / "metrics.json").read_text())["gate"]["blessed"] is False


def test_a_lost_slide_ends_the_run_in_1_with_everything_written(cohort, tmp_path, capsys):
    broken = tmp_path / "cohort"
    subprocess.run(["cp", "-r", str(cohort), str(broken)], check=True)
    victim = next((broken / "images").glob("*.tif"))
    victim.write_bytes(b"not a slide at all")
    out = tmp_path / "out"
    assert run(broken, out) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("bagline run: tile: ")
    assert victim.stem in error
    ledger = {line["image_id"]: line for line in map(json.loads, (out / "ledger.jsonl").read_text().splitlines())}
    assert ledger[victim.stem]["status"] == "failed"
    assert ledger[victim.stem]["reason"]
    assert sum(line["status"] == "tiled" for line in ledger.values()) == len(ledger) - 1
    events = [json.loads(path.read_text()) for path in (out / "lineage").glob("*-fail.json")]
    assert [event["job"]["name"] for event in events] == ["whole-slide.tile"]


def test_a_split_that_can_not_be_made_is_exit_code_2(cohort, tmp_path, capsys):
    rows = (cohort / "manifest.csv").read_text().splitlines()
    cells = rows[1].split(",")
    cells[rows[0].split(",").index("label")] = "a_third"
    manifest = tmp_path / "m.csv"
    manifest.write_text("\n".join([rows[0], ",".join(cells), *rows[2:]]) + "\n")
    assert main(["run", str(manifest), "--images-root", str(cohort), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("bagline run: split: ")


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (["--images-root", "nowhere"], "no such folder"),
        (["--set", "epoch=3"], "did you mean epochs?"),
        (["--set", "epochs=many"], "no int"),
        (["--from-step", "trian"], "did you mean train?"),
        (["--from-step", "train"], "run the earlier steps first"),
        (["--engine", "docker"], "make images"),
        (["--config", "nowhere.yaml"], "no such file"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(cohort, tmp_path, capsys, words, fact):
    manifest = str(cohort / "manifest.csv")
    root = [] if "--images-root" in words else ["--images-root", str(cohort)]
    assert main(["run", manifest, *root, "--out", str(tmp_path / "out"), *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert fact in error


def test_an_empty_folder_of_images_is_refused(cohort, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    manifest = str(cohort / "manifest.csv")
    assert main(["run", manifest, "--images-root", str(tmp_path / "empty"), "--out", str(tmp_path / "out")]) == 2
    assert "empty folder" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["validate", "train", "evaluate"])
def test_a_step_on_a_folder_without_records_is_refused(command, tmp_path, capsys):
    assert main([command, str(tmp_path)]) == 2
    assert "run `bagline tile`" in capsys.readouterr().err


def test_training_on_records_without_a_split_says_what_to_do(cohort, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["tile", str(cohort / "manifest.csv"), "--images-root", str(cohort), "--out", out]) == 0
    assert main(["train", out]) == 2
    assert "run `bagline split`" in capsys.readouterr().err.splitlines()[-1]


def test_an_out_that_can_not_be_made_is_refused(cohort, capsys):
    manifest = str(cohort / "manifest.csv")
    assert main(["run", manifest, "--images-root", str(cohort), "--out", "/proc/bagline"]) == 2
    assert "choose another --out" in capsys.readouterr().err
