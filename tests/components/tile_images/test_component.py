"""The KFP face, run by kfp.local, and its signature held against the parameters."""

import dataclasses
import inspect
import json

import pytest
from kfp import dsl, local

from components.records.dataset import TiledDataset
from components.tile_images.component import tile_images
from components.tile_images.parameters import TilingParameters


def test_every_parameter_is_in_the_signature_with_its_default():
    signature = inspect.signature(tile_images.python_func).parameters
    for field in dataclasses.fields(TilingParameters):
        assert signature[field.name].default == field.default, field.name


@pytest.fixture
def run_locally(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"), raise_on_error=True)


def test_the_component_writes_a_dataset_with_its_metadata(cohort, tmp_path, run_locally):
    root, manifest = cohort

    @dsl.pipeline(name="tiling")
    def pipeline(images_root: str, split: str):
        given = dsl.importer(artifact_uri=split, artifact_class=dsl.Dataset, reimport=False)
        tile_images(split_manifest=given.output, images_root=images_root, max_failed_share=1.0, tile_px=128)

    pipeline(images_root=str(root), split=manifest)
    (outputs,) = (tmp_path / "root").rglob("executor_output.json")
    artifacts = json.loads(outputs.read_text())["artifacts"]
    records = artifacts["records"]["artifacts"][0]
    folder = outputs.parent / "records"
    dataset = TiledDataset(str(folder))
    assert records["metadata"]["tiles"] == dataset.summary["tiles"] > 10
    assert records["metadata"]["tile_px"] == 128
    assert records["metadata"]["mpp"] == 0.5
    assert records["metadata"]["manifest_hash"] == dataset.manifest.digest
    metrics = artifacts["summary"]["artifacts"][0]["metadata"]
    assert metrics["slides_failed"] == 2
    assert metrics["tiles"] == dataset.summary["tiles"]


def test_a_lost_slide_fails_the_component(cohort, tmp_path, run_locally):
    root, manifest = cohort

    @dsl.pipeline(name="tiling")
    def pipeline(images_root: str, split: str):
        given = dsl.importer(artifact_uri=split, artifact_class=dsl.Dataset, reimport=False)
        tile_images(split_manifest=given.output, images_root=images_root)

    with pytest.raises(RuntimeError):
        pipeline(images_root=str(root), split=manifest)
    (ledger,) = (tmp_path / "root").rglob("ledger.jsonl")
    assert len(ledger.read_text().splitlines()) == 5
