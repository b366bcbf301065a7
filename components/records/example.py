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


def _varint(number: int) -> bytes:
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
    feature = _field(1, _field(1, value)) if isinstance(value, bytes) else _encode_number(name, value)
    return _field(1, _field(1, name.encode("utf-8")) + _field(2, feature))


def _encode_number(name: str, value: Any) -> bytes:
    if isinstance(value, numbers.Integral):
        if not -(1 << 63) <= int(value) < 1 << 63:
            raise OverflowError(f"{name} {value} does not fit int64")
        return _field(3, _field(1, _varint(int(value))))
    if isinstance(value, numbers.Real):
        return _field(2, _field(1, struct.pack("<f", value)))
    raise TypeError(f"{name} is {type(value).__name__}, no value of a record")


def encode_features(features: Mapping[str, Value]) -> bytes:
    """Map entries of several features, in the order given."""
    return b"".join(encode_feature(name, value) for name, value in features.items())


def encode_example(*entries: bytes) -> bytes:
    """A whole `tf.train.Example` of entries from `encode_features`."""
    return _field(1, b"".join(entries))


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
