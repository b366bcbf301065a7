"""The tile classifier as a user drives it: painted and drawn masks, a run, a second run from the cache."""

import csv
import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tifffile

import components.mil  # noqa: F401 - its classes are part of the saved model
from pipelines.cli import main

SETTINGS = [
    "epochs=2", "input_px=32", "embedding_dim=16", "tile_px=128", "bootstrap_samples=50", "qc=false", "imbalance=focal",
    "min_tissue=0.2",
]  # fmt: skip


def to_asap(mask, path, scale):
    """The marked px of a painted mask as rectangles that a pathologist might have drawn."""
    lines = ['<?xml version="1.0"?>', "<ASAP_Annotations><Annotations>"]
    for y, x in np.argwhere(mask):
        corners = [(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)]
        lines.append('<Annotation Name="a" Type="Rectangle" PartOfGroup="_0" Color="#F4FA58"><Coordinates>')
        lines += [f'<Coordinate Order="{n}" X="{a * scale}" Y="{b * scale}" />' for n, (a, b) in enumerate(corners)]
        lines.append("</Coordinates></Annotation>")
    path.write_text("\n".join([*lines, "</Annotations><AnnotationGroups /></ASAP_Annotations>"]))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Twelve patients with splits in which both labels occur; one slide's mask is drawn."""
    folder = tmp_path_factory.mktemp("cohort")
    build = [sys.executable, "-m", "components.sample_cohort.build", "--out", str(folder)]
    subprocess.run([*build, "--patients", "12", "--size", "1024"], check=True, capture_output=True)
    rows = list(csv.DictReader((folder / "manifest.csv").open()))
    seen: dict[str, dict[str, int]] = {}
    for row in rows:
        of_label = seen.setdefault(row["label"], {})
        number = of_label.setdefault(row["patient_id"], len(of_label))
        row["split"] = ("train", "train", "train", "val", "test", "test")[number % 6]
    drawn = next(row for row in rows if tifffile.imread(folder / row["mask_path"]).any())
    mask = tifffile.imread(folder / drawn["mask_path"])
    drawn["mask_path"] = "masks/drawn.xml"
    to_asap(mask, folder / "masks" / "drawn.xml", 1024 // mask.shape[1])
    with (folder / "split.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder, rows, drawn["image_id"]


def run(folder, out, *words):
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    given = ["--images-root", str(folder), "--out", str(out), "--pipeline", "tile-classifier"]
    return main(["run", str(folder / "split.csv"), *given, *settings, *words])


@pytest.mark.slow
def test_a_run_finds_lesions_and_leaves_everything_behind(cohort, tmp_path, capsys):
    folder, rows, drawn = cohort
    out = tmp_path / "out"
    assert run(folder, out) == 0
    assert "tile AUC" in capsys.readouterr().out
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["test"]["n_tiles_marked"] > 0
    assert 0 <= metrics["test"]["tile_auc"] <= 1
    assert metrics["test"]["froc"]["lesions"] > 0
    accounted = {row["image_id"] for row in csv.DictReader((out / "slides.csv").open())}
    assert accounted == {row["image_id"] for row in rows if row["split"] in ("val", "test")}
    for name in (
        "report/index.html",
        "tile_predictions.csv.gz",
        f"thumbnails/{drawn}.mask.png",
        "training/history.json",
    ):
        assert (out / name).is_file(), name
    model = keras.models.load_model(out / "model")
    assert model.predict(np.zeros((1, 128, 128, 3), np.uint8), verbose=0).shape == (1, 1)
    assert main(["lineage", "tile_predictions.csv.gz", "--out", str(out)]) == 0
    assert "tile-classifier.train" in capsys.readouterr().out
    shutil.rmtree(out / "report")
    assert run(folder, out, "--json") == 0
    assert set(json.loads(capsys.readouterr().out)["seconds"].values()) == {None}
    assert (out / "report" / "index.html").is_file()
    assert run(folder, out, "--from-step", "evaluate", "--json") == 0
