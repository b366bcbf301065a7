"""The KFP face in a two-node pipeline, with a real model whose weights are as they were born."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.records import storage

NEEDS_MIL = pytest.mark.skipif(
    importlib.util.find_spec("components.mil") is None, reason="components.mil, the bag model, is not here"
)

# Making a model takes TensorFlow, which is better loaded in a process of its own.
MAKE_MODEL = """
import sys
import keras
from components.mil.model import create_bag_model, save_bag_model
keras.utils.set_random_seed(0)
save_bag_model(
    create_bag_model(head=sys.argv[2], encoder=sys.argv[3], tile_px=32, label_names=sys.argv[4:]), sys.argv[1]
)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model") / "model"
    subprocess.run(
        [sys.executable, "-c", MAKE_MODEL, str(folder), "gated_attention", "small_cnn", "CE", "LAA"], check=True
    )
    return str(folder)


def find_one(root: Path, name: str) -> Path:
    (found,) = [path for path in root.rglob(name) if path.is_file()]
    return found


@NEEDS_MIL
@pytest.mark.slow
def test_component_gives_finite_metrics_curve_report_and_metadata(
    dataset_root: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kfp import dsl, local

    from components.evaluate.component import evaluate

    storage.write_json(tmp_path / "training" / "history.json", {"epochs": [{"epoch": 1, "loss": 0.5, "val_loss": 0.6}]})
    storage.write_json(tmp_path / "validation.json", {"verdict": "pass", "checks": []})
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "runs"))

    def bring(uri: str, kind: Any) -> Any:
        return dsl.importer(artifact_uri=uri, artifact_class=kind, reimport=False).output

    @dsl.pipeline(name="evaluate-alone")
    def alone(bootstrap_samples: int = 50) -> None:
        evaluate(
            dataset=bring(dataset_root, dsl.Dataset),
            model=bring(model, dsl.Model),
            training=bring(str(tmp_path / "training"), dsl.Artifact),
            validation=bring(str(tmp_path / "validation.json"), dsl.Artifact),
            bootstrap_samples=bootstrap_samples,
            gate_threshold=1.0,
        )

    alone()
    output = json.loads(find_one(tmp_path / "runs", "executor_output.json").read_text())
    artifacts = {name: entry["artifacts"][0] for name, entry in output["artifacts"].items()}
    for name in ("evaluation", "metrics", "roc", "report"):
        carried = artifacts[name]["metadata"]
        assert {"schema_version", "code_version", "image_digest", "manifest_hash", "split", "mpp", "tile_px"} <= set(
            carried
        )
        assert (carried["patients"], carried["slides"], carried["tiles"]) == (19, 23, 84)
    assert artifacts["evaluation"]["metadata"]["blessed"] is False
    assert "is not above the threshold 1" in artifacts["evaluation"]["metadata"]["gate_reason"]
    numbers = [value for value in artifacts["metrics"]["metadata"].values() if isinstance(value, float)]
    assert len(numbers) > 30
    assert all(math.isfinite(number) for number in numbers)
    assert 0 <= artifacts["metrics"]["metadata"]["test_auc"] <= 1
    points = artifacts["roc"]["metadata"]["confidenceMetrics"]
    assert all(0 <= value <= 1 for point in points for value in point.values())
    assert artifacts["roc"]["metadata"]["confusionMatrix"]["annotationSpecs"] == [
        {"displayName": "CE"},
        {"displayName": "LAA"},
    ]
    pages = [
        path for path in (tmp_path / "runs").rglob("*") if path.is_file() and path.read_bytes()[:9] == b"<!doctype"
    ]
    assert len(pages) == 2
    assert pages[0].read_bytes() == pages[1].read_bytes()
    assert json.loads(find_one(tmp_path / "runs", "metrics.json").read_text())["test"]["n_patients"] == 6


def test_evaluation_alone_does_not_load_tensorflow() -> None:
    code = (
        "import sys, components.evaluate.evaluation; sys.exit(int('tensorflow' in sys.modules or 'kfp' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
