"""What a tiling run can be told."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from components.records.errors import InputError

RECORD_OVERHEAD = 16 << 10
SAMPLINGS = ("even", "random")
TILE_FORMATS = ("jpeg", "png")


@dataclass(frozen=True)
class TilingParameters:
    """Parameters of a tiling run; a wrong one raises InputError with its name.

    Attributes:
        tile_px: side of an encoded tile, px.
        mpp: µm/px that is wanted; 0 takes `level` as it is.
        level: pyramid level, where `mpp` is 0.
        stride: px of the encoded scale between tile corners; 0 is `tile_px`, no overlap.
        min_tissue: share of a tile, 0–1, that the tissue mask must cover.
        max_pen: share of a tile, 0–1, that may be pen; 1 keeps every tile that has tissue.
        max_fold: share of a tile, 0–1, that may lie in a fold; 1 leaves folds alone.
        min_sharpness: 0–1, see `sharpness.score_sharpness`; tiles below it are left out, for which every tile has to
            be decoded; 0 leaves blur alone. Tissue in focus has 0.07 and more, blurred over 2 px less: begin with 0.03.
        max_tiles_per_slide: 0 keeps all, else a sample of that many is kept, see `tile_sampling`.
        tile_sampling: `even`, spread over the slide in reading order; `random`, seeded per slide.
        default_mpp: µm/px at level 0 of slides of which neither manifest nor file says it; 0 leaves it unknown.
        allow_absurd_mpp: takes a resolution outside 0.05–40 µm/px as true.
        mpp_tolerance: a level that is off the wanted mpp by at most this share is taken as it is, not resampled.
        min_lesion: how much of a tile the lesion mask must mark for `tile/label` 1: 0 for any bit of it, below 1 a
            share of the tile, from 1 on a number of level-0 px.
        lesion_classes: groups or classifications of drawn annotations that are lesions, parted by commas; empty for
            all but exclusions.
        max_failed_share: share of slides, 0–1, that may be failed or partial before the step fails at its end.
        tile_format: `jpeg` or `png`, for tiles whose stored bytes can't be taken as they are.
        jpeg_quality: 1–100, of tiles that are encoded again (4:2:0).
        seed: of the random sample.
        part_bytes: no TFRecord part is larger, whatever the pixels.
        region_tiles: most tiles of a region, which is one work item and one part.
        qc: draws a QC sheet of each slide as it is planned, and the contact sheet of all.
    """

    tile_px: int = 256
    mpp: float = 0.5
    level: int = 0
    stride: int = 0
    min_tissue: float = 0.005
    max_pen: float = 0.02
    max_fold: float = 1.0
    min_sharpness: float = 0.0
    max_tiles_per_slide: int = 0
    tile_sampling: str = "even"
    default_mpp: float = 0.0
    allow_absurd_mpp: bool = False
    mpp_tolerance: float = 0.1
    min_lesion: float = 0.0
    lesion_classes: str = ""
    max_failed_share: float = 0.0
    tile_format: str = "jpeg"
    jpeg_quality: int = 90
    seed: int = 0
    part_bytes: int = 256 << 20
    region_tiles: int = 512
    qc: bool = True

    def __post_init__(self) -> None:
        _check(self.tile_px, 16, 8192, "tile_px")
        _check(self.mpp, 0, 1000, "mpp")
        _check(self.level, 0, 64, "level")
        _check(self.stride, 0, 1 << 20, "stride")
        _check(self.min_tissue, 0, 1, "min_tissue")
        _check(self.max_pen, 0, 1, "max_pen")
        _check(self.max_fold, 0, 1, "max_fold")
        _check(self.min_sharpness, 0, 1, "min_sharpness")
        _check(self.max_tiles_per_slide, 0, 1 << 40, "max_tiles_per_slide")
        _check(self.default_mpp, 0, 1000, "default_mpp")
        _check(self.mpp_tolerance, 0, 0.5, "mpp_tolerance")
        _check(self.min_lesion, 0, 1 << 40, "min_lesion")
        _check(self.max_failed_share, 0, 1, "max_failed_share")
        _check(self.jpeg_quality, 1, 100, "jpeg_quality")
        _check(self.region_tiles, 1, 1 << 20, "region_tiles")
        _choose(self.tile_sampling, SAMPLINGS, "tile_sampling")
        _choose(self.tile_format, TILE_FORMATS, "tile_format")
        if self.part_bytes < self.tile_bytes:
            raise InputError(
                f"{self.part_bytes} bytes hold no tile of {self.tile_px} px",
                where="part_bytes",
                mend=f"give at least {self.tile_bytes}",
            )

    @property
    def tile_bytes(self) -> int:
        """What a record takes at most: its raw pixels and the features beside them."""
        return self.tile_px * self.tile_px * 3 + RECORD_OVERHEAD

    @property
    def tiles_per_region(self) -> int:
        """Tiles of a whole region: a number of the parameters alone, so that parts don't depend on who writes them."""
        return max(1, min(self.region_tiles, self.part_bytes // self.tile_bytes))

    def record_parameters(self) -> dict[str, Any]:
        """The parameters that change a record or where it lies."""
        values = asdict(self)
        values.pop("max_failed_share")
        values.pop("qc")
        return values


def _check(value: float, low: float, high: float, name: str) -> None:
    if isinstance(value, bool) or not math.isfinite(value) or not low <= value <= high:
        raise InputError(f"{value!r} is out of range", where=name, mend=f"give {low} to {high}")


def _choose(value: str, choices: tuple[str, ...], name: str) -> None:
    if value not in choices:
        raise InputError(f"{value!r} is unknown", where=name, mend=f"choose {' or '.join(choices)}")
