"""A tile classifier held against the truth, with a predictor that needs no TensorFlow model."""

import csv
import gzip
import json

import numpy as np
import pytest
from PIL import Image

from components.evaluate_tiles.evaluation import TileEvaluationParameters, evaluate_tiles
from components.evaluate_tiles.lesions import label_cells, map_tiles, match_slide
from components.evaluate_tiles.predict import SlidePrediction, make_prediction
from components.evaluate_tiles.slides import SlideScore, choose_rule, score_slide
from components.records.dataset import truth_path
from components.records.errors import InputError, WorkError
from components.statistics.clustered import clustered_auc
from components.statistics.froc import froc_curve

SIDE = 64  # level-0 px of a tile of `tiled_dataset`


def slide_of(x, y, probabilities, labels=None, split="test", image_id="s"):
    count = len(x)
    side = np.full(count, SIDE)
    labels = np.full(count, 0) if labels is None else np.array(labels)
    return SlidePrediction(
        image_id, "p", "LAA", split, np.array(x), np.array(y), side, side,
        labels.astype(np.int8), np.ones(count, np.float32), np.array(probabilities, np.float32),
    )  # fmt: skip


def test_tiles_become_a_map_also_where_they_overlap_or_are_rounded():
    cells, step = map_tiles(slide_of([0, 64, 128], [64, 64, 128], [0.1, 0.2, 0.3]))
    assert step == 64
    assert np.nan_to_num(cells, nan=-1).round(3).tolist() == [[-1, -1, -1], [0.1, 0.2, -1], [-1, -1, 0.3]]
    cells, step = map_tiles(slide_of([0, 21, 43, 64], [0, 0, 0, 0], [0.1, 0.2, 0.3, 0.4]))
    assert cells.shape == (1, 4)
    assert step == pytest.approx(64 / 3, abs=0.1)
    assert map_tiles(slide_of([640], [0], [0.5]))[0].shape == (1, 11)


def test_a_cell_has_the_lesion_that_its_tile_overlaps_and_no_lesion_is_lost():
    mask = np.zeros((32, 32), bool)
    mask[1, 1] = mask[20:24, 24:28] = True
    mask[3, 3] = True  # a second lesion in the first cell: no cell shows it
    cells = label_cells(mask, 16.0, None, 64.0, 64.0)
    assert cells.shape == (9, 8)
    assert cells[0, 0] > 0
    assert cells[5, 6] > 0
    assert len(set(np.unique(cells)) - {0}) == 3
    assert (cells[8] > 0).sum() == 1


def test_detections_hit_lost_and_missed_are_counted_as_camelyon_does():
    """Two lesions; tiles on a row: 0.9 on the first, 0.8 on glass, 0.7 beside the first, none on the second."""
    mask = np.zeros((64, 64), bool)
    mask[2, 2:6] = True  # level-0 px 32..96: both tiles 0 and 1
    mask[60, 60] = True
    slide = slide_of([0, 64, 320], [0, 0, 0], [0.9, 0.7, 0.8])
    matched = match_slide(slide, (mask, 16.0), 0.25, radius_um=20.0)
    assert sorted(matched.lesion_scores.tolist()) == [-np.inf, pytest.approx(0.9)]
    assert matched.false_positives.tolist() == [pytest.approx(0.8)]
    curve = froc_curve([matched])
    assert curve.at["1"] == 0.5
    without = match_slide(slide, None, 0.25, radius_um=20.0)
    assert len(without.false_positives) == 2
    known = match_slide(slide_of([0, 64, 320], [0, 0, 0], [0.9, 0.7, 0.8], [1, 1, 0]), None, 0.25, radius_um=0.0)
    assert known.lesion_scores.tolist() == [pytest.approx(0.9)]


def test_a_slide_s_score_is_by_the_rule_that_validation_likes_best():
    assert score_slide(np.array([0.1, 0.9, 0.5])) == pytest.approx({"max": 0.9, "mean_top_5": 0.5, "mean_top_20": 0.5})
    rows = [("a", True, 0.9, 0.8), ("b", False, 0.95, 0.1), ("c", True, 0.8, 0.7), ("d", False, 0.1, 0.1)]
    slides = [
        SlideScore(name, name, "x", "val", 9, 0, lesion, {"max": one, "mean_top_5": five, "mean_top_20": five})
        for name, lesion, one, five in rows
    ]
    rule = choose_rule("validation", slides)
    assert rule.name == "mean_top_5"
    assert rule.validation_auc == {"max": 0.5, "mean_top_5": 1.0, "mean_top_20": 1.0}
    assert choose_rule("max", slides).how == "as asked for"
    assert "no validation slides" in choose_rule("validation", slides[:1]).how


def test_intervals_draw_patients_so_that_more_tiles_of_the_same_make_them_no_narrower():
    random = np.random.default_rng(0)
    positive = random.random(60) < 0.4
    scores = random.normal(size=60) + positive
    patients = [f"p{number // 4}" for number in range(60)]
    one = clustered_auc(positive, scores, patients)
    assert one["ci95"][0] < one["auc"] < one["ci95"][1]
    many = clustered_auc(np.tile(positive, 50), np.tile(scores, 50), patients * 50)
    assert many["auc"] == pytest.approx(one["auc"])
    assert np.diff(many["ci95"]) == pytest.approx(np.diff(one["ci95"]), rel=0.02)
    assert clustered_auc(positive, scores, ["p"] * 60)["reason"] == "there is one patient only"
    assert clustered_auc(positive & False, scores, patients)["auc"] is None


def predict_from_label(model_dir, dataset, slides):
    for slide in slides:
        number = np.arange(len(slide))
        facts = {"x": number % 2 * SIDE, "y": number // 2 * SIDE, "width": np.full(len(slide), SIDE)}
        facts |= {"height": facts["width"], "tissue": np.ones(len(slide), np.float32)}
        facts["probability"] = np.where(slide.tile_labels == 1, 0.9, 0.1 + 0.01 * number)
        yield make_prediction(slide, facts)


@pytest.fixture
def root(tiled_dataset):
    def label(row, number, features):
        if row.patient_id == "p11":
            return features  # no mask
        return {**features, "tile/label": int(row.label == "LAA" and number == 1)}

    root = tiled_dataset(edit_record=label)
    for patient in (3, 5, 9, 2):
        mask = np.zeros((32, 32), bool)
        if patient % 2:
            mask[2:8, 20:30] = True
        path = f"{root}/{truth_path(f'p{patient:02d}_0')}"
        Image.fromarray(mask).save(path)
    return root


def test_everything_is_written_and_every_slide_is_accounted_for(root, tmp_path):
    done = evaluate_tiles(root, "", str(tmp_path), predictor=predict_from_label)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    test = metrics["test"]
    assert (test["n_slides"], test["n_slides_with_lesion"], test["n_slides_without_mask"]) == (4, 1, 1)
    assert test["tile_auc"] == test["slide_auc"] == 1.0
    assert metrics["val"]["froc"]["score"] == 1.0
    assert done.flat_metrics()["test_tile_auc"] == 1.0
    with gzip.open(tmp_path / "tile_predictions.csv.gz", "rt") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 8 * 4
    assert {row["tile_label"] for row in rows} == {"0", "1", ""}
    slides = {row["image_id"]: row for row in csv.DictReader((tmp_path / "slides.csv").open())}
    assert len(slides) == 8
    assert slides["p11_0"]["reason"] == "has no lesion mask"
    collection = json.loads((tmp_path / "heatmaps" / "p09_0.geojson").read_text())
    assert collection["features"][1]["properties"]["measurements"] == {"Lesion": 0.9, "x": 64, "y": 0, "Mask": 1}
    with Image.open(tmp_path / "heatmaps" / "p09_0.png") as picture:
        right = np.asarray(picture)[:32, 32 + 12 : 64 + 12].astype(int)
    red = (right == (200, 60, 40)).all(axis=2)
    assert red.any()
    assert not red[10:].any()
    page = (tmp_path / "report" / "index.html").read_text()
    assert "For research use" in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_same_inputs_give_the_same_bytes(root, tmp_path):
    for name in ("a", "b"):
        evaluate_tiles(root, "", str(tmp_path / name), predictor=predict_from_label)
    files = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) > 10
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_slides_with_too_little_tissue_are_left_out_and_said_so(tiled_dataset, tmp_path):
    root = tiled_dataset(edit_record=lambda row, number, features: {**features, "tile/label": number % 2})
    parameters = TileEvaluationParameters(min_tiles_per_slide=5)
    with pytest.raises(WorkError, match="no val or test slide has tiles"):
        evaluate_tiles(root, "", str(tmp_path), predictor=predict_from_label, parameters=parameters)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"slide_rule": "min"}, "unknown slide_rule 'min'"),
        ({"bootstrap_samples": -1}, "bootstrap_samples: -1 is below 0"),
        ({"detection_radius_um": float("nan")}, "detection_radius_um: nan is below 0"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(values, told):
    with pytest.raises(InputError) as caught:
        TileEvaluationParameters(**values).check()
    assert told in str(caught.value)


def test_a_model_that_gives_no_probability_is_refused(root, tmp_path):
    def wrong(model_dir, dataset, slides):
        for slide, good in zip(slides, predict_from_label(model_dir, dataset, slides), strict=True):
            facts = {name: getattr(good, name) for name in ("x", "y", "width", "height", "tissue")}
            yield make_prediction(slide, {**facts, "probability": np.full(len(slide), np.nan)})

    with pytest.raises(WorkError, match="no probability"):
        evaluate_tiles(root, "", str(tmp_path), predictor=wrong)
