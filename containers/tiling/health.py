"""Whether the tiling image can do its work: the imports of its tasks, the command line, small slides tiled.

The tiles are joined from stored blocks, so that the compiled kernels are in the image's cache afterwards.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import apache_beam.io.gcp.gcsfilesystem
import apache_beam.runners.dataflow.dataflow_runner
import apache_beam.runners.worker.sdk_worker_main  # noqa: F401
import kfp.dsl.executor_main  # noqa: F401
import openslide  # noqa: F401
from PIL import Image

from components.records.dataset import TiledDataset
from components.records.example import parse_example
from components.records.tfrecord import read_tfrecord
from components.tile_images.parameters import TilingParameters
from components.tile_images.run import run_tiling


def main() -> None:
    """Builds a few slides, tiles them and decodes a tile."""
    subprocess.run(["bagline", "--help"], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, "-m", "components.sample_cohort.build", "--out", folder, "--patients", "4"]
        subprocess.run([*build, "--size", "1024"], check=True)
        out = os.path.join(folder, "out")
        summary = run_tiling(os.path.join(folder, "manifest.csv"), folder, out, TilingParameters())
        assert summary["tiles"], json.dumps(summary)
        assert not summary["tiles_failed"], json.dumps(summary)
        assert summary["tiles_lossless"], json.dumps(summary)
        dataset = TiledDataset(out)
        example = parse_example(next(read_tfrecord(dataset.path(*dataset.parts[0].path.split("/")))))
        assert Image.open(io.BytesIO(example["image/encoded"][0])).convert("RGB").size == (256, 256)
    assert list(Path(os.environ["NUMBA_CACHE_DIR"]).rglob("*.nbi")), "the kernels are not in the cache"


if __name__ == "__main__":
    main()
