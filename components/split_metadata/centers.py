"""Whole centers to places: centers tied by a shared patient move together, labels are kept in balance by search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from components.records.provenance import shuffled

_RESTARTS = 32
_WORK = 4000
_SWAP_LIMIT = 60
_MISSING = 1000.0


@dataclass
class CenterGroup:
    """Centers that share patients, so that none of them can be held out alone.

    Attributes:
        centers: their ids, sorted.
        patients: how many of each label.
        fixed: the place it must keep, empty where it is free.
    """

    centers: tuple[str, ...]
    patients: Counter[str] = field(default_factory=Counter)
    fixed: str = ""


def tie_centers(centers_of: Mapping[str, Iterable[str]]) -> list[tuple[str, ...]]:
    """The connected groups of centers, each sorted, given the centers of every patient."""
    parent: dict[str, str] = {}

    def find(center: str) -> str:
        while parent[center] != center:
            parent[center] = parent[parent[center]]
            center = parent[center]
        return center

    for centers in centers_of.values():
        roots = [find(parent.setdefault(center, center)) for center in centers]
        for root in roots[1:]:
            first, second = sorted((find(roots[0]), find(root)))
            parent[second] = first
    members: dict[str, list[str]] = {}
    for center in sorted(parent):
        members.setdefault(find(center), []).append(center)
    return sorted(tuple(centers) for centers in members.values())


def place_centers(groups: Sequence[CenterGroup], shares: Mapping[str, float], seed: int) -> list[str]:
    """A place for each group, so that every label's patients are as near to the shares as whole centers allow.

    Minimises, over labels and places, the squared distance to the share (relative to the label's size) with a high
    price on a label that is missing from a place: greedy, then moves and swaps, from several seeded starts, the best
    kept. It does not depend on the order of `groups`.

    Args:
        groups: with `fixed` where a group may not move (it may lie outside `shares`).
        shares: of each wanted place; they add up to 1.
        seed: the run's seed.
    """
    ordered = sorted(groups, key=lambda group: group.centers)
    free = [index for index, group in enumerate(ordered) if not group.fixed]
    restarts = max(1, min(_RESTARTS, _WORK // max(1, len(free))))
    best: tuple[float, list[str]] | None = None
    for restart in range(restarts):
        order = shuffled(free, seed, "center", restart)
        if restart % 2 == 0:
            order.sort(key=lambda index: -ordered[index].patients.total())
        search = _Search(ordered, shares)
        search.run(order)
        price = round(search.price(), 9)
        if best is None or price < best[0]:
            best = price, search.places
    assert best is not None
    found = {group.centers: place for group, place in zip(ordered, best[1], strict=True)}
    return [found[group.centers] for group in groups]


class _Search:
    """One start of the search: counts per place and label, and what adding a group to a place costs."""

    def __init__(self, groups: Sequence[CenterGroup], shares: Mapping[str, float]) -> None:
        self.groups = groups
        sizes: Counter[str] = Counter()
        for group in groups:
            sizes.update(group.patients)
        self.labels = sorted(sizes)
        # the last column is all labels together: the places' own sizes count as much as a label
        self.sizes = [sizes[label] for label in self.labels] + [sizes.total()]
        self.vectors = [
            [(column, group.patients[label]) for column, label in enumerate(self.labels) if group.patients[label]]
            + [(len(self.labels), group.patients.total())]
            for group in groups
        ]
        self.quotas = {place: [share * size for size in self.sizes] for place, share in shares.items()}
        self.counts = {place: [0] * len(self.sizes) for place in shares}
        self.places = [group.fixed for group in groups]
        for index, place in enumerate(self.places):
            if place in self.counts:
                self.add(index, place)

    def add(self, index: int, place: str, sign: int = 1) -> None:
        self.places[index] = place if sign > 0 else ""
        counts = self.counts[place]
        for column, number in self.vectors[index]:
            counts[column] += sign * number

    def cost(self, index: int, place: str) -> float:
        """By how much the price changes when the group joins the place."""
        counts, quotas = self.counts[place], self.quotas[place]
        cost = 0.0
        for column, number in self.vectors[index]:
            cost += number * (number + 2 * (counts[column] - quotas[column])) / self.sizes[column] ** 2
            if not counts[column]:
                cost -= _MISSING
        return cost

    def cheapest(self, index: int) -> str:
        return min(self.counts, key=lambda place: round(self.cost(index, place), 9))

    def price(self) -> float:
        """Squared relative distances over all labels and places, plus the price of every label that is missing."""
        total = 0.0
        for place, counts in self.counts.items():
            for count, quota, size in zip(counts, self.quotas[place], self.sizes, strict=True):
                total += ((count - quota) / size) ** 2 + (0.0 if count else _MISSING)
        return total

    def run(self, order: list[int]) -> None:
        for index in order:
            self.add(index, self.cheapest(index))
        rounds = 50 if len(order) <= 1000 else 2
        while rounds and (self._move(order) or self._swap(order)):
            rounds -= 1

    def _move(self, order: list[int]) -> bool:
        moved = False
        for index in order:
            here = self.places[index]
            self.add(index, here, -1)
            there = self.cheapest(index)
            better = self.cost(index, there) < self.cost(index, here) - 1e-9
            self.add(index, there if better else here)
            moved |= better
        return moved

    def _swap(self, order: list[int]) -> bool:
        if len(order) > _SWAP_LIMIT:
            return False
        swapped = False
        for one, other in combinations(order, 2):
            here, there = self.places[one], self.places[other]
            if here == there:
                continue
            self.add(one, here, -1)
            self.add(other, there, -1)
            before = self.cost(one, here) + self.cost(other, there)
            if self.cost(one, there) + self.cost(other, here) < before - 1e-9:
                here, there, swapped = there, here, True
            self.add(one, here)
            self.add(other, there)
        return swapped
