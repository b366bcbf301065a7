"""One slide of the sample cohort: where the tissue lies, how it looks, and the TIFF it is stored as."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from components.sample_cohort.texture import Picture, Tissue, apply_curve, lay

CELL_PX = 16  # the lay-out, and with it the lesion mask, has one cell for so many level-0 px a side
MASK_DOWNSAMPLE = CELL_PX
JPEG_QUALITY = 85
_GLASS = 240
_PEN = (38, 62, 178)

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Stored:
    """How a slide is stored: block side in px, number of levels (1 is flat), µm/px or None to leave it out."""

    block: int
    levels: int
    mpp: float | None


@dataclass(frozen=True)
class Slide:
    """A drawn slide: `picture` uint8 [size, size, 3]; `lesion` bool [size / CELL_PX, size / CELL_PX]; shares 0–1."""

    picture: Picture
    lesion: Mask
    tissue_share: float
    lesion_share: float


def _roughness(rng: np.random.Generator, side: int) -> Field:
    """Smooth noise of about -2 to 2: what makes an outline ragged."""
    coarse = gaussian_filter(rng.standard_normal((side, side)), side / 24)
    fine = gaussian_filter(rng.standard_normal((side, side)), side / 96)
    rough: Field = (coarse / coarse.std() + 0.35 * fine / fine.std()).astype(np.float32)
    return rough


def _nearness(side: int, center: NDArray[np.float64], radius: float) -> Field:
    """1 in the center, 0 at `radius` and below 0 outside, in cells."""
    yy, xx = np.mgrid[:side, :side]
    near: Field = (1 - np.hypot(yy - center[0], xx - center[1]) / radius).astype(np.float32)
    return near


def _enlarge(field: Field) -> Field:
    height, width = field.shape
    return np.asarray(Image.fromarray(field).resize((width * CELL_PX, height * CELL_PX), Image.Resampling.BILINEAR))


def lay_out(rng: np.random.Generator, side: int, lesion_share: float) -> tuple[Field, Field]:
    """Where tissue and lesion lie, both fields above 0 there; float32, shape [side, side].

    A share of `lesion_share` of the tissue's cells is lesion, in one growth; at 0 there is none.
    """
    tissue = np.full((side, side), -1, np.float32)
    for _ in range(int(rng.integers(2, 4))):
        center = rng.uniform(0.3, 0.7, 2) * side
        tissue = np.maximum(tissue, _nearness(side, center, rng.uniform(0.15, 0.22) * side))
    tissue += 0.18 * _roughness(rng, side)
    cells = np.argwhere(tissue > 0)
    center = cells[rng.integers(len(cells))].astype(np.float64)
    growth = _nearness(side, center, side / 2) + 0.05 * _roughness(rng, side)
    if lesion_share <= 0:
        return tissue, np.full_like(growth, -1)
    return tissue, growth - np.float32(np.quantile(growth[tissue > 0], 1 - lesion_share))


def draw_slide(rng: np.random.Generator, tissue: Tissue, size: int, *, lesion_share: float, pen: bool) -> Slide:
    """Draws a slide of `size` × `size` px, a multiple of `CELL_PX`; `lesion_share` of its tissue is lesion."""
    tissue_field, lesion_field = lay_out(rng, size // CELL_PX, lesion_share)
    picture: Picture = np.empty((size, size, 3), np.uint8)
    picture[:] = rng.integers(_GLASS, _GLASS + 6, (size, size, 1), dtype=np.uint8)
    stain = rng.uniform(0.92, 1.08) * rng.uniform(0.98, 1.02, 3)
    box = _surround(tissue_field > 0)
    in_tissue = _enlarge(tissue_field[box]) > 0
    in_lesion = in_tissue & (_enlarge(lesion_field[box]) > 0)
    drawn = picture[tuple(slice(side.start * CELL_PX, side.stop * CELL_PX) for side in box)]
    for crops, where in ((tissue.normal, in_tissue & ~in_lesion), (tissue.lesion, in_lesion)):
        if where.any():
            part = _surround(where)
            texture = lay(rng, apply_curve(crops, stain), where[part])
            np.copyto(drawn[part], texture, where=where[part][..., None])
    if pen:
        _draw_pen(rng, picture)
    lesion = np.zeros(tissue_field.shape, bool)
    lesion[box] = in_lesion[CELL_PX // 2 :: CELL_PX, CELL_PX // 2 :: CELL_PX]
    tissue_px = int(np.count_nonzero(in_tissue))
    return Slide(
        picture=picture,
        lesion=lesion,
        tissue_share=tissue_px / size**2,
        lesion_share=int(np.count_nonzero(in_lesion)) / max(tissue_px, 1),
    )


def _surround(where: Mask) -> tuple[slice, slice]:
    """The smallest box that holds all that is set."""
    rows, columns = (np.flatnonzero(where.any(axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _draw_pen(rng: np.random.Generator, picture: Picture) -> None:
    """A felt-tip stroke along the upper edge, as a pathologist leaves one."""
    size = picture.shape[0]
    columns = np.arange(int(0.08 * size), int(0.55 * size))
    middle = size * (0.06 + 0.012 * np.sin(columns / size * 14 + rng.uniform(0, 6)))
    half = size * 0.006
    rows = np.arange(int(0.12 * size))[:, None]
    stroke = np.abs(rows - middle[None, :]) < half
    picture[: len(rows), columns[0] : columns[-1] + 1][stroke] = _PEN


def encode_slide(slide: Slide, stored: Stored) -> bytes:
    """The slide as a tiled, JPEG-compressed TIFF; resolution tags only where `stored.mpp` is given."""
    options: dict[str, Any] = {
        "tile": (stored.block, stored.block),
        "compression": "jpeg",
        "compressionargs": {"level": JPEG_QUALITY},
        "photometric": "rgb",
        "subsampling": (2, 2),
        "metadata": None,
        "software": "",
    }
    resolution = {}
    if stored.mpp is not None:
        resolution = {"resolution": (1e4 / stored.mpp, 1e4 / stored.mpp), "resolutionunit": "CENTIMETER"}
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as writer:
        writer.write(slide.picture, **options, **resolution)
        level = Image.fromarray(slide.picture)
        for _ in range(1, stored.levels):
            level = level.reduce(2)
            writer.write(np.asarray(level), subfiletype=1, **options)
    return out.getvalue()


def encode_mask(slide: Slide) -> bytes:
    """The lesion mask as a TIFF, `MASK_DOWNSAMPLE` times smaller than the slide: 255 is lesion."""
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as writer:
        writer.write(
            slide.lesion.astype(np.uint8) * np.uint8(255),
            compression="deflate",
            photometric="minisblack",
            metadata=None,
            software="",
        )
    return out.getvalue()
