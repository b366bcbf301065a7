"""The generated face, with one input a fold, as kfp.local runs it."""

import inspect
import json
import os
import runpy
import sys
from pathlib import Path

import pytest
from kfp import dsl, local

from components.summarise_folds.component import define_summarise_folds

make_study = runpy.run_path(str(Path(__file__).with_name("test_summarise.py")))["make_study"]


def test_the_face_has_an_input_a_fold() -> None:
    face = inspect.signature(define_summarise_folds(["r0_f0", "r0_f1"]).python_func).parameters
    assert [name for name in face if name.startswith("r0")] == ["r0_f0", "r0_f1"]


@pytest.mark.slow
def test_it_runs_locally(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = make_study(tmp_path / "study", folds=3, held=4)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "runs"), raise_on_error=True)
    summarise_folds = define_summarise_folds(list(folders))

    @dsl.pipeline(name="summary")
    def pipeline() -> None:
        given = {
            name: dsl.importer(artifact_uri=folder, artifact_class=dsl.Artifact, reimport=False).output
            for name, folder in folders.items()
        }
        summarise_folds(**given, bootstrap_samples=20)

    pipeline()
    (summary,) = (tmp_path / "runs").glob("*/summarise-folds/summary")
    assert json.loads((summary / "metrics.json").read_text())["held_out"]["n_patients"] == 4
    outputs = json.loads((summary.parent / "executor_output.json").read_text())["artifacts"]
    metrics = outputs["metrics"]["artifacts"][0]["metadata"]
    assert 0.5 < metrics["auc_mean"] <= 1
    assert metrics["folds"] == 3
    assert "confidenceMetrics" in outputs["roc"]["artifacts"][0]["metadata"]
    assert Path(outputs["report"]["artifacts"][0]["uri"]).read_text().startswith("<!doctype html>")
