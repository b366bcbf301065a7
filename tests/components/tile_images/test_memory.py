"""Memory stays where it is, however large the slide."""

import itertools
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import tifffile

from components.tile_images import grid
from components.tile_images.parameters import TilingParameters
from components.tile_images.scale import Scale
from components.tile_images.tissue import examine_picture

HOME = Path(__file__).resolve().parents[3]
# In a process of its own, as a lane does it; prints MB before, and at most.
TILING = """
import sys
from components.readers import openslide_reader
from components.records.manifest import read_manifest
from components.tile_images.parameters import TilingParameters
from components.tile_images.run import list_tasks
from components.tile_images.work import plan_or_record, tile_or_record
def told(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))
parameters = TilingParameters(mpp=0)
(task,) = list_tasks(read_manifest(sys.argv[1]), sys.argv[2])
before = told("VmRSS")
regions = plan_or_record(task, parameters, sys.argv[3])
tiles = sum(tile_or_record(region, parameters, sys.argv[3])[0] for region in regions)
print(before, told("VmHWM"), tiles)
"""


def write_flat_slide(path, side, block=256):
    """Blocks of noise on glass, one in sixteen; as a file of a few MB."""
    dice = np.random.default_rng(0)
    pictures = [np.full((block, block, 3), 243, np.uint8), dice.integers(90, 200, (block, block, 3), dtype=np.uint8)]
    pictures[1][:, :, 1] //= 2
    glass, tissue = (simplejpeg.encode_jpeg(picture, 50, colorsubsampling="420") for picture in pictures)
    blocks = itertools.islice(itertools.cycle([tissue] + [glass] * 15), (side // block) ** 2)
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            blocks, shape=(side, side, 3), dtype=np.uint8, tile=(block, block), photometric="ycbcr",
            compression="jpeg", subsampling=(2, 2), metadata=None,
        )  # fmt: skip


def measure_tiling(drawn, folder, side):
    write_flat_slide(folder / f"{side}.tif", side)
    row = {"image_id": f"s{side}", "patient_id": "p", "label": "x", "image_path": f"{side}.tif"}
    manifest = drawn.write_manifest(folder / f"{side}.csv", [row])
    call = [sys.executable, "-c", TILING, manifest, str(folder), str(folder / f"out{side}")]
    ran = subprocess.run(call, env={**os.environ, "PYTHONPATH": str(HOME)}, capture_output=True, text=True, check=True)
    before, most, tiles = map(float, ran.stdout.split())
    assert tiles >= (side // 256) ** 2 / 16
    return before, most


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks /proc for the memory of a process")
def test_a_flat_slide_four_times_as_large_takes_no_more_memory(drawn, tmp_path):
    before, most = measure_tiling(drawn, tmp_path, 8192)
    assert most - before < 40
    larger = measure_tiling(drawn, tmp_path, 16384)[1]
    assert larger < 1.1 * most


def trace(work):
    """Bytes that NumPy and Python hold at most while `work` runs, beyond what was there."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", ["auto", "otsu", "fixed"])
def test_masks_are_made_in_little_more_memory_than_the_picture_has(method):
    picture = np.random.default_rng(0).integers(150, 250, (2048, 2048, 3), dtype=np.uint8)
    assert trace(lambda: examine_picture(picture, method, 0.1)) < 2.5 * picture.nbytes


def test_shares_are_measured_in_little_more_memory_than_the_mask_has():
    mask = np.random.default_rng(0).random((4096, 4096)) > 0.5
    tiles = grid.lay_grid(1 << 16, 1 << 16, Scale(0, 1.0, 1.0, 256, True, None), TilingParameters(mpp=0))
    assert trace(lambda: grid.measure_share(mask, 16, tiles, 256)) < mask.nbytes
