"""The tile-classifier pipeline: split → tile → validate → train → evaluate, on slides with lesion masks.

The same steps as the whole-slide pipeline, with a classifier of single tiles in the place of the bag model.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from kfp import dsl

from components.evaluate_tiles.component import evaluate_tiles
from components.records.errors import InputError
from components.split_metadata.component import split_metadata
from components.tile_images.component import await_tiling, tile_images
from components.train_tiles.component import train_tiles
from components.validate_records.component import validate_records
from pipelines.catalog import TILE_STEPS
from pipelines.resources import DEFAULTS, Resources, apply_resources, as_custom_job
from pipelines.shared_parameters import parameters_of_steps

NAME = "tile-classifier"
ALL_STEPS = tuple(step.name for step in TILE_STEPS)


def build(
    *,
    steps: tuple[str, ...] = ALL_STEPS,
    earlier: Mapping[str, tuple[str, str]] | None = None,
    resources: Mapping[str, Resources] | None = None,
    local_code_version: str = "",
) -> Any:
    """Builds the pipeline. Its parameters are those of the steps it is made of.

    Args:
        steps: which steps it holds, in order.
        earlier: for a pipeline that starts later: URI and digest of `split`, `records`, `validation`, `model`
            and `training` as an earlier run left them.
        resources: what each step asks of Vertex AI (default: `pipelines.resources.DEFAULTS`).
        local_code_version: for a run on this machine: takes the place of the images' digests in the cache's key,
            and leaves out requests and retries, which mean nothing here, and the waiting for Dataflow.

    Returns:
        The KFP pipeline; `.pipeline_spec` is its compiled form.

    Raises:
        InputError: the training is to have several workers.
    """
    wanted = resources or DEFAULTS
    in_cloud, asked = not local_code_version, wanted["train"]
    if asked.workers > 1:
        raise InputError(
            f"{asked.workers} workers can't train a tile classifier", where="resources of train", mend="ask for one"
        )
    train = as_custom_job(train_tiles, "train", asked) if in_cloud and asked.is_custom_job else train_tiles
    faces = (split_metadata, tile_images, validate_records, train_tiles, evaluate_tiles)
    parameters = parameters_of_steps(*faces)

    def place(task: Any, step: str) -> Any:
        task.set_display_name(step)
        if in_cloud:
            apply_resources(task, wanted[step])
        else:
            task.set_env_variable("BAGLINE_CODE_VERSION", local_code_version)
        return task

    def tile_classifier(*values: Any) -> None:
        given = {parameter.name: value for parameter, value in zip(parameters, values, strict=True)}

        def run(face: Any, step: str, **more: Any) -> Any:
            known = inspect.signature(face.python_func).parameters
            component = train if face is train_tiles else face
            return place(component(**{name: value for name, value in given.items() if name in known}, **more), step)

        _chain(steps, run, place, earlier or {}, in_cloud=in_cloud)

    tile_classifier.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    tile_classifier.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    description = "Whole-slide images with lesion masks to a classifier of tiles: tile AUC, slide AUC, FROC, heatmaps."
    return dsl.pipeline(tile_classifier, name=NAME, description=description)


def _chain(
    steps: tuple[str, ...],
    run: Callable[..., Any],
    place: Callable[[Any, str], Any],
    earlier: Mapping[str, tuple[str, str]],
    *,
    in_cloud: bool,
) -> None:
    """Makes the tasks of the steps; what none of them makes is brought from an earlier run."""
    made: dict[str, Any] = {}

    def need(name: str, kind: Any) -> Any:
        if name not in made:
            uri, digest = earlier[name]
            task = dsl.importer(artifact_uri=uri, artifact_class=kind, metadata={"digest": digest})
            made[name] = task.set_display_name(f"earlier {name}").output
        return made[name]

    if "split" in steps:
        made["split"] = run(split_metadata, "split").outputs["split_manifest"]
    if "tile" in steps:
        task = run(tile_images, "tile", split_manifest=need("split", dsl.Dataset))
        made["records"] = task.outputs["records"]
        if in_cloud:  # as in the whole-slide pipeline
            task.set_env_variable("BAGLINE_LAUNCH_ONLY", "1")
            waited = await_tiling(tiled=made["records"], gcp_resources=task.outputs["gcp_resources"])
            made["records"] = place(waited, "wait").outputs["records"]
    if "validate" in steps:
        task = run(validate_records, "validate", records=need("records", dsl.Dataset))
        made["records"], made["validation"] = task.outputs["dataset"], task.outputs["validation"]
    if "train" in steps:
        task = run(train_tiles, "train", dataset=need("records", dsl.Dataset))
        made["model"], made["training"] = task.outputs["model"], task.outputs["training"]
    if "evaluate" in steps:
        run(
            evaluate_tiles,
            "evaluate",
            dataset=need("records", dsl.Dataset),
            model=need("model", dsl.Model),
            training=need("training", dsl.Artifact),
            validation=need("validation", dsl.Artifact),
        )
