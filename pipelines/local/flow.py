"""Which artifacts each step reads and makes."""

from __future__ import annotations

# step → the artifacts (by lineage name) it reads and the one it makes
FLOW: dict[str, tuple[tuple[str, ...], str]] = {
    "split": ((), "split"),
    "tile": (("split",), "records"),
    "validate": (("records",), "validation"),
    "train": (("records", "validation"), "model"),
    "evaluate": (("records", "validation", "model"), "evaluation"),
    "prepare": ((), "split"),
    "predict": (("records", "validation", "model"), "predictions"),
}
MADE_BESIDE = {"model": ("training",)}
TAKES_MANIFEST = ("split", "prepare")
