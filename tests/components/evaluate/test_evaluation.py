"""The whole evaluation on a made-up dataset with a made-up model."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from components.evaluate.evaluation import EvaluationParameters, evaluate
from components.records import storage
from components.records.errors import InputError, WorkError
from components.records.provenance import tree_digest

QUICK = EvaluationParameters(bootstrap_samples=50)
INTERFACE = {
    "n_patients", "accuracy", "balanced_accuracy", "auc", "auc_ci95", "precision", "recall", "f1", "log_loss",
    "weighted_log_loss", "brier", "ece",
}  # fmt: skip
HISTORY = {"loss": [0.7, 0.5, 0.3], "val_loss": [0.7, 0.6, 0.65], "accuracy": [0.5, 0.7, 0.9]}
VALIDATION = {
    "verdict": "warn",
    "checks": [
        {"name": "tiles decode", "status": "pass", "measured": "4 of 4", "threshold": "all", "offenders": []},
        {"name": "drift", "status": "warn", "measured": 1.25, "threshold": 1, "offenders": [{"center": "3"}]},
    ],
}


@pytest.fixture(scope="module")
def done(kit: Any, dataset_root: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("evaluated")
    storage.write_json(out / "training" / "history.json", HISTORY)
    storage.write_json(out / "validation.json", VALIDATION)
    result = evaluate(
        dataset_root, "", str(out), training_dir=str(out / "training"), validation=str(out / "validation.json"),
        parameters=QUICK, predictor=kit.predictor(),
    )  # fmt: skip
    return result, out


def test_metrics_have_the_interface_keys_and_follow_from_the_predictions(done: Any) -> None:
    _, out = done
    metrics = json.loads((out / "metrics.json").read_text())
    rows = list(csv.DictReader((out / "predictions.csv").open()))
    assert [row["split"] for row in rows] == ["train"] * 6 + ["val"] * 6 + ["test"] * 6
    for split in ("train", "val", "test"):
        assert set(metrics[split]) >= INTERFACE
        mine = [row for row in rows if row["split"] == split]
        truth = np.array([row["label"] == "LAA" for row in mine])
        p = np.array([float(row["prob_LAA"]) for row in mine])
        assert metrics[split]["n_patients"] == 6
        assert metrics[split]["auc"] == pytest.approx(roc_auc_score(truth, p))
        assert metrics[split]["accuracy"] == pytest.approx(accuracy_score(truth, p > 0.5))
        assert metrics[split]["log_loss"] == pytest.approx(log_loss(truth, p), abs=1e-6)
    assert metrics["labels"] == ["CE", "LAA"]
    assert metrics["positive_label"] == "LAA"
    assert metrics["gate"]["blessed"] is True
    assert metrics["schema_version"] == "1"


def test_predictions_are_sorted_and_named(done: Any) -> None:
    lines = (done[1] / "predictions.csv").read_text().splitlines()
    assert lines[0] == "patient_id,label,split,prob_CE,prob_LAA,calibrated_CE,calibrated_LAA"
    assert re.fullmatch(r"train0,CE,train(,0\.\d{7,}){4}", lines[1])


def test_patients_without_a_tile_do_not_vanish(done: Any) -> None:
    result, out = done
    assert result.metrics["test"]["n_patients_without_tiles"] == 1
    assert result.metrics["val"]["n_patients_without_tiles"] == 0
    assert "test9" not in (out / "predictions.csv").read_text()
    page = (out / "report" / "index.html").read_text()
    assert "1 patient without any tile" in page
    assert "test9 (test)" in page


def test_every_test_slide_has_a_heatmap_and_no_other(done: Any) -> None:
    names = {path.name for path in (done[1] / "heatmaps").iterdir()}
    slides = ["test0_0", "test0_1", "test1_0", "test2_0", "test3_0", "test4_0", "test5_0", "test9_0"]
    # test9_1 failed: it has no thumbnail and no tile, so there is nothing to draw.
    assert names == {f"{s}.png" for s in slides} | {f"{s}.geojson" for s in [*slides, "test9_1"]}
    assert len(json.loads((done[1] / "heatmaps" / "test0_1.geojson").read_text())["features"]) == 4


def test_attention_agrees_with_the_masks_it_was_made_from(done: Any) -> None:
    found = done[0].metrics["attention"]
    assert set(found) == {"train", "val", "test"}
    assert found["test"]["auc_pooled"] == 1.0
    assert found["test"]["auc_slide_mean"] == 1.0
    assert found["test"]["lift"] > 4


def test_flat_metrics_are_finite_numbers(done: Any) -> None:
    flat = done[0].flat_metrics()
    assert all(isinstance(value, float) and np.isfinite(value) for value in flat.values())
    assert {"test_auc", "test_auc_ci95_low", "train_n_patients", "test_attention_auc", "blessed"} <= set(flat)


def test_report_tells_the_whole_run(done: Any) -> None:
    page = (done[1] / "report" / "index.html").read_text()
    for part in (
        "For research use, not for diagnosis", "Telling LAA from CE", "Blessed", "By label", "By center",
        "Tiles per slide", "can&#39;t be opened", "no tissue", "tiles decode", "center 3", "Loss", "lowest: epoch 2",
        "Weighted log loss", "ROC, test", "Calibration, test", "Confusion matrix, test", "most wrong", "most right",
        "All 6 test patients", "Tiles attended most", "in mask", "How to read this", "test0_1",
    ):  # fmt: skip
        assert part in page, part


def test_report_is_one_file_that_loads_nothing(done: Any) -> None:
    page = (done[1] / "report" / "index.html").read_text()
    assert "http:" not in page
    assert "https:" not in page
    assert "<script" not in page
    assert "@import" not in page
    assert "<link" not in page
    sources = re.findall(r'\b(?:src|href|xlink:href|srcset|action)\s*=\s*"([^"]{0,30})', page)
    assert sources
    assert all(source.startswith(("data:image/jpeg;base64,", "#")) for source in sources)
    assert "url(" not in page
    assert len(page) < 8e6
    targets = set(re.findall(r'href="#([^"]+)"', page))
    assert targets <= set(re.findall(r'id="([^"]+)"', page))


def test_same_inputs_same_bytes_wherever_they_are(kit: Any, dataset_root: str, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(dataset_root, tmp_path / "moved")
    for name, root in (("a", dataset_root), ("b", str(tmp_path / "moved"))):
        evaluate(root, "", str(tmp_path / name), parameters=QUICK, predictor=kit.predictor())
    assert tree_digest(tmp_path / "a") == tree_digest(tmp_path / "b")
    evaluate(dataset_root, "", str(tmp_path / "a"), parameters=QUICK, predictor=kit.predictor())
    assert tree_digest(tmp_path / "a") == tree_digest(tmp_path / "b")


def test_labels_and_ids_are_escaped(kit: Any, tmp_path: Path) -> None:
    evil = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>')
    slides = [
        kit.slide(
            f"<i>{split}{n}", f"<b>{split}{n}", evil[n % 2], split,
            status="partial", reason="<u>bad</u>", center_id="<s>",
        )
        for split in ("train", "test")
        for n in range(4)
    ]  # fmt: skip
    root = kit.write(tmp_path / "tiled", slides)
    check = {"name": "<em>", "status": "fail", "message": "<em>m", "offenders": ["<em>o"]}
    storage.write_json(tmp_path / "v.json", {"verdict": "<em>v", "checks": [check]})
    storage.write_json(tmp_path / "h" / "history.json", {"loss<em>": [1.0, 0.5]})
    storage.write_json(
        tmp_path / "model" / "bagline.json", {"parameters": {"head": "<em>head"}, "code_version": "<em>c"}
    )
    done = evaluate(
        root, str(tmp_path / "model"), str(tmp_path / "out"), training_dir=str(tmp_path / "h"),
        validation=str(tmp_path / "v.json"), parameters=QUICK, predictor=kit.predictor(),
    )  # fmt: skip
    page = Path(done.report).read_text()
    for raw in ("<script>alert", "<img src=x", "<i>t", "<b>t", "<u>", "<s>", "<em>"):
        assert raw not in page, raw
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_three_labels(kit: Any, tmp_path: Path) -> None:
    root = kit.write(tmp_path / "tiled", kit.cohort(("a", "b", "c")))
    done = evaluate(root, "", str(tmp_path / "out"), parameters=QUICK, predictor=kit.predictor())
    assert done.metrics["positive_label"] is None
    assert done.metrics["test"]["auc"] is not None
    assert np.shape(done.curves.confusion) == (3, 3)
    assert "Telling 3 labels apart" in Path(done.report).read_text()


def test_one_label_in_test_gives_nulls_and_no_blessing(kit: Any, tmp_path: Path) -> None:
    slides = [s for s in kit.cohort() if s.split == "train" or (s.split == "test" and s.label == "CE")]
    done = evaluate(kit.write(tmp_path / "tiled", slides), "", str(tmp_path / "out"), parameters=QUICK,
                    predictor=kit.predictor())  # fmt: skip
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["test"]["auc"] is None
    assert metrics["test"]["auc_ci95"] is None
    assert "val" not in metrics
    assert not done.blessed
    assert metrics["gate"]["reason"] == "test auc is not defined"
    assert "Not blessed" in Path(done.report).read_text()
    assert "test_auc" not in done.flat_metrics()


def test_without_a_test_split_the_gates_split_is_shown(kit: Any, tmp_path: Path) -> None:
    slides = [s for s in kit.cohort() if s.split != "test"]
    parameters = EvaluationParameters(bootstrap_samples=10, gate_split="val")
    done = evaluate(kit.write(tmp_path / "tiled", slides), "", str(tmp_path / "out"), parameters=parameters,
                    predictor=kit.predictor())  # fmt: skip
    assert done.curves.split == "val"
    assert (tmp_path / "out" / "heatmaps" / "val0_0.png").exists()


def test_a_split_whose_patients_have_no_tiles(kit: Any, tmp_path: Path) -> None:
    slides = [s for s in kit.cohort() if s.split == "train"]
    slides += [kit.slide(f"t{n}", f"t{n}", "CE", "test", [], "empty", "no tissue") for n in range(2)]
    done = evaluate(kit.write(tmp_path / "tiled", slides), "", str(tmp_path / "out"), parameters=QUICK,
                    predictor=kit.predictor())  # fmt: skip
    assert done.metrics["test"]["n_patients"] == 0
    assert done.metrics["test"]["n_patients_without_tiles"] == 2
    assert done.metrics["test"]["log_loss"] is None
    assert done.curves.confusion == [[0, 0], [0, 0]]


def test_a_missing_thumbnail_is_no_obstacle(kit: Any, tmp_path: Path) -> None:
    slides = kit.cohort()
    for slide in slides:
        slide.thumbnail = False
    done = evaluate(kit.write(tmp_path / "tiled", slides), "", str(tmp_path / "out"), parameters=QUICK,
                    predictor=kit.predictor())  # fmt: skip
    assert (tmp_path / "out" / "heatmaps" / "test0_0.png").exists()
    assert "test0_0" in Path(done.report).read_text()


def test_a_model_that_loses_to_the_one_before(kit: Any, dataset_root: str, done: Any, tmp_path: Path) -> None:
    parameters = EvaluationParameters(bootstrap_samples=10, previous_metrics=str(done[1]))
    again = evaluate(dataset_root, "", str(tmp_path), parameters=parameters, predictor=kit.predictor())
    assert not again.blessed
    assert "is not above the previous model's" in again.verdict.reason
    assert (tmp_path / "report" / "index.html").exists()


def test_a_run_can_be_held_against_what_it_overwrites(kit: Any, dataset_root: str, tmp_path: Path) -> None:
    evaluate(dataset_root, "", str(tmp_path), parameters=QUICK, predictor=kit.predictor(lambda p, label: [0.5, 0.5]))
    parameters = EvaluationParameters(bootstrap_samples=10, previous_metrics=str(tmp_path))
    better = evaluate(dataset_root, "", str(tmp_path), parameters=parameters, predictor=kit.predictor())
    assert better.verdict.previous == 0.5
    assert better.blessed


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (EvaluationParameters(gate_metric="aux"), "gate_metric: unknown metric 'aux'"),
        (EvaluationParameters(bootstrap_samples=-1), "bootstrap_samples: -1 is negative; give 0 or more"),
        (EvaluationParameters(top_tiles=-1), "top_tiles: -1 is negative"),
        (EvaluationParameters(previous_metrics="nowhere/metrics.json"), "nowhere/metrics.json: no such file"),
    ],
)
def test_parameters_are_checked_before_any_work(
    kit: Any, dataset_root: str, tmp_path: Path, parameters: EvaluationParameters, message: str
) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError

    with pytest.raises(InputError, match=message):
        evaluate(dataset_root, "", str(tmp_path), parameters=parameters, predictor=never)


def test_datasets_that_cannot_be_evaluated(kit: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no tiled records"):
        evaluate(str(tmp_path), "", str(tmp_path / "out"), predictor=kit.predictor())
    one = kit.write(tmp_path / "one", [kit.slide("s", "p", "CE", "test")])
    with pytest.raises(InputError, match="has one label only; a classifier needs two or more"):
        evaluate(one, "", str(tmp_path / "out"), predictor=kit.predictor())
    unsplit = kit.write(tmp_path / "unsplit", [kit.slide("s", "p", "CE", ""), kit.slide("t", "q", "LAA", "test")])
    with pytest.raises(InputError, match=r"1 rows have no split .the first on line 2.; run the split step first"):
        evaluate(unsplit, "", str(tmp_path / "out"), predictor=kit.predictor())
    slides = [kit.slide(f"s{n}", f"p{n}", label, "test", []) for n, label in enumerate(("CE", "LAA"))]
    with pytest.raises(WorkError, match=r"no patient has a tile to predict from; look at ledger.jsonl"):
        evaluate(kit.write(tmp_path / "bare", slides), "", str(tmp_path / "out"), predictor=kit.predictor())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probabilities": np.ones(3) / 3}, "patient train0: the model gave 3 probabilities for 2 labels"),
        ({"probabilities": np.array([np.nan, 1])}, "patient train0: the model's output is not finite"),
        ({"attention": np.full(8, np.inf)}, "patient train0: the model's output is not finite"),
        ({"probabilities": np.array([-1.0, 2.0])}, "patient train0: the model's output is no probability"),
        ({"patient_id": "stranger"}, "patient stranger is not in split.csv"),
    ],
)
def test_predictions_that_cannot_be_used(
    kit: Any, dataset_root: str, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(WorkError, match=message):
        evaluate(dataset_root, "", str(tmp_path), parameters=QUICK, predictor=kit.predictor(**changes))


def test_a_patient_that_comes_twice(kit: Any, dataset_root: str, tmp_path: Path) -> None:
    def twice(model_dir: str, dataset: Any) -> Any:
        yield from kit.predictor()(model_dir, dataset)
        yield from kit.predictor()(model_dir, dataset)

    with pytest.raises(WorkError, match="patient train0 came twice"):
        evaluate(dataset_root, "", str(tmp_path), parameters=QUICK, predictor=twice)


def test_a_bag_without_tiles_counts_as_no_prediction(kit: Any, dataset_root: str, tmp_path: Path) -> None:
    def with_an_empty_bag(model_dir: str, dataset: Any) -> Any:
        bags = list(kit.predictor()(model_dir, dataset))
        none = {name: np.zeros(0) for name in ("x", "y", "width", "height", "tissue", "attention", "tile_labels")}
        yield dataclasses.replace(bags[0], **none, image_ids=(), spans=())
        yield from bags[1:]

    done = evaluate(dataset_root, "", str(tmp_path), parameters=QUICK, predictor=with_an_empty_bag)
    assert done.metrics["train"]["n_patients_without_tiles"] == 1
    assert done.metrics["train"]["n_patients"] == 5


def test_the_saved_model_is_asked_for_every_patient(
    kit: Any, dataset_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What components.mil.inference offers, without TensorFlow."""

    def use_model(*labels: str) -> None:
        inference = types.ModuleType("components.mil.inference")
        inference.load_bag_model = lambda folder: types.SimpleNamespace(label_names=list(labels), folder=folder)
        inference.fitting_embeddings = lambda model, dataset, embedded: None
        inference.predict_bags = lambda model, dataset, embedded: kit.predictor()(model.folder, dataset)
        monkeypatch.setitem(sys.modules, "components.mil", types.ModuleType("components.mil"))
        monkeypatch.setitem(sys.modules, "components.mil.inference", inference)

    use_model("CE", "LAA")
    done = evaluate(dataset_root, "model", str(tmp_path), parameters=QUICK)
    assert done.metrics["test"]["n_patients"] == 6
    use_model("CE", "other")
    with pytest.raises(
        InputError, match="model: knows the labels CE, other, but the records have CE, LAA; evaluate it"
    ):
        evaluate(dataset_root, "model", str(tmp_path), parameters=QUICK)
