"""The same tile twice: at one place of a slide, or with the same pixels in two patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.records.dataset import Part
from components.validate_records.outcome import MAX_OFFENDERS, Offender, Tally
from components.validate_records.scan import DIGEST

Locate = Callable[[int, int], tuple[int, int]]


class DigestStore:
    """The digests of all tiles in one array, in the order in which they are added.

    32 bytes a tile: 320 MB for ten million tiles, and 510 MB for a moment while they are sorted (measured).
    """

    def __init__(self, capacity: int) -> None:
        self._array = np.empty(capacity, DIGEST)
        self._count = 0

    def add(self, digests: NDArray[np.void]) -> None:
        """Appends digests; grows by half where `capacity` was too small."""
        needed = self._count + len(digests)
        if needed > len(self._array):
            grown = np.empty(needed + needed // 2, DIGEST)
            grown[: self._count] = self._array[: self._count]
            self._array = grown
        self._array[self._count : needed] = digests
        self._count = needed

    @property
    def filled(self) -> NDArray[np.void]:
        """The digests so far, shape [tiles]."""
        return self._array[: self._count]


@dataclass(frozen=True)
class Duplicates:
    """Tiles whose pixels stand in more than one patient, and how many of them are equal byte for byte."""

    across_splits: Tally
    within_split: Tally
    identical_across: int = 0
    identical_within: int = 0


def find_duplicates(
    digests: NDArray[np.void], parts: Sequence[Part], patients: Sequence[str], locate: Locate
) -> Duplicates:
    """Finds equal pixels in different patients.

    Args:
        digests: `DIGEST` a tile.
        parts: the dataset's parts; `digests["part"]` counts in them.
        patients: the patient of each part.
        locate: (part, record) to the tile's (x, y); called for the first offenders only.
    """
    found = Duplicates(Tally(), Tally())
    members, starts = _group_equal(digests)
    if not len(members):
        return found
    patient_codes = np.unique(np.array(patients), return_inverse=True)[1]
    split_codes = np.unique(np.array([part.split for part in parts]), return_inverse=True)[1]
    tiles = digests[members]
    sizes = np.diff(np.append(starts, len(members)))
    between = _differ(patient_codes[tiles["part"]], starts)
    across = between & _differ(split_codes[tiles["part"]], starts)
    identical = ~_differ(tiles["encoded"], starts)
    for tally, chosen, codes in (
        (found.across_splits, across, split_codes),
        (found.within_split, between & ~across, patient_codes),
    ):
        groups = np.flatnonzero(chosen)
        tally.count = int(sizes[groups].sum())
        for group in groups[np.argsort(members[starts[groups]], kind="stable")][:MAX_OFFENDERS]:
            same = tiles[starts[group] : starts[group] + sizes[group]]
            group_codes = codes[same["part"]]
            other = same[int(np.argmax(group_codes != group_codes[0]))]
            tally.first.append(_describe(same[0], other, parts, patients, locate))
    return Duplicates(
        found.across_splits,
        found.within_split,
        int(sizes[across & identical].sum()),
        int(sizes[between & ~across & identical].sum()),
    )


def _group_equal(digests: NDArray[np.void]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of all tiles that have an equal, equal ones beside each other in order, and where each group starts."""
    order = np.argsort(digests["high"], kind="stable")
    high = digests["high"][order]
    equal = high[1:] == high[:-1]
    twin = np.zeros(len(order), bool)
    twin[1:] |= equal
    twin[:-1] |= equal
    members = np.sort(order[twin])
    members = members[np.lexsort((digests["low"][members], digests["high"][members]))]
    high, low = digests["high"][members], digests["low"][members]
    first = np.ones(len(members), bool)
    first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    return members, np.flatnonzero(first)


def _differ(codes: NDArray[np.generic], starts: NDArray[np.intp]) -> NDArray[np.bool_]:
    return np.asarray(np.minimum.reduceat(codes, starts) != np.maximum.reduceat(codes, starts))


def _describe(one: np.void, other: np.void, parts: Sequence[Part], patients: Sequence[str], locate: Locate) -> Offender:
    places = []
    for tile in (one, other):
        number, record = int(tile["part"]), int(tile["record"])
        places.append((parts[number], patients[number], record, *locate(number, record)))
    (part, patient, record, x, y), (second, other_patient, other_record, other_x, other_y) = places
    kind = "bytes" if one["encoded"] == other["encoded"] else "pixels"
    twin = f"{second.image_id}, {second.path} record {other_record}, x {other_x} y {other_y}"
    named = [
        f"patient {name}{f' ({where})' if where else ''}"
        for name, where in ((patient, part.split), (other_patient, second.split))
    ]
    return Offender(f"{named[0]} has the same {kind} as {named[1]}: {twin}", part.image_id, part.path, record, x, y)


def find_doubled_places(places: NDArray[np.void], parts: Sequence[Part], tally: Tally) -> None:
    """Counts the tiles of one slide that lie where an earlier one lies; `places` is `PLACE` a tile."""
    if len(places) < 2:
        return
    keys = [places[name] for name in ("index", "axis", "y", "x")]
    order = np.lexsort(keys)
    ordered = places[order]
    same = np.ones(len(ordered) - 1, bool)
    for name in ("x", "y", "axis", "index"):
        same &= ordered[name][1:] == ordered[name][:-1]
    for place in ordered[1:][same]:
        part = parts[int(place["part"])]
        where = (int(place["record"]), int(place["x"]), int(place["y"]))
        tally.add(Offender("a second tile at one place of the slide", part.image_id, part.path, *where))
