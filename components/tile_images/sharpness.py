"""How sharp a tile is, from its grey values."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_NOISE, _ROUNDING = 4.0, 2.0


def measure_sharpness(encoded: bytes) -> float:
    """Sharpness of an encoded tile, 0–1, as `score_sharpness`; of a JPEG only the brightness is decoded."""
    picture = Image.open(io.BytesIO(encoded))
    picture.draft("L", picture.size)
    return score_sharpness(np.asarray(picture.convert("L")))


def score_sharpness(grey: NDArray[np.uint8]) -> float:
    """The variance of the Laplacian (Pech-Pacheco et al. 2000) over that of the grey values, at most 1.

    By the ratio, faint and strong stain score alike; tiles without any structure score 0.

    Args:
        grey: uint8, shape [height, width].
    """
    if min(grey.shape) < 3:
        return 0.0
    values = grey.astype(np.float32)
    middle = values[1:-1, 1:-1]
    edges = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:] - 4 * middle
    return float(np.clip((edges.var() - _ROUNDING) / (values.var() + _NOISE), 0, 1))
