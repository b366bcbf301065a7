"""Compiles a pipeline to the JSON that Vertex AI takes: the same source gives the same bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
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
    return check_images(images, path, allow_tags=allow_tags)


def check_images(images: Mapping[str, Any], path: str, *, allow_tags: bool = False) -> dict[str, str]:
    """The images that pipelines use, out of a mapping that `path` holds; raises InputError as `read_images` does."""
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
    """The pipeline spec of a built pipeline, its image placeholders replaced by `images` where given.

    Each task is told what it was started from (`BAGLINE_IMAGE`), and writes it into its artifacts' metadata.
    """
    from google.protobuf import json_format

    spec: dict[str, Any] = json_format.MessageToDict(pipeline.pipeline_spec)
    if not images:
        return spec
    for executor in spec["deploymentSpec"]["executors"].values():
        container = executor.get("container")
        if container and _PLACEHOLDER.match(container["image"]):
            # The image knows itself by digest: artifacts carry it, and Dataflow's workers run it.
            container.setdefault("env", []).append({"name": "BAGLINE_IMAGE", "value": container["image"]})
    named: dict[str, Any] = _name_images(spec, images)
    return named


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


def compile_pipeline(
    name: str, *, images: str = "", allow_tags: bool = False, config: str = "", env: str = ""
) -> dict[str, Any]:
    """The spec of the pipeline `name` for Vertex AI; the `resources` of environment and config file go into it.

    Raises:
        InputError: no digests are given and tags are not allowed.
    """
    if not env:
        given = read_config(config)["resources"] if config else {}
        return compile_for_cloud(name, read_references(images, "--images", allow_tags=allow_tags), given, config)
    from pipelines.vertex.environment import load_config

    found = load_config(env, config)
    images_given = images or (found.environment.images if found.environment else "")
    references = read_references(images_given, f"{found.where}: environment.images", allow_tags=allow_tags)
    return compile_for_cloud(name, references, found.resources, found.where)


def read_references(images: str | Mapping[str, str], where: str, *, allow_tags: bool = False) -> dict[str, str] | None:
    """Image references out of a mapping that `where` holds, or an images.json; None where tags are allowed instead.

    Raises:
        InputError: as `read_images`, or none are given and tags are not allowed.
    """
    if isinstance(images, Mapping):
        return check_images(images, where, allow_tags=allow_tags)
    if images:
        return read_images(images, allow_tags=allow_tags)
    if allow_tags:
        return None
    raise InputError("the images have no digests", mend="pass --images images.json, or --allow-tags")


def compile_for_cloud(
    name: str, references: dict[str, str] | None, resources: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """The spec of the pipeline `name` with image references and a config's `resources` (of the file `where`) in it."""
    return build_spec(load_pipeline(name).build(resources=read_resources(resources, where)), references)


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


def steps_of(spec: Mapping[str, Any]) -> dict[str, str]:
    """Task name → the step's name as users say it."""
    return {task: body.get("taskInfo", {}).get("name", task) for task, body in spec["root"]["dag"]["tasks"].items()}
