"""Whether the viewer's image can do its work: the imports of a service, the command line, a small slide read."""

import subprocess
import tempfile

import fastapi  # noqa: F401
import numpy as np
import openslide
import prometheus_client  # noqa: F401
import tifffile
import uvicorn  # noqa: F401

from components.records.dataset import TiledDataset  # noqa: F401

subprocess.run(["bagline", "--help"], check=True, stdout=subprocess.DEVNULL)
with tempfile.TemporaryDirectory() as folder:
    path = folder + "/slide.tif"
    tifffile.imwrite(path, np.full((512, 512, 3), 200, np.uint8), tile=(256, 256), compression="jpeg")
    assert openslide.OpenSlide(path).read_region((0, 0), 0, (8, 8)).size == (8, 8)
