import keras
import numpy as np
import pytest

from components.mil.heads.registry import HEADS
from components.mil.inference import load_bag_model, predict_bags
from components.mil.model import create_bag_model
from components.records.dataset import TiledDataset
from components.train_mil.parameters import TrainingParameters
from components.train_mil.train import train_mil

TILES = np.random.default_rng(0).integers(0, 256, (2, 6, 32, 32, 3), np.uint8)
MASK = np.array([[True] * 6, [True] * 4 + [False] * 2])


@pytest.fixture
def policy():
    yield keras.mixed_precision.set_global_policy
    keras.mixed_precision.set_global_policy("float32")


def outputs(head):
    keras.utils.set_random_seed(2)
    model = create_bag_model(
        head=head, encoder="small_cnn", tile_px=32, label_names=["a", "b"], input_px=16, embedding_dim=16
    )
    out = model({"tiles": TILES, "mask": MASK}, training=False)
    instances = np.asarray(model.encoder(TILES[0]))
    return {name: np.asarray(out[name]) for name in ("probabilities", "logits", "attention")}, model.head.stream(
        instances
    )


@pytest.mark.parametrize("head", sorted(HEADS))
def test_two_precisions_agree_roughly(head, policy):
    full, streamed = outputs(head)
    for name in ("mixed_bfloat16", "mixed_float16"):
        policy(name)
        mixed, mixed_streamed = outputs(head)
        for key, values in mixed.items():
            assert values.dtype == np.float32, key
            np.testing.assert_allclose(values, full[key], atol=0.15, err_msg=f"{name} {key}")
        np.testing.assert_allclose(mixed["attention"].sum(axis=1), 1, atol=1e-3)
        assert not mixed["attention"][~MASK].any()
        for got, expected in zip(mixed_streamed, streamed, strict=True):
            np.testing.assert_allclose(got, expected, atol=0.15)


def test_a_training_in_mixed_precision(tiled, tmp_path, policy):
    values = {"input_px": 16, "embedding_dim": 8, "attention_dim": 4, "epochs": 2, "tiles_per_bag": 4, "augment": False}
    losses = {}
    for mixed in (False, True):
        folder = tmp_path / str(mixed)
        summary = train_mil(
            tiled, str(folder / "model"), str(folder / "training"), TrainingParameters(**values, mixed_precision=mixed)
        )
        losses[mixed] = summary.val_loss
    policy("float32")
    assert losses[True] == pytest.approx(losses[False], abs=0.1)
    model = load_bag_model(str(tmp_path / "True" / "model"))
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    for bag in predict_bags(model, TiledDataset(tiled), "test"):
        assert (bag.probabilities.dtype, bag.attention.dtype) == (np.float32, np.float32)
        assert bag.attention.sum() == pytest.approx(1, abs=1e-4)
