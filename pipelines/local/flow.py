"""Which artifacts each step reads and makes."""

from __future__ import annotations

# step → the artifacts (by lineage name) it reads and the one it makes
FLOW: dict[str, tuple[tuple[str, ...], str]] = {
    "split": ((), "split"),
    "tile": (("split",), "records"),
    "validate": (("records",), "validation"),
    "embed": (("records", "validation"), "embeddings"),
    "train": (("records", "validation"), "model"),
    "evaluate": (("records", "validation", "model"), "evaluation"),
    "prepare": ((), "split"),
    "summarise": ((), "evaluation"),
    "predict": (("records", "validation", "model"), "predictions"),
}


def flow_of(step: str) -> tuple[tuple[str, ...], str]:
    """What a step reads and makes; `train r0_f1` is a fold's, whose artifacts are named by their place in OUT."""
    kind, _, fold = step.partition(" ")
    place = f"folds/{fold}"
    if fold and kind == "train":
        return ("records", "validation", f"{place}/split.csv"), f"{place}/model"
    if fold and kind == "evaluate":
        return ("records", "validation", f"{place}/split.csv", f"{place}/model"), f"{place}/evaluation"
    return FLOW[step]


MADE_BESIDE = {"model": ("training",)}
TAKES_MANIFEST = ("split", "prepare")
