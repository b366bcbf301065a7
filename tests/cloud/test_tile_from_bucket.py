"""Tiling a cohort in `gs://`: the same tiles as from disk, by ranges, whatever the network does."""

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from fake_gcs import FakeStore, Fault
from PIL import Image

from components.records.dataset import TiledDataset
from components.records.errors import WorkError
from components.records.example import parse_example
from components.records.ledger import read_ledger
from components.records.manifest import read_manifest
from components.records.tfrecord import read_tfrecord
from components.tile_images.parameters import TilingParameters
from components.tile_images.plan import load_plan, load_tiles
from components.tile_images.region import load_result, make_regions
from components.tile_images.run import list_tasks, run_tiling
from components.tile_images.work import tile_or_record

PARAMETERS = TilingParameters(tile_px=128, mpp=0.5, region_tiles=40)
SIDE, BLOCK = 4096, 128


def draw(seed: int) -> np.ndarray:
    """Glass with a little noise, and about 15% of textured tissue."""
    rng = np.random.default_rng(seed)
    cell = 512
    glass = 241 + rng.integers(0, 3, (cell, cell, 1), np.uint8).repeat(3, 2)
    coarse = rng.integers(-35, 35, (cell // 8, cell // 8, 3)).repeat(8, 0).repeat(8, 1)
    tissue = np.clip(np.array([190, 110, 165]) + coarse + rng.integers(-12, 12, (cell, cell, 1)), 0, 255)
    place = np.arange(SIDE, dtype=np.float32) / SIDE
    inside = ((place[None] - 0.45) / 0.2) ** 2 + ((place[:, None] - 0.55) / 0.22) ** 2 < 1
    picture = np.tile(glass, (SIDE // cell, SIDE // cell, 1))
    np.copyto(picture, np.tile(tissue.astype(np.uint8), (SIDE // cell, SIDE // cell, 1)), where=inside[..., None])
    return picture


def write(path: Path, picture: np.ndarray, levels: int, compression: str = "jpeg") -> None:
    options: dict[str, Any] = {"tile": (BLOCK, BLOCK), "compression": compression, "photometric": "rgb"}
    if compression == "jpeg":
        options["compressionargs"] = {"level": 85}
    resolution = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture, metadata=None, **options, **resolution)
        for level in range(1, levels):
            small = np.asarray(Image.fromarray(picture).reduce(4**level))
            writer.write(small, subfiletype=1, metadata=None, **options)


@dataclass(frozen=True)
class Cohort:
    root: Path
    manifest: str
    local: str

    def upload(self, store: FakeStore, *, without: str = "") -> str:
        for path in sorted(self.root.rglob("*.*")):
            if not without or without not in path.as_posix():
                store.put("cohort", f"study/{path.relative_to(self.root).as_posix()}", path.read_bytes())
        return "gs://cohort/study"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Cohort:
    """A flat slide, a pyramid with a lesion mask, and one that is no JPEG; tiled from disk."""
    root = tmp_path_factory.mktemp("cohort")
    (root / "images").mkdir()
    (root / "masks").mkdir()
    write(root / "images" / "flat.tif", draw(1), 1)
    write(root / "images" / "pyramid.tif", draw(2), 3)
    write(root / "images" / "deflate.tif", draw(3)[1536:2560, 1024:2560], 1, "zlib")
    lesion = np.zeros((256, 256), np.uint8)
    lesion[120:160, 80:140] = 255
    Image.fromarray(lesion).save(root / "masks" / "lesions.png")
    manifest = root / "manifest.csv"
    with open(manifest, "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["image_id", "patient_id", "label", "mask_path"])
        rows.writerows([["flat", "a", "x", ""], ["pyramid", "b", "y", "masks/lesions.png"], ["deflate", "c", "x", ""]])
    local = str(tmp_path_factory.mktemp("local") / "out")
    run_tiling(str(manifest), str(root), local, PARAMETERS, workers=2)
    return Cohort(root, str(manifest), local)


def tiles_of(out: str) -> dict[tuple[str, int, int], dict[str, list[Any]]]:
    """Every record by slide and place, without the digest, which the store tells in its own way."""
    dataset = TiledDataset(out)
    tiles = {}
    for part in dataset.parts:
        for record in read_tfrecord(dataset.path(part.path)):
            tile = parse_example(record)
            tile.pop("slide/digest")
            tiles[part.image_id, tile["tile/x"][0], tile["tile/y"][0]] = tile
    return tiles


def leftovers(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith("bagline")]


def needed_bytes(cohort: Cohort, image_id: str, tiles: dict[tuple[str, int, int], Any]) -> int:
    """The stored bytes of the blocks that are tiles, and the index."""
    with tifffile.TiffFile(cohort.root / "images" / f"{image_id}.tif") as tiff:
        page = tiff.pages[0]
        across = -(-page.imagewidth // BLOCK)
        places = {y // BLOCK * across + x // BLOCK for name, x, y in tiles if name == image_id}
        return sum(page.databytecounts[place] for place in places) + sum(8 * len(p.dataoffsets) for p in tiff.pages)


def test_a_cohort_in_a_bucket_gives_the_same_tiles_by_ranges(cohort, store, worker_disk, tmp_path):
    root, out = cohort.upload(store), str(tmp_path / "out")
    summary = run_tiling(cohort.manifest, root, out, PARAMETERS, workers=2)
    tiles = tiles_of(out)
    assert tiles == tiles_of(cohort.local)
    assert summary["slides_by_status"]["tiled"] == 3
    ledger = {entry.image_id: entry for entry in read_ledger(f"{out}/ledger.jsonl")}
    local = {entry.image_id: entry for entry in read_ledger(f"{cohort.local}/ledger.jsonl")}
    for image_id, entry in ledger.items():
        assert (entry.reader, entry.tiles, entry.path) == tuple(
            getattr(local[image_id], name) for name in ("reader", "tiles", "path")
        )
        assert entry.digest.startswith("md5:")
        assert entry.details["bytes_read"] == store.fetched(entry.path)
    assert [ledger[name].reader for name in ("flat", "pyramid", "deflate")] == ["jpeg-blocks"] * 2 + ["openslide"]
    for image_id in ("flat", "pyramid"):
        assert store.fetched(f"images/{image_id}.tif") <= 1.3 * needed_bytes(cohort, image_id, tiles)
    assert store.fetched("images/deflate.tif") <= 1.1 * os.path.getsize(cohort.root / "images" / "deflate.tif")
    assert not any(fetch.whole for fetch in store.fetches if "images/" in fetch.name)
    assert "deflate" in ledger["deflate"].details["reader_reason"]
    assert leftovers(worker_disk) == []


def test_faults_change_nothing_but_time(cohort, store, worker_disk, tmp_path):
    root, out = cohort.upload(store), str(tmp_path / "out")
    for kind in ("503", "cut", "short", "429"):
        store.faults.append(Fault(kind, 2, "images/"))
    run_tiling(cohort.manifest, root, out, PARAMETERS, workers=2)
    assert store.injected == 8
    assert tiles_of(out) == tiles_of(cohort.local)
    assert leftovers(worker_disk) == []


def test_an_object_that_changes_midway_is_in_the_ledger(cohort, store, worker_disk, tmp_path):
    root, out = cohort.upload(store), str(tmp_path / "out")
    seen: list[str] = []

    def overwrite(name: str) -> None:
        seen.append(name)
        if name.endswith("flat.tif") and seen.count(name) == 8:
            store.put("cohort", name, store.content("cohort", name)[::-1])

    store.before_download = overwrite
    with pytest.raises(WorkError, match=r"flat .*the object changed while the run was reading it"):
        run_tiling(cohort.manifest, root, out, PARAMETERS, workers=2)
    ledger = {entry.image_id: entry for entry in read_ledger(f"{out}/ledger.jsonl")}
    assert ledger["flat"].status == "failed"
    assert [ledger[name].status for name in ("pyramid", "deflate")] == ["tiled", "tiled"]
    assert leftovers(worker_disk) == []


def test_an_object_that_changes_between_plan_and_regions_loses_its_tiles(cohort, store, worker_disk, tmp_path):
    root, out = cohort.upload(store), str(tmp_path / "out")
    run_tiling(cohort.manifest, root, out, PARAMETERS, workers=1)
    task = list_tasks(read_manifest(cohort.manifest), root)[0]
    region = make_regions(task, load_plan(out, "flat"), load_tiles(out, "flat"), PARAMETERS)[0]
    store.put("cohort", "study/images/flat.tif", store.content("cohort", "study/images/flat.tif") + b"more")
    assert tile_or_record(region, PARAMETERS, out) == (0, len(region.positions()))
    result = load_result(out, "flat", 0, region.key)
    assert all("flat.tif: the object changed while the run was reading it" in why for _, _, why in result.failed)


def test_a_missing_object_is_in_the_ledger(cohort, store, worker_disk, tmp_path):
    root, out = cohort.upload(store, without="/flat."), str(tmp_path / "out")
    with pytest.raises(WorkError, match="flat"):
        run_tiling(cohort.manifest, root, out, PARAMETERS, workers=2)
    entries = read_ledger(f"{out}/ledger.jsonl")
    assert [(entry.image_id, entry.status) for entry in entries] == [
        ("flat", "failed"), ("pyramid", "tiled"), ("deflate", "tiled"),
    ]  # fmt: skip


def test_output_in_a_bucket_is_the_same_and_is_taken_up(cohort, store, worker_disk):
    root = cohort.upload(store)
    out = "gs://results/run"
    store.put("results", "run/.tiling/old/plan.json", b"of an earlier run")
    store.put("results", "run/records/old-00000.tfrecord", b"of an earlier run")
    run_tiling(f"{root}/manifest.csv", root, out, PARAMETERS, workers=2)
    names = [name for name in store.names("results") if "/old/" not in name]
    local = [path.relative_to(cohort.local).as_posix() for path in Path(cohort.local).rglob("*") if path.is_file()]
    assert sorted(names) == sorted(f"run/{name}" for name in local if name != ".tiling/lock")
    assert len(TiledDataset(out).ledger) == 3
    before, fetched = {name: store.content("results", name) for name in names}, store.fetched("images/")
    run_tiling(f"{root}/manifest.csv", root, out, PARAMETERS, workers=2)
    assert store.fetched("images/") == fetched
    assert {name: store.content("results", name) for name in store.names("results") if "/old/" not in name} == before
