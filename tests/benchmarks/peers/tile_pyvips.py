"""libvips: a streamed thumbnail, Otsu on its saturation, then random-access crops as JPEG q90, one thread."""

import os
import struct
import sys

os.environ.setdefault("VIPS_CONCURRENCY", "1")

import pyvips
from skimage.filters import threshold_otsu
from timing import Clock

SIDE, STEP, SHARE = 256, 32, 0.05
path, out = sys.argv[1:]
os.makedirs(out, exist_ok=True)
clock = Clock()
pyvips.cache_set_max(0)
small = pyvips.Image.new_from_file(path, access="sequential").shrink(STEP, STEP)
saturation = small.colourspace("hsv")[1].numpy()
tissue = saturation > threshold_otsu(saturation)
slide = pyvips.Image.new_from_file(path, access="random")
tiles = 0
with open(os.path.join(out, "tiles.bin"), "wb") as stream:
    for y in range(0, slide.height - SIDE + 1, SIDE):
        for x in range(0, slide.width - SIDE + 1, SIDE):
            box = tissue[y // STEP : (y + SIDE) // STEP, x // STEP : (x + SIDE) // STEP]
            if box.mean() > SHARE:
                jpeg = slide.crop(x, y, SIDE, SIDE).jpegsave_buffer(Q=90)
                stream.write(struct.pack("<Q", len(jpeg)) + jpeg)
                tiles += 1
clock.tell(tiles)
