"""Which artifacts each step reads and makes."""

from __future__ import annotations

# step → the artifacts (by lineage name) it reads and the one it makes
FLOW: dict[str, tuple[tuple[str, ...], str]] = {
    "split": ((), "split"),
    "tile": (("split",), "records"),
    "validate": (("records",), "validation"),
    "train": (("records", "validation"), "model"),
    "evaluate": (("records", "validation", "model"), "evaluation"),
}
MADE_BESIDE = {"model": ("training",)}
