import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.records.errors import WorkError
from components.records.example import encode_example, encode_feature, encode_features, parse_example

VALUES = {
    "int": 7,
    "negative": -1,
    "smallest": -(1 << 63),
    "largest": (1 << 63) - 1,
    "float": 0.1,
    "minus": -2.5e-3,
    "infinite": math.inf,
    "text": "größe – 组织",
    "bytes": b"\x00\xff\x80",
    "empty": b"",
    "ключ": 1,
}

FEATURE_VALUES = st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.floats(width=32, allow_nan=False), st.binary())


def single(value):
    if isinstance(value, str):
        return [value.encode()]
    return [struct.unpack("<f", struct.pack("<f", value))[0]] if isinstance(value, float) else [value]


def test_every_kind_of_value_comes_back():
    parsed = parse_example(encode_example(encode_features(VALUES)))
    assert parsed == {name: single(value) for name, value in VALUES.items()}


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), FEATURE_VALUES))
def test_any_features_come_back(features):
    parsed = parse_example(encode_example(encode_features(features)))
    assert parsed == {name: single(value) for name, value in features.items()}


def test_concatenated_entries_and_concatenated_examples_are_one_record():
    constant, changing = {"slide/id": "s", "image/height": 256}, {"tile/x": 512}
    together = encode_example(encode_features({**constant, **changing}))
    assert encode_example(encode_features(constant), encode_features(changing)) == together
    merged = encode_example(encode_features(constant)) + encode_example(encode_features(changing))
    assert parse_example(merged) == parse_example(together)


def test_of_a_feature_given_twice_the_last_holds():
    twice = encode_example(encode_feature("a", 1), encode_feature("a", 2))
    assert parse_example(twice) == {"a": [2]}


def test_numpy_scalars_keep_their_kind():
    assert encode_feature("a", np.int64(5)) == encode_feature("a", 5)
    assert encode_feature("a", np.uint8(5)) == encode_feature("a", 5)
    assert encode_feature("a", np.float32(0.5)) == encode_feature("a", 0.5)
    assert encode_feature("a", True) == encode_feature("a", 1)


@pytest.mark.parametrize("value", [1 << 63, -(1 << 63) - 1, 1e39])
def test_a_number_that_does_not_fit_is_refused(value):
    with pytest.raises(OverflowError):
        encode_feature("a", value)


@pytest.mark.parametrize("value", [None, [1], bytearray(b"a"), np.bool_(True)])
def test_a_value_of_no_kind_is_refused(value):
    with pytest.raises(TypeError, match="a is "):
        encode_feature("a", value)


def test_rubbish_is_no_example():
    with pytest.raises(WorkError, match=r"not a tf\.train\.Example"):
        parse_example(b"\x0a\xff")
