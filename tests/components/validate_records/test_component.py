"""The KFP face, run by kfp.local: what the next task sees, with and without the cache, and when the verdict fails."""

import json
from pathlib import Path

import pytest
from kfp import dsl, local

from components.validate_records.component import validate_records


@dsl.component(base_image="bagline-pipeline:python3.11", install_kfp_package=False)
def look(dataset: dsl.Input[dsl.Dataset], seen: dsl.Output[dsl.Artifact]) -> None:
    import json
    from pathlib import Path

    facts = {"path": dataset.path, "uri": dataset.uri, "metadata": dataset.metadata}
    Path(seen.path).write_text(json.dumps(facts))


@dsl.pipeline(name="validate")
def validate_and_look(root: str, max_blank_share: float = 0.5, workers: int = 1):
    records = dsl.importer(artifact_uri=root, artifact_class=dsl.Dataset, reimport=False)
    checked = validate_records(records=records.output, max_blank_share=max_blank_share, workers=workers)
    look(dataset=checked.outputs["dataset"])


@pytest.fixture
def runner(tmp_path):
    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=str(tmp_path / "runs"),
        enable_caching=True,
        cache_root=str(tmp_path / "cache"),
    )
    return tmp_path / "runs"


def outputs(runs: Path, task: str, name: str) -> list[Path]:
    return sorted(runs.glob(f"*/{task}/{name}"))


def test_the_next_task_sees_the_records_folder_and_true_counts(tiled_dataset, runner):
    root = tiled_dataset(patients=6, slides=2)
    validate_and_look(root=root)
    (seen,) = outputs(runner, "look", "seen")
    facts = json.loads(seen.read_text())
    assert facts["path"] == facts["uri"] == root
    known = {
        key: facts["metadata"][key] for key in ("patients", "slides", "tiles", "tile_px", "mpp", "verdict", "split")
    }
    assert known == {
        "patients": 6, "slides": 12, "tiles": 48, "tile_px": 32, "mpp": 0.5, "verdict": "pass",
        "split": "test,train,val",
    }  # fmt: skip
    assert {"schema_version", "code_version", "image_digest", "manifest_hash"} <= set(facts["metadata"])

    validate_and_look(root=root)
    assert len(outputs(runner, "validate-records", "validation")) == 1, "the second run comes from the cache"
    validate_and_look(root=root, max_blank_share=0.9, workers=2)
    assert len(outputs(runner, "validate-records", "validation")) == 2
    assert {json.loads(one.read_text())["uri"] for one in outputs(runner, "look", "seen")} == {root}


def test_a_failing_verdict_stops_the_pipeline_after_its_outputs_are_written(tiled_dataset, runner, capfd):
    root = tiled_dataset(patients=6, edit_record=lambda row, number, f: {**f, "tile/lossless": 7})
    with pytest.raises(RuntimeError):
        validate_and_look(root=root)
    (validation,) = outputs(runner, "validate-records", "validation")
    (table,) = outputs(runner, "validate-records", "table")
    assert json.loads(validation.read_text())["verdict"] == "fail"
    assert "must not be trained on" in table.read_text()
    assert not outputs(runner, "look", "seen")
    told = "".join(capfd.readouterr())
    assert "p00_0, records/train/p00_0-00000.tfrecord record 0, x 0 y 0: tile/lossless is 7" in told
