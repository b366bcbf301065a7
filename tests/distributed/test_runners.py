"""The same records from Flink and from Spark, run for real, and a worker killed in the middle."""

import contextlib
import csv
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from flink_cluster import TASK_MANAGERS, FlinkCluster, parents
from java_jars import runnable

from components.records.ledger import read_ledger
from components.tile_images.parameters import TilingParameters
from components.tile_images.run import run_tiling

pytestmark = pytest.mark.distributed

SLIDES, SIDE, TILE, REGION = 6, 2048, 64, 16
PARAMETERS = TilingParameters(tile_px=TILE, mpp=0.5, region_tiles=REGION, qc=False)
SETTINGS = [f"tile_px={TILE}", f"region_tiles={REGION}", "qc=false"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> SimpleNamespace:
    """Slides full of tissue, and what the default runner makes of them."""
    root = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(7)
    rows = [["image_id", "patient_id", "label"]]
    for number in range(SLIDES):
        picture = np.full((SIDE, SIDE, 3), 242, np.uint8)
        tissue = rng.normal((190, 110, 165), 25, (SIDE // 4, SIDE // 4, 3)).clip(0, 255).astype(np.uint8)
        picture[64:-64, 64:-64] = tissue.repeat(4, 0).repeat(4, 1)[64:-64, 64:-64]
        tifffile.imwrite(
            root / f"s{number}.tif", picture, tile=(64, 64), compression="jpeg", metadata=None, photometric="rgb",
            resolution=(2e4, 2e4), resolutionunit="CENTIMETER",
        )  # fmt: skip
        rows.append([f"s{number}", f"p{number // 2}", "xy"[number % 4 // 2]])
    with open(root / "manifest.csv", "w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    out = str(tmp_path_factory.mktemp("direct") / "out")
    summary = run_tiling(str(root / "manifest.csv"), str(root), out, PARAMETERS)
    regions = len(list(Path(out).glob(".tiling/*/*.json"))) - SLIDES
    return SimpleNamespace(root=str(root), manifest=str(root / "manifest.csv"), out=out, summary=summary, all=regions)


@pytest.fixture(scope="module")
def mark() -> str:
    return uuid.uuid4().hex


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, mark) -> Iterator[FlinkCluster]:
    made = FlinkCluster(tmp_path_factory.mktemp("flink"), mark)
    try:
        made.start()
        yield made
    finally:
        made.stop()
    left = survivors(mark)
    assert not left, f"processes outlive the cluster: {left}"


def survivors(mark: str, seconds: float = 20.0) -> dict[int, str]:
    """The marked processes that have not ended by themselves; they are ended then."""
    end, pause = time.monotonic() + seconds, threading.Event()
    while parents(mark) and time.monotonic() < end:
        pause.wait(0.2)
    left = {}
    for pid in parents(mark):
        with contextlib.suppress(OSError):
            left[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
            os.kill(pid, signal.SIGKILL)
    return left


def tile(cohort, out: Path, runner: str, options: list[str], mark: str) -> subprocess.Popen:
    """The command, as users call it."""
    command = [sys.executable, "-m", "pipelines", "tile", cohort.manifest, "--images-root", cohort.root]
    command += ["--out", str(out), "--runner", runner]
    for setting in SETTINGS:
        command += ["--set", setting]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "BAGLINE_TEST_MARK": mark}
    return subprocess.Popen(
        [*command, "--", *options], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen, seconds: float = 400.0) -> str:
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
        raise AssertionError(f"did not end: {said[-3000:]}") from None
    assert process.returncode == 0, said[-3000:]
    return said


def assert_equal(out: Path, cohort) -> None:
    """Every file of the dataset is the same to the byte; of the ledger all but the seconds."""
    wanted = {path.relative_to(cohort.out): path for path in Path(cohort.out).rglob("*") if path.is_file()}
    found = {path.relative_to(out): path for path in out.rglob("*") if path.is_file()}
    hidden = (".tiling", ".bagline", "lineage")
    names = {name for name in wanted if name.parts[0] not in hidden}
    assert {name for name in found if name.parts[0] not in hidden} == names
    for name in sorted(names - {Path("ledger.jsonl")}):
        assert found[name].read_bytes() == wanted[name].read_bytes(), name
    ledgers = [read_ledger(f"{each}/ledger.jsonl") for each in (out, cohort.out)]
    one, other = ([{**vars(entry), "seconds": 0} for entry in ledger] for ledger in ledgers)
    assert one == other


def done_regions(out: Path) -> int:
    return max(0, len(list(out.glob(".tiling/*/*.json"))) - SLIDES)


def kill_in_the_middle(
    process: subprocess.Popen,
    out: Path,
    cohort,
    kill: Callable[[], None],
    ready: Callable[[], bool] = lambda: True,
) -> None:
    """Kills when some regions are done and all is `ready`, and sees to it that it was in the middle."""
    pause, end = threading.Event(), time.monotonic() + 300
    while done_regions(out) < cohort.all // 20 or not ready():
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < end
        pause.wait(0.02)
    kill()
    assert done_regions(out) < cohort.all, "the run was over before the worker was killed"


def test_flink_on_two_task_managers_with_one_killed_in_the_middle(cohort, cluster, mark, tmp_path):
    out = tmp_path / "out"
    process = tile(cohort, out, "FlinkRunner", cluster.options(tmp_path), mark)

    def kill() -> None:
        cluster.workers[0].kill()
        cluster.workers[0].wait()

    # Each task manager has a Python worker of its own by then.
    kill_in_the_middle(process, out, cohort, kill, lambda: len(cluster.python_workers()) >= TASK_MANAGERS)
    finish(process)
    assert_equal(out, cohort)


def test_flink_with_a_python_worker_killed_in_the_middle(cohort, cluster, mark, tmp_path):
    cluster.add_worker()
    cluster.await_workers(TASK_MANAGERS)
    out = tmp_path / "out"
    before = set(cluster.python_workers())
    process = tile(cohort, out, "FlinkRunner", cluster.options(tmp_path), mark)

    def kill() -> None:
        os.kill(max(set(cluster.python_workers()) - before), signal.SIGKILL)

    kill_in_the_middle(process, out, cohort, kill)
    finish(process)
    assert_equal(out, cohort)


def test_spark_with_a_lane_killed_in_the_middle(cohort, tmp_path):
    mark, out = uuid.uuid4().hex, tmp_path / "out"
    options = [
        f"--spark_job_server_jar={runnable('spark-job-server', tmp_path)}",
        "--spark_master_url=local[2]",
        "--environment_type=LOOPBACK",
    ]
    process = tile(cohort, out, "SparkRunner", options, mark)

    def kill() -> None:
        lanes = [
            pid
            for pid, parent in parents(mark).items()
            if parent == process.pid and b"components.tile_images.lanes" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        os.kill(lanes[0], signal.SIGKILL)

    kill_in_the_middle(process, out, cohort, kill)
    finish(process)
    assert_equal(out, cohort)
    assert survivors(mark) == {}


@pytest.mark.parametrize("jar", ["none.jar", "http://127.0.0.1:1/none.jar"])
def test_a_jar_that_can_not_be_had_is_one_line(cohort, tmp_path, jar):
    options = [f"--flink_job_server_jar={jar}", f"--jar_cache_dir={tmp_path / 'jars'}"]
    process = tile(cohort, tmp_path / "out", "FlinkRunner", options, "none")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in said
    assert "FlinkRunner" in said.splitlines()[-1]
    assert "--flink_job_server_jar=FILE-OR-URL" in said.splitlines()[-1]
