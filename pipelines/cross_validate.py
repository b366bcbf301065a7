"""The cross-validation pipeline: split into folds, tile and validate once; train and evaluate each fold; summarise.

Folds are unrolled when the pipeline is built, so that the graph has no control flow, every fold's model is an
artifact of its own, and Vertex AI runs the folds side by side.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from kfp import dsl

from components.embed_tiles.component import embed_tiles
from components.evaluate.component import evaluate
from components.split_metadata.component import define_split_folds
from components.split_metadata.options import fold_names
from components.summarise_folds.component import define_summarise_folds
from components.tile_images.component import await_tiling, tile_images
from components.train_mil.component import train_mil
from components.validate_records.component import validate_records
from pipelines.resources import DEFAULTS, Resources, apply_resources, as_custom_job
from pipelines.shared_parameters import parameters_of_steps

NAME = "cross-validate"
FOLDS, REPEATS = 5, 1
# what the build decides, and what a gate would need: a fold's model is not one to be used alone
_NOT_PARAMETERS = {"folds", "repeats", "gate_metric", "gate_split", "gate_threshold", "previous_metrics"}


def build(
    *,
    folds: int = FOLDS,
    repeats: int = REPEATS,
    steps: tuple[str, ...] = (),
    earlier: Mapping[str, tuple[str, str]] | None = None,
    resources: Mapping[str, Resources] | None = None,
    local_code_version: str = "",
) -> Any:
    """Builds the pipeline. Its parameters are those of the steps it is made of, but `folds` and `repeats`.

    Args:
        folds: number of folds.
        repeats: how often patients are dealt out to folds anew.
        steps: where `embed` is among them, or on Vertex AI, there is this step; the others are always there.
        earlier: not used: what was made before is in the cache.
        resources: what each step asks of Vertex AI (default: `pipelines.resources.DEFAULTS`).
        local_code_version: for a run on this machine: takes the place of the images' digests in the cache's key,
            and leaves out requests and retries, which mean nothing here.

    Returns:
        The KFP pipeline; `.pipeline_spec` is its compiled form.
    """
    wanted = resources or DEFAULTS
    in_cloud = not local_code_version
    split_folds = define_split_folds(folds, repeats)
    summarise_folds = define_summarise_folds(fold_names(folds, repeats))
    train = (
        as_custom_job(train_mil, "train", wanted["train"]) if in_cloud and wanted["train"].is_custom_job else train_mil
    )
    faces = (split_folds, tile_images, validate_records, embed_tiles, train_mil, evaluate)
    parameters = parameters_of_steps(*faces, without=_NOT_PARAMETERS)

    def place(task: Any, step: str, fold: str = "") -> Any:
        task.set_display_name(f"{step} {fold}".strip())
        if in_cloud:
            apply_resources(task, wanted[step])
        else:
            task.set_env_variable("BAGLINE_CODE_VERSION", local_code_version)
        return task

    def cross_validate(*values: Any) -> None:
        given = {parameter.name: value for parameter, value in zip(parameters, values, strict=True)}

        def run(component: Any, face: Any, **more: Any) -> Any:
            known = inspect.signature(face.python_func).parameters
            return component(**{name: value for name, value in given.items() if name in known}, **more)

        split = place(run(split_folds, split_folds, folds=folds, repeats=repeats), "split").outputs
        task = place(run(tile_images, tile_images, split_manifest=split["cohort"]), "tile")
        records = task.outputs["records"]
        if in_cloud:  # as in the whole-slide pipeline
            task.set_env_variable("BAGLINE_LAUNCH_ONLY", "1")
            waited = await_tiling(tiled=records, gcp_resources=task.outputs["gcp_resources"])
            records = place(waited, "wait").outputs["records"]
        checked = place(run(validate_records, validate_records, records=records), "validate").outputs
        on_embeddings: dict[str, Any] = {}
        if in_cloud or "embed" in steps:
            task = place(run(embed_tiles, embed_tiles, dataset=checked["dataset"]), "embed")
            on_embeddings["embedded"] = task.outputs["embedded"]
        evaluations = {}
        for name in fold_names(folds, repeats):
            trained = run(train, train_mil, dataset=checked["dataset"], split_table=split[name], **on_embeddings)
            made = place(trained, "train", name).outputs
            task = run(
                evaluate,
                evaluate,
                dataset=checked["dataset"],
                model=made["model"],
                training=made["training"],
                validation=checked["validation"],
                split_table=split[name],
                **on_embeddings,
            )
            evaluations[name] = place(task, "evaluate", name).outputs["evaluation"]
        place(run(summarise_folds, summarise_folds, **evaluations), "summarise")

    cross_validate.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    cross_validate.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    description = (
        f"{folds} folds by patient{f', dealt out {repeats} times' if repeats > 1 else ''}: mean, spread, ensemble."
    )
    return dsl.pipeline(cross_validate, name=NAME, description=description)
