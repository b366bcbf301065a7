"""Colour statistics of tiles, summed up without keeping them, and how far groups of tiles lie apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.validate_records.outcome import FAIL, NOT_APPLICABLE, WARN, Check, Offender, Tally, judge

STATISTICS = ("mean R", "mean G", "mean B", "deviation R", "deviation G", "deviation B")
Groups = dict[tuple[str, str], "Moments"]


def _zeros() -> NDArray[np.float64]:
    return np.zeros(len(STATISTICS))


@dataclass
class Moments:
    """Count, mean and summed squared deviation of each of `STATISTICS`; float64, shape [6]."""

    count: int = 0
    mean: NDArray[np.float64] = field(default_factory=_zeros)
    squares: NDArray[np.float64] = field(default_factory=_zeros)

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Moments:
        """The moments of `values`, shape [tiles, 6]."""
        mean = values.mean(axis=0)
        return cls(len(values), mean, ((values - mean) ** 2).sum(axis=0))

    def merge(self, other: Moments) -> Moments:
        """The moments of both together (Chan, Golub and LeVeque 1983, eq. 2.1)."""
        count = self.count + other.count
        if not count:
            return Moments()
        step = other.mean - self.mean
        squares = self.squares + other.squares + step**2 * (self.count * other.count / count)
        return Moments(count, self.mean + step * (other.count / count), squares)


def merge_all(moments: Iterable[Moments]) -> Moments:
    """The moments of all together."""
    total = Moments()
    for one in moments:
        total = total.merge(one)
    return total


def standardised_difference(group: Moments, reference: Moments) -> NDArray[np.float64] | None:
    """Cohen's d of each statistic: difference of means over the pooled standard deviation.

    A deviation below one grey level counts as one, so that flat pictures do not differ without end.

    Returns:
        float64, shape [6], or None where one of the two has fewer than two tiles.
    """
    if group.count < 2 or reference.count < 2:
        return None
    pooled = np.sqrt((group.squares + reference.squares) / (group.count + reference.count - 2))
    return np.asarray((group.mean - reference.mean) / np.maximum(pooled, 1.0))


def compare_colours(groups: Groups, limit: float, fails: bool) -> tuple[list[Check], list[dict[str, Any]]]:
    """Holds every split against train, and every center against the other centers' tiles in train.

    Where there are no splits, centers are held against the other centers' tiles.

    Args:
        groups: moments of the tiles of each (split, center); both may be empty text.
        limit: the standardised mean difference above which a group is named.
        fails: whether that fails, or warns.

    Returns:
        The checks of splits and centers, and a table row for each of them.
    """
    splits = [name for name in ("train", "val", "test") if any(split == name for split, _ in groups)]
    centers = sorted({center for _, center in groups if center})
    checks, rows = [], []
    for kind, names in (("split", splits), ("center", centers)):
        tally, compared, widest = Tally(), 0, 0.0
        for name in names:
            place = ("split", "center").index(kind)
            group = merge_all(moments for key, moments in groups.items() if key[place] == name)
            difference = standardised_difference(group, _reference(groups, kind, name, splits))
            row = _describe(kind, name, group, difference)
            rows.append(row)
            if difference is None:
                continue
            compared += 1
            widest = max(widest, float(np.abs(difference).max()))
            if row["largest_difference"] > limit:
                far = f"{row['statistic']} lies {row['largest_difference']:.2f} standard deviations off"
                tally.add(Offender(f"{kind} {name}: {far}"))
        checks.append(_judge_drift(f"colour_drift_{kind}s", tally, compared, widest, limit, fails))
    return checks, rows


def _judge_drift(name: str, tally: Tally, compared: int, widest: float, limit: float, fails: bool) -> Check:
    if not compared:
        return Check(name, NOT_APPLICABLE, "nothing to compare", f"{limit:g}")
    measured = f"largest standardised mean difference {widest:.2f}"
    return judge(name, tally, measured, f"{limit:g}", otherwise=FAIL if fails else WARN)


def _reference(groups: Groups, kind: str, name: str, splits: list[str]) -> Moments:
    if kind == "split":
        return Moments() if name == "train" else merge_all(m for key, m in groups.items() if key[0] == "train")
    base = ("train",) if "train" in splits else tuple({key[0] for key in groups})
    return merge_all(m for (split, center), m in groups.items() if split in base and center != name)


def _describe(kind: str, name: str, group: Moments, difference: NDArray[np.float64] | None) -> dict[str, Any]:
    widest = None if difference is None else int(np.abs(difference).argmax())
    return {
        "kind": kind,
        "name": name,
        "tiles": group.count,
        "mean": [round(float(value), 2) for value in group.mean[:3]],
        "deviation": [round(float(value), 2) for value in group.mean[3:]],
        "largest_difference": None if widest is None else round(float(abs(difference[widest])), 4),  # type: ignore[index]
        "statistic": "" if widest is None else STATISTICS[widest],
    }
