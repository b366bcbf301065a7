"""Finds the model, checks the manifest of new slides, and takes from the model how they have to be tiled."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from components.records import storage
from components.records.errors import InputError, name_first
from components.records.manifest import (
    UNKNOWN_LABEL,
    Manifest,
    Row,
    find_images,
    read_manifest,
    refuse_rows,
    write_manifest,
)
from components.registry.client import Registry, Version, is_resource, parse_model_name

log = logging.getLogger(__name__)

# What a tile looks like, and which tiles there are: new slides are cut as the model's own were.
TILING = (
    *("tile_px", "mpp", "level", "stride", "min_tissue", "max_pen", "max_fold", "min_sharpness"),
    *("max_tiles_per_slide", "tile_sampling", "tile_format", "jpeg_quality", "seed"),
)
CARD = "bagline.json"


@dataclass(frozen=True)
class Model:
    """A model to predict with: where it lies, what `bagline.json` says of it, and its version if it is registered."""

    uri: str
    card: dict[str, Any]
    version: Version | None = None


@dataclass(frozen=True)
class Prepared:
    """What the following steps need.

    Attributes:
        tiling: parameters of the tiling step, by the names of `TILING`.
        patients, slides, manifest_hash: of the manifest of new slides.
    """

    model: Model
    tiling: dict[str, Any]
    patients: int
    slides: int
    manifest_hash: str


def prepare_prediction(
    model: str,
    manifest: str,
    images_root: str,
    out_manifest: str,
    *,
    manifest_hash: str = "",
    tile_px: int = 0,
    mpp: float = 0.0,
    endpoint: str = "",
) -> Prepared:
    """Writes the manifest that the tiling step takes, and says where the model is and how to tile for it.

    Args:
        model: a model's folder (disk or `gs://`), or `projects/P/locations/L/models/ID[@version or alias]`.
        manifest: CSV of the new slides; `label` may be missing or empty, `split` is not looked at.
        images_root: folder or bucket prefix of the images.
        out_manifest: where the manifest goes.
        manifest_hash: sha256 hex of the manifest's bytes, checked where given.
        tile_px: what the user believes the model takes, px; 0 for "as the model says".
        mpp: the same, µm/px.
        endpoint: of a stand-in for the registry.

    Raises:
        InputError: no such model, other tiles than the model's, or a manifest that can't be used.
    """
    found = find_model(model, endpoint)
    tiling = choose_tiling(found, tile_px=tile_px, mpp=mpp)
    slides = read_manifest(manifest, labelled=False)
    if manifest_hash and slides.digest != manifest_hash:
        raise InputError("changed since the run was started", where=manifest, mend="start again")
    _, problems = find_images(slides.rows, images_root)
    refuse_rows(manifest, problems)
    columns = [name for name in slides.columns if name != "split"]
    if "label" not in columns:
        columns.append("label")
    write_manifest(out_manifest, tuple(columns), _settle_labels(slides))
    patients = len({row.patient_id for row in slides.rows})
    log.info("%d slides of %d patients, for %s", len(slides.rows), patients, found.version or found.uri)
    return Prepared(found, tiling, patients, len(slides.rows), slides.digest)


def find_model(model: str, endpoint: str = "") -> Model:
    """The model's place and card.

    Raises:
        InputError: it is not there, or no bag model.
    """
    version = None
    uri = model.rstrip("/")
    if is_resource(model):
        name = parse_model_name(model)
        version = Registry(name.project, name.location, endpoint).find(model)
        if version is None:
            raise InputError("is not registered", where=model, mend="check the id, and the version or alias behind @")
        uri = version.artifact_uri.rstrip("/")
    path = storage.join(uri, CARD)
    if not uri or storage.stat(path) is None:
        raise InputError(f"holds no {CARD}", where=uri or model, mend="name the folder of a model, such as OUT/model")
    return Model(uri, dict(storage.read_json(path)), version)


def choose_tiling(model: Model, *, tile_px: int, mpp: float) -> dict[str, Any]:
    """The tiling parameters that the model's own records were made with.

    Raises:
        InputError: the model does not say, or `tile_px` or `mpp` is given and another than the model's.
    """
    said = model.card.get("tiling") or {}
    missing = [name for name in TILING if name not in said]
    if missing:
        raise InputError(
            f"does not say how its slides were tiled ({name_first(missing, 3)})",
            where=storage.join(model.uri, CARD),
            mend="train it again with this version",
        )
    for name, given in (("tile_px", tile_px), ("mpp", mpp)):
        if given and given != said[name]:
            raise InputError(
                f"{given:g} is not the model's {said[name]:g}", where=name, mend="leave it out: the model says it"
            )
    return {name: said[name] for name in TILING}


def _settle_labels(manifest: Manifest) -> Iterable[Row]:
    """Every row with its patient's label, where one is known, and without a split."""
    known: dict[str, set[str]] = {}
    for row in manifest.rows:
        known.setdefault(row.patient_id, set()).update({row.label} - {UNKNOWN_LABEL})
    torn = [patient for patient, labels in known.items() if len(labels) > 1]
    if torn:
        raise InputError(
            f"patients with two labels: {name_first(torn)}", where=manifest.path, mend="give a patient one, or none"
        )
    return (replace(row, label=next(iter(known[row.patient_id]), UNKNOWN_LABEL), split="") for row in manifest.rows)


def copy_model(uri: str, target: str) -> None:
    """Copies a model's folder from a bucket, for steps that can't read it there."""
    for name, info in storage.list_files(uri).items():
        storage.write_bytes(os.path.join(target, name), storage.read_bytes(info.path))


def describe_model(prepared: Prepared) -> dict[str, Any]:
    """The metadata that the model's artifact carries."""
    card, version = prepared.model.card, prepared.model.version
    return {
        "model_code_version": str(card.get("code_version", "")),
        "model_manifest_hash": str(card.get("manifest_hash", "")),
        "labels": ",".join(card.get("label_names", [])),
        "resourceName": str(version.name) if version else "",
        "display_name": version.display_name if version else "",
    }
