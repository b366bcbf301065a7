"""Our bytes and TensorFlow's, against each other; the one place here that imports it."""

import pytest

from components.records.example import encode_example, encode_features, parse_example
from components.records.tfrecord import frame, read_tfrecord

VALUES = {
    "negative": -5,
    "smallest": -(1 << 63),
    "float": -0.1,
    "large": 3.4e38,
    "text": "größe – 组织",
    "bytes": b"\x00\xff",
    "ключ": 1,
}


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow")


def test_files_are_equal_and_each_reads_the_others(tf, tmp_path):
    records = [b"", b"one", bytes(range(256)) * 500]
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for record in records:
            writer.write(record)
    (tmp_path / "ours").write_bytes(b"".join(frame(record) for record in records))
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert list(read_tfrecord(tmp_path / "theirs")) == records
    assert [one.numpy() for one in tf.data.TFRecordDataset(str(tmp_path / "ours"))] == records


def test_examples_are_parsed_alike(tf):
    data = encode_example(encode_features(VALUES))
    theirs = tf.train.Example.FromString(data)
    assert set(theirs.features.feature) == set(VALUES)
    for name, values in parse_example(data).items():
        feature = theirs.features.feature[name]
        assert list(getattr(feature, feature.WhichOneof("kind")).value) == values
    assert parse_example(theirs.SerializeToString()) == parse_example(data)
    spec = {"negative": tf.io.FixedLenFeature([], tf.int64), "float": tf.io.FixedLenFeature([], tf.float32)}
    parsed = tf.io.parse_single_example(data, spec)
    assert (int(parsed["negative"]), float(parsed["float"])) == (-5, pytest.approx(-0.1))


def test_concatenated_examples_merge_in_every_parser(tf):
    halves = [encode_example(encode_features({"a": 1, "b": "x"})), encode_example(encode_features({"c": 2.5, "a": 3}))]
    data = b"".join(halves)
    spec = {
        "a": tf.io.FixedLenFeature([], tf.int64),
        "b": tf.io.FixedLenFeature([], tf.string),
        "c": tf.io.FixedLenFeature([], tf.float32),
    }
    one = tf.io.parse_single_example(data, spec)
    batch = tf.io.parse_example([data], spec)
    assert parse_example(data) == {"a": [3], "b": [b"x"], "c": [2.5]}
    for parsed in (one, {name: values[0] for name, values in batch.items()}):
        assert (int(parsed["a"]), parsed["b"].numpy(), float(parsed["c"])) == (3, b"x", 2.5)
    message = tf.train.Example.FromString(data).features.feature
    assert (message["a"].int64_list.value[0], message["c"].float_list.value[0]) == (3, 2.5)
