"""Every head by name: a new head is one file and one line here."""

from __future__ import annotations

import inspect
from typing import Any

from components.mil.heads.attention import Attention
from components.mil.heads.attention_max import AttentionMax
from components.mil.heads.attention_statistics import AttentionStatistics
from components.mil.heads.clam_mb import ClamMB
from components.mil.heads.clam_sb import ClamSB
from components.mil.heads.dsmil import DSMIL
from components.mil.heads.gated_attention import GatedAttention
from components.mil.heads.max_pooling import MaxPooling
from components.mil.heads.mean_pooling import MeanPooling
from components.mil.heads.protocol import BagHead
from components.mil.heads.transmil import TransMIL
from components.mil.naming import check_name

HEADS: dict[str, type[BagHead]] = {
    "gated_attention": GatedAttention,
    "attention": Attention,
    "attention_max": AttentionMax,
    "attention_statistics": AttentionStatistics,
    "mean_pooling": MeanPooling,
    "max_pooling": MaxPooling,
    "clam_sb": ClamSB,
    "clam_mb": ClamMB,
    "dsmil": DSMIL,
    "transmil": TransMIL,
}


def create_head(name: str, classes: int, **options: Any) -> BagHead:
    """The head `name` for `classes` classes; of `options` it takes those that its classes' constructors name.

    Raises:
        InputError: there is no such head; suggests the nearest.
    """
    check_name("head", name, HEADS)
    kinds = [kind for kind in HEADS[name].__mro__ if issubclass(kind, BagHead)]
    taken = {key for kind in kinds for key in inspect.signature(kind.__init__).parameters}
    return HEADS[name](classes, name="head", **{key: value for key, value in options.items() if key in taken})
