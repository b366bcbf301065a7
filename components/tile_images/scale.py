"""At which level a slide is read, and how many level-0 px a tile covers."""

from __future__ import annotations

from dataclasses import dataclass

from components.records.errors import SlideError
from components.tile_images.parameters import TilingParameters

ABSURD_BELOW, ABSURD_ABOVE = 0.05, 40.0


@dataclass(frozen=True)
class Scale:
    """How tiles of a slide are read.

    Attributes:
        level: the level that is read; `downsample` is level-0 px a px of it.
        scale: level-0 px a px of the encoded tile.
        side: level-0 px a tile covers.
        native: the level's own pixels, not resampled.
        mpp: µm/px of the encoded tile, None where unknown.
    """

    level: int
    downsample: float
    scale: float
    side: int
    native: bool
    mpp: float | None


def resolve_mpp(
    manifest_mpp: float | None, file_mpp: float | None, parameters: TilingParameters
) -> tuple[float | None, str]:
    """µm/px at level 0 and where it came from: manifest, else file, else default, else unknown.

    Raises:
        SlideError: it is outside 0.05–40 µm/px and `allow_absurd_mpp` is off.
    """
    for mpp, source in ((manifest_mpp, "manifest"), (file_mpp, "file"), (parameters.default_mpp or None, "default")):
        if mpp is None:
            continue
        if not (ABSURD_BELOW <= mpp <= ABSURD_ABOVE or parameters.allow_absurd_mpp):
            raise SlideError(
                f"{mpp:.6g} µm/px from the {source} is outside {ABSURD_BELOW}–{ABSURD_ABOVE:g}",
                mend="give mpp in the manifest, or allow_absurd_mpp",
            )
        return mpp, source
    return None, "unknown"


def choose_scale(downsamples: tuple[float, ...], mpp: float | None, parameters: TilingParameters) -> Scale:
    """The level to read, after the wanted mpp or level.

    A level within `mpp_tolerance` of the wanted mpp is taken as it is and its true mpp recorded; else the next
    finer level is reduced. A slide of unknown mpp is taken at level 0 as it is.

    Raises:
        SlideError: the slide has no such level, or is coarser than the wanted mpp: nothing is upsampled.
    """
    px = parameters.tile_px
    if parameters.mpp == 0 or mpp is None:
        level = parameters.level if parameters.mpp == 0 else 0
        if level >= len(downsamples):
            raise SlideError(f"has {len(downsamples)} levels, none numbered {level}", mend="choose a lower level")
        return _native(level, downsamples[level], px, mpp)
    wanted = parameters.mpp / mpp
    level = min(range(len(downsamples)), key=lambda i: abs(downsamples[i] / wanted - 1))
    if abs(downsamples[level] / wanted - 1) <= parameters.mpp_tolerance:
        return _native(level, downsamples[level], px, mpp)
    finer = [i for i, downsample in enumerate(downsamples) if downsample < wanted]
    if not finer:
        raise SlideError(
            f"{mpp:.6g} µm/px is coarser than the wanted {parameters.mpp:g}",
            mend="choose a larger mpp, or tile by level",
        )
    level = max(finer, key=lambda i: downsamples[i])
    side = round(px * wanted)
    return Scale(level, downsamples[level], side / px, side, False, mpp * side / px)


def _native(level: int, downsample: float, px: int, mpp: float | None) -> Scale:
    return Scale(level, downsample, downsample, round(px * downsample), True, None if mpp is None else mpp * downsample)
