"""`tf.train.Example` without TensorFlow: an encoder that writes constants once, and a parser.

The wire format is protobuf's; the messages are those of tensorflow/core/example/{example,feature}.proto.
Concatenated map entries of one Example merge, so a slide's constant features are serialised once.
"""

from __future__ import annotations

import functools
import numbers
import struct
from collections.abc import Mapping
from typing import Any

from components.records.errors import WorkError

Value = int | float | bytes | str
_SMALL = [bytes([number]) for number in range(0x80)]


def _varint(number: int) -> bytes:
    if 0 <= number < 0x80:
        return _SMALL[number]
    if 0 < number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    number &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number: int, payload: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(payload)) + payload


def encode_feature(name: str, value: Value) -> bytes:
    """One map entry of `Features`: an int is an int64 list, a float a float list, text and bytes a bytes list.

    NumPy's integers and floats count as such.

    Raises:
        TypeError: `value` is none of these. OverflowError: it does not fit int64 or float32.
    """
    if isinstance(value, str):
        value = value.encode("utf-8")
    named = _encode_name(name)
    if not isinstance(value, bytes):
        named += _field(2, _encode_number(name, value))
        return b"\x0a" + _varint(len(named)) + named
    # Lengths from the inside out, so that a picture's bytes are copied once.
    one = b"\x0a" + _varint(len(value))
    listed = b"\x0a" + _varint(len(one) + len(value)) + one
    head = named + b"\x12" + _varint(len(listed) + len(value)) + listed
    return b"".join((b"\x0a", _varint(len(head) + len(value)), head, value))


@functools.cache
def _encode_name(name: str) -> bytes:
    return _field(1, name.encode("utf-8"))


def _encode_number(name: str, value: Any) -> bytes:
    # The exact types first: to ask whether a value is any kind of number takes longer than to encode it.
    if type(value) is float:
        return _float_feature(value)
    if type(value) is int or isinstance(value, numbers.Integral):
        if not -(1 << 63) <= int(value) < 1 << 63:
            raise OverflowError(f"{name} {value} does not fit int64")
        digits = _varint(int(value))
        return bytes((0x1A, len(digits) + 2, 0x0A, len(digits))) + digits
    if isinstance(value, numbers.Real):
        return _float_feature(value)
    raise TypeError(f"{name} is {type(value).__name__}, no value of a record")


def _float_feature(value: Any) -> bytes:
    return b"\x12\x06\x0a\x04" + struct.pack("<f", value)


def encode_features(features: Mapping[str, Value]) -> bytes:
    """Map entries of several features, in the order given."""
    return b"".join(encode_feature(name, value) for name, value in features.items())


def encode_example(*entries: bytes) -> bytes:
    """A whole `tf.train.Example` of entries from `encode_features`."""
    return b"".join((b"\x0a", _varint(sum(map(len, entries))), *entries))


@functools.cache
def _example_class() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="bagline/example.proto", package="bagline", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, int, str]) -> Any:
        kind = file.message_type.add(name=name)
        for field_name, number, field_type, type_name in fields:
            repeated = field_name in ("value", "feature") and name != "FeatureEntry"
            kind.field.add(
                name=field_name,
                number=number,
                type=field_type,
                type_name=type_name or None,
                label=kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL,
            )
        return kind

    message("BytesList", ("value", 1, kinds.TYPE_BYTES, ""))
    message("FloatList", ("value", 1, kinds.TYPE_FLOAT, ""))
    message("Int64List", ("value", 1, kinds.TYPE_INT64, ""))
    message(
        "Feature",
        ("bytes_list", 1, kinds.TYPE_MESSAGE, ".bagline.BytesList"),
        ("float_list", 2, kinds.TYPE_MESSAGE, ".bagline.FloatList"),
        ("int64_list", 3, kinds.TYPE_MESSAGE, ".bagline.Int64List"),
    )
    message("FeatureEntry", ("key", 1, kinds.TYPE_STRING, ""), ("value", 2, kinds.TYPE_MESSAGE, ".bagline.Feature"))
    message("Features", ("feature", 1, kinds.TYPE_MESSAGE, ".bagline.FeatureEntry"))
    message("Example", ("features", 1, kinds.TYPE_MESSAGE, ".bagline.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("bagline.Example"))


def parse_example(data: bytes) -> dict[str, list[Any]]:
    """Feature name to its list of values (bytes, float or int); of a name given twice the last holds.

    Raises:
        WorkError: `data` is not a `tf.train.Example`.
    """
    from google.protobuf.message import DecodeError

    try:
        example = _example_class().FromString(data)
    except DecodeError:
        raise WorkError("the record is not a tf.train.Example", mend="run the tiling step again") from None
    features: dict[str, list[Any]] = {}
    for entry in example.features.feature:
        for kind in ("bytes_list", "float_list", "int64_list"):
            if entry.value.HasField(kind):
                features[entry.key] = list(getattr(entry.value, kind).value)
    return features
