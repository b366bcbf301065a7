"""What attention says: ranks that can be read, agreement with lesion masks, and the tiles it rests on."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components.records.dataset import RecordSpan

if TYPE_CHECKING:
    from components.mil.inference import BagPrediction

_HISTOGRAM_BINS = 1 << 16
_HISTOGRAM_RANGE = (-48.0, 16.0)


def rank_attention(attention: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Each tile's attention as its percentile within the patient, 0 (least) to 1 (most); equal values share one.

    Attention is softmax output: raw values span decades, and a few tiles would hide all others on a colour scale.

    Args:
        attention: [n].

    Returns:
        float64 [n]; 0.5 for every tile where all are equal.
    """
    count = len(attention)
    if count == 0:
        return np.zeros(0)
    values, inverse, tally = np.unique(attention, return_inverse=True, return_counts=True)
    if len(values) == 1:
        return np.full(count, 0.5)
    below = np.cumsum(tally) - tally
    middle = below + (tally - 1) / 2
    return np.asarray(middle[inverse] / (count - 1), np.float64)


def relative_attention(attention: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Attention as a multiple of what every tile would get were all alike: comparable between bags of any size."""
    return np.asarray(attention, np.float64) * len(attention)


def pair_auc(scores: NDArray[np.floating[Any]], positive: NDArray[np.bool_]) -> float:
    """AUC of scores [n] against positive [n]; both kinds must occur."""
    ranks = rank_attention(scores) * (len(scores) - 1)
    above, below = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - above * (above - 1) / 2) / (above * below))


@dataclass
class MaskAgreement:
    """AUC of attention against tile labels, in memory that does not grow with the tiles.

    Per slide exactly, for slides with both kinds of tile; pooled over the patients with at least one marked
    tile, from a histogram of log2 of the relative attention (bins of 0.001).
    """

    slide_aucs: list[float] = field(default_factory=list)
    patients: int = 0
    _positive: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_HISTOGRAM_BINS, np.int64))
    _negative: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_HISTOGRAM_BINS, np.int64))
    _attention_sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))

    def add(self, bag: BagPrediction) -> None:
        """Counts one patient's tiles; those without a tile label are left out."""
        known = bag.tile_labels >= 0
        marked = bag.tile_labels == 1
        if not (known & marked).any():
            return
        self.patients += 1
        relative = relative_attention(bag.attention)
        images = np.asarray(bag.image_ids)
        for image_id in dict.fromkeys(bag.image_ids):
            here = known & (images == image_id)
            positive = marked[here]
            if positive.any() and not positive.all():
                self.slide_aucs.append(pair_auc(bag.attention[here], positive))
        low, high = _HISTOGRAM_RANGE
        logs = np.log2(np.maximum(relative, 2.0**low))
        bins = ((logs - low) / (high - low) * _HISTOGRAM_BINS).astype(np.int64).clip(0, _HISTOGRAM_BINS - 1)
        np.add.at(self._positive, bins[known & marked], 1)
        np.add.at(self._negative, bins[known & ~marked], 1)
        self._attention_sums += [relative[known & marked].sum(), relative[known & ~marked].sum()]

    def to_json(self) -> dict[str, Any]:
        """`auc_pooled`, `auc_slide_mean`, and how much more attention a marked tile gets than another (`lift`)."""
        marked, others = int(self._positive.sum()), int(self._negative.sum())
        pooled = lift = None
        if marked and others:
            below = np.cumsum(self._negative) - self._negative
            pooled = float((self._positive * (below + self._negative / 2)).sum() / (marked * others))
            on, off = self._attention_sums / [marked, others]
            lift = float(on / off) if off > 0 else None
        return {
            "auc_pooled": pooled,
            "auc_slide_mean": float(np.mean(self.slide_aucs)) if self.slide_aucs else None,
            "lift": lift,
            "patients": self.patients,
            "slides": len(self.slide_aucs),
            "tiles_marked": marked,
            "tiles_unmarked": others,
        }


@dataclass(frozen=True, order=True)
class TopTile:
    """A tile that got much attention; `relative` is a multiple of the patient's mean. Sorts by `relative`."""

    relative: float
    patient_id: str
    image_id: str
    x: int
    y: int
    span: RecordSpan = field(compare=False)
    tile_label: int = field(default=-1, compare=False)


@dataclass
class TopTiles:
    """The most attended tiles of each label's patients: at most `keep` a label and `per_patient` of one patient."""

    keep: int = 12
    per_patient: int = 3
    _heaps: dict[str, list[TopTile]] = field(default_factory=dict)

    def add(self, bag: BagPrediction) -> None:
        """Offers one patient's tiles."""
        heap = self._heaps.setdefault(bag.label, [])
        relative = relative_attention(bag.attention)
        order = np.lexsort((bag.x, bag.y, -relative))
        for index in order[: self.per_patient]:
            tile = TopTile(
                float(relative[index]),
                bag.patient_id,
                bag.image_ids[index],
                int(bag.x[index]),
                int(bag.y[index]),
                bag.spans[index],
                int(bag.tile_labels[index]),
            )
            if len(heap) < self.keep:
                heapq.heappush(heap, tile)
            else:
                heapq.heappushpop(heap, tile)

    def by_label(self) -> dict[str, list[TopTile]]:
        """Each label's tiles, the most attended first; labels sorted."""
        return {label: sorted(self._heaps[label], reverse=True) for label in sorted(self._heaps)}
