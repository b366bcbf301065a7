import json
import subprocess
import sys

import numpy as np
import pytest

from components.mil.encoders.frozen import split_projection
from components.mil.encoders.registry import create_encoder
from components.mil.inference import load_bag_model, predict_bags
from components.mil.model import create_bag_model, save_bag_model
from components.records.dataset import TiledDataset
from components.records.errors import InputError, WorkError

import keras  # isort: skip

OPTIONS = {"input_px": 16, "embedding_dim": 8, "attention_dim": 4}


def make(head="gated_attention", **options):
    keras.utils.set_random_seed(3)
    return create_bag_model(
        head=head, encoder="small_cnn", tile_px=32, label_names=["normal", "tumour"], **{**OPTIONS, **options}
    )


def bag(n=5):
    tiles = np.random.default_rng(0).integers(0, 256, (1, n, 32, 32, 3)).astype(np.uint8)
    return {"tiles": tiles, "mask": np.ones((1, n), bool)}


LOAD = """
import sys, numpy as np
import components.mil
import keras
model = keras.models.load_model(sys.argv[1], safe_mode=True)
tiles = np.random.default_rng(0).integers(0, 256, (1, 5, 32, 32, 3)).astype(np.uint8)
out = model({"tiles": tiles, "mask": np.ones((1, 5), bool)})
np.save(sys.argv[2], np.concatenate([out["probabilities"][0], out["attention"][0]]))
print(model.label_names)
"""


def test_a_saved_model_opens_in_a_fresh_process_and_says_the_same(tmp_path):
    model = make()
    save_bag_model(model, str(tmp_path / "model"))
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "model"), str(tmp_path / "out.npy")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['normal', 'tumour']"
    assert done.stderr == ""
    out = model(bag())
    expected = np.concatenate([out["probabilities"][0], out["attention"][0]])
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, rtol=1e-5, atol=1e-6)


def test_saving_twice_gives_the_same_files_and_replaces(tmp_path):
    model = make()
    for name in ("one", "two"):
        save_bag_model(model, str(tmp_path / name))
    (tmp_path / "one" / "stale").write_text("x")
    save_bag_model(model, str(tmp_path / "one"))
    files = sorted(path.name for path in (tmp_path / "one").iterdir() if path.is_file())
    assert files == ["bagline.json", "config.json", "metadata.json", "model.weights.h5"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert json.loads((tmp_path / "one" / "bagline.json").read_text())["label_names"] == ["normal", "tumour"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_padding_a_bag_changes_nothing():
    model, plain = make(), bag(4)
    padded = bag(9)
    padded["tiles"][:, :4] = plain["tiles"]
    padded["mask"][:, 4:] = False
    np.testing.assert_allclose(model(padded)["probabilities"], model(plain)["probabilities"], rtol=1e-5)


@pytest.mark.parametrize("head", ["gated_attention", "max_pooling"])
@pytest.mark.parametrize("batch_tiles", [4, 64])
def test_predictions_use_every_tile_and_equal_one_pass(tiled, head, batch_tiles):
    dataset = TiledDataset(tiled)
    model = make(head)
    found = list(predict_bags(model, dataset, batch_tiles=batch_tiles))
    assert [one.patient_id for one in found] == [f"p{number:02d}" for number in range(10)]
    assert sum(len(one.spans) for one in found) == sum(part.tiles for part in dataset.parts)
    for one in found:
        tiles = np.stack([read_pixels(span) for span in one.spans])[None]
        out = model({"tiles": tiles, "mask": np.ones(tiles.shape[:2], bool)})
        np.testing.assert_allclose(one.probabilities, out["probabilities"][0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(one.attention, out["attention"][0], rtol=1e-3, atol=1e-6)
        assert {len(value) for value in (one.x, one.y, one.width, one.height, one.tissue, one.image_ids)} == {
            len(one.spans)
        }
        assert one.attention.sum() == pytest.approx(1, rel=1e-5)
    assert found[1].tile_labels.tolist() == [0, 1, 0, 0, 0, 1, 0, 0, 0]
    assert found[0].x.tolist()[:3] == [0, 64, 128]
    assert {one.split for one in predict_bags(model, dataset, "test")} == {"test"}


def read_pixels(span):
    import io

    from PIL import Image

    from components.mil.bags import read_spans
    from components.records.example import parse_example

    (record,) = read_spans([span])
    return np.asarray(Image.open(io.BytesIO(parse_example(record)["image/encoded"][0])))


def test_without_masks_tile_labels_are_minus_one(build, tmp_path):
    dataset = TiledDataset(build(tmp_path, patients=2, splits=("train",), masks=False))
    assert all((one.tile_labels == -1).all() for one in predict_bags(make(), dataset))


def test_a_dataset_of_other_tiles_or_labels_is_refused(tiled, build, tmp_path):
    other = create_bag_model(head="mean_pooling", encoder="small_cnn", tile_px=64, label_names=["a", "b"], **OPTIONS)
    with pytest.raises(InputError, match="tiles are 32 px, the model takes 64 px; tile with --tile-px 64"):
        next(predict_bags(other, TiledDataset(tiled)))
    strange = TiledDataset(build(tmp_path, patients=2, labels=("a", "b"), splits=("train",)))
    with pytest.raises(InputError, match="labels a, b are not the model's normal, tumour"):
        next(predict_bags(make(), strange))


def test_a_lost_part_stops_the_prediction(build, tmp_path):
    root = build(tmp_path, patients=2, splits=("train",))
    dataset = TiledDataset(root)
    (tmp_path / dataset.parts[0].path).unlink()
    with pytest.raises(WorkError, match="is missing; run the tiling step again"):
        list(predict_bags(make(), dataset))


def test_folders_without_a_bag_model_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds no model; train one"):
        load_bag_model(str(tmp_path))
    save_bag_model(make(), str(tmp_path / "cut"))
    weights = tmp_path / "cut" / "model.weights.h5"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputError, match="holds no model that opens"):
        load_bag_model(str(tmp_path / "cut"))
    plain = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    plain.save(str(tmp_path / "plain"), zipped=False)
    with pytest.raises(InputError, match="holds a Sequential, not a bag model"):
        load_bag_model(str(tmp_path / "plain"))


class TestSavedEncoder:
    @pytest.fixture
    def picture_model(self, tmp_path):
        keras.utils.set_random_seed(5)
        pictures = keras.Input((16, 16, 3))
        model = keras.Model(pictures, keras.layers.Conv2D(6, 3, strides=2)(pictures))
        model.save(str(tmp_path / "encoder.keras"))
        model.save(str(tmp_path / "encoder"), zipped=False)
        return model

    @pytest.mark.parametrize("name", ["encoder.keras", "encoder"])
    def test_file_and_folder(self, picture_model, tmp_path, name):
        model = create_bag_model(
            head="attention",
            encoder="saved",
            tile_px=32,
            label_names=["a", "b"],
            encoder_path=str(tmp_path / name),
        )
        frozen, projection = split_projection(model.encoder)
        assert (frozen.output_shape[-1], projection.output_shape[-1]) == (6, 128)
        assert not frozen.trainable_variables
        assert len(projection.trainable_variables) == 2
        save_bag_model(model, str(tmp_path / "model"))
        again = load_bag_model(str(tmp_path / "model"))
        np.testing.assert_allclose(model(bag())["attention"], again(bag())["attention"], rtol=1e-5)
        small = bag()["tiles"][0].reshape(5, 16, 2, 16, 2, 3).mean((2, 4)).round()
        expected = picture_model(small).numpy().mean((1, 2))
        np.testing.assert_allclose(frozen(bag()["tiles"][0]), expected, rtol=1e-2, atol=1.0)

    def test_thawed(self, picture_model, tmp_path):
        path = str(tmp_path / "encoder.keras")
        assert create_encoder("saved", 32, encoder_path=path, freeze_encoder=False).trainable_variables

    def test_errors(self, tmp_path):
        with pytest.raises(InputError, match="needs encoder_path"):
            create_encoder("saved", 32)
        with pytest.raises(InputError, match="no such file"):
            create_encoder("saved", 32, encoder_path=str(tmp_path / "none.keras"))
        (tmp_path / "bad.keras").write_text("x")
        with pytest.raises(InputError, match="is no Keras model that opens here"):
            create_encoder("saved", 32, encoder_path=str(tmp_path / "bad.keras"))
        flat = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
        flat.save(str(tmp_path / "flat.keras"))
        with pytest.raises(InputError, match="not square RGB pictures"):
            create_encoder("saved", 32, encoder_path=str(tmp_path / "flat.keras"))
        with pytest.raises(InputError, match="unknown encoder 'smal_cnn'; did you mean 'small_cnn'"):
            create_encoder("smal_cnn", 32)
