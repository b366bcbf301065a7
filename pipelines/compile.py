"""Compiles a pipeline to the JSON that Vertex AI takes: the same source gives the same bytes."""

from __future__ import annotations

import json
import re
from typing import Any

from components.records import storage
from components.records.errors import InputError
from pipelines.catalog import load_pipeline
from pipelines.parameters import Parameter, Signature, read_config
from pipelines.resources import read_resources

IMAGES = ("pipeline", "tiling", "training")
_DIGEST = re.compile(r"^[^\s@]+@sha256:[0-9a-f]{64}$")
_PLACEHOLDER = re.compile(r"^bagline-([a-z]+):python3\.11$")
_TYPES: dict[str, type] = {
    "STRING": str,
    "NUMBER_INTEGER": int,
    "NUMBER_DOUBLE": float,
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}


def read_images(path: str, *, allow_tags: bool = False) -> dict[str, str]:
    """`images.json`: image name → reference by digest.

    Raises:
        InputError: an image is missing, unknown, or given by tag without `allow_tags`.
    """
    images = storage.read_json(path)
    if not isinstance(images, dict):
        raise InputError("is not a mapping of image names to references", where=path, mend="run `make images`")
    missing = [name for name in IMAGES if name not in images]
    if missing:
        raise InputError(f"lacks the image {', '.join(missing)}", where=path, mend="run `make images`")
    by_tag = [name for name in IMAGES if not _DIGEST.match(str(images[name]))]
    if by_tag and not allow_tags:
        raise InputError(
            f"names {', '.join(by_tag)} without a digest", where=path, mend="use IMAGE@sha256:…, or pass --allow-tags"
        )
    return {name: str(images[name]) for name in IMAGES}


def build_spec(pipeline: Any, images: dict[str, str] | None = None) -> dict[str, Any]:
    """The pipeline spec of a built pipeline, its image placeholders replaced by `images` where given."""
    from google.protobuf import json_format

    spec: dict[str, Any] = json_format.MessageToDict(pipeline.pipeline_spec)
    return _name_images(spec, images) if images else spec


def _name_images(value: Any, images: dict[str, str]) -> Any:
    """`value` with every string that is an image's placeholder replaced, however deep it lies.

    A custom job carries its image inside a parameter, and its worker is told of it by an environment variable.
    """
    if isinstance(value, dict):
        return {key: _name_images(inner, images) for key, inner in value.items()}
    if isinstance(value, list):
        return [_name_images(inner, images) for inner in value]
    match = _PLACEHOLDER.match(value) if isinstance(value, str) else None
    return images[match.group(1)] if match else value


def compile_pipeline(name: str, *, images: str = "", allow_tags: bool = False, config: str = "") -> dict[str, Any]:
    """The spec of the pipeline `name` for Vertex AI; a config file's `resources` go into it.

    Raises:
        InputError: no digests are given and tags are not allowed.
    """
    if not images and not allow_tags:
        raise InputError("the images have no digests", mend="pass --images images.json, or --allow-tags")
    references = read_images(images, allow_tags=allow_tags) if images else None
    given = read_config(config)["resources"] if config else {}
    return build_spec(load_pipeline(name).build(resources=read_resources(given, config)), references)


def render(spec: dict[str, Any]) -> str:
    """The spec as JSON text, keys sorted."""
    return json.dumps(spec, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def signature_of(spec: dict[str, Any]) -> Signature:
    """The parameters of a compiled pipeline."""
    found = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    return {
        name: Parameter(
            _TYPES[definition["parameterType"]],
            definition.get("defaultValue"),
            required=not definition.get("isOptional", False),
        )
        for name, definition in sorted(found.items())
    }
