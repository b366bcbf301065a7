"""Tiles made of stored blocks: whose pixels they hold, and that Beam's runner and the default one agree."""

import io

import numpy as np
import openslide
import pytest
from PIL import Image

from components.records.dataset import TiledDataset
from components.records.example import parse_example
from components.records.tfrecord import read_tfrecord
from components.tile_images.parameters import TilingParameters
from components.tile_images.run import run_tiling


def tile(drawn, tmp_path, parameters, picture=None, out="out", **options):
    root = tmp_path / "images"
    root.mkdir(exist_ok=True)
    drawn.write_tiff(root / "s.tif", drawn.draw_slide(1) if picture is None else picture, **options)
    row = {"image_id": "s", "patient_id": "p", "label": "x", "image_path": "s.tif"}
    manifest = drawn.write_manifest(tmp_path / "m.csv", [row])
    run_tiling(manifest, str(root), str(tmp_path / out), parameters)
    dataset = TiledDataset(str(tmp_path / out))
    records = [parse_example(record) for part in dataset.parts for record in read_tfrecord(dataset.path(part.path))]
    return dataset, records, openslide.OpenSlide(root / "s.tif")


def pixels(record):
    return np.asarray(Image.open(io.BytesIO(record["image/encoded"][0])).convert("RGB")).astype(int)


def differ(record, slide, level):
    """How far a tile is from what OpenSlide shows, at most over the channels, shape [256, 256]."""
    corner = record["tile/x"][0], record["tile/y"][0]
    theirs = np.asarray(slide.read_region(corner, level, (256, 256)).convert("RGB")).astype(int)
    return abs(pixels(record) - theirs).max(axis=2)


@pytest.mark.parametrize(
    ("block", "level", "subsampling"), [(256, 0, (2, 2)), (256, 1, (2, 2)), (128, 0, (1, 1)), (64, 0, (1, 1))]
)
def test_lossless_tiles_show_openslides_pixels(drawn, tmp_path, block, level, subsampling):
    parameters = TilingParameters(mpp=0, level=level)
    dataset, records, slide = tile(drawn, tmp_path, parameters, block=block, subsampling=subsampling)
    assert dataset.ledger[0].reader == "jpeg-blocks"
    assert len(records) >= 2
    for record in records:
        assert record["tile/lossless"] == [1]
        assert differ(record, slide, level).max() == 0
    joined = len(records) if block < 256 else 0
    assert (dataset.summary["tiles_lossless"], dataset.summary["tiles_joined"]) == (len(records), joined)
    assert dataset.ledger[0].details["tiles_joined"] == joined
    assert "joined_reason" not in dataset.ledger[0].details


@pytest.mark.parametrize("subsampling", [(2, 2), (2, 1)])
def test_joined_tiles_whose_chroma_is_subsampled_are_told_from_lossless_ones(drawn, tmp_path, subsampling):
    """Decoders interpolate chroma across the seams: the px beside them differ, and no others."""
    dataset, records, slide = tile(drawn, tmp_path, TilingParameters(mpp=0), block=128, subsampling=subsampling)
    beside = np.zeros((256, 256), bool)
    beside[:, 127:129] = True
    beside[127:129] |= subsampling[1] == 2
    most = 0
    for record in records:
        assert record["tile/lossless"] == [0]
        apart = differ(record, slide, 0)
        most = max(most, apart[beside].max())
        assert apart[~beside].max() == 0
    assert most > 0
    assert (dataset.summary["tiles_lossless"], dataset.summary["tiles_joined"]) == (0, len(records))
    (entry,) = dataset.ledger
    assert entry.details["tiles_joined"] == len(records)
    assert "chroma is smoothed across seams" in entry.details["joined_reason"]


def test_half_the_resolution_is_decoded_at_half_the_size_and_coded_once(drawn, tmp_path):
    dataset, records, slide = tile(drawn, tmp_path, TilingParameters(mpp=1.0, tile_px=128), levels=1)
    assert dataset.ledger[0].details["resampled"]
    for record in records:
        assert record["tile/lossless"] == [0]
        assert record["image/format"] == [b"jpeg"]
        theirs = slide.read_region((record["tile/x"][0], record["tile/y"][0]), 0, (256, 256)).convert("RGB").reduce(2)
        assert abs(pixels(record) - np.asarray(theirs).astype(int)).mean() < 4


def test_where_the_blocks_step_aside_the_ledger_says_why(drawn, tmp_path):
    dataset, records, _ = tile(drawn, tmp_path, TilingParameters(), compression="deflate")
    (entry,) = dataset.ledger
    assert (entry.reader, entry.details["reader_reason"]) == ("openslide", "stores deflate, not JPEG")
    assert all(record["tile/lossless"] == [0] for record in records)


def test_beam_and_the_default_runner_write_the_same_bytes(cohort, tmp_path):
    root, manifest = cohort
    parameters = TilingParameters(max_failed_share=1.0, region_tiles=3)
    for runner in ("DirectRunner", "FnApiRunner"):
        run_tiling(manifest, str(root), str(tmp_path / runner), parameters, runner=runner)
    names = sorted(path.relative_to(tmp_path / "DirectRunner") for path in (tmp_path / "DirectRunner").rglob("*.*"))
    compared = [name for name in names if (tmp_path / "DirectRunner" / name).is_file() and name.parts[0] != ".tiling"]
    assert len(compared) > 12
    for name in compared:
        if name.name != "ledger.jsonl":
            content = (tmp_path / "DirectRunner" / name).read_bytes()
            assert content == (tmp_path / "FnApiRunner" / name).read_bytes(), name


def test_the_default_runner_does_without_beam(cohort, tmp_path):
    import subprocess
    import sys

    root, manifest = cohort
    code = (
        "import sys; from components.tile_images.run import run_tiling;"
        "from components.tile_images.parameters import TilingParameters;"
        "run_tiling(*sys.argv[1:], TilingParameters(max_failed_share=1.0));"
        "sys.exit(any(name.split('.')[0] in ('apache_beam', 'numba', 'tensorflow', 'kfp') for name in sys.modules))"
    )
    call = [sys.executable, "-c", code, manifest, str(root), str(tmp_path / "out")]
    assert subprocess.run(call, check=False).returncode == 0
