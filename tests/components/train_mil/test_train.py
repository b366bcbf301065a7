import json
import logging
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.mil.augmentation import augment_tiles
from components.mil.inference import load_bag_model, predict_bags
from components.records.dataset import TiledDataset
from components.records.errors import InputError
from components.train_mil.measures import balanced_weights, mean_auc, rank_auc
from components.train_mil.parameters import TrainingParameters
from components.train_mil.train import train_mil

import tensorflow as tf  # isort: skip

TINY = TrainingParameters(
    input_px=16, embedding_dim=8, attention_dim=4, epochs=3, tiles_per_bag=4, bags_per_batch=2, learning_rate=3e-3
)


def weights_of(folder):
    return load_bag_model(str(folder)).get_weights()


def train(root, out, parameters=TINY, work_dir=""):
    return train_mil(root, str(out / "model"), str(out / "training"), parameters, str(work_dir) if work_dir else "")


def test_a_training_leaves_a_model_and_its_history(tiled, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="components")
    summary = train(tiled, tmp_path)
    history = json.loads((tmp_path / "training" / "history.json").read_text())
    assert [entry["epoch"] for entry in history["epochs"]] == [1, 2, 3]
    assert {"loss", "accuracy", "val_loss", "val_auc"} <= set(history["epochs"][0])
    assert history["best_epoch"] == summary.best_epoch
    assert summary.val_loss == min(entry["val_loss"] for entry in history["epochs"])
    assert (summary.patients, summary.slides) == (6, 12)
    assert any("epoch 3/3 loss" in line for line in caplog.messages)
    assert any("1 train patients have no tile and are left out: p10" in line for line in caplog.messages)
    card = json.loads((tmp_path / "model" / "bagline.json").read_text())
    dataset = TiledDataset(tiled)
    assert card["manifest_hash"] == dataset.manifest.digest
    assert (card["tile_px"], card["mpp"], card["label_names"]) == (32, 0.5, ["normal", "tumour"])
    assert card["parameters"]["head"] == "gated_attention"
    tags = set()
    for split in ("train", "val"):
        (events,) = (tmp_path / "training" / "tensorboard" / split).iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(events)):
            tags |= {(split, value.tag) for value in event.summary.value}
    assert {("train", "loss"), ("val", "loss"), ("val", "auc")} <= tags


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tiled, tmp_path):
    for name in ("one", "two"):
        train(tiled, tmp_path / name)
    for name in ("config.json", "model.weights.h5", "bagline.json"):
        assert (tmp_path / "one/model" / name).read_bytes() == (tmp_path / "two/model" / name).read_bytes(), name
    train(tiled, tmp_path / "other", replace(TINY, seed=1))
    assert any(
        (one != other).any()
        for one, other in zip(weights_of(tmp_path / "one/model"), weights_of(tmp_path / "other/model"), strict=True)
    )


def test_streamed_and_kept_tiles_train_alike(tiled, tmp_path):
    train(tiled, tmp_path / "kept", replace(TINY, epochs=1))
    train(tiled, tmp_path / "streamed", replace(TINY, epochs=1, cache_mb=0))
    for one, other in zip(weights_of(tmp_path / "kept/model"), weights_of(tmp_path / "streamed/model"), strict=True):
        np.testing.assert_array_equal(one, other)


KILLED = """
import os, sys, json
from components.train_mil import loop
from components.train_mil.parameters import TrainingParameters
from components.train_mil.train import train_mil
keep = loop.save_state
def save_and_die(work_dir, key, state):
    keep(work_dir, key, state)
    if len(state.history) == 2:
        os._exit(9)
loop.save_state = save_and_die
root, out, parameters = sys.argv[1:]
train_mil(root, out + "/model", out + "/training", TrainingParameters(**json.loads(parameters)), out + "/work")
"""


def test_a_killed_training_goes_on_and_ends_with_the_same_weights(tiled, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="components")
    parameters = json.dumps(TINY.to_json())
    done = subprocess.run([sys.executable, "-c", KILLED, tiled, str(tmp_path / "killed"), parameters], check=False)
    assert done.returncode == 9
    assert not (tmp_path / "killed/model").exists()
    train(tiled, tmp_path / "killed", work_dir=tmp_path / "killed/work")
    assert "going on after epoch 2 of 3" in caplog.messages
    train(tiled, tmp_path / "whole")
    assert (tmp_path / "killed/model/model.weights.h5").read_bytes() == (
        tmp_path / "whole/model/model.weights.h5"
    ).read_bytes()
    assert [e["loss"] for e in history_of(tmp_path / "killed")] == [e["loss"] for e in history_of(tmp_path / "whole")]


def history_of(out):
    return json.loads((out / "training/history.json").read_text())["epochs"]


def test_foreign_and_broken_checkpoints_are_left_aside(tiled, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="components")
    short = replace(TINY, epochs=1)
    train(tiled, tmp_path, short, tmp_path / "work")
    train(tiled, tmp_path, replace(short, seed=4), tmp_path / "work")
    assert any("belongs to another training" in line for line in caplog.messages)
    (tmp_path / "work/checkpoint.npz").write_bytes(b"PK broken")
    train(tiled, tmp_path, short, tmp_path / "work")
    assert any("can't be read" in line for line in caplog.messages)
    assert len(history_of(tmp_path)) == 1


def test_patience_stops_and_the_best_weights_are_kept(tiled, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="components")
    summary = train(tiled, tmp_path, replace(TINY, epochs=30, patience=1, learning_rate=0.3))
    assert summary.epochs == summary.best_epoch + 1 < 30
    assert any("no better validation loss for 1 epochs" in line for line in caplog.messages)
    found = list(predict_bags(load_bag_model(str(tmp_path / "model")), TiledDataset(tiled), "val"))
    loss = np.mean([-math.log(one.probabilities[("normal", "tumour").index(one.label)]) for one in found])
    assert loss == pytest.approx(summary.val_loss, rel=1e-3)


def test_without_validation_every_epoch_runs(build, tmp_path, caplog):
    root = build(tmp_path / "tiled", patients=4, splits=("train",))
    summary = train(root, tmp_path, replace(TINY, epochs=2))
    assert (summary.epochs, summary.best_epoch, summary.val_loss) == (2, 2, None)
    assert any("no validation split" in line for line in caplog.messages)


@pytest.mark.parametrize("head", ["attention", "mean_pooling", "max_pooling"])
def test_other_heads_train(tiled, tmp_path, head):
    train(tiled, tmp_path, replace(TINY, epochs=1, head=head, augment=False, class_weights="none"))
    assert json.loads((tmp_path / "model/bagline.json").read_text())["parameters"]["head"] == head


def test_splits_that_can_not_be_trained_on(build, tmp_path):
    one = build(tmp_path / "one", patients=3, labels=("a",), splits=("train",))
    with pytest.raises(InputError, match="has the one label 'a'"):
        train(one, tmp_path)
    none = build(tmp_path / "none", patients=4, splits=("test",))
    with pytest.raises(InputError, match="has no train patient with a tile"):
        train(none, tmp_path)
    lone = build(tmp_path / "lone", patients=3, labels=("a", "b", "c"), splits=("train",))
    rewrite_split(lone, {"p02": "val"})
    with pytest.raises(InputError, match="the train split has no patient labelled c"):
        train(lone, tmp_path)
    flat = build(tmp_path / "flat", patients=5, splits=("train",))
    rewrite_split(flat, {"p04": "val"})
    with pytest.raises(InputError, match="every val patient is labelled normal"):
        train(flat, tmp_path)


def rewrite_split(root, splits):
    path = Path(root, "split.csv")
    lines = path.read_text().splitlines()
    out = [lines[0]]
    for line in lines[1:]:
        cells = line.split(",")
        cells[3] = splits.get(cells[1], cells[3])
        out.append(",".join(cells))
    path.write_text("\n".join(out) + "\n")


def test_parameters_out_of_range_are_listed_at_once():
    with pytest.raises(InputError) as caught:
        TrainingParameters(epochs=0, learning_rate=-1, dropout=1.0, input_px=4, encoder_path="x").check()
    for part in ("epochs 0 is below 1", "learning_rate -1", "dropout 1.0", "input_px 4", "the encoder 'small_cnn'"):
        assert part in str(caught.value)
    with pytest.raises(InputError, match="unknown head 'gated'; did you mean 'gated_attention'"):
        TrainingParameters(head="gated").check()
    with pytest.raises(InputError, match="unknown class_weights 'balance'; did you mean 'balanced'"):
        TrainingParameters(class_weights="balance").check()


def test_augmentation_keeps_flat_tiles_flat_and_repeats_with_its_seed():
    tiles = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8, 3)).astype(np.uint8)
    one, two = (augment_tiles(tf.constant(tiles), tf.constant([1, 2])).numpy() for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert (augment_tiles(tf.constant(tiles), tf.constant([1, 3])).numpy() != one).any()
    assert one.dtype == np.uint8
    assert one.shape == tiles.shape
    flat = np.full((1, 4, 8, 8, 3), 128, np.uint8)
    out = augment_tiles(tf.constant(flat), tf.constant([5, 6])).numpy()
    assert np.ptp(out, axis=(2, 3)).max() == 0
    assert np.abs(out.astype(int) - 128).max() <= 30


def test_measures():
    scores, positive = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    assert rank_auc(scores, positive) == 0.75
    assert rank_auc(np.ones(4), positive) == 0.5
    assert rank_auc(scores, np.zeros(4, bool)) is None
    assert mean_auc(np.stack([1 - scores, scores], axis=1), positive.astype(int)) == 0.75
    assert mean_auc(np.eye(3), np.array([0, 1, 2])) == 1.0
    np.testing.assert_allclose(balanced_weights(np.array([0, 0, 0, 1]), 2), [4 / 6, 2.0])


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_stain_normalisation_is_fitted_on_train_slides_and_saved(build, tmp_path, method):
    root = build(tmp_path / "tiled")
    parameters = replace(TINY, epochs=1, stain_normalisation=method)
    train(root, tmp_path / "one", parameters)
    train(root, tmp_path / "two", parameters)
    model = load_bag_model(str(tmp_path / "one/model"))
    reference = model.encoder.get_layer("stain").reference
    card = json.loads((tmp_path / "one/model/bagline.json").read_text())
    assert card["stain_reference"] == reference
    assert card["parameters"]["stain_normalisation"] == method
    for name in ("config.json", "model.weights.h5"):
        assert (tmp_path / "one/model" / name).read_bytes() == (tmp_path / "two/model" / name).read_bytes()
    found = list(predict_bags(model, TiledDataset(root), "test"))
    assert np.isfinite(found[0].probabilities).all()
    with pytest.raises(InputError, match="unknown stain_normalisation 'macenco'; did you mean 'macenko'"):
        TrainingParameters(stain_normalisation="macenco").check()
