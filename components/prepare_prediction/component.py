"""The KFP face of prepare_prediction."""

from typing import NamedTuple

from kfp import dsl


@dsl.component(base_image="bagline-pipeline:python3.11", install_kfp_package=False)
def prepare_prediction(
    model: str,
    manifest: str,
    images_root: str,
    slides: dsl.Output[dsl.Dataset],
    saved_model: dsl.Output[dsl.Model],
    manifest_hash: str = "",
    images_fingerprint: str = "",
    model_digest: str = "",
    tile_px: int = 0,
    mpp: float = 0.0,
) -> NamedTuple(  # type: ignore[valid-type]
    "Tiling",
    [
        ("tile_px", int),
        ("mpp", float),
        ("level", int),
        ("stride", int),
        ("min_tissue", float),
        ("max_pen", float),
        ("max_fold", float),
        ("min_sharpness", float),
        ("max_tiles_per_slide", int),
        ("tile_sampling", str),
        ("tile_format", str),
        ("jpeg_quality", int),
        ("seed", int),
    ],
):
    """Finds the model, checks the new slides' manifest, and takes from the model how they have to be tiled."""
    import logging
    from collections import namedtuple

    logging.basicConfig(level=logging.INFO, format="%(message)s")

    from components.prepare_prediction.prepare import TILING, copy_model, describe_model
    from components.prepare_prediction.prepare import prepare_prediction as prepare
    from components.records.provenance import artifact_metadata
    from components.records.storage import is_remote

    done = prepare(model, manifest, images_root, slides.path, manifest_hash=manifest_hash, tile_px=tile_px, mpp=mpp)
    if is_remote(done.model.uri) and not is_remote(saved_model.uri):
        copy_model(done.model.uri, saved_model.path)
    else:
        saved_model.uri = done.model.uri
    facts = artifact_metadata(
        manifest_hash=done.manifest_hash,
        patients=done.patients,
        slides=done.slides,
        tile_px=done.tiling["tile_px"],
        mpp=done.tiling["mpp"],
    )
    slides.metadata.update(facts)
    saved_model.metadata.update(facts, **describe_model(done))
    return namedtuple("Tiling", TILING)(**done.tiling)
