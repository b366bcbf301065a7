"""FROC as in CAMELYON16: how many lesions are found at how many false positives a slide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.records.errors import InputError
from components.records.provenance import derive_seed
from components.statistics.delong import estimate_auc
from components.statistics.metrics import Array, Indices

FALSE_POSITIVES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class SlideDetections:
    """One slide's detections, and its lesions.

    Attributes:
        image_id: the slide.
        x: where each detection lies, level-0 px, [n].
        y: the same, downwards.
        scores: the higher the surer, [n].
        lesions: int [h, w], 0 outside, each lesion its own number from 1; None for a slide without a lesion.
        downsample: level-0 px a pixel of `lesions`.
        ignored: lesions that count for nothing, such as isolated tumour cells: detections in them neither hit nor miss.
    """

    image_id: str
    x: Array
    y: Array
    scores: Array
    lesions: NDArray[np.integer[Any]] | None = None
    downsample: float = 1.0
    ignored: frozenset[int] = field(default_factory=frozenset)


@dataclass(frozen=True)
class MatchedSlide:
    """A slide's detections sorted out: scores outside lesions, and the best score of each lesion (-inf: not found)."""

    image_id: str
    false_positives: Array
    lesion_scores: Array


@dataclass(frozen=True)
class Froc:
    """The curve from no detection to all of them, and the score.

    Attributes:
        false_positives: mean a slide, rising, [points].
        sensitivity: share of lesions found, [points].
        threshold: the lowest score that counts, [points]; the first is infinite.
        at: false positives a slide → sensitivity there; None without lesions, `reason` says so.
        score: mean of `at`.
        slides, lesions: how many took part.
    """

    false_positives: Array
    sensitivity: Array
    threshold: Array
    at: dict[str, float] | None
    score: float | None
    slides: int
    lesions: int
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """What `metrics.json` takes: all but the curve."""
        return {
            "score": self.score,
            "sensitivity_at": self.at,
            "slides": self.slides,
            "lesions": self.lesions,
            "reason": self.reason,
        }


def match_detections(slide: SlideDetections) -> MatchedSlide:
    """Holds a slide's detections against its lesions.

    Of several detections in one lesion the best counts and the others count for nothing; one outside every lesion,
    or off the mask, is a false positive.

    Raises:
        InputError: x, y and scores have different lengths, or a value is not finite.
    """
    x, y, scores = (np.asarray(values, np.float64) for values in (slide.x, slide.y, slide.scores))
    if not (x.shape == y.shape == scores.shape) or x.ndim != 1:
        raise InputError("x, y and scores differ in length", where=slide.image_id, mend="give one of each a detection")
    if not (np.isfinite(x).all() and np.isfinite(y).all() and np.isfinite(scores).all()):
        raise InputError("a detection is not finite", where=slide.image_id, mend="leave it out")
    if slide.lesions is None:
        return MatchedSlide(slide.image_id, scores, np.zeros(0))
    rows, columns = (np.floor(values / slide.downsample).astype(np.int64) for values in (y, x))
    height, width = slide.lesions.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    hit = np.zeros(len(scores), np.int64)
    hit[inside] = slide.lesions[rows[inside], columns[inside]]
    wanted = [int(number) for number in np.unique(slide.lesions) if number > 0 and int(number) not in slide.ignored]
    best = [float(scores[hit == number].max(initial=-np.inf)) for number in wanted]
    return MatchedSlide(slide.image_id, scores[hit == 0], np.array(best, np.float64))


def froc_curve(slides: Sequence[MatchedSlide]) -> Froc:
    """The FROC of matched slides, as CAMELYON16 scores it (Ehteshami Bejnordi et al. 2017, JAMA 318, 2199).

    Slides without a lesion count in the mean of false positives. Between two points of the curve sensitivity is
    interpolated; beyond its last one it stays.
    """
    lesions = sum(len(slide.lesion_scores) for slide in slides)
    if not slides or not lesions:
        nothing = np.zeros(0)
        lack = "there is no lesion" if slides else "there is no slide"
        return Froc(nothing, nothing, nothing, None, None, len(slides), lesions, lack)
    false = np.sort(np.concatenate([slide.false_positives for slide in slides]))
    found = np.concatenate([slide.lesion_scores for slide in slides])
    found = np.sort(found[np.isfinite(found)])
    cuts = np.unique(np.concatenate([false, found]))[::-1]
    rate = np.concatenate([[0.0], (len(false) - np.searchsorted(false, cuts)) / len(slides)])
    sensitivity = np.concatenate([[0.0], (len(found) - np.searchsorted(found, cuts)) / lesions])
    values = np.interp(FALSE_POSITIVES, rate, sensitivity)
    at = {f"{limit:g}": float(value) for limit, value in zip(FALSE_POSITIVES, values, strict=True)}
    threshold = np.concatenate([[np.inf], cuts])
    return Froc(rate, sensitivity, threshold, at, float(values.mean()), len(slides), lesions)


def froc_interval(slides: Sequence[MatchedSlide], samples: int = 1000, seed: int = 0) -> list[float] | None:
    """95% percentile interval of the FROC score; slides are drawn with replacement. None without lesions."""
    random = np.random.default_rng(derive_seed(seed, "froc"))
    draws = (froc_curve([slides[at] for at in random.integers(0, len(slides), len(slides))]) for _ in range(samples))
    scores = [drawn.score for drawn in draws if drawn.score is not None] if len(slides) else []
    return [float(value) for value in np.percentile(scores, [2.5, 97.5])] if scores else None


def tile_auc(tile_labels: Indices, scores: Array) -> dict[str, Any]:
    """AUC of tiles against the mask, all slides together: `auc`, DeLong's `ci95`, `tiles`, `marked`, `reason`.

    The interval takes tiles for independent, which those of one slide are not: it is too narrow.

    Args:
        tile_labels: 1 marked, 0 not, -1 unknown and left out, [tiles].
        scores: [tiles].
    """
    known = tile_labels >= 0
    positive = tile_labels[known] == 1
    estimate = estimate_auc(positive, np.asarray(scores[known], np.float64))
    return {**estimate.to_json(), "tiles": int(known.sum()), "marked": int(positive.sum())}


def slide_auc(slide_labels: Sequence[bool], tile_scores: Sequence[Array]) -> dict[str, Any]:
    """AUC of slides by their highest tile: `auc`, DeLong's `ci95`, `slides`, `positive`, `reason`.

    Args:
        slide_labels: whether each slide holds a lesion.
        tile_scores: of each slide, its tiles' scores; a slide without tiles is left out.
    """
    pairs = [(bool(label), float(np.max(s))) for label, s in zip(slide_labels, tile_scores, strict=True) if len(s)]
    positive = np.array([label for label, _ in pairs], bool)
    estimate = estimate_auc(positive, np.array([score for _, score in pairs], np.float64))
    return {**estimate.to_json(), "slides": len(pairs), "positive": int(positive.sum())}
