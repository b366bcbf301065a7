import numpy as np
import pytest

from components.mil.heads.registry import HEADS, create_head
from components.records.errors import InputError

import keras  # isort: skip
import tensorflow as tf  # isort: skip

D, C = 5, 3


def make(name, **options):
    keras.utils.set_random_seed(1)
    head = create_head(name, C, attention_dim=4, **options)
    head.build((None, None, D))
    return head


def bags(rng, sizes, padded):
    instances = rng.normal(size=(len(sizes), padded, D)).astype(np.float32)
    mask = np.arange(padded)[None] < np.array(sizes)[:, None]
    return instances, mask


@pytest.mark.parametrize("name", sorted(HEADS))
class TestEveryHead:
    def test_attention_sums_to_one_over_what_is_there(self, name):
        instances, mask = bags(np.random.default_rng(0), [7, 1, 4], 7)
        out = make(name)(instances, mask)
        attention = out["attention"].numpy()
        assert out["logits"].shape == (3, C)
        np.testing.assert_allclose(attention.sum(axis=1), 1, rtol=1e-5)
        assert (attention[~mask] == 0).all()

    def test_padding_changes_nothing(self, name):
        head = make(name)
        instances, mask = bags(np.random.default_rng(1), [4], 9)
        instances[~mask] = 1e6
        padded, plain = head(instances, mask), head(instances[:, :4], mask[:, :4])
        np.testing.assert_allclose(padded["logits"], plain["logits"], rtol=1e-5)
        np.testing.assert_allclose(padded["attention"][:, :4], plain["attention"], rtol=1e-5)

    def test_order_of_instances_changes_nothing_but_the_order_of_attention(self, name):
        if name == "transmil":
            pytest.skip("the order stands for the place; what holds of it has a test below")
        head = make(name)
        rng = np.random.default_rng(2)
        instances, mask = bags(rng, [8], 8)
        order = rng.permutation(8)
        one, other = head(instances, mask), head(instances[:, order], mask)
        np.testing.assert_allclose(one["logits"], other["logits"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(one["attention"].numpy()[:, order], other["attention"], rtol=1e-5)

    def test_gradients_reach_every_weight(self, name):
        head = make(name)
        instances, mask = bags(np.random.default_rng(3), [6, 5], 6)
        with tf.GradientTape() as tape:
            out = head(instances, mask, training=True)
            loss = tf.reduce_sum(head.losses(out, tf.constant([0, 1])))
        for weight, gradient in zip(
            head.trainable_variables, tape.gradient(loss, head.trainable_variables), strict=True
        ):
            assert gradient is not None, weight.path
            assert np.abs(gradient).max() > 0, weight.path

    def test_streaming_in_pieces_equals_one_pass(self, name):
        head = make(name)
        instances, mask = bags(np.random.default_rng(4), [37], 37)
        logits, attention = head.stream(instances[0], chunk=5)
        out = head(instances, mask)
        np.testing.assert_allclose(logits, out["logits"][0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(attention, out["attention"][0], rtol=1e-4, atol=1e-6)

    def test_huge_scores_stay_finite(self, name):
        instances, mask = bags(np.random.default_rng(5), [6], 6)
        out = make(name)(instances * 1e6, mask)
        assert np.isfinite(out["logits"]).all()
        assert np.isfinite(out["attention"]).all()

    def test_config_round_trip(self, name):
        head = make(name, dropout=0.25)
        twin = type(head).from_config(head.get_config())
        twin.build((None, None, D))
        twin.set_weights(head.get_weights())
        instances, mask = bags(np.random.default_rng(6), [3], 3)
        np.testing.assert_array_equal(head(instances, mask)["logits"], twin(instances, mask)["logits"])
        assert twin.get_config() == head.get_config()


def by_hand(name, values):
    head = create_head(name, 2, attention_dim=1)
    head.build((None, None, 1))
    head.set_weights([np.array(value, np.float32) for value in values])
    out = head(np.array([[[1.0], [2.0], [9.0]]], np.float32), np.array([[True, True, False]]))
    return out["logits"].numpy()[0], out["attention"].numpy()[0]


def weights_in_order(name, **values):
    head = create_head(name, 2, attention_dim=1)
    head.build((None, None, 1))
    return [values[weight.path.replace("/", "_").removeprefix("head_")] for weight in head.weights]


def test_gated_attention_by_hand():
    values = weights_in_order(
        "gated_attention",
        content_kernel=[[0.5]],
        content_bias=[0.1],
        gate_kernel=[[-1.0]],
        gate_bias=[0.2],
        weight_kernel=[[3.0]],
        classifier_kernel=[[1.0, -2.0]],
        classifier_bias=[0.0, 0.5],
    )
    logits, attention = by_hand("gated_attention", values)
    h = np.array([1.0, 2.0])
    score = 3.0 * np.tanh(0.5 * h + 0.1) / (1 + np.exp(h - 0.2))
    expected = np.exp(score) / np.exp(score).sum()
    z = (expected * h).sum()
    np.testing.assert_allclose(attention, [*expected, 0], rtol=1e-5)
    np.testing.assert_allclose(logits, [z, 0.5 - 2 * z], rtol=1e-5)


def test_attention_by_hand():
    values = weights_in_order(
        "attention",
        content_kernel=[[0.5]],
        content_bias=[0.1],
        weight_kernel=[[3.0]],
        classifier_kernel=[[1.0, -2.0]],
        classifier_bias=[0.0, 0.5],
    )
    logits, attention = by_hand("attention", values)
    h = np.array([1.0, 2.0])
    score = 3.0 * np.tanh(0.5 * h + 0.1)
    expected = np.exp(score) / np.exp(score).sum()
    z = (expected * h).sum()
    np.testing.assert_allclose(attention, [*expected, 0], rtol=1e-5)
    np.testing.assert_allclose(logits, [z, 0.5 - 2 * z], rtol=1e-5)


def test_mean_pooling_by_hand():
    logits, attention = by_hand("mean_pooling", [[[1.0, -2.0]], [0.0, 0.5]])
    np.testing.assert_allclose(attention, [0.5, 0.5, 0], rtol=1e-6)
    np.testing.assert_allclose(logits, [1.5, -2.5], rtol=1e-6)


def test_max_pooling_by_hand():
    logits, attention = by_hand("max_pooling", [[[1.0, -2.0]], [0.0, 0.5]])
    np.testing.assert_allclose(logits, [2.0, -1.5], rtol=1e-6)
    np.testing.assert_allclose(attention, [0.5, 0.5, 0], rtol=1e-6)


def test_an_unknown_head_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="unknown head 'gated_atention'; did you mean 'gated_attention'"):
        create_head("gated_atention", 2)
    with pytest.raises(
        InputError, match="choose one of attention, attention_max, attention_statistics, clam_mb, clam_sb, dsmil, gated"
    ):
        create_head("zzz", 2)
