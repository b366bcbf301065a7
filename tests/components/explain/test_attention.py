"""Ranks, agreement with masks, and the tiles attended most."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from components.explain.attention import MaskAgreement, TopTiles, pair_auc, rank_attention, relative_attention
from components.records.dataset import RecordSpan


def make_bag(patient: str, attention, marked, images=None, label: str = "a") -> SimpleNamespace:
    attention = np.asarray(attention, np.float32)
    count = len(attention)
    return SimpleNamespace(
        patient_id=patient,
        label=label,
        attention=attention / attention.sum(),
        tile_labels=np.asarray(marked, np.int8),
        image_ids=tuple(images or [f"{patient}_0"] * count),
        x=np.arange(count) * 10,
        y=np.zeros(count, np.int64),
        spans=tuple(RecordSpan("f", number, 1) for number in range(count)),
    )


def test_ranks_span_0_to_1_and_ties_share_one() -> None:
    assert rank_attention(np.array([0.1, 0.7, 0.2])).tolist() == [0.0, 1.0, 0.5]
    assert rank_attention(np.array([0.1, 0.1, 0.8])).tolist() == [0.25, 0.25, 1.0]
    assert rank_attention(np.array([0.5, 0.5])).tolist() == [0.5, 0.5]
    assert rank_attention(np.array([1.0])).tolist() == [0.5]
    assert rank_attention(np.zeros(0)).tolist() == []


def test_relative_attention_is_a_multiple_of_the_mean() -> None:
    assert relative_attention(np.array([0.1, 0.1, 0.8])) == pytest.approx([0.3, 0.3, 2.4])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_pair_auc_agrees_with_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([s for s, _ in pairs], float), np.array([p for _, p in pairs])
    if positive.any() and not positive.all():
        assert pair_auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))


def test_agreement_pooled_and_by_slide() -> None:
    random = np.random.default_rng(0)
    found, all_scores, all_marked, slide_aucs = MaskAgreement(), [], [], []
    for patient in range(5):
        marked = random.integers(0, 2, 60)
        attention = np.exp(random.normal(marked, 1.0)).astype(np.float32)
        images = ["s0"] * 30 + ["s1"] * 30
        bag = make_bag(f"p{patient}", attention, marked, images)
        found.add(bag)
        all_scores.append(bag.attention * 60)
        all_marked.append(marked)
        slide_aucs += [roc_auc_score(marked[:30], attention[:30]), roc_auc_score(marked[30:], attention[30:])]
    scores, marked = np.concatenate(all_scores), np.concatenate(all_marked)
    said = found.to_json()
    assert said["auc_pooled"] == pytest.approx(roc_auc_score(marked, scores), abs=1e-3)
    assert said["auc_slide_mean"] == pytest.approx(np.mean(slide_aucs))
    assert said["lift"] == pytest.approx(scores[marked == 1].mean() / scores[marked == 0].mean())
    assert (said["patients"], said["slides"], said["tiles_marked"]) == (5, 10, int(marked.sum()))


def test_tiles_without_a_label_and_patients_without_a_lesion_do_not_count() -> None:
    found = MaskAgreement()
    found.add(make_bag("none", [1, 2, 3], [0, 0, 0]))
    found.add(make_bag("unknown", [1, 2, 3], [-1, -1, -1]))
    assert found.to_json()["patients"] == 0
    assert found.to_json()["auc_pooled"] is None
    found.add(make_bag("some", [1, 9, 5], [0, 1, -1]))
    assert found.to_json()["tiles_unmarked"] == 1
    assert found.to_json()["auc_pooled"] == 1.0


def test_a_wholly_marked_patient_has_no_auc() -> None:
    found = MaskAgreement()
    found.add(make_bag("all", [1, 2], [1, 1]))
    said = found.to_json()
    assert (said["auc_pooled"], said["auc_slide_mean"], said["lift"]) == (None, None, None)


def test_attention_of_zero_is_no_trouble() -> None:
    found = MaskAgreement()
    found.add(make_bag("p", [0, 1, 0], [0, 1, 0]))
    assert found.to_json()["auc_pooled"] == 1.0
    assert found.to_json()["lift"] is None


def test_top_tiles_keep_the_most_attended_and_not_one_patient_only() -> None:
    top = TopTiles(keep=3, per_patient=2)
    top.add(make_bag("p1", [1, 100, 90, 80], [-1] * 4))
    top.add(make_bag("p2", [1, 1, 1, 2], [-1] * 4))
    top.add(make_bag("q", [1, 2], [0, 1], label="b"))
    found = top.by_label()
    assert [(t.patient_id, t.x) for t in found["a"]] == [("p2", 30), ("p1", 10), ("p1", 20)]
    assert found["a"][0].relative == pytest.approx(1.6)
    assert [t.tile_label for t in found["b"]] == [1, 0]
