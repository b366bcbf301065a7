"""An OUT in a bucket: held by one run, watched, validated and read from there."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from fake_gcs import FakeStore

from components.readers import spool
from components.records import storage
from components.records.dataset import TiledDataset
from components.records.errors import InputError, WorkError
from components.records.manifest import read_manifest
from components.records.tfrecord import read_tfrecord
from components.tile_images import lanes, lease
from components.tile_images.attempts import Attempts
from components.tile_images.hold import hold_out
from components.tile_images.lease import Lease
from components.tile_images.parameters import TilingParameters
from components.tile_images.plan import load_plan
from components.tile_images.run import list_tasks, run_tiling
from components.validate_records.outcome import Thresholds
from components.validate_records.validate import validate_records

OUT = "gs://results/run"
PARAMETERS = TilingParameters(tile_px=128, mpp=0.5, region_tiles=10)
SIDE = 1536


def write_slide(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    picture = 241 + rng.integers(0, 3, (SIDE, SIDE, 1), np.uint8).repeat(3, 2)
    tissue = np.array([190, 110, 165]) + rng.integers(-30, 30, (SIDE // 2, SIDE // 2, 3))
    picture[256 : 256 + SIDE // 2, 384 : 384 + SIDE // 2] = tissue
    options = {"tile": (128, 128), "compression": "jpeg", "photometric": "rgb", "compressionargs": {"level": 85}}
    tifffile.imwrite(path, picture, resolution=(2e4, 2e4), resolutionunit="CENTIMETER", metadata=None, **options)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cohort")
    for seed, name in enumerate("ab"):
        write_slide(root / f"{name}.tif", seed)
    rows = "image_id,patient_id,label,image_path,split\na,p1,x,a.tif,train\nb,p2,y,b.tif,test\n"
    (root / "manifest.csv").write_text(rows)
    return root


def tile(cohort: Path, **options):
    return run_tiling(str(cohort / "manifest.csv"), str(cohort), OUT, PARAMETERS, **options)


def test_a_second_run_is_refused_and_the_lock_goes_with_the_first(store: FakeStore):
    with hold_out(OUT) as check:
        assert store.names("results") == ["run/.tiling/lock"]
        refusal = r"gs://results/run: another run tiles into it now; wait .* in \d+ s$"
        with pytest.raises(InputError, match=refusal), hold_out(OUT):
            pass
        check()
    assert store.names("results") == []
    with pytest.raises(KeyboardInterrupt), hold_out(OUT):
        raise KeyboardInterrupt
    assert store.names("results") == []


def test_the_lock_of_a_killed_run_can_be_taken_over_when_it_is_stale(store: FakeStore):
    store.put("results", "run/.tiling/lock", b"of a run that was killed")
    with pytest.raises(InputError, match=r"try again in 1[12]\d s"), hold_out(OUT):
        pass
    now = time.time()
    store.clock = lambda: now + lease.STALE + 1
    with hold_out(OUT) as check:
        assert store.content("results", "run/.tiling/lock") != b"of a run that was killed"
        check()
    assert store.names("results") == []


def test_a_run_keeps_its_lock_by_writing_it_and_notices_when_it_lost_it(store: FakeStore):
    held = Lease(OUT, beat=0.05)
    held.acquire()
    first = store.buckets["results"]["run/.tiling/lock"].generation
    deadline = time.monotonic() + 20
    while store.buckets["results"]["run/.tiling/lock"].generation < first + 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    held.check()
    while not held._taken:
        store.put("results", "run/.tiling/lock", b"another's")
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with pytest.raises(WorkError, match="another run took it over"):
        held.check()
    held.release()
    assert store.content("results", "run/.tiling/lock") == b"another's"


def test_an_answer_that_got_lost_is_no_other_run(store: FakeStore):
    held = Lease(OUT)
    store.put("results", "run/.tiling/lock", held._token)
    held.acquire()
    held.release()
    assert store.names("results") == []


def test_records_of_another_origin_are_left_alone(cohort, store: FakeStore):
    store.put("results", "run/records/old.tfrecord", b"precious")
    with pytest.raises(InputError, match="gs://results/run: holds records of another origin"):
        tile(cohort)
    assert store.names("results") == ["run/records/old.tfrecord"]


def test_progress_validation_and_reading(cohort, store: FakeStore, tmp_path):
    told = []
    summary = tile(cohort, tell=told.append, tell_every=0.01)
    assert str(told[-1]).startswith(f"tiled 2/2 slides, {summary['tiles']:,} tiles")
    again = []
    tile(cohort, tell=again.append)
    assert (again[-1].slides_done, again[-1].tiles_per_second) == (2, 0.0)
    local = str(tmp_path / "out")
    run_tiling(str(cohort / "manifest.csv"), str(cohort), local, PARAMETERS)
    out = f"{OUT}/validation"
    there = validate_records(OUT, f"{out}.json", f"{out}.html", Thresholds())
    here = validate_records(local, str(tmp_path / "v.json"), str(tmp_path / "v.html"), Thresholds())
    assert there.to_json() == here.to_json()
    assert store.content("results", "run/validation.json") == (tmp_path / "v.json").read_bytes()
    dataset = TiledDataset(OUT)
    spans = dataset.spans("a")
    data = [Path(span.path).read_bytes()[span.offset : span.offset + span.length] for span in spans]
    parts = [part for part in TiledDataset(local).parts if part.image_id == "a"]
    assert len(parts) > 1
    assert data == [record for part in parts for record in read_tfrecord(os.path.join(local, part.path))]
    assert data == [record for part in parts for record in read_tfrecord(storage.join(OUT, part.path))]
    folder = Path(spans[0].path)
    del dataset
    assert not folder.exists()
    store.buckets["results"].pop(f"run/{parts[0].path}")
    with pytest.raises(WorkError, match=r"00000.tfrecord: is missing"):
        TiledDataset(OUT).spans("a")
    assert "is in parts.json and not on disk" in str(validate_records(OUT, f"{out}.json", f"{out}.html", Thresholds()))


def test_plans_of_other_parameters_are_no_progress(cohort, store: FakeStore):
    tile(cohort)
    told = []
    coarse = TilingParameters(tile_px=128, mpp=0.5, region_tiles=20)
    run_tiling(str(cohort / "manifest.csv"), str(cohort), OUT, coarse, tell=told.append)
    assert told[-1].tiles_per_second > 0


def test_a_beam_runner_writes_the_same_into_a_bucket(cohort, store: FakeStore, tmp_path):
    tile(cohort, runner="FnApiRunner")
    local = tmp_path / "out"
    run_tiling(str(cohort / "manifest.csv"), str(cohort), str(local), PARAMETERS)
    parts = sorted(path.relative_to(local).as_posix() for path in local.rglob("*.tfrecord"))
    assert [f"run/{part}" for part in parts] == store.names("results", "run/records/")
    for part in parts:
        assert store.content("results", f"run/{part}") == (local / part).read_bytes()


def test_the_command_validates_a_bucket(cohort, store: FakeStore):
    tile(cohort)
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "validate", OUT], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    assert "checksums" in done.stdout
    assert {"run/validation.json", "run/validation.html"} <= set(store.names("results"))


@pytest.mark.parametrize("seconds", [300.0, 0.0])
def test_a_flat_slide_is_fetched_once_by_workers_that_share_no_disk(
    cohort, store: FakeStore, worker_disk, tmp_path, monkeypatch, seconds
):
    """One worker plans, and goes on with what it had to fetch; another tiles what is left."""
    store.put("cohort", "a.tif", (cohort / "a.tif").read_bytes())
    store.put("cohort", "b.tif", (cohort / "b.tif").read_bytes())
    out = str(tmp_path / "out")
    task = list_tasks(read_manifest(str(cohort / "manifest.csv")), "gs://cohort")[0]
    left = []
    for worker in "12":
        folder = tmp_path / worker
        folder.mkdir()
        monkeypatch.setenv("TMPDIR", str(folder))
        monkeypatch.setattr(tempfile, "tempdir", None)
        pool = lanes.LanePool(1, 60.0)
        spool.hold_spool()
        attempts = Attempts(pool, PARAMETERS, out)
        if worker == "1":
            left, written, lost = attempts.plan_and_begin(task, seconds)
            assert lost == 0
            assert (written > 0) == (seconds > 0)
            assert bool(left) == (seconds == 0)
        for region in left if worker == "2" else []:
            assert attempts.tile(region)[1] == 0
        pool.close()
        spool.release_spool()
        shutil.rmtree(folder)
    with tifffile.TiffFile(cohort / "a.tif") as tiff:
        page = tiff.pages[0]
        index = 12 * len(page.dataoffsets)
        tissue = sum(count for count in page.databytecounts if count > 1.5 * min(page.databytecounts))
    ratio = store.fetched("a.tif") / (tissue + index)
    print(f"{ratio:.2f} times the tissue and the index")
    assert ratio <= 1.3 if seconds else ratio > 1.6
    assert load_plan(out, "a").details["bytes_read"] > 0
