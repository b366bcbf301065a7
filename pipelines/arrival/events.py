"""What tells that an object is in a bucket, in each form it is sent: which object it was."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FINALIZED = "google.cloud.storage.object.v1.finalized"
PUBLISHED = "google.cloud.pubsub.topic.v1.messagePublished"
_NOTIFIED = "OBJECT_FINALIZE"


class BadEventError(ValueError):
    """The request is none of the events that are understood; sending it again can't help."""


@dataclass(frozen=True)
class Arrived:
    """An object that was written whole."""

    bucket: str
    name: str
    generation: str = ""

    @property
    def uri(self) -> str:
        """`gs://bucket/name`."""
        return f"gs://{self.bucket}/{self.name}"


def read_event(headers: Mapping[str, str], body: bytes) -> Arrived | None:
    """The object that an event is about; None for an event of another kind, such as a deletion.

    Takes a CloudEvent `google.cloud.storage.object.v1.finalized` in binary mode (as Eventarc sends it) and in
    structured mode, a Pub/Sub push of a bucket's OBJECT_FINALIZE, and that push as a CloudEvent.

    Args:
        headers: of the request; their names in any case.
        body: of the request.

    Raises:
        BadEventError: says what is wrong with it.
    """
    given = {name.lower(): value for name, value in headers.items()}
    content_type = given.get("content-type", "").partition(";")[0].strip().lower()
    value = _mapping(_json(body, "the body"), "the body")
    if content_type.startswith("application/cloudevents-batch"):
        raise BadEventError("a batch of events; one at a time is taken")
    if content_type == "application/cloudevents+json":
        return _read_cloud_event(_text(value, "specversion"), _text(value, "type"), _structured_data(value))
    if "ce-type" in given:
        return _read_cloud_event(given.get("ce-specversion", ""), given["ce-type"], value)
    if "message" in value:
        return _read_push(value)
    raise BadEventError("neither a CloudEvent nor a Pub/Sub push")


def _read_cloud_event(version: str, kind: str, data: Mapping[str, Any]) -> Arrived | None:
    if version != "1.0":
        raise BadEventError(f"CloudEvents version {version!r}, not 1.0")
    if kind == FINALIZED:
        return Arrived(_text(data, "bucket"), _text(data, "name"), str(data.get("generation", "")))
    return _read_push(data) if kind == PUBLISHED else None


def _structured_data(value: Mapping[str, Any]) -> Mapping[str, Any]:
    if "data_base64" in value:
        return _mapping(_json(_decode(_text(value, "data_base64"), "data_base64"), "data_base64"), "data_base64")
    return _mapping(value.get("data"), "data")


def _read_push(value: Mapping[str, Any]) -> Arrived | None:
    message = _mapping(value.get("message"), "message")
    attributes = _mapping(message.get("attributes") or {}, "message.attributes")
    if "eventType" not in attributes:
        raise BadEventError("a Pub/Sub message that no bucket sent: it has no attribute eventType")
    if attributes["eventType"] != _NOTIFIED:
        return None
    # The attributes are there whatever payload the notification was set up with.
    generation = str(attributes.get("objectGeneration", ""))
    return Arrived(_text(attributes, "bucketId"), _text(attributes, "objectId"), generation)


def _json(content: bytes, where: str) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        raise BadEventError(f"{where} is not JSON") from None


def _decode(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise BadEventError(f"{where} is not base64") from None


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadEventError(f"{where} is not an object")
    return value


def _text(value: Mapping[str, Any], key: str) -> str:
    found = value.get(key)
    if not isinstance(found, str) or not found:
        raise BadEventError(f"{key} is missing")
    return found
