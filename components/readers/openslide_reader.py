"""Whatever OpenSlide can open."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import openslide
from PIL import Image

from components.readers.protocol import Picture
from components.records.errors import SlideError

_CHUNK = 2048
_MICROMETRES = {"inch": 25400.0, "centimeter": 10000.0}
_Result = TypeVar("_Result")


class OpenSlideReader:
    """A slide behind OpenSlide; see `components.readers.protocol.SlideReader`.

    The whole canvas counts: OpenSlide's bounds properties (the scanned part of a MIRAX canvas) are not used,
    what was never scanned is white. After a read that failed OpenSlide refuses every further one, so the file
    is opened anew for the next.

    Raises:
        SlideError: OpenSlide can't open the file.
    """

    name = "openslide"

    def __init__(self, path: str) -> None:
        self._path = path
        self._slide: Any = None
        slide = self._open()
        self.width, self.height = (int(length) for length in slide.dimensions)
        self.downsamples: tuple[float, ...] = tuple(float(downsample) for downsample in slide.level_downsamples)
        self._sizes: tuple[tuple[int, int], ...] = tuple(slide.level_dimensions)
        self.mpp = parse_mpp(slide.properties)
        self.icc_profile = self._guard(lambda: _icc_profile(slide))

    def _open(self) -> Any:
        if self._slide is None:
            if not os.path.isfile(self._path):
                raise SlideError("there is no such file", mend="check image_path")
            try:
                self._slide = openslide.OpenSlide(self._path)
            except openslide.OpenSlideUnsupportedFormatError:
                raise SlideError("is no slide that OpenSlide knows", mend="convert it to a tiled TIFF") from None
            except openslide.OpenSlideError as error:
                raise SlideError(f"OpenSlide can't open it ({self._tell(error)})", mend="check the file") from None
        return self._slide

    def _guard(self, read: Callable[[], _Result]) -> _Result:
        try:
            return read()
        except openslide.OpenSlideError as error:
            self.close()
            raise SlideError(f"OpenSlide can't read it ({self._tell(error)})", mend="check the file") from None

    def _tell(self, error: Exception) -> str:
        return str(error).replace(self._path, os.path.basename(self._path))

    def read_region(self, x: int, y: int, level: int, width: int, height: int) -> Picture:
        """`width` × `height` px of a level, its corner at level-0 (`x`, `y`); white beyond the slide's edge.

        Raises:
            SlideError: OpenSlide can't read there.
        """
        slide = self._open()
        return flatten(self._guard(lambda: slide.read_region((x, y), level, (width, height))))

    def read_low_resolution(self, downsample: float) -> Picture:
        """The whole slide at `downsample` level-0 px a px, area-averaged in chunks of about 2048² px.

        Returns:
            uint8, shape [ceil(height / downsample), ceil(width / downsample), 3].

        Raises:
            SlideError: OpenSlide can't read the slide.
        """
        level = max(i for i, own in enumerate(self.downsamples) if i == 0 or own <= downsample * 1.01)
        step = downsample / self.downsamples[level]
        rows, columns = math.ceil(self.height / downsample), math.ceil(self.width / downsample)
        picture = np.empty((rows, columns, 3), np.uint8)
        chunk = max(1, int(_CHUNK / step))
        for top in range(0, rows, chunk):
            bottom = min(top + chunk, rows)
            for left in range(0, columns, chunk):
                right = min(left + chunk, columns)
                picture[top:bottom, left:right] = self._average(level, step, left, top, right, bottom)
        return picture

    def _average(self, level: int, step: float, left: int, top: int, right: int, bottom: int) -> Picture:
        width, height = self._sizes[level]
        x0, y0 = min(int(left * step), width - 1), min(int(top * step), height - 1)
        x1 = max(min(math.ceil(right * step - 1e-6), width), x0 + 1)
        y1 = max(min(math.ceil(bottom * step - 1e-6), height), y0 + 1)
        own = self.downsamples[level]
        region = self.read_region(round(x0 * own), round(y0 * own), level, x1 - x0, y1 - y0)
        ratio = round(step)
        if abs(step - ratio) < 1e-6:
            edge = (
                (0, (bottom - top) * ratio - region.shape[0]),
                (0, (right - left) * ratio - region.shape[1]),
                (0, 0),
            )
            if any(after for _, after in edge):
                region = np.pad(region, edge, mode="edge")
            return np.asarray(Image.fromarray(region).reduce(ratio) if ratio > 1 else region)
        box = (left * step - x0, top * step - y0, min(right * step, width) - x0, min(bottom * step, height) - y0)
        size = (right - left, bottom - top)
        return np.asarray(Image.fromarray(region).resize(size, Image.Resampling.BOX, box=box))

    def stored_block(self, x: int, y: int, level: int, width: int, height: int) -> bytes | None:
        """None: OpenSlide gives pixels only."""
        return None

    def close(self) -> None:
        """Closes the file."""
        if self._slide is not None:
            self._slide.close()
            self._slide = None


def flatten(picture: Image.Image) -> Picture:
    """RGBA on white as RGB, uint8, shape [height, width, 3]."""
    if picture.getchannel("A").getextrema() != (255, 255):
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return np.asarray(picture.convert("RGB"))


def parse_mpp(properties: Mapping[str, str]) -> float | None:
    """µm/px of a slide's properties: the mean of OpenSlide's mpp-x and mpp-y, else the TIFF resolution."""
    sides = [_number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy"]
    known = [side for side in sides if side is not None]
    if known:
        return sum(known) / len(known)
    unit = _MICROMETRES.get(properties.get("tiff.ResolutionUnit", "").lower())
    resolution = _number(properties.get("tiff.XResolution"))
    return unit / resolution if unit and resolution else None


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _icc_profile(slide: Any) -> bytes | None:
    profile = slide.color_profile
    return None if profile is None else bytes(profile.tobytes())
