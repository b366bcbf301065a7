import hashlib
import json
from pathlib import Path

import pytest
from kfp import dsl, local

import components
from components.records.manifest import read_manifest
from components.records.schema import SCHEMA_VERSION
from components.split_metadata.component import split_metadata


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(components.__file__).parents[1]))
    (tmp_path / "images").mkdir()
    lines = ["image_id,patient_id,label,center_id"]
    for number in range(12):
        lines.append(f"i{number},p{number},{'CE' if number % 2 else 'LAA'},c{number % 3}")
        (tmp_path / "images" / f"i{number}.tif").write_bytes(b"%d" % number)
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"), raise_on_error=True)
    return tmp_path


def test_runs_and_leaves_both_artifacts_with_their_metadata(study):
    digest = hashlib.sha256((study / "manifest.csv").read_bytes()).hexdigest()
    task = split_metadata(
        manifest=str(study / "manifest.csv"), images_root=str(study / "images"), manifest_hash=digest, seed=3
    )
    manifest, table = task.outputs["split_manifest"], task.outputs["split_table"]
    assert isinstance(manifest, dsl.Dataset)
    assert isinstance(table, dsl.HTML)
    assert {row.split for row in read_manifest(manifest.path).rows} == {"train", "val", "test"}
    assert "<h1>Split</h1>" in Path(table.path).read_text()
    expected = {
        "schema_version": SCHEMA_VERSION,
        "manifest_hash": digest,
        "split": "train:8,val:2,test:2",
        "patients": 12,
        "slides": 12,
        "same_content": 0,
    }
    for artifact in (manifest, table):
        assert expected.items() <= artifact.metadata.items()
        assert {"code_version", "image_digest", "mpp", "tile_px", "tiles"} <= artifact.metadata.keys()


def test_a_refused_manifest_fails_the_task_with_its_line(study, capfd):
    (study / "images" / "i3.tif").unlink()
    with pytest.raises(RuntimeError):
        split_metadata(manifest=str(study / "manifest.csv"), images_root=str(study / "images"))
    seen = capfd.readouterr()
    assert "line 5: i3: no file of that stem" in seen.out + seen.err


def test_the_face_has_the_agreed_parameters():
    spec = split_metadata.component_spec
    assert {name: parameter.default for name, parameter in spec.inputs.items()} == {
        "manifest": None,
        "images_root": None,
        "split_by": "patient",
        "val_share": 0.15,
        "test_share": 0.15,
        "folds": 0,
        "fold": 0,
        "seed": 0,
        "previous_split": "",
        "manifest_hash": "",
        "images_fingerprint": "",
    }
    assert list(spec.outputs) == ["split_manifest", "split_table"]
    assert "pip install" not in json.dumps(spec.implementation.container.command)
