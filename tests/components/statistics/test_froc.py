"""FROC against the challenge's way of counting, and against a case worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from components.records.errors import InputError
from components.statistics.froc import (
    FALSE_POSITIVES,
    SlideDetections,
    froc_curve,
    froc_interval,
    match_detections,
    slide_auc,
    tile_auc,
)
from components.statistics.lesions import find_detections, label_lesions, major_axis


def slide(name: str, found, lesions=None, **more) -> SlideDetections:
    x, y, scores = (np.array([d[at] for d in found], float) for at in range(3)) if found else (np.zeros(0),) * 3
    return SlideDetections(name, x, y, scores, lesions, **more)


def square(*boxes: tuple[int, int], side: int = 20) -> np.ndarray:
    """Lesions 1, 2, … of 4 × 4 px, upper left corners at (x, y)."""
    mask = np.zeros((side, side), np.int32)
    for number, (x, y) in enumerate(boxes, start=1):
        mask[y : y + 4, x : x + 4] = number
    return mask


def camelyon(cases) -> tuple[float, list[float]]:
    """The challenge's evaluation, step by step: cases of (detections, lesion mask or None, ITC labels)."""
    false, true, lesions = [], [], 0
    for detections, mask, small in cases:
        best = {} if mask is None else {n: 0.0 for n in range(1, mask.max() + 1) if n not in small}
        lesions += len(best)
        for x, y, score in detections:
            hit = 0 if mask is None else mask[int(y), int(x)]
            if hit == 0:
                false.append(score)
            elif hit not in small:
                best[hit] = max(best[hit], score)
        true += best.values()
    total_fp, total_tp = [], []
    for cut in sorted({*false, *true} - {0.0}):
        total_fp.append(sum(score >= cut for score in false))
        total_tp.append(sum(score >= cut for score in true))
    fp, tp = np.array([*total_fp, 0]) / len(cases), np.array([*total_tp, 0]) / lesions
    at = np.interp([0.25, 0.5, 1, 2, 4, 8], fp[::-1], tp[::-1])
    return float(at.mean()), at.tolist()


def test_a_case_worked_by_hand() -> None:
    # Two slides, three lesions. By falling score: hit .9, miss .8 (½ a slide), hit .7, a second hit of the first
    # lesion .6 (counts for nothing), miss .5 (1 a slide). The third lesion is never found.
    slides = [
        slide("a", [(1, 1, 0.9), (2, 2, 0.6), (10, 10, 0.8)], square((0, 0), (14, 14))),
        slide("b", [(6, 6, 0.7), (0, 0, 0.5)], square((5, 5))),
    ]
    matched = [match_detections(s) for s in slides]
    assert matched[0].lesion_scores.tolist() == [0.9, -np.inf]
    assert matched[0].false_positives.tolist() == [0.8]
    found = froc_curve(matched)
    assert found.false_positives.tolist() == [0, 0, 0.5, 0.5, 1.0]
    assert found.sensitivity == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
    # at ¼ halfway between (0, ⅓) and (½, ⅓); from ½ on two of three
    assert list(found.at.values()) == pytest.approx([1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3])
    assert found.score == pytest.approx((1 / 3 + 5 * 2 / 3) / 6)
    assert (found.slides, found.lesions) == (2, 3)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 100_000))
def test_the_challenges_way_of_counting_gives_the_same(seed: int) -> None:
    random = np.random.default_rng(seed)
    cases = []
    for number in range(random.integers(1, 6)):
        mask = square((0, 0), (8, 3), (14, 14)) if number == 0 or random.random() < 0.6 else None
        small = frozenset({2} if mask is not None and random.random() < 0.3 else set())
        count = random.integers(0, 30)
        scores = np.round(random.uniform(0.05, 1, count), 1)
        cases.append(
            ([*zip(random.uniform(0, 20, count), random.uniform(0, 20, count), scores, strict=True)], mask, small)
        )
    score, at = camelyon(cases)
    found = froc_curve([match_detections(slide("s", d, mask, ignored=small)) for d, mask, small in cases])
    assert list(found.at.values()) == pytest.approx(at)
    assert found.score == pytest.approx(score)
    assert np.all(np.diff(found.false_positives) >= 0)
    assert np.all(np.diff(found.sensitivity) >= 0)


def test_detections_in_ignored_lesions_and_off_the_mask() -> None:
    matched = match_detections(
        slide("a", [(1, 1, 0.9), (500, 3, 0.4), (-1, 3, 0.3)], square((0, 0), (14, 14)), ignored=frozenset({1}))
    )
    assert matched.false_positives.tolist() == [0.4, 0.3]
    assert matched.lesion_scores.tolist() == [-np.inf]


def test_the_masks_downsample_counts() -> None:
    matched = match_detections(slide("a", [(14 * 32 + 1, 14 * 32 + 1, 0.9)], square((14, 14)), downsample=32.0))
    assert matched.lesion_scores.tolist() == [0.9]


def test_perfect_and_useless() -> None:
    perfect = [match_detections(slide("a", [(1, 1, 0.9)], square((0, 0))))]
    assert froc_curve(perfect).score == 1.0
    nothing = [match_detections(slide("a", [], square((0, 0))))]
    assert froc_curve(nothing).score == 0.0


@pytest.mark.parametrize(("slides", "reason"), [([], "no slide"), ([slide("a", [(1, 1, 0.5)])], "no lesion")])
def test_without_lesions_there_is_a_reason(slides, reason) -> None:
    found = froc_curve([match_detections(s) for s in slides])
    assert (found.score, found.at) == (None, None)
    assert reason in found.reason
    assert froc_interval([match_detections(s) for s in slides], 20) is None


def test_the_interval_holds_the_score() -> None:
    random = np.random.default_rng(1)
    slides = [
        match_detections(slide(str(n), [*random.uniform(0, 20, (9, 3)) / (1, 1, 20)], square((0, 0), (9, 9))))
        for n in range(20)
    ]
    low, high = froc_interval(slides, 200)
    assert low < froc_curve(slides).score < high
    assert froc_interval(slides, 200) == [low, high]


def test_detections_must_make_sense() -> None:
    bad = SlideDetections("a", np.zeros(2), np.zeros(2), np.zeros(1))
    with pytest.raises(InputError, match="a: x, y and scores differ in length"):
        match_detections(bad)
    with pytest.raises(InputError, match="not finite"):
        match_detections(slide("a", [(1, 1, np.nan)]))


def suppress_slowly(heatmap: np.ndarray, radius: float) -> list[tuple[int, int]]:
    left, kept = heatmap.copy(), []
    rows, columns = np.indices(heatmap.shape)
    while left.max() > 0:
        row, column = np.unravel_index(left.argmax(), left.shape)
        kept.append((int(row), int(column)))
        left[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = 0
    return kept


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100_000), st.sampled_from([0, 1, 1.5, 3, 40]))
def test_suppression_is_take_the_highest_and_again(seed: int, radius: float) -> None:
    heatmap = np.round(np.random.default_rng(seed).random((13, 9)), 1)
    x, y, scores = find_detections(heatmap, radius=radius, downsample=16.0)
    expected = suppress_slowly(heatmap, radius)
    assert [*zip((y / 16 - 0.5).tolist(), (x / 16 - 0.5).tolist(), strict=True)] == expected
    assert scores.tolist() == [heatmap[at] for at in expected]


def test_suppression_of_nothing() -> None:
    for heatmap in (np.zeros((4, 4)), np.full((4, 4), np.nan)):
        assert [len(part) for part in find_detections(heatmap, radius=2)] == [0, 0, 0]


def test_lesions_near_each_other_are_one_and_small_ones_are_named() -> None:
    mask = np.zeros((100, 100), bool)
    mask[10:20, 10:20] = mask[10:20, 25:35] = True  # 5 px, 50 µm apart: one
    mask[60:63, 60:63] = True  # 30 µm and what it grows by
    labels, small = label_lesions(mask, 10.0, itc_um=275)
    assert labels.max() == 2
    assert labels[15, 15] == labels[15, 30] == 1
    assert small == {2}
    assert label_lesions(mask, 10.0, merge_um=0)[0].max() == 3
    assert label_lesions(np.zeros((5, 5)), 10.0)[0].max() == 0


def test_major_axis_is_scikit_images() -> None:
    measure = pytest.importorskip("skimage.measure")
    region = np.zeros((40, 40), bool)
    region[5:30, 8:12] = region[20:25, 8:33] = True
    (found,) = measure.regionprops(region.astype(int))
    assert major_axis(region) == pytest.approx(found.axis_major_length)


def test_tile_and_slide_auc() -> None:
    random = np.random.default_rng(0)
    labels, scores = random.integers(-1, 2, 300), random.random(300)
    found = tile_auc(labels, scores)
    assert found["auc"] == pytest.approx(roc_auc_score(labels[labels >= 0], scores[labels >= 0]))
    assert found["tiles"] == (labels >= 0).sum()
    of_slides = slide_auc([True, False, True, False], [scores[:5], scores[5:9], scores[:0], np.array([0.0])])
    assert (of_slides["auc"], of_slides["slides"]) == (float(scores[:5].max() > scores[5:9].max()) / 2 + 0.5, 3)
    assert slide_auc([True], [scores])["reason"]
    assert len(FALSE_POSITIVES) == 6
