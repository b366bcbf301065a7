"""CLAM, DSMIL and TransMIL against what their papers' equations give, written out in numpy."""

import numpy as np
import pytest

from components.mil.heads.nystrom import NystromAttention
from components.mil.heads.registry import create_head

import keras  # isort: skip
import tensorflow as tf  # isort: skip

D, C = 6, 3


def make(name, **options):
    keras.utils.set_random_seed(3)
    head = create_head(name, C, attention_dim=4, **options)
    head.build((None, None, D))
    return head


def softmax(values, axis=-1):
    powers = np.exp(values - values.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def weights_of(head):
    return {weight.path.removeprefix("head/"): weight.numpy().astype(np.float64) for weight in head.weights}


def bag(count, seed=0):
    return np.random.default_rng(seed).normal(size=(1, count, D)).astype(np.float32), np.ones((1, count), bool)


def gated(h, w):
    content = np.tanh(h @ w["content/kernel"] + w["content/bias"])
    return (content * sigmoid(h @ w["gate/kernel"] + w["gate/bias"])) @ w["weight/kernel"]


@pytest.mark.parametrize("name", ["clam_sb", "clam_mb"])
def test_clam_pools_each_branch_and_shows_the_likeliest_class(name):
    head = make(name)
    instances, mask = bag(7)
    out, w, h = head(instances, mask), weights_of(head), instances[0].astype(np.float64)
    attention = softmax(gated(h, w), axis=0)
    pooled = attention.T @ h
    logits = (pooled * w["kernel"]).sum(axis=1) + w["bias"]
    np.testing.assert_allclose(out["logits"][0], logits, rtol=1e-4)
    shown = attention[:, 0] if name == "clam_sb" else attention[:, logits.argmax()]
    np.testing.assert_allclose(out["attention"][0], shown, rtol=1e-4)


@pytest.mark.parametrize("name", ["clam_sb", "clam_mb"])
@pytest.mark.parametrize("subtyping", [False, True])
@pytest.mark.parametrize("count", [9, 3])
def test_clam_loss_by_hand(name, subtyping, count):
    head = make(name, clustered=2, subtyping=subtyping)
    instances, mask = bag(count, seed=1)
    w, h, label = weights_of(head), instances[0].astype(np.float64), 1
    scores, side = gated(h, w), min(2, count // 2)
    found = (h @ w["instance_classifier/kernel"] + w["instance_classifier/bias"]).reshape(count, C, 2)

    def svm(rows, index, truth):
        chosen = found[rows, index]
        return np.log1p(np.exp(1 + chosen[:, 1 - truth] - chosen[:, truth])).mean()

    clustering = 0.0
    for index in range(C):
        order = np.argsort(scores[:, 0 if name == "clam_sb" else index])
        if index == label:
            clustering += (svm(order[-side:], index, 1) + svm(order[:side], index, 0)) / 2
        elif subtyping:
            clustering += svm(order[-side:], index, 0)
    out = head(instances, mask)
    bag_loss = -np.log(softmax(out["logits"].numpy()[0].astype(np.float64))[label])
    expected = 0.7 * bag_loss + 0.3 * (clustering / C if subtyping else clustering)
    np.testing.assert_allclose(head.losses(out, np.array([label])), [expected], rtol=1e-4)


@pytest.mark.parametrize("name", ["clam_sb", "clam_mb"])
def test_clam_does_not_cluster_a_bag_of_one(name):
    head = make(name)
    instances, mask = bag(1)
    out = head(instances, mask)
    bag_loss = -np.log(softmax(out["logits"].numpy()[0])[2])
    np.testing.assert_allclose(head.losses(out, np.array([2])), [0.7 * bag_loss], rtol=1e-5)


def test_dsmil_by_hand():
    head = make("dsmil")
    instances, mask = bag(7)
    out, w, h = head(instances, mask), weights_of(head), instances[0].astype(np.float64)
    scores = h @ w["instance_classifier/kernel"] + w["instance_classifier/bias"]
    hidden = np.maximum(h @ w["hidden/kernel"] + w["hidden/bias"], 0)
    queries = np.tanh(hidden @ w["query/kernel"] + w["query/bias"])
    attention = softmax(queries @ queries[scores.argmax(axis=0)].T / np.sqrt(4), axis=0)
    bag_logits = (attention.T @ h).ravel() @ w["classifier/kernel"] + w["classifier/bias"]
    logits = (scores.max(axis=0) + bag_logits) / 2
    np.testing.assert_allclose(out["logits"][0], logits, rtol=1e-4)
    np.testing.assert_allclose(out["attention"][0], attention[:, logits.argmax()], rtol=1e-4)
    expected = -(np.log(softmax(scores.max(axis=0))[0]) + np.log(softmax(bag_logits)[0])) / 2
    np.testing.assert_allclose(head.losses(out, np.array([0])), [expected], rtol=1e-4)


@pytest.mark.parametrize("name", ["clam_sb", "clam_mb", "dsmil", "transmil"])
def test_padding_does_not_change_the_loss_nor_its_gradient(name):
    head = make(name)
    instances, mask = bag(5)
    wide = np.concatenate([instances, np.full((1, 6, D), 50, np.float32)], axis=1)
    found = []
    for given, held in ((instances, mask), (wide, np.arange(11)[None] < 5)):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(head.losses(head(given, held), tf.constant([1])))
        found.append([loss, *tape.gradient(loss, head.trainable_variables)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_a_batch_gives_what_each_bag_gives_alone():
    head = make("transmil")
    rng = np.random.default_rng(0)
    sizes = [1, 2, 5, 9, 12]
    instances = rng.normal(size=(5, 12, D)).astype(np.float32)
    mask = np.arange(12)[None] < np.array(sizes)[:, None]
    together = head(instances, mask)
    for number, size in enumerate(sizes):
        alone = head(instances[number : number + 1, :size], mask[number : number + 1, :size])
        np.testing.assert_allclose(together["logits"][number], alone["logits"][0], rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(together["attention"][number, :size], alone["attention"][0], rtol=1e-3, atol=1e-6)


def attend_exactly(layer, tokens):
    count, size = tokens.shape[0], layer.width // layer.heads
    query, key, value = np.split(tokens @ layer.kernel.numpy().astype(np.float64), 3, axis=1)
    made, rows = [], []
    for head in range(layer.heads):
        at = slice(head * size, (head + 1) * size)
        weights = softmax(query[:, at] @ key[:, at].T / np.sqrt(size))
        filled = np.concatenate([np.zeros((16, size)), value[:, at], np.zeros((16, size))])
        near = sum(layer.near.numpy()[step, 0, head, 0] * filled[step : step + count] for step in range(33))
        made.append(weights @ value[:, at] + near)
        rows.append(weights[0])
    mixed = np.concatenate(made, axis=1) @ layer.mix.kernel.numpy() + layer.mix.bias.numpy()
    return mixed, np.mean(rows, axis=0)


@pytest.mark.parametrize("together", [True, False])
def test_attention_is_exact_where_every_token_is_a_landmark(together):
    keras.utils.set_random_seed(4)
    layer = NystromAttention(16, heads=4, landmarks=12, iterations=30)
    layer.build((None, None, 16))
    tokens = np.random.default_rng(1).normal(size=(1, 14, 16)).astype(np.float32)
    mask = np.arange(14)[None] < 9
    made, row = layer(tokens, mask, together=together)
    expected, first = attend_exactly(layer, tokens[0, :9].astype(np.float64))
    np.testing.assert_allclose(made[0, :9], expected, rtol=2e-2, atol=2e-3)
    np.testing.assert_allclose(row[0], [*first, 0, 0, 0, 0, 0], rtol=2e-2, atol=2e-3)


def test_many_tokens_share_landmarks_evenly():
    layer = NystromAttention(8, landmarks=4)
    mask = np.arange(12)[None] < 10
    shares, there = layer._landmark_shares(tf.constant(mask))
    assert there.numpy().all()
    np.testing.assert_allclose(shares.numpy()[0].sum(axis=0), 1, rtol=1e-6)
    assert [(column > 0).sum() for column in shares.numpy()[0].T] == [3, 2, 3, 2]
    assert (shares.numpy()[0, 10:] == 0).all()


def test_transmil_minds_the_order_only_through_its_places_and_neighbours():
    head = make("transmil")
    rng = np.random.default_rng(2)
    instances, mask = rng.normal(size=(1, 9, D)).astype(np.float32), np.ones((1, 9), bool)
    shuffled = instances[:, rng.permutation(9)]
    assert np.abs(head(instances, mask)["logits"] - head(shuffled, mask)["logits"]).max() > 1e-3
    for layer in head.places:
        layer.set_weights([np.zeros_like(value) for value in layer.get_weights()])
    for layer in head.attentions:
        layer.near.assign(np.zeros(layer.near.shape))
        layer.iterations = 30
    one, other = head(instances, mask), head(shuffled, mask)
    np.testing.assert_allclose(one["logits"], other["logits"], rtol=1e-2, atol=2e-3)


def test_transmil_fills_the_square_with_the_beginning():
    # with 5 instances a square of 9 repeats the first 4, so a bag that spells the repeats out is the same sequence
    head = make("transmil")
    instances, mask = bag(5)
    spelt = np.concatenate([instances, instances[:, :4]], axis=1)
    one, other = head(instances, mask), head(spelt, np.ones((1, 9), bool))
    np.testing.assert_allclose(one["logits"], other["logits"], rtol=1e-4, atol=1e-5)
    folded = other["attention"].numpy()[0]
    folded[:4] += folded[5:]
    np.testing.assert_allclose(one["attention"][0], folded[:5], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["attention", "gated_attention", "clam_mb", "dsmil", "max_pooling", "mean_pooling"])
def test_float16_bags_stream_too(name):
    head = make(name)
    instances = bag(20)[0][0]
    logits, attention = head.stream(instances.astype(np.float16), chunk=7)
    plain, _ = head.stream(instances)
    np.testing.assert_allclose(logits, plain, rtol=0.05, atol=0.01)
    assert attention.dtype == np.float32
    assert attention.sum() == pytest.approx(1, rel=1e-4)
