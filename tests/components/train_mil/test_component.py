import inspect
import json
from pathlib import Path

from kfp import dsl, local

from components.train_mil.component import train_mil
from components.train_mil.parameters import TrainingParameters


def test_the_face_has_every_parameter_with_its_default():
    face = inspect.signature(train_mil.python_func).parameters
    for name, value in TrainingParameters().to_json().items():
        assert face[name].default == value, name


def test_the_component_runs_locally(tiled, tmp_path):
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"), raise_on_error=True)

    @dsl.pipeline(name="training")
    def pipeline():
        records = dsl.importer(artifact_uri=tiled, artifact_class=dsl.Dataset, reimport=False)
        train_mil(
            dataset=records.output,
            input_px=16,
            embedding_dim=8,
            attention_dim=4,
            epochs=1,
            tiles_per_bag=4,
            checkpoint_dir=str(tmp_path / "work"),
        )

    pipeline()
    (model,) = (tmp_path / "root").glob("*/train-mil/model")
    assert (model / "bagline.json").exists()
    outputs = json.loads((model.parent / "executor_output.json").read_text())["artifacts"]
    metadata = outputs["model"]["artifacts"][0]["metadata"]
    assert metadata["head"] == "gated_attention"
    assert metadata["encoder"] == "small_cnn"
    assert (metadata["patients"], metadata["slides"], metadata["split"]) == (6, 12, "train")
    assert metadata["tiles"] > 12
    assert Path(outputs["training"]["artifacts"][0]["uri"], "history.json").exists()
    assert (tmp_path / "work" / "checkpoint.npz").exists()
