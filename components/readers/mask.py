"""Lesion masks: single-channel TIFFs or pictures of the whole slide, any nonzero px marked."""

from __future__ import annotations

import math
import os
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tifffile import TiffFile, TiffFileError

from components.records.errors import SlideError

MOST_PX = 64 << 20
_MOST_PICTURE_PX = 1 << 28
_MEND = "give a single-channel TIFF or PNG, or leave mask_path empty"


def read_mask(path: str, most_px: int = MOST_PX) -> NDArray[np.bool_]:
    """Where a mask file is nonzero, in bounded memory.

    A TIFF is read block by block; one of more than `most_px` px is reduced, a px being marked where any of
    those it stands for is.

    Returns:
        bool, shape [height, width].

    Raises:
        SlideError: there is no such file, it can't be read, or it has several channels.
    """
    if not os.path.isfile(path):
        raise SlideError("the mask is missing", mend="check mask_path")
    try:
        with open(path, "rb") as stream:
            magic = stream.read(4)
        if magic[:2] in (b"II", b"MM"):
            return _read_tiff(path, most_px)
        return _read_picture(path)
    except (
        TiffFileError,
        OSError,
        ValueError,
        RuntimeError,
        IndexError,
        KeyError,
        Image.DecompressionBombError,
    ) as error:
        raise SlideError(f"the mask can't be read ({type(error).__name__}: {error})", mend=_MEND) from None


def _read_picture(path: str) -> NDArray[np.bool_]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        picture = Image.open(path)
    with picture:
        if len(picture.getbands()) != 1:
            raise SlideError(f"the mask has {len(picture.getbands())} channels", mend=_MEND)
        if picture.width * picture.height > _MOST_PICTURE_PX:
            raise SlideError("the mask picture is too large to hold", mend="write it as a tiled TIFF")
        return np.asarray(picture) != 0


def _read_tiff(path: str, most_px: int) -> NDArray[np.bool_]:
    with TiffFile(path) as tiff:
        page: Any = tiff.pages[0]
        if page.samplesperpixel != 1:
            raise SlideError(f"the mask has {page.samplesperpixel} channels", mend=_MEND)
        height, width = int(page.imagelength), int(page.imagewidth)
        factor = max(1, math.ceil(math.sqrt(height * width / most_px)))
        marked = np.zeros((-(-height // factor), -(-width // factor)), bool)
        for segment, place, shape in page.segments():
            if segment is None:
                continue
            block = np.asarray(segment).reshape(segment.shape[-3], segment.shape[-2])[: shape[1], : shape[2]] != 0
            top, left = int(place[3]), int(place[4])
            if factor == 1:
                marked[top : top + block.shape[0], left : left + block.shape[1]] |= block[
                    : height - top, : width - left
                ]
            else:
                ys, xs = np.nonzero(block[: height - top, : width - left])
                marked[(ys + top) // factor, (xs + left) // factor] = True
        return marked
