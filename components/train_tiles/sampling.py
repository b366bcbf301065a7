"""Which tiles an epoch is made of, in which order: a permutation of numbers, whatever the tiles weigh."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from components.records.provenance import derive_seed

Numbers = NDArray[np.int64]


def choose_tiles(
    tile_labels: NDArray[np.int8],
    imbalance: str,
    *,
    seed: int,
    epoch: int,
    lesion_share: float = 0.5,
    most: int = 0,
) -> Numbers:
    """The numbers of an epoch's tiles in random order, other ones each epoch, the same in each run.

    Args:
        tile_labels: 1 marked, 0 not, [n].
        imbalance: `oversample`: every tile, and the scarcer kind again and again until the shares hold; `undersample`:
            of the more frequent kind only so many; anything else: every tile once.
        seed: of the run.
        epoch: from 1.
        lesion_share: of marked tiles that the two make.
        most: tiles at most, the shares kept; 0 for no limit.
    """
    random = np.random.default_rng(derive_seed(seed, "epoch tiles", epoch))
    marked, others = np.flatnonzero(tile_labels == 1), np.flatnonzero(tile_labels == 0)
    if imbalance not in ("oversample", "undersample") or not len(marked) or not len(others):
        chosen = random.permutation(len(tile_labels))
        return chosen[:most] if most else chosen
    grow = imbalance == "oversample"
    totals = len(marked) / lesion_share, len(others) / (1 - lesion_share)
    total = max(totals) if grow else min(totals)
    total = min(total, most) if most else total
    wanted_marked = max(1, round(total * lesion_share))
    wanted_others = max(1, round(total) - wanted_marked)
    parts = [_draw(marked, wanted_marked, random), _draw(others, wanted_others, random)]
    return np.asarray(random.permutation(np.concatenate(parts)), np.int64)


def _draw(tiles: Numbers, count: int, random: np.random.Generator) -> Numbers:
    """`count` of the tiles: none a second time before every one was taken once."""
    whole, rest = divmod(count, len(tiles))
    return np.concatenate([np.tile(tiles, whole), random.permutation(tiles)[:rest]])


def spread_tiles(tiles: int, most: int) -> Numbers:
    """At most `most` of so many tiles at even distances."""
    if tiles <= most:
        return np.arange(tiles)
    return np.arange(most) * tiles // most


def class_weights(tile_labels: NDArray[np.int8]) -> tuple[float, float]:
    """Weight of an unmarked and of a marked tile: n / (2 × tiles of the kind), so that both kinds count the same."""
    marked = int((tile_labels == 1).sum())
    others = len(tile_labels) - marked
    return len(tile_labels) / (2 * max(others, 1)), len(tile_labels) / (2 * max(marked, 1))
