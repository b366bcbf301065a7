"""From the tiles of a slide to one score: which rule, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.statistics.delong import estimate_auc

# name → how many of the highest tiles are averaged
RULES: dict[str, int] = {"max": 1, "mean_top_5": 5, "mean_top_20": 20}
CHOSEN = "validation"


@dataclass(frozen=True)
class SlideScore:
    """One slide: `scores` by each rule, and whether it holds a lesion (None: not known)."""

    image_id: str
    patient_id: str
    label: str
    split: str
    tiles: int
    marked: int
    lesion: bool | None
    scores: Mapping[str, float]


@dataclass(frozen=True)
class SlideRule:
    """The rule in use, how it was come by, and the validation AUC of each."""

    name: str
    how: str
    validation_auc: Mapping[str, float | None] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As `metrics.json` holds it."""
        return asdict(self)


def score_slide(probabilities: NDArray[np.floating[Any]]) -> dict[str, float]:
    """The slide's score by each rule: the mean of its so many highest tiles, of all where it has fewer."""
    ordered = np.sort(np.asarray(probabilities, np.float64))[::-1]
    return {name: float(ordered[:count].mean()) for name, count in RULES.items()}


def choose_rule(wanted: str, slides: Sequence[SlideScore]) -> SlideRule:
    """The rule that is asked for, or the best on validation slides; of equals the simplest."""
    if wanted != CHOSEN:
        return SlideRule(wanted, "as asked for")
    known = [slide for slide in slides if slide.split == "val" and slide.lesion is not None]
    truth = np.array([slide.lesion for slide in known], bool)
    aucs = {name: estimate_auc(truth, np.array([slide.scores[name] for slide in known])).auc for name in RULES}
    if any(auc is None for auc in aucs.values()):
        return SlideRule("max", "there are no validation slides with and without a lesion to choose by")
    return SlideRule(max(RULES, key=lambda name: aucs[name] or 0.0), "highest AUC on the validation slides", aucs)
