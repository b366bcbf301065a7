"""What the field's tools do to tile a slide, in one process and one thread: the loop that bagline is held against.

    python tests/benchmarks/openslide_baseline.py SLIDE OUT.tfrecord [--side 512] [--corners FILE]

OpenSlide's thumbnail of 1/32, Otsu's threshold on its saturation, then for every tile of 256 px with tissue
`read_region`, Pillow's JPEG of quality 90, a `tf.train.Example`, and TensorFlow's `TFRecordWriter`. Without a pyramid
the thumbnail reads the whole slide at full size: 9 GB for 32768² px. Prints JSON; timed after imports.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
_IMPORTED = time.perf_counter()

import numpy as np  # noqa: E402
import openslide  # noqa: E402
import tensorflow as tf  # noqa: E402
from PIL import Image  # noqa: E402
from skimage.filters import threshold_otsu  # noqa: E402

TILE, THUMBNAIL, SHARE = 256, 32, 0.05


def find_tiles(slide: openslide.OpenSlide, side: int) -> list[tuple[int, int]]:
    """Level-0 corners of the tiles of `side` level-0 px that hold tissue."""
    width, height = slide.dimensions
    thumbnail = slide.get_thumbnail((width // THUMBNAIL, height // THUMBNAIL))
    saturation = np.asarray(thumbnail.convert("HSV"))[:, :, 1]
    tissue = saturation > threshold_otsu(saturation)
    found = []
    for y in range(0, height - side + 1, side):
        for x in range(0, width - side + 1, side):
            box = tissue[y // THUMBNAIL : (y + side) // THUMBNAIL, x // THUMBNAIL : (x + side) // THUMBNAIL]
            if box.mean() > SHARE:
                found.append((x, y))
    return found


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _number(value: int) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def make_record(slide: openslide.OpenSlide, x: int, y: int, side: int) -> bytes:
    """One tile, read, coded and serialised."""
    picture = slide.read_region((x, y), 0, (side, side)).convert("RGB")
    if side != TILE:
        picture = picture.resize((TILE, TILE), Image.Resampling.BOX)
    coded = io.BytesIO()
    picture.save(coded, "JPEG", quality=90)
    features = {
        "image/encoded": _bytes(coded.getvalue()),
        "image/format": _bytes(b"jpeg"),
        "image/height": _number(TILE),
        "image/width": _number(TILE),
        "slide/id": _bytes(b"bench"),
        "patient/id": _bytes(b"p"),
        "image/class/text": _bytes(b"a"),
        "tile/x": _number(x),
        "tile/y": _number(y),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def main() -> None:
    """Tiles one slide and says what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide")
    parser.add_argument("out")
    parser.add_argument("--side", type=int, default=TILE, help="level-0 px of a tile (512: half the resolution)")
    parser.add_argument("--corners", help="file of x,y lines to cut instead of looking for tissue")
    options = parser.parse_args()
    began, cpu = time.perf_counter(), time.process_time()
    slide = openslide.OpenSlide(options.slide)
    if options.corners:
        with open(options.corners) as lines:
            tiles = [tuple(map(int, line.split(","))) for line in lines]
    else:
        tiles = find_tiles(slide, options.side)
    found = time.perf_counter()
    loop_cpu = time.process_time()
    with tf.io.TFRecordWriter(options.out) as writer:
        for x, y in tiles:
            writer.write(make_record(slide, x, y, options.side))
    ended = time.perf_counter()
    told = {
        "tiles": len(tiles),
        "seconds": ended - began,
        "cpu_seconds": time.process_time() - cpu,
        "loop_seconds": ended - found,
        "loop_cpu_seconds": time.process_time() - loop_cpu,
        "import_seconds": began - _IMPORTED,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
