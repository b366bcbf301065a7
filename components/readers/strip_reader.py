"""TIFFs that OpenSlide refuses, striped or odd, read strip by strip with tifffile: grey or RGB, 8 or 16 bits."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import tifffile

from components.readers.box_average import BoxAverage
from components.readers.byte_source import LocalFile
from components.readers.protocol import Picture
from components.readers.tiff_index import Directory, read_index
from components.records.errors import SlideError

# A strip or tile larger than this, decoded, is refused: it would have to be held whole.
MOST_BYTES = 256 << 20
_GREY = (tifffile.PHOTOMETRIC.MINISWHITE, tifffile.PHOTOMETRIC.MINISBLACK)
_RGB, _YCBCR, _JPEG = tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR, tifffile.COMPRESSION.JPEG


class StripReader:
    """Reads the first picture of a TIFF by its strips or tiles; a `SlideReader` of one level without stored blocks.

    16-bit samples show their upper 8 bits; grey becomes RGB; an alpha channel is laid on white. Memory is the wanted
    picture and one strip. Safe to share between threads, which then take turns.

    Args:
        path: a file on disk.

    Raises:
        SlideError: no such file, no TIFF, or one with pictures this reader doesn't take; `what` is the reason.
    """

    name = "tifffile"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._where = os.path.basename(self._path)
        source = LocalFile(self._path)
        try:
            directories = read_index(source)
        finally:
            source.close()
        first = directories[0]
        try:
            self._file = tifffile.TiffFile(self._path)
            self._page: Any = self._file.pages.first
            reason = self._refusal(directories)
        except Exception as error:
            # tifffile has no one error for damaged tags: what it meets in them is what it raises.
            raise SlideError(f"is no TIFF that can be read: {_one_line(error)}", where=self._where) from error
        if reason:
            self._file.close()
            raise SlideError(reason, where=self._where, mend="convert it to a tiled, pyramidal TIFF")
        self.width, self.height = first.width, first.height
        self.downsamples: tuple[float, ...] = (1.0,)
        self.mpp, self.icc_profile = first.mpp, first.icc_profile
        self._shape: tuple[int, int] = self._page.chunks[:2]
        self._lock = threading.Lock()
        self._last: tuple[int, Picture] | None = None

    def read_region(self, x: int, y: int, level: int, width: int, height: int) -> Picture:
        """`width` × `height` px, the corner at (`x`, `y`); white beyond the slide's edge.

        Raises:
            SlideError: a strip is damaged or lies beyond the file's end.
        """
        if level:
            raise ValueError("the slide has one level")
        picture = np.full((height, width, 3), 255, np.uint8)
        right, bottom = min(x + width, self.width), min(y + height, self.height)
        tall, wide = self._shape
        for row in range(max(y, 0) // tall, -(-bottom // tall)):
            for column in range(max(x, 0) // wide, -(-right // wide)):
                left, top = column * wide, row * tall
                x0, x1 = max(left, x), min(left + wide, right)
                y0, y1 = max(top, y), min(top + tall, bottom)
                if x0 < x1 and y0 < y1:
                    strip = self._strip(row, column)
                    picture[y0 - y : y1 - y, x0 - x : x1 - x] = strip[y0 - top : y1 - top, x0 - left : x1 - left]
        return picture

    def read_low_resolution(self, downsample: float) -> Picture:
        """The whole slide at `downsample` px a px, averaged while its strips stream by.

        Returns:
            uint8, shape [ceil(height / downsample), ceil(width / downsample), 3].

        Raises:
            SlideError: a strip is damaged or lies beyond the file's end.
        """
        if downsample < 1:
            raise ValueError("downsample is less than 1")
        shape = math.ceil(self.width / downsample), math.ceil(self.height / downsample)
        average = BoxAverage(self.width, self.height, downsample, *shape)
        for row in self._rows():
            average.add(row)
        return average.picture

    def stored_block(self, x: int, y: int, level: int, width: int, height: int) -> bytes | None:
        """None: strips are no tiles."""
        return None

    def close(self) -> None:
        """Closes the file; a closed reader is not used again."""
        self._file.close()

    def __reduce__(self) -> tuple[type[StripReader], tuple[str]]:
        return StripReader, (self._path,)

    def _rows(self) -> Iterator[Picture]:
        tall, wide = self._shape
        for row in range(-(-self.height // tall)):
            rows = min(tall, self.height - row * tall)
            strips = [self._strip(row, column)[:rows] for column in range(-(-self.width // wide))]
            yield (strips[0] if len(strips) == 1 else np.concatenate(strips, axis=1))[:, : self.width]

    def _strip(self, row: int, column: int) -> Picture:
        index = row * -(-self.width // self._shape[1]) + column
        with self._lock:
            if self._last is None or self._last[0] != index:
                self._last = index, self._decode(index)
            return self._last[1]

    def _decode(self, index: int) -> Picture:
        page, (tall, wide) = self._page, self._shape
        offset, length = page.dataoffsets[index], page.databytecounts[index]
        picture = np.full((tall, wide, 3), 255, np.uint8)
        if not length:
            return picture
        try:
            self._file.filehandle.seek(offset)
            stored = self._file.filehandle.read(length)
            if len(stored) != length:
                raise self._damaged(index, "it lies beyond the file's end: the file is cut off")
            strip: Any = page.decode(stored, index, jpegtables=page.jpegtables)[0]
        except SlideError:
            raise
        except Exception as error:
            # Each of the codecs behind tifffile has errors of its own, with no common base but this.
            raise self._damaged(index, f"can't be decoded: {_one_line(error)}") from error
        if strip is None:
            raise self._damaged(index, "holds nothing")
        shown = self._shown(strip[0])
        picture[: shown.shape[0], : shown.shape[1]] = shown
        return picture

    def _shown(self, samples: Any) -> Picture:
        if samples.dtype == np.uint16:
            samples = (samples >> 8).astype(np.uint8)
        if self._page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            samples = 255 - samples
        if samples.shape[2] == 4:
            alpha = samples[:, :, 3:].astype(np.uint16)
            samples = ((samples[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
        shown: Picture = np.broadcast_to(samples[:, :, :3], (*samples.shape[:2], 3))
        return shown

    def _refusal(self, directories: list[Directory]) -> str | None:
        page = self._page
        samples, bits, grey = page.samplesperpixel, page.bitspersample, page.photometric in _GREY
        if any(not other.reduced and not other.aperio for other in directories[1:]):
            return f"holds {len(directories)} pictures, of which none is said to be the slide"
        if page.compression not in tifffile.TIFF.DECOMPRESSORS:
            return f"stores compression {int(page.compression)}, which is unknown"
        if page.dtype not in (np.uint8, np.uint16) or bits not in (8, 16):
            return f"stores samples of {bits} bits, not 8 or 16"
        if samples > 1 and page.planarconfig != tifffile.PLANARCONFIG.CONTIG:
            return "stores its colours in planes"
        if not grey and page.photometric != _RGB and (page.photometric, page.compression) != (_YCBCR, _JPEG):
            return f"has photometric {int(page.photometric)}, not grey or RGB"
        if samples not in ((1,) if grey else (3, 4)):
            return f"has {samples} samples a px"
        tall, wide = page.chunks[:2]
        strips = -(-page.imagelength // tall) * -(-page.imagewidth // wide)
        if (page.imagewidth, page.imagelength) != (directories[0].width, directories[0].height):
            return "has a damaged directory"
        if not strips == len(page.dataoffsets) == len(page.databytecounts):
            return f"lists {len(page.dataoffsets)} strips where its size needs {strips}"
        if page.imagedepth != 1 or tall * wide * samples * bits // 8 > MOST_BYTES:
            return f"stores {wide} × {tall} px in one piece, too much to hold"
        return None

    def _damaged(self, index: int, reason: str) -> SlideError:
        return SlideError(f"strip {index}: {reason}", where=self._where)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
