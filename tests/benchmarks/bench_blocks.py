"""Stored JPEG blocks against OpenSlide and Pillow on one machine, in one run, the two taking turns.

    python tests/benchmarks/bench_blocks.py [--side 32768] [--work FOLDER] [--tissue 'FOLDER/*.jpg']

Makes flat slides (no pyramid) with about 16% tissue, of 256-px and 128-px blocks, and times on one thread:
reading, serialising and writing records of 256-px tiles, tiles of half the resolution, and a low-resolution picture.
The loop it is measured against does `read_region`, Pillow's JPEG of quality 90, and the same record. OpenSlide's
thumbnail of a flat slide takes 9 GB at the full size, so it is only run with --thumbnail.
"""

from __future__ import annotations

import argparse
import glob
import io
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import openslide
import simplejpeg
import tifffile
from PIL import Image

from components.readers.jpeg_blocks import JpegBlockReader
from components.records.example import encode_example, encode_features
from components.records.tfrecord import frame

CELL, TILE = 1024, 256


def read_tissue(pattern: str | None) -> list[np.ndarray]:
    """Tissue pictures of 1024² px: the user's, or scikit-image's immunohistochemistry mirrored to size."""
    if pattern:
        found = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(glob.glob(pattern))[:16]]
        return [picture[:CELL, :CELL] for picture in found if min(picture.shape[:2]) >= CELL]
    from skimage.data import immunohistochemistry

    picture = np.pad(immunohistochemistry(), ((0, 512), (0, 512), (0, 0)), mode="reflect")
    return [np.ascontiguousarray(np.rot90(picture, turns)) for turns in range(4)]


def plan_cells(side: int, kinds: int) -> np.ndarray:
    """Which tissue picture lies in which cell of 1024² px, -1 for glass; about 16% in a blob, the same every time."""
    count = side // CELL
    y, x = np.mgrid[:count, :count] + 0.5
    inside = ((x / count - 0.45) / 0.26) ** 2 + ((y / count - 0.55) / 0.2) ** 2 < 1
    return np.where(inside, np.random.default_rng(7).integers(0, kinds, (count, count)), -1)


def write_slide(path: Path, side: int, block: int, pictures: list[np.ndarray], cells: np.ndarray) -> None:
    """A flat JPEG TIFF, block by block: memory is the pictures' own."""
    noise = np.random.default_rng(3).integers(-2, 3, (CELL, CELL, 3))
    coded = [_code_blocks(picture, block) for picture in [*pictures, (240 + noise).astype(np.uint8)]]

    def blocks() -> Iterator[bytes]:
        across = CELL // block
        for row in range(side // block):
            for column in range(side // block):
                kind = coded[cells[row // across, column // across]]
                yield kind[row % across * across + column % across]

    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        writer.write(
            blocks(), shape=(side, side, 3), dtype=np.uint8, tile=(block, block), photometric="ycbcr",
            compression="jpeg", subsampling=(2, 2), resolution=(40000, 40000), resolutionunit="CENTIMETER",
            metadata=None,
        )  # fmt: skip


def _code_blocks(picture: np.ndarray, block: int) -> list[bytes]:
    return [
        simplejpeg.encode_jpeg(np.ascontiguousarray(picture[y : y + block, x : x + block]), 90, colorsubsampling="420")
        for y in range(0, CELL, block)
        for x in range(0, CELL, block)
    ]


CONSTANT = encode_features({"image/format": "jpeg", "slide/id": "bench", "patient/id": "p", "image/class/text": "a"})


def write_record(stream: io.BufferedWriter, x: int, y: int, jpeg: bytes) -> None:
    """One record as the tiling step writes it, near enough."""
    entries = encode_features({"image/encoded": jpeg, "tile/x": x, "tile/y": y})
    stream.write(frame(encode_example(CONSTANT, entries)))


def take_turns(
    tiles: list[tuple[int, int]], baseline: Callable[..., None], ours: Callable[..., None], share: int
) -> str:
    """Runs both in alternating pieces and gives tiles/s of each and their ratio; the baseline does 1 of `share`."""
    seconds, done = [0.0, 0.0], [0, 0]
    pieces = [tiles[at : at + 256] for at in range(0, len(tiles), 256)]
    for piece in pieces:
        for who, (work, some) in enumerate(((baseline, piece[::share]), (ours, piece))):
            began = time.perf_counter()
            for x, y in some:
                work(x, y)
            seconds[who] += time.perf_counter() - began
            done[who] += len(some)
    rates = [count / second for count, second in zip(done, seconds, strict=True)]
    return f"OpenSlide + Pillow {rates[0]:8.0f}/s   stored blocks {rates[1]:8.0f}/s   {rates[1] / rates[0]:5.1f}×"


def measure(path: Path, block: int, side: int, cells: np.ndarray, folder: Path, thumbnail: bool) -> None:
    """Prints the figures of one slide."""
    began = time.perf_counter()
    reader = JpegBlockReader(path)
    index = time.perf_counter() - began
    began = time.perf_counter()
    low = reader.read_low_resolution(32)
    low_seconds = time.perf_counter() - began
    print(f"{block}-px blocks, {side}², {path.stat().st_size >> 20} MiB: index {index * 1e3:.1f} ms, ", end="")
    print(f"1/32 picture {low.shape[1]} × {low.shape[0]} px {low_seconds:.2f} s, ", end="")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB")
    slide = openslide.OpenSlide(path)
    if thumbnail:
        began = time.perf_counter()
        slide.get_thumbnail((side // 32, side // 32))
        seconds = time.perf_counter() - began
        print(f"  OpenSlide thumbnail {seconds:.1f} s, {seconds / low_seconds:.0f}×")
        slide.close()
        slide = openslide.OpenSlide(path)

    def loop(stream: io.BufferedWriter, size: int) -> Callable[[int, int], None]:
        def work(x: int, y: int) -> None:
            picture = slide.read_region((x, y), 0, (size, size)).convert("RGB")
            if size != TILE:
                picture = picture.resize((TILE, TILE), Image.Resampling.BOX)
            coded = io.BytesIO()
            picture.save(coded, "JPEG", quality=90)
            write_record(stream, x, y, coded.getvalue())

        return work

    def stored(x: int, y: int) -> None:
        jpeg = reader.stored_block(x, y, 0, TILE, TILE)
        assert jpeg is not None
        write_record(ours, x, y, jpeg)

    def reduced(x: int, y: int) -> None:
        picture = reader.read_reduced(x, y, 0, TILE, TILE, 2)
        assert picture is not None
        write_record(ours, x, y, simplejpeg.encode_jpeg(picture, 90, colorsubsampling="420"))

    def coded_again(x: int, y: int) -> None:
        picture = reader.read_region(x, y, 0, TILE, TILE)
        write_record(ours, x, y, simplejpeg.encode_jpeg(picture, 90, colorsubsampling="420"))

    def corners(step: int) -> list[tuple[int, int]]:
        rows, columns = np.nonzero(cells >= 0)
        inner = range(0, CELL, step)
        cornered = zip(rows.tolist(), columns.tolist(), strict=True)
        return [(c * CELL + x, r * CELL + y) for r, c in cornered for y in inner for x in inner]

    tiles = corners(TILE)
    with open(folder / "loop.tfrecord", "wb") as theirs, open(folder / "ours.tfrecord", "wb") as ours:
        began = time.perf_counter()
        stored(*tiles[0])
        first = time.perf_counter() - began
        print(f"  first tile {first:.2f} s; {len(tiles)} tiles of {TILE} px:")
        print(f"    {'joined' if block < TILE else 'as stored':26s}{take_turns(tiles, loop(theirs, TILE), stored, 8)}")
        shifted = [(x + 8, y + 8) for x, y in tiles[: len(tiles) // 4]]
        print(f"    off the grid, coded again {take_turns(shifted, loop(theirs, TILE), coded_again, 4)}")
        print(f"    0.25 → 0.5 µm/px          {take_turns(corners(2 * TILE), loop(theirs, 2 * TILE), reduced, 8)}")
    slide.close()
    reader.close()


def main() -> None:
    """Makes the slides that are not there yet, and measures them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=32768, help="px, a multiple of 1024")
    parser.add_argument("--work", type=Path, help="folder for the slides, kept; a temporary one if not given")
    parser.add_argument("--tissue", help="pattern of tissue pictures of at least 1024² px")
    parser.add_argument("--thumbnail", action="store_true", help="also run OpenSlide's thumbnail (9 GB at 32768²)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.work or Path(temporary)
        os.makedirs(folder, exist_ok=True)
        pictures = read_tissue(options.tissue)
        cells = plan_cells(options.side, len(pictures))
        print(f"tissue {np.mean(cells >= 0):.1%}")
        for block in (256, 128):
            path = folder / f"flat-{options.side}-{block}.tiff"
            if not path.exists():
                write_slide(path, options.side, block, pictures, cells)
            measure(path, block, options.side, cells, folder, options.thumbnail)


if __name__ == "__main__":
    main()
