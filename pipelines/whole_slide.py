"""The whole-slide pipeline: split → tile → validate → (embed) → train → evaluate → (register), without control flow."""

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from components.embed_tiles.component import embed_tiles
from components.evaluate.component import evaluate
from components.register_model.component import register_model
from components.split_metadata.component import split_metadata
from components.tile_images.component import await_tiling, tile_images
from components.train_mil.component import train_mil
from components.validate_records.component import validate_records
from pipelines.catalog import STEPS
from pipelines.resources import DEFAULTS, Resources, apply_resources, as_custom_job

NAME = "whole-slide"
ALL_STEPS = tuple(step.name for step in STEPS)
# Vertex AI puts them in; google_cloud_pipeline_components has the same two.
PROJECT, LOCATION = "{{$.pipeline_google_cloud_project_id}}", "{{$.pipeline_google_cloud_location}}"


def build(  # noqa: C901 - one line of steps, each left out or not
    *,
    steps: tuple[str, ...] = ALL_STEPS,
    earlier: Mapping[str, tuple[str, str]] | None = None,
    resources: Mapping[str, Resources] | None = None,
    local_code_version: str = "",
) -> Any:
    """Builds the pipeline.

    Args:
        steps: which steps it holds, in order. A run on this machine leaves out `embed` unless it is asked for; on
            Vertex AI the step is always there and passes on nothing unless the parameter `embeddings` is set.
        earlier: for a pipeline that starts later: URI and digest of `split`, `records`, `validation`, `embeddings`,
            `model` and `training` as an earlier run left them.
        resources: what each step asks of Vertex AI (default: `pipelines.resources.DEFAULTS`).
        local_code_version: for a run on this machine: takes the place of the images' digests in the cache's key,
            and leaves out requests and retries, which mean nothing here, and the steps of the cloud.

    Returns:
        The KFP pipeline; `.pipeline_spec` is its compiled form.
    """
    wanted = resources or DEFAULTS
    given = earlier or {}
    in_cloud, asked = not local_code_version, wanted["train"]
    train = as_custom_job(train_mil, "train", asked) if in_cloud and asked.is_custom_job else train_mil

    def place(task: Any, step: str) -> Any:
        task.set_display_name(step)
        if not in_cloud:
            task.set_env_variable("BAGLINE_CODE_VERSION", local_code_version)
        else:
            apply_resources(task, wanted[step])
        return task

    made: dict[str, Any] = {}

    def take(name: str, kind: Any) -> Any:
        if name not in made:
            made[name] = bring(name, kind)
        return made[name]

    def bring(name: str, kind: Any) -> Any:
        uri, digest = given[name]
        task = dsl.importer(artifact_uri=uri, artifact_class=kind, metadata={"digest": digest})
        return task.set_display_name(f"earlier {name}").output

    @dsl.pipeline(
        name=NAME,
        description="Whole-slide images of patients to a trained, explained, traceable multiple-instance model.",
    )
    def whole_slide(
        manifest: str,
        images_root: str,
        manifest_hash: str = "",
        images_fingerprint: str = "",
        seed: int = 0,
        split_by: str = "patient",
        val_share: float = 0.15,
        test_share: float = 0.15,
        folds: int = 0,
        fold: int = 0,
        previous_split: str = "",
        tile_px: int = 256,
        mpp: float = 0.5,
        level: int = 0,
        stride: int = 0,
        min_tissue: float = 0.005,
        max_pen: float = 0.02,
        max_fold: float = 1.0,
        min_sharpness: float = 0.0,
        max_tiles_per_slide: int = 0,
        tile_sampling: str = "even",
        default_mpp: float = 0.0,
        allow_absurd_mpp: bool = False,
        mpp_tolerance: float = 0.1,
        min_lesion: float = 0.0,
        lesion_classes: str = "",
        max_failed_share: float = 0.0,
        tile_format: str = "jpeg",
        jpeg_quality: int = 90,
        part_bytes: int = 268435456,
        region_tiles: int = 512,
        qc: bool = True,
        runner: str = "DirectRunner",
        workers: int = 1,
        beam_options: list = [],  # type: ignore[type-arg]  # noqa: B006 - KFP reads the default and never changes it
        dataflow: dict = {},  # type: ignore[type-arg]  # noqa: B006
        max_blank_share: float = 0.5,
        blank_deviation: float = 6.0,
        max_duplicates_across_splits: int = 0,
        max_duplicates_within_split: int = 0,
        max_colour_drift: float = 0.8,
        colour_drift_fails: bool = False,
        min_patients_per_class: int = 1,
        max_mpp_deviation: float = 0.1,
        head: str = "gated_attention",
        encoder: str = "small_cnn",
        encoder_path: str = "",
        freeze_encoder: bool = True,
        embedding_dim: int = 128,
        attention_dim: int = 64,
        input_px: int = 0,
        epochs: int = 30,
        tiles_per_bag: int = 128,
        validation_tiles: int = 128,
        bags_per_batch: int = 4,
        learning_rate: float = 5e-4,
        weight_decay: float = 1e-2,
        dropout: float = 0.0,
        patience: int = 10,
        augment: bool = True,
        stain_normalisation: str = "none",
        class_weights: str = "balanced",
        cache_mb: int = 1024,
        mixed_precision: bool = False,
        embeddings: bool = False,
        embedding_dtype: str = "float16",
        grid: list = [],  # type: ignore[type-arg]  # noqa: B006 - as above
        checkpoint_dir: str = "",
        bootstrap_samples: int = 1000,
        gate_metric: str = "auc",
        gate_split: str = "test",
        gate_threshold: float = 0.0,
        previous_metrics: str = "",
        calibration: str = "temperature",
        threshold_rule: str = "youden",
        wanted_sensitivity: float = 0.95,
        register_as: str = "",
        register_image: str = "",
        register_blessing: str = "not_worse",
        register_labels: dict = {},  # type: ignore[type-arg]  # noqa: B006
    ) -> None:
        if "split" in steps:
            task = split_metadata(
                manifest=manifest,
                images_root=images_root,
                manifest_hash=manifest_hash,
                images_fingerprint=images_fingerprint,
                split_by=split_by,
                val_share=val_share,
                test_share=test_share,
                folds=folds,
                fold=fold,
                seed=seed,
                previous_split=previous_split,
            )
            made["split"] = place(task, "split").outputs["split_manifest"]
        if "tile" in steps:
            task = tile_images(
                split_manifest=take("split", dsl.Dataset),
                images_root=images_root,
                images_fingerprint=images_fingerprint,
                tile_px=tile_px,
                mpp=mpp,
                level=level,
                stride=stride,
                min_tissue=min_tissue,
                max_pen=max_pen,
                max_fold=max_fold,
                min_sharpness=min_sharpness,
                max_tiles_per_slide=max_tiles_per_slide,
                tile_sampling=tile_sampling,
                default_mpp=default_mpp,
                allow_absurd_mpp=allow_absurd_mpp,
                mpp_tolerance=mpp_tolerance,
                min_lesion=min_lesion,
                lesion_classes=lesion_classes,
                max_failed_share=max_failed_share,
                tile_format=tile_format,
                jpeg_quality=jpeg_quality,
                part_bytes=part_bytes,
                region_tiles=region_tiles,
                qc=qc,
                seed=seed,
                runner=runner,
                workers=workers,
                beam_options=beam_options,
                dataflow=dataflow,
            )
            tiled = place(task, "tile").outputs
            made["records"] = tiled["records"]
            if not local_code_version:
                # Here a job on Dataflow is only started; the waiting costs a small machine, not this one.
                task.set_env_variable("BAGLINE_LAUNCH_ONLY", "1")
                task = await_tiling(tiled=tiled["records"], gcp_resources=tiled["gcp_resources"])
                made["records"] = place(task, "wait").outputs["records"]
        if "validate" in steps:
            task = validate_records(
                records=take("records", dsl.Dataset),
                max_blank_share=max_blank_share,
                blank_deviation=blank_deviation,
                max_duplicates_across_splits=max_duplicates_across_splits,
                max_duplicates_within_split=max_duplicates_within_split,
                max_colour_drift=max_colour_drift,
                colour_drift_fails=colour_drift_fails,
                min_patients_per_class=min_patients_per_class,
                max_mpp_deviation=max_mpp_deviation,
                workers=workers,
            )
            checked = place(task, "validate").outputs
            made["records"], made["validation"] = checked["dataset"], checked["validation"]
        if "embed" in steps:
            task = embed_tiles(
                dataset=take("records", dsl.Dataset),
                embeddings=embeddings,
                encoder=encoder,
                encoder_path=encoder_path,
                input_px=input_px,
                stain_normalisation=stain_normalisation,
                embedding_dtype=embedding_dtype,
                seed=seed,
                checkpoint_dir=checkpoint_dir,
            )
            made["embeddings"] = place(task, "embed").outputs["embedded"]
        known = "embeddings" in made or "embeddings" in given
        on_embeddings = {"embedded": take("embeddings", dsl.Dataset)} if known else {}
        if "train" in steps:
            task = train(
                dataset=take("records", dsl.Dataset),
                **on_embeddings,
                head=head,
                encoder=encoder,
                encoder_path=encoder_path,
                freeze_encoder=freeze_encoder,
                embedding_dim=embedding_dim,
                attention_dim=attention_dim,
                input_px=input_px,
                epochs=epochs,
                tiles_per_bag=tiles_per_bag,
                validation_tiles=validation_tiles,
                bags_per_batch=bags_per_batch,
                learning_rate=learning_rate,
                weight_decay=weight_decay,
                dropout=dropout,
                patience=patience,
                augment=augment,
                stain_normalisation=stain_normalisation,
                class_weights=class_weights,
                cache_mb=cache_mb,
                mixed_precision=mixed_precision,
                embeddings=embeddings,
                seed=seed,
                grid=grid,
                checkpoint_dir=checkpoint_dir,
            )
            trained = place(task, "train").outputs
            made["model"], made["training"] = trained["model"], trained["training"]
        if "evaluate" in steps:
            task = evaluate(
                dataset=take("records", dsl.Dataset),
                model=take("model", dsl.Model),
                training=take("training", dsl.Artifact),
                validation=take("validation", dsl.Artifact),
                **on_embeddings,
                bootstrap_samples=bootstrap_samples,
                gate_metric=gate_metric,
                gate_split=gate_split,
                gate_threshold=gate_threshold,
                previous_metrics=previous_metrics,
                calibration=calibration,
                threshold_rule=threshold_rule,
                wanted_sensitivity=wanted_sensitivity,
                seed=seed,
            )
            made["evaluation"] = place(task, "evaluate").outputs["evaluation"]
        if "register" in steps and "evaluation" in made and in_cloud:
            task = register_model(
                model=made["model"],
                evaluation=made["evaluation"],
                dataset=made["records"],
                project=PROJECT,
                location=LOCATION,
                register_as=register_as,
                register_image=register_image,
                register_blessing=register_blessing,
                register_labels=register_labels,
            )
            place(task, "register")

    return whole_slide
