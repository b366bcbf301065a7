"""AUC of tiles or slides with intervals that know that those of one patient are alike: patients are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.records.provenance import derive_seed
from components.statistics.delong import estimate_auc
from components.statistics.metrics import Array

_BINS = 4096


def clustered_auc(
    positive: NDArray[np.bool_], scores: Array, clusters: Sequence[str], *, samples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """AUC of all items together, and its 95% percentile interval over draws of whole clusters with replacement.

    The point is exact; in the draws scores of one of 4,096 bins of equal numbers of items are ties.

    Args:
        positive: [n].
        scores: [n], the higher the surer.
        clusters: the patient of each, [n].
        samples: how many times patients are drawn (Field & Welsh 2007, J. R. Stat. Soc. B 69, 369); 0 for no interval.
        seed: of the draws.

    Returns:
        `auc`, `ci95`, `n`, `positive`, `clusters` and, where one is None, `reason`.
    """
    estimate = estimate_auc(positive, scores)
    names, member = np.unique(np.asarray(clusters, str), return_inverse=True)
    found: dict[str, Any] = {
        "auc": estimate.auc,
        "ci95": None,
        "n": len(scores),
        "positive": int(positive.sum()),
        "clusters": len(names),
        "reason": estimate.reason if estimate.auc is None else "",
    }
    if estimate.auc is None or samples < 1:
        return found
    if len(names) < 2:
        return {**found, "reason": "there is one patient only"}
    histograms = _histograms(positive, scores, member, len(names))
    random = np.random.default_rng(derive_seed(seed, "clusters"))
    draws = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=samples).astype(np.float64)
    others, marked = (draws @ histogram for histogram in histograms)
    below = np.cumsum(others, axis=1) - others
    pairs = marked.sum(axis=1) * others.sum(axis=1)
    drawn = (marked * (below + others / 2)).sum(axis=1)[pairs > 0] / pairs[pairs > 0]
    return {**found, "ci95": [float(value) for value in np.percentile(drawn, [2.5, 97.5])]}


def _histograms(
    positive: NDArray[np.bool_], scores: Array, member: NDArray[np.int64], clusters: int
) -> tuple[Array, Array]:
    """How many unmarked and how many marked items of each cluster lie in each bin, [clusters, bins] each."""
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, min(_BINS, len(scores)) + 1), method="nearest"))
    bins = np.searchsorted(edges, scores, "right")
    made = []
    for kind in (False, True):
        histogram = np.zeros((clusters, len(edges) + 1))
        np.add.at(histogram, (member[positive == kind], bins[positive == kind]), 1)
        made.append(histogram)
    return made[0], made[1]
