"""The pipelines by name, and the steps of each."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType

from components.records.errors import InputError
from components.split_metadata.options import fold_names
from pipelines.parameters import suggest


@dataclass(frozen=True)
class Step:
    """One task of a pipeline.

    Attributes:
        name: as users say it (`--from-step tile`).
        task: as KFP calls it in specs and folders.
        outputs: artifact name → where it stands in OUT; `.` spreads a folder's content over OUT.
        cloud_only: the step is of Vertex AI, and absent in a run on this machine.
    """

    name: str
    task: str
    outputs: dict[str, str]
    cloud_only: bool = False


@dataclass(frozen=True)
class Pipeline:
    """Where a pipeline is built, and its steps in order."""

    module: str
    steps: tuple[Step, ...]


STEPS = (
    Step("split", "split-metadata", {"split_manifest": "split.csv", "split_table": "split.html"}),
    Step("tile", "tile-images", {"records": "."}),
    Step("validate", "validate-records", {"validation": "validation.json", "table": "validation.html"}),
    Step("embed", "embed-tiles", {"embedded": "embeddings"}),
    Step("train", "train-mil", {"model": "model", "training": "training"}),
    Step("evaluate", "evaluate", {"evaluation": "."}),
    Step("register", "register-model", {}, cloud_only=True),
)
TILE_STEPS = (
    *STEPS[:3],
    Step("train", "train-tiles", {"model": "model", "training": "training"}),
    Step("evaluate", "evaluate-tiles", {"evaluation": "."}),
)
PREDICT_STEPS = (
    Step("prepare", "prepare-prediction", {"slides": "split.csv", "saved_model": "model"}),
    Step("tile", "tile-images", {"records": "."}),
    Step("validate", "validate-records", {"validation": "validation.json", "table": "validation.html"}),
    Step("predict", "predict-bags", {"predictions": "."}),
)


def fold_steps(folds: int, repeats: int) -> tuple[Step, ...]:
    """The steps of a cross-validation: of each fold a training and an evaluation, named after it."""
    tables = {name: f"folds/{name}/split.csv" for name in fold_names(folds, repeats)}
    steps = [
        Step("split", "split-folds", {"cohort": "split.csv", "split_table": "split.html", **tables}),
        *(step for step in STEPS if step.name in ("tile", "validate", "embed")),
    ]
    for number, name in enumerate(tables, start=1):
        suffix = f"-{number}" if number > 1 else ""
        place = f"folds/{name}"
        made = {"model": f"{place}/model", "training": f"{place}/training"}
        steps.append(Step(f"train {name}", f"train-mil{suffix}", made))
        steps.append(Step(f"evaluate {name}", f"evaluate{suffix}", {"evaluation": f"{place}/evaluation"}))
    return (*steps, Step("summarise", "summarise-folds", {"summary": "."}))


PIPELINES = {
    "whole-slide": Pipeline("pipelines.whole_slide", STEPS),
    "tile-classifier": Pipeline("pipelines.tile_classifier", TILE_STEPS),
    "batch-predict": Pipeline("pipelines.batch_predict", PREDICT_STEPS),
    "cross-validate": Pipeline("pipelines.cross_validate", fold_steps(5, 1)),
}


def load_pipeline(name: str) -> ModuleType:
    """The module of a pipeline; raises InputError on an unknown name and suggests the right one."""
    if name not in PIPELINES:
        known = ", ".join(PIPELINES)
        raise InputError(
            f"unknown pipeline {name!r}", where="--pipeline", mend=suggest(name, PIPELINES) or f"there is {known}"
        )
    return importlib.import_module(PIPELINES[name].module)


def local_steps(pipeline: str = "whole-slide") -> tuple[Step, ...]:
    """The steps of a run on this machine."""
    return tuple(step for step in PIPELINES[pipeline].steps if not step.cloud_only)


def choose_steps(first: str = "", last: str = "", pipeline: str = "whole-slide") -> tuple[Step, ...]:
    """The steps from `first` to `last`, both included; raises InputError on an unknown name or the wrong order."""
    steps = local_steps(pipeline)
    names = [step.name for step in steps]
    for option, name in (("--from-step", first), ("--to-step", last)):
        if name and name not in names:
            raise InputError(
                f"unknown step {name!r}", where=option, mend=suggest(name, names) or f"steps are {', '.join(names)}"
            )
    start = names.index(first) if first else 0
    end = names.index(last) if last else len(names) - 1
    if start > end:
        raise InputError(f"{first} comes after {last}", where="--from-step", mend="exchange the two")
    return steps[start : end + 1]
