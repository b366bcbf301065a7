"""The batch-prediction pipeline: prepare → tile (→ wait) → validate → predict, a trained model over new slides."""

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from components.predict_bags.component import predict_bags
from components.prepare_prediction.component import prepare_prediction
from components.tile_images.component import await_tiling, tile_images
from components.validate_records.component import validate_records
from pipelines.catalog import PREDICT_STEPS
from pipelines.resources import DEFAULTS, Resources, apply_resources

NAME = "batch-predict"
ALL_STEPS = tuple(step.name for step in PREDICT_STEPS)


def build(
    *,
    steps: tuple[str, ...] = ALL_STEPS,
    earlier: Mapping[str, tuple[str, str]] | None = None,
    resources: Mapping[str, Resources] | None = None,
    local_code_version: str = "",
) -> Any:
    """Builds the pipeline.

    Args:
        steps: all of them, or the first ones.
        earlier: not used: what was made before is in the cache.
        resources: what each step asks of Vertex AI (default: `pipelines.resources.DEFAULTS`).
        local_code_version: for a run on this machine: takes the place of the images' digests in the cache's key,
            and leaves out requests and retries, which mean nothing here, and the waiting for Dataflow.

    Returns:
        The KFP pipeline; `.pipeline_spec` is its compiled form.
    """
    wanted = resources or DEFAULTS

    def place(task: Any, step: str) -> Any:
        task.set_display_name(step)
        if local_code_version:
            task.set_env_variable("BAGLINE_CODE_VERSION", local_code_version)
        else:
            apply_resources(task, wanted[step])
        return task

    @dsl.pipeline(
        name=NAME, description="A trained multiple-instance model over new slides: predictions, heatmaps, a report."
    )
    def batch_predict(
        model: str,
        manifest: str,
        images_root: str,
        manifest_hash: str = "",
        images_fingerprint: str = "",
        model_digest: str = "",
        tile_px: int = 0,
        mpp: float = 0.0,
        default_mpp: float = 0.0,
        allow_absurd_mpp: bool = False,
        mpp_tolerance: float = 0.1,
        max_failed_share: float = 0.0,
        part_bytes: int = 268435456,
        region_tiles: int = 512,
        qc: bool = True,
        min_lesion: float = 0.0,
        lesion_classes: str = "",
        runner: str = "DirectRunner",
        workers: int = 1,
        beam_options: list = [],  # type: ignore[type-arg]  # noqa: B006 - KFP reads the default and never changes it
        dataflow: dict = {},  # type: ignore[type-arg]  # noqa: B006
        max_blank_share: float = 0.5,
        blank_deviation: float = 6.0,
        max_duplicates_within_split: int = 0,
        max_colour_drift: float = 0.8,
        colour_drift_fails: bool = False,
        max_mpp_deviation: float = 0.1,
        heatmaps: bool = True,
    ) -> None:
        task = prepare_prediction(
            model=model,
            manifest=manifest,
            images_root=images_root,
            manifest_hash=manifest_hash,
            images_fingerprint=images_fingerprint,
            model_digest=model_digest,
            tile_px=tile_px,
            mpp=mpp,
        )
        prepared = place(task, "prepare").outputs
        if not local_code_version:
            task.set_caching_options(enable_caching=False)  # an alias moves, and its name stays
        if "tile" not in steps:
            return
        task = tile_images(
            split_manifest=prepared["slides"],
            images_root=images_root,
            images_fingerprint=images_fingerprint,
            tile_px=prepared["tile_px"],
            mpp=prepared["mpp"],
            level=prepared["level"],
            stride=prepared["stride"],
            min_tissue=prepared["min_tissue"],
            max_pen=prepared["max_pen"],
            max_fold=prepared["max_fold"],
            min_sharpness=prepared["min_sharpness"],
            max_tiles_per_slide=prepared["max_tiles_per_slide"],
            tile_sampling=prepared["tile_sampling"],
            tile_format=prepared["tile_format"],
            jpeg_quality=prepared["jpeg_quality"],
            seed=prepared["seed"],
            default_mpp=default_mpp,
            allow_absurd_mpp=allow_absurd_mpp,
            mpp_tolerance=mpp_tolerance,
            max_failed_share=max_failed_share,
            part_bytes=part_bytes,
            region_tiles=region_tiles,
            qc=qc,
            min_lesion=min_lesion,
            lesion_classes=lesion_classes,
            runner=runner,
            workers=workers,
            beam_options=beam_options,
            dataflow=dataflow,
        )
        tiled = place(task, "tile").outputs
        records = tiled["records"]
        if not local_code_version:
            # Here a job on Dataflow is only started; the waiting costs a small machine, not this one.
            task.set_env_variable("BAGLINE_LAUNCH_ONLY", "1")
            task = await_tiling(tiled=tiled["records"], gcp_resources=tiled["gcp_resources"])
            records = place(task, "wait").outputs["records"]
        if "validate" not in steps:
            return
        checked = validate_records(
            records=records,
            max_blank_share=max_blank_share,
            blank_deviation=blank_deviation,
            max_duplicates_within_split=max_duplicates_within_split,
            max_colour_drift=max_colour_drift,
            colour_drift_fails=colour_drift_fails,
            min_patients_per_class=0,
            max_mpp_deviation=max_mpp_deviation,
            workers=workers,
        )
        dataset = place(checked, "validate").outputs["dataset"]
        if "predict" in steps:
            task = predict_bags(dataset=dataset, model=prepared["saved_model"], heatmaps=heatmaps)
            place(task, "predict")

    return batch_predict
