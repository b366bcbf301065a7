"""Predictions of new slides from made-up bags: what is written, and what is refused."""

import csv
import re
from types import SimpleNamespace

import numpy as np
import pytest

from components.predict_bags.predict import predict_slides
from components.records import storage
from components.records.dataset import TiledDataset
from components.records.errors import WorkError


def predictor(change=lambda bag: bag):
    """Bags with the tiles where the dataset's thumbnails have them; the probability falls from patient to patient."""

    def predict(model_dir, dataset):
        for number, (patient_id, rows) in enumerate(dataset.patients().items()):
            tiles = [(row.image_id, x * 64, y * 64) for row in rows for y in range(2) for x in range(2)]
            if number == 3:  # whose slides gave no tile
                continue
            sure = 0.95 - 0.06 * number
            yield change(
                SimpleNamespace(
                    patient_id=patient_id,
                    label=rows[0].label,
                    split="",
                    probabilities=np.array([1 - sure, sure], np.float32),
                    image_ids=tuple(name for name, _, _ in tiles),
                    x=np.array([x for _, x, _ in tiles]),
                    y=np.array([y for _, _, y in tiles]),
                    width=np.full(len(tiles), 64),
                    height=np.full(len(tiles), 64),
                    tissue=np.ones(len(tiles), np.float32),
                    attention=np.arange(1, len(tiles) + 1, dtype=np.float32) / sum(range(1, len(tiles) + 1)),
                    tile_labels=np.full(len(tiles), -1, np.int8),
                    spans=(None,) * len(tiles),
                )
            )

    return predict


@pytest.fixture
def new(tiled_dataset, tmp_path):
    """A dataset without labels, and a model's card."""
    root = tiled_dataset(labels=("unknown",), splits=False, patients=12, slides=2)
    storage.write_json(
        tmp_path / "model" / "bagline.json",
        {"label_names": ["CE", "<b>LAA"], "manifest_hash": "c" * 64, "parameters": {"head": "attention"}},
    )
    return root, str(tmp_path / "model")


def test_predictions_heatmaps_and_report_are_written(new, tmp_path, caplog):
    done = predict_slides(*new, str(tmp_path / "out"), predictor=predictor(), registered="projects/p/models/m@2")
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").open()))
    assert list(rows[0]) == ["patient_id", "label", "split", "prob_CE", "prob_<b>LAA"]
    assert [row["patient_id"] for row in rows] == [f"p{number:02d}" for number in range(12) if number != 3]
    assert {(row["label"], row["split"]) for row in rows} == {("unknown", "")}
    assert float(rows[0]["prob_<b>LAA"]) == pytest.approx(0.95)
    images = {row.image_id for row in TiledDataset(new[0]).manifest.rows}
    for ending in ("png", "geojson"):
        assert {path.stem for path in (tmp_path / "out" / "heatmaps").glob(f"*.{ending}")} == images
    assert done.without_tiles == ["p03"]
    assert any("1 patients have no tile and no prediction: p03" in line for line in caplog.messages)
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "called &lt;b&gt;LAA" in page
    assert "<b>LAA" not in page
    assert "no tile: p03" in page
    assert "projects/p/models/m@2" in page
    assert page.count("Attention over slide") == 2 * 8
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert done.facts()["patients"] == 11


def test_the_same_predictions_give_the_same_bytes(new, tmp_path):
    for name in ("one", "two"):
        predict_slides(*new, str(tmp_path / name), predictor=predictor())
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(files) == 2 + 2 * 24
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_heatmaps_may_be_left_out(new, tmp_path):
    predict_slides(*new, str(tmp_path / "out"), heatmaps=False, predictor=predictor())
    assert not (tmp_path / "out" / "heatmaps").exists()
    assert "<img" not in (tmp_path / "out" / "report" / "index.html").read_text()


def broken(bag):
    bag.probabilities = np.array([np.nan, 0.5])
    return bag


def test_a_prediction_that_is_no_number_is_refused(new, tmp_path):
    with pytest.raises(WorkError, match="patient p00: the model's output is not finite"):
        predict_slides(*new, str(tmp_path / "out"), predictor=predictor(broken))


def test_slides_without_any_tile_are_refused(new, tmp_path):
    with pytest.raises(WorkError, match="no patient has a tile"):
        predict_slides(*new, str(tmp_path / "out"), predictor=lambda model, dataset: iter(()))
