"""Two kinds of tissue out of one real picture: blue stroma and brown, DAB-stained epithelium.

The picture is scikit-image's `immunohistochemistry`: colon, haematoxylin for the nuclei and DAB for FHL2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from skimage.color import rgb2hed
from skimage.data import immunohistochemistry

Picture = NDArray[np.uint8]

CROP_PX = 96
OVERLAP_PX = 16
_STEP_PX = 8
_CROPS = 24
_DAB_STAINED = 0.05
_STROMA_DEPTH = 1.7


@dataclass(frozen=True)
class Tissue:
    """Square crops of one kind of tissue: uint8, shape [crops, CROP_PX, CROP_PX, 3]."""

    normal: Picture
    lesion: Picture


def cut_tissue() -> Tissue:
    """The crops with the least and with the most DAB-stained area.

    Stroma is pale in this picture; its optical density is raised, as in a thicker section, so that it stands
    out from glass as tissue does on a slide.
    """
    picture: Picture = immunohistochemistry()
    hed = rgb2hed(picture)
    brown = _crop_means(hed[..., 2] > _DAB_STAINED)
    blue = _crop_means(hed[..., 0])
    corners = np.argwhere(np.ones_like(brown, dtype=bool)) * _STEP_PX
    by_brown = np.argsort(brown.ravel(), kind="stable")
    least = by_brown[: 3 * _CROPS]
    least = least[np.argsort(-blue.ravel()[least], kind="stable")][:_CROPS]
    normal = _cut(picture, corners[least])
    return Tissue(normal=_deepen(normal, _STROMA_DEPTH), lesion=_cut(picture, corners[by_brown[-_CROPS:]]))


def _crop_means(plane: NDArray[np.generic]) -> NDArray[np.float64]:
    """The mean of `plane` over the crop at every corner of a grid of `_STEP_PX`."""
    means = uniform_filter(plane.astype(np.float64), CROP_PX, mode="constant")
    half = CROP_PX // 2
    inside: NDArray[np.float64] = means[half : plane.shape[0] - half + 1, half : plane.shape[1] - half + 1]
    return np.round(inside[::_STEP_PX, ::_STEP_PX], 9)


def _cut(picture: Picture, corners: NDArray[np.intp]) -> Picture:
    return np.stack([picture[y : y + CROP_PX, x : x + CROP_PX] for y, x in corners])


def _deepen(picture: Picture, depth: float) -> Picture:
    return apply_curve(picture, np.full(3, depth))


def apply_curve(picture: Picture, depth: NDArray[np.float64]) -> Picture:
    """`picture` with its optical density times `depth` [3], a factor a channel: transmitted light to that power."""
    light = np.arange(256) / 255.0
    out = np.empty_like(picture)
    for channel in range(3):
        curve = np.round(255.0 * light ** depth[channel]).astype(np.uint8)
        out[..., channel] = curve[picture[..., channel]]
    return out


def lay(rng: np.random.Generator, crops: Picture, where: NDArray[np.bool_]) -> Picture:
    """Random crops, turned and mirrored, laid edge over edge wherever `where` is set.

    Args:
        rng: decides which crop lies where, and how it is turned.
        crops: one of `Tissue`.
        where: bool, shape [height, width].

    Returns:
        uint8, shape [height, width, 3]; neighbours fade into each other over `OVERLAP_PX`; black far from `where`.
    """
    height, width = where.shape
    stride = CROP_PX - OVERLAP_PX
    ramp = np.full(CROP_PX, 16, np.uint16)
    ramp[:OVERLAP_PX] = np.arange(OVERLAP_PX)
    ramp[-OVERLAP_PX:] = 16 - np.arange(OVERLAP_PX)
    window = (ramp[:, None] * ramp[None, :])[..., None]  # the windows of all neighbours add up to 256
    rows, columns = -(-height // stride) + 1, -(-width // stride) + 1
    blend = np.zeros((rows * stride + OVERLAP_PX, columns * stride + OVERLAP_PX, 3), np.uint16)
    padded = np.zeros(blend.shape[:2], bool)
    padded[OVERLAP_PX : OVERLAP_PX + height, OVERLAP_PX : OVERLAP_PX + width] = where
    for row in range(rows):
        for column in range(columns):
            corner = np.s_[row * stride : row * stride + CROP_PX, column * stride : column * stride + CROP_PX]
            if not padded[corner].any():
                continue
            crop = np.rot90(crops[rng.integers(len(crops))], int(rng.integers(4)))
            blend[corner] += (crop[:, ::-1] if rng.integers(2) else crop) * window
    return (blend[OVERLAP_PX : OVERLAP_PX + height, OVERLAP_PX : OVERLAP_PX + width] >> 8).astype(np.uint8)
