"""The slides that the tiling benchmark measures on: from real tissue, written tile by tile in bounded memory.

    python tests/benchmarks/bench_slides.py --work FOLDER [--side 32768] [--tissue 'FOLDER/*.jpg']

About 16% of a slide is tissue, pictures of 1024² px laid out in a blob; the rest is glass with a little noise.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import simplejpeg
import tifffile
from bench_blocks import CELL, plan_cells, read_tissue

LEVELS = 4


class SlideMaker:
    """Writes slides of `side` px from the same tissue pictures; a file that is there is left alone."""

    def __init__(self, folder: Path, side: int, tissue: str | None) -> None:
        os.makedirs(folder, exist_ok=True)
        self.folder, self.side = folder, side
        noise = np.random.default_rng(3).integers(-2, 3, (CELL, CELL, 3))
        pictures = read_tissue(tissue)
        self.cells = plan_cells(side, len(pictures))
        self._pictures = [*pictures, (240 + noise).astype(np.uint8)]

    def flat(self, block: int) -> Path:
        """JPEG blocks without a pyramid."""
        return self._write(self.folder / f"flat-{self.side}-{block}.tiff", block, 1)

    def pyramid(self, block: int) -> Path:
        """JPEG blocks, four levels, each 1/4 of the one before."""
        return self._write(self.folder / f"pyramid-{self.side}-{block}.tiff", block, LEVELS)

    def jpeg2000(self, block: int) -> Path:
        """Aperio's JPEG 2000, flat."""
        return self._write(self.folder / f"jpeg2000-{self.side}-{block}.svs", block, 1, jpeg2000=True)

    def _write(self, path: Path, block: int, levels: int, jpeg2000: bool = False) -> Path:
        if path.exists():
            return path
        temporary = path.with_suffix(".part")
        options = {"tile": (block, block), "dtype": np.uint8, "metadata": None, "resolutionunit": "CENTIMETER"}
        options |= {"photometric": "ycbcr", "compression": "jpeg", "subsampling": (2, 2)}
        if jpeg2000:
            options |= {"photometric": "rgb", "compression": 33005, "subsampling": None}
            options["description"] = (
                f"Aperio Image Library v1\n{self.side}x{self.side} J2K/KDU Q=90|AppMag = 40|MPP = 0.25"
            )
        with tifffile.TiffWriter(temporary, bigtiff=True) as writer:
            for level in range(levels):
                factor = 4**level
                size = self.side // factor
                writer.write(
                    self._blocks(block, factor, jpeg2000), shape=(size, size, 3), subfiletype=int(level > 0),
                    resolution=(40000 / factor, 40000 / factor), **options,
                )  # fmt: skip
        temporary.rename(path)
        return path

    def _blocks(self, block: int, factor: int, jpeg2000: bool) -> Iterator[bytes]:
        reduced = [_reduce(picture, factor) for picture in self._pictures]
        cell, known = CELL // factor, {}
        for top in range(0, self.side // factor, block):
            for left in range(0, self.side // factor, block):
                kinds = self.cells[top // cell : -(-(top + block) // cell), left // cell : -(-(left + block) // cell)]
                key = kinds.tobytes(), top % cell, left % cell
                if key not in known:
                    rows = [np.concatenate([reduced[kind] for kind in row], axis=1) for row in kinds]
                    whole = np.concatenate(rows)[top % cell :, left % cell :][:block, :block]
                    known[key] = _encode(np.ascontiguousarray(whole), jpeg2000)
                yield known[key]


def _reduce(picture: np.ndarray, factor: int) -> np.ndarray:
    side = CELL // factor
    return picture.reshape(side, factor, side, factor, 3).mean(axis=(1, 3)).round().astype(np.uint8)


def _encode(picture: np.ndarray, jpeg2000: bool) -> bytes:
    if jpeg2000:
        return bytes(imagecodecs.jpeg2k_encode(picture, level=40, codecformat="j2k"))
    return bytes(simplejpeg.encode_jpeg(picture, 90, colorsubsampling="420"))


def main() -> None:
    """Makes the slides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the slides")
    parser.add_argument("--side", type=int, default=32768, help="px, a multiple of 4096")
    parser.add_argument("--tissue", help="pattern of tissue pictures of at least 1024² px")
    options = parser.parse_args()
    maker = SlideMaker(options.work, options.side, options.tissue)
    made = [maker.flat(256), maker.flat(128), maker.pyramid(256)]
    made += [SlideMaker(options.work, 2 * options.side, options.tissue).flat(256)]
    made += [SlideMaker(options.work, options.side // 2, options.tissue).jpeg2000(256)]
    for path in made:
        print(f"{path.stat().st_size >> 20:6d} MiB  {path}")


if __name__ == "__main__":
    main()
