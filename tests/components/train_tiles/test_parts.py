"""What a tile classifier's training is made of: samplers, losses, augmentation."""

import math

import numpy as np
import pytest

from components.mil.augmentation import augment_stain
from components.records.errors import InputError
from components.train_tiles.losses import focal_loss, weighted_loss
from components.train_tiles.parameters import TileTrainingParameters
from components.train_tiles.sampling import choose_tiles, class_weights, spread_tiles

import tensorflow as tf  # isort: skip

LABELS = np.array([1] * 10 + [0] * 190, np.int8)


def share(chosen):
    return (LABELS[chosen] == 1).mean()


def test_oversampling_takes_every_tile_and_repeats_the_scarce():
    chosen = choose_tiles(LABELS, "oversample", seed=1, epoch=1)
    assert len(chosen) == 380
    assert share(chosen) == 0.5
    counts = np.bincount(chosen, minlength=200)
    assert (counts[:10] == 19).all()
    assert (counts[10:] == 1).all()
    assert share(choose_tiles(LABELS, "oversample", seed=1, epoch=1, lesion_share=0.25)) == pytest.approx(
        0.25, abs=0.01
    )


def test_undersampling_takes_every_scarce_tile_and_other_plenty_each_epoch():
    first, second = (choose_tiles(LABELS, "undersample", seed=1, epoch=epoch) for epoch in (1, 2))
    for chosen in (first, second):
        assert len(chosen) == len(set(chosen.tolist())) == 20
        assert set(range(10)) <= set(chosen.tolist())
    assert set(first.tolist()) != set(second.tolist())
    assert (choose_tiles(LABELS, "undersample", seed=1, epoch=1) == first).all()
    assert (choose_tiles(LABELS, "undersample", seed=2, epoch=1) != first).any()


@pytest.mark.parametrize("imbalance", ["class_weights", "focal", "none"])
def test_the_others_take_every_tile_once(imbalance):
    chosen = choose_tiles(LABELS, imbalance, seed=1, epoch=1)
    assert sorted(chosen.tolist()) == list(range(200))
    assert chosen.tolist() != list(range(200))
    assert len(choose_tiles(LABELS, imbalance, seed=1, epoch=1, most=50)) == 50


def test_a_limit_keeps_the_shares():
    for imbalance in ("oversample", "undersample"):
        chosen = choose_tiles(LABELS, imbalance, seed=1, epoch=1, most=12)
        assert len(chosen) == 12
        assert share(chosen) == 0.5


def test_tiles_are_spread_and_weights_make_both_kinds_count_the_same():
    assert spread_tiles(10, 4).tolist() == [0, 2, 5, 7]
    assert spread_tiles(3, 4).tolist() == [0, 1, 2]
    others, marked = class_weights(LABELS)
    assert 190 * others == pytest.approx(10 * marked) == pytest.approx(100)


def test_focal_loss_is_that_of_the_paper():
    """By hand: p = 0.9 marked, p = 0.9 unmarked; gamma 2, alpha 0.25."""
    logit = math.log(0.9 / 0.1)
    found = focal_loss(tf.constant([logit, logit], tf.float32), tf.constant([1, 0]), 2.0, 0.25).numpy()
    assert found[0] == pytest.approx(-0.25 * 0.1**2 * math.log(0.9), rel=1e-4)
    assert found[1] == pytest.approx(-0.75 * 0.9**2 * math.log(0.1), rel=1e-4)


def test_focal_loss_without_focus_is_weighted_cross_entropy_and_stays_finite():
    logits, labels = tf.constant([-60.0, -1.0, 0.5, 60.0]), tf.constant([1, 0, 1, 0])
    plain = weighted_loss(logits, labels, (0.75, 0.25)).numpy()
    assert focal_loss(logits, labels, 0.0, 0.25).numpy() == pytest.approx(plain)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = tf.reduce_sum(focal_loss(logits, labels, 2.0, 0.25))
    assert np.isfinite(tape.gradient(loss, logits).numpy()).all()


def test_stain_augmentation_at_no_strength_changes_nothing():
    tiles = tf.constant(np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8))
    assert (augment_stain(tiles, tf.constant([1, 2]), 0.0).numpy() == tiles.numpy()).all()


def test_stain_augmentation_changes_each_tile_by_itself_and_repeats_with_its_seed():
    one = np.random.default_rng(0).integers(60, 200, (16, 16, 3)).astype(np.uint8)
    tiles = tf.constant(np.stack([one, one]))
    first, again = (augment_stain(tiles, tf.constant([1, 2]), 0.05).numpy() for _ in range(2))
    other = augment_stain(tiles, tf.constant([1, 3]), 0.05).numpy()
    assert (first == again).all()
    assert (first != other).any()
    assert (first[0] != first[1]).any()
    assert 1 < np.abs(first.astype(int) - tiles.numpy()).mean() < 40
    strong = augment_stain(tiles, tf.constant([1, 2]), 0.2).numpy()
    assert np.abs(strong.astype(int) - tiles.numpy()).mean() > np.abs(first.astype(int) - tiles.numpy()).mean()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"imbalance": "oversampling"}, "did you mean 'oversample'"),
        ({"epochs": 0, "hed": 1.0}, "epochs 0 is below 1, hed 1.0 is not in 0–1"),
        ({"lesion_share": 1.0}, "lesion_share 1.0 is not between 0 and 1"),
        ({"encoder_path": "x"}, "encoder is 'small_cnn' and not 'saved'"),
        ({"learning_rate": 0.0, "focal_gamma": -1.0}, "focal_gamma -1.0 is below 0"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(values, told):
    with pytest.raises(InputError) as caught:
        TileTrainingParameters(**values).check()
    assert told in str(caught.value)
