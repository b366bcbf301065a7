"""slideflow's Otsu filter and extraction to TFRecords, as its documentation has them: 256 px at 0.25 µm/px."""

import os
import struct
import sys

os.environ.setdefault("SF_BACKEND", "torch")
os.environ.setdefault("SF_SLIDE_BACKEND", "libvips")

import slideflow
from timing import Clock

path, out = sys.argv[1:]
os.makedirs(out, exist_ok=True)
clock = Clock()
slide = slideflow.WSI(path, tile_px=256, tile_um=64, stride_div=1, verbose=False)
slide.qc("otsu")
slide.extract_tiles(tfrecord_dir=out, img_format="jpg", num_threads=1, report=False, grayspace_fraction=1)
tiles = 0
with open(os.path.join(out, f"{slide.name}.tfrecords"), "rb") as records:
    while head := records.read(12):
        records.seek(struct.unpack_from("<Q", head)[0] + 4, os.SEEK_CUR)
        tiles += 1
clock.tell(tiles)
