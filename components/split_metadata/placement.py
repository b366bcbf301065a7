"""Deals patients out to places, label by label, with every share as close as whole patients allow."""

from __future__ import annotations

import math
from collections.abc import Mapping

from components.records.provenance import derive_seed


def place_patients(
    labels: Mapping[str, str], shares: Mapping[str, float], fixed: Mapping[str, str], seed: int
) -> dict[str, str]:
    """Gives every patient a place.

    Within a label the count of each place is the one nearest to its share (largest remainder), but at least one
    patient where there are enough; remainders that tie go where the cohort as a whole is short. Who goes where
    follows from the seed and the patient's id alone, not from the order of rows.

    Args:
        labels: the label of each patient.
        shares: of each wanted place; they add up to 1.
        fixed: the place of patients that are not to move; places outside `shares` are kept too.
        seed: the run's seed.

    Returns:
        The place of each patient in `labels`.
    """
    placed = {patient: fixed[patient] for patient in labels if patient in fixed}
    members: dict[str, list[str]] = {label: [] for label in sorted(set(labels.values()))}
    counts: dict[str, dict[str, int]] = {label: dict.fromkeys(shares, 0) for label in members}
    sizes = dict.fromkeys(members, 0)
    for patient, label in labels.items():
        sizes[label] += 1
        if patient not in placed:
            members[label].append(patient)
        elif placed[patient] in shares:
            counts[label][placed[patient]] += 1
    short = dict.fromkeys(shares, 0.0)
    for label, patients in members.items():
        quotas = {place: share * sizes[label] for place, share in shares.items()}
        before = dict(counts[label])
        after = share_out(quotas, before, len(patients), short)
        for place in shares:
            short[place] += quotas[place] - after[place]
        patients.sort(key=lambda patient: (derive_seed(seed, "split", patient), patient))
        start = 0
        for place in shares:
            end = start + after[place] - before[place]
            placed.update(dict.fromkeys(patients[start:end], place))
            start = end
    return placed


def share_out(
    quotas: Mapping[str, float], counts: Mapping[str, int], new: int, short: Mapping[str, float]
) -> dict[str, int]:
    """Adds `new` to `counts` so that the sum of squared distances to `quotas` is the least with no place left empty.

    Each goes where the quota is farthest from reached, which is optimal because the sum is separable and convex;
    on no counts it is the largest-remainder rule. `short` breaks ties: the larger first, then the earlier place.
    """
    result = dict(counts)

    def shortage(place: str) -> tuple[float, float]:
        return round(quotas[place] - result[place], 9), round(short[place], 9)

    for place in sorted((place for place in quotas if not result[place]), key=shortage, reverse=True)[:new]:
        result[place] = 1
        new -= 1
    whole = {place: max(count, math.floor(quotas[place])) for place, count in result.items()}
    if sum(whole.values()) <= sum(result.values()) + new:
        new -= sum(whole.values()) - sum(result.values())
        result = whole
    for _ in range(new):
        result[max(quotas, key=shortage)] += 1
    return result
