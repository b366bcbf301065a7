import inspect
import json

import keras
from kfp import dsl, local

from components.embed_tiles.component import embed_tiles
from components.embed_tiles.parameters import EmbeddingParameters
from components.train_mil.component import train_mil


def test_the_face_has_every_parameter_with_its_default():
    face = inspect.signature(embed_tiles.python_func).parameters
    for name, value in EmbeddingParameters(encoder="small_cnn").to_json().items():
        if name != "batch_tiles":
            assert face[name].default == value, name


def test_embedding_and_training_on_it_run_locally(tiled, tmp_path):
    network = keras.Sequential([keras.layers.Input((16, 16, 3)), keras.layers.Conv2D(4, 3, strides=2)])
    network.save(str(tmp_path / "network.keras"))
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"), raise_on_error=True)
    encoder = {"encoder": "saved", "encoder_path": str(tmp_path / "network.keras"), "embeddings": True}

    @dsl.pipeline(name="on-embeddings")
    def pipeline():
        records = dsl.importer(artifact_uri=tiled, artifact_class=dsl.Dataset, reimport=False)
        made = embed_tiles(dataset=records.output, checkpoint_dir=str(tmp_path / "work"), **encoder)
        train_mil(
            dataset=records.output,
            embedded=made.outputs["embedded"],
            embedding_dim=8,
            attention_dim=4,
            epochs=1,
            tiles_per_bag=4,
            **encoder,
        )

    pipeline()
    (folder,) = (tmp_path / "root").glob("*/embed-tiles/embedded")
    assert json.loads((folder / "summary.json").read_text())["dim"] == 4
    metadata = json.loads((folder.parent / "executor_output.json").read_text())["artifacts"]["embedded"]["artifacts"][0]
    assert (metadata["metadata"]["dtype"], metadata["metadata"]["embeddings"]) == ("float16", True)
    (model,) = (tmp_path / "root").glob("*/train-mil/model")
    assert json.loads((model / "bagline.json").read_text())["embeddings"]["name"] == "saved"
