"""The colours of the train slides, which tiles are brought to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from components.mil.bags import Bag, TileSource, sample_spans
from components.mil.stain import Reference, fit_reference
from components.records.dataset import TiledDataset
from components.records.errors import InputError
from components.records.provenance import derive_seed

STAIN_TILES = 256


def sample_reference(
    dataset: TiledDataset, method: str, train: Sequence[Bag], *, seed: int, side: int
) -> Reference | None:
    """The colours that tiles are brought to, from a sample of the train slides; None for the method `none`.

    Args:
        dataset: whose tiles they are.
        method: `none`, `macenko` or `reinhard`.
        train: the train bags.
        seed: of the run.
        side: px the tiles are shrunk to before they are looked at.

    Raises:
        InputError: there is no train bag, or no tile of the sample holds enough stain.
    """
    if method == "none":
        return None
    if not train:
        raise InputError(
            f"has no train patient whose colours {method} could take",
            where=dataset.root,
            mend="split it, or set stain_normalisation=none",
        )
    each = max(1, STAIN_TILES // len(train))
    spans = [span for bag in train for span in sample_spans(bag, each, derive_seed(seed, "stain"), 0)]
    # of very many patients, some
    chosen = [spans[at * len(spans) // min(len(spans), STAIN_TILES)] for at in range(min(len(spans), STAIN_TILES))]
    source = TileSource([], tile_px=dataset.schema.tile_px, side=side)
    tiles = np.concatenate(list(source.stream(lambda: iter(chosen), 64)))
    return fit_reference(method, tiles)
