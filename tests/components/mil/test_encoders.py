import keras
import numpy as np
import pytest
import tensorflow as tf

from components.mil.encoders.applications import FAMILIES
from components.mil.encoders.frozen import digest_encoder, split_projection
from components.mil.encoders.registry import create_encoder, input_side
from components.mil.model import create_bag_model, load_bag_model, save_bag_model
from components.records.errors import InputError

TILES = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)


def bag():
    return {"tiles": TILES[None], "mask": np.ones((1, 2), bool)}


class PathLike(tf.Module):
    """As Path Foundation: float pictures in 0–1 to vectors under `output_0`."""

    def __init__(self, values=4):
        super().__init__()
        self.mix = tf.Variable(np.random.default_rng(1).normal(size=(3, values)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, 32, 32, 3], tf.float32, name="inputs")])
    def serve(self, inputs):
        return {"output_0": tf.reduce_mean(inputs, (1, 2)) @ self.mix}


@pytest.fixture
def path_like(tmp_path):
    module = PathLike()
    folder = str(tmp_path / "path_like")
    tf.saved_model.save(module, folder, signatures={"serving_default": module.serve})
    return module, folder


class TestApplications:
    @pytest.mark.parametrize(("name", "values"), [("resnet50", 2048), ("efficientnetv2_b0", 1280)])
    def test_random_weights_and_a_file_of_weights(self, name, values, tmp_path):
        keras.utils.set_random_seed(3)
        network = FAMILIES[name].make(weights=None, include_top=False, pooling="avg", input_shape=(None, None, 3))
        path = str(tmp_path / "it.weights.h5")
        network.save_weights(path)
        encoder = create_encoder(name, 64, encoder_path=path, input_px=32)
        assert encoder.output_shape[-1] == values
        assert not encoder.trainable_variables
        assert input_side(encoder) == 32
        small = TILES.reshape(2, 32, 2, 32, 2, 3).astype(np.float32).mean((2, 4)).round()
        prepare = {"resnet50": keras.applications.resnet.preprocess_input}.get(name, lambda x: x)
        expected = network(prepare(small.copy()), training=False)
        np.testing.assert_allclose(encoder(TILES), expected, rtol=1e-3, atol=1e-4)
        other = create_encoder(name, 64, encoder_path="random", input_px=32)
        assert digest_encoder(other) != digest_encoder(encoder)

    def test_every_family_prepares_pixels_as_its_own_module_does(self):
        modules = {"resnet50": "resnet", "resnet101": "resnet", "densenet121": "densenet"}
        for name, family in FAMILIES.items():
            module = modules.get(name, "efficientnet_v2")
            own = getattr(keras.applications, module).preprocess_input(TILES.astype(np.float32))
            mode = family.pixels
            mine = TILES.astype(np.float32)
            if mode:
                mine = keras.applications.imagenet_utils.preprocess_input(mine, mode=mode)
            np.testing.assert_allclose(mine, own, rtol=1e-6)

    def test_the_side_is_224_where_none_is_given(self):
        assert input_side(create_encoder("efficientnetv2_b0", 256, encoder_path="random")) == 224

    def test_thawed(self):
        assert create_encoder("efficientnetv2_b0", 64, encoder_path="random", freeze_encoder=False).trainable_variables

    def test_errors(self, tmp_path):
        with pytest.raises(InputError, match="'resnet50' needs encoder_path; "):
            create_encoder("resnet50", 64)
        with pytest.raises(InputError, match="no such file"):
            create_encoder("resnet50", 64, encoder_path=str(tmp_path / "none.weights.h5"))
        (tmp_path / "text.weights.h5").write_text("x")
        with pytest.raises(InputError, match="holds no weights of resnet50"):
            create_encoder("resnet50", 64, encoder_path=str(tmp_path / "text.weights.h5"))
        small = keras.Sequential([keras.layers.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
        for name in ("other.weights.h5", "other.h5"):
            save = small.save_weights if "weights" in name else small.save
            save(str(tmp_path / name))
            with pytest.raises(InputError, match="holds no weights of resnet50") as raised:
                create_encoder("resnet50", 64, encoder_path=str(tmp_path / name))
            assert "\n" not in str(raised.value)
        with pytest.raises(InputError, match="input_px 16 is below 32"):
            create_encoder("resnet50", 64, encoder_path="random", input_px=16)


class TestSavedModel:
    def test_it_sees_values_from_0_to_1(self, path_like):
        module, folder = path_like
        encoder = create_encoder("saved", 64, encoder_path=folder)
        assert (input_side(encoder), encoder.output_shape[-1]) == (32, 4)
        small = TILES.reshape(2, 32, 2, 32, 2, 3).astype(np.float32).mean((2, 4)).round() / 255
        np.testing.assert_allclose(encoder(TILES), small.mean((1, 2)) @ module.mix.numpy(), rtol=1e-4)

    def test_a_saved_bag_model_brings_it_along(self, path_like, tmp_path):
        _, folder = path_like
        model = create_bag_model(
            head="gated_attention", encoder="saved", tile_px=64, label_names=["a", "b"], encoder_path=folder
        )
        assert digest_encoder(split_projection(model.encoder)[0]).startswith("sha256:")
        expected = model(bag())
        save_bag_model(model, str(tmp_path / "model"))
        (tmp_path / "path_like").rename(tmp_path / "moved")
        again = load_bag_model(str(tmp_path / "model"))
        np.testing.assert_allclose(again(bag())["probabilities"], expected["probabilities"], rtol=1e-5)
        save_bag_model(again, str(tmp_path / "again"))
        digests = {digest_encoder(split_projection(made.encoder)[0]) for made in (model, again)}
        assert len(digests) == 1

    def test_errors(self, path_like, tmp_path):
        _, folder = path_like
        with pytest.raises(InputError, match="a SavedModel can't be trained on"):
            create_encoder("saved", 64, encoder_path=folder, freeze_encoder=False)
        (tmp_path / "cut").mkdir()
        (tmp_path / "cut" / "saved_model.pb").write_bytes(b"x")
        with pytest.raises(InputError, match="is no SavedModel that opens here"):
            create_encoder("saved", 64, encoder_path=str(tmp_path / "cut"))
        module = tf.Module()
        module.f = tf.function(lambda x: x, input_signature=[tf.TensorSpec([None, 3], tf.float32)])
        tf.saved_model.save(tf.Module(), str(tmp_path / "unsigned"))
        tf.saved_model.save(module, str(tmp_path / "flat"), signatures={"serving_default": module.f})
        with pytest.raises(InputError, match="has no signature 'serving_default'"):
            create_encoder("saved", 64, encoder_path=str(tmp_path / "unsigned"))
        with pytest.raises(InputError, match="not square RGB pictures"):
            create_encoder("saved", 64, encoder_path=str(tmp_path / "flat"))

    def test_code_in_a_keras_model_is_refused(self, tmp_path):
        model = keras.Sequential([keras.layers.Input((32, 32, 3)), keras.layers.Lambda(lambda x: x)])
        model.save(str(tmp_path / "code.keras"))
        with pytest.raises(InputError, match="is no Keras model that opens here"):
            create_encoder("saved", 64, encoder_path=str(tmp_path / "code.keras"))


def test_a_frozen_encoder_gets_no_gradient():
    model = create_bag_model(
        head="attention",
        encoder="efficientnetv2_b0",
        tile_px=64,
        label_names=["a", "b"],
        encoder_path="random",
        input_px=32,
    )
    frozen, projection = split_projection(model.encoder)
    own = {id(v) for part in (projection, model.head) for v in part.trainable_variables}
    assert {id(variable) for variable in model.trainable_variables} == own
    before = digest_encoder(frozen)
    with tf.GradientTape() as tape:
        out = model(bag(), training=True)
        loss = tf.reduce_sum(model.head.losses(out, tf.constant([1])))
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(gradient is not None for gradient in gradients)
    assert digest_encoder(frozen) == before  # batch normalisation did not move either
