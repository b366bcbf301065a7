"""What breaks: processes that crash, hang or are killed, files that are damaged, two runs on one folder."""

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tifffile

from components.records.dataset import TiledDataset
from components.records.errors import InputError, WorkError
from components.records.example import parse_example
from components.records.tfrecord import read_tfrecord
from components.tile_images import attempts, lanes
from components.tile_images.hold import hold_out
from components.tile_images.parameters import TilingParameters
from components.tile_images.run import run_tiling

HOME = Path(__file__).resolve().parents[3]
EVERYTHING = TilingParameters(min_tissue=0.0, max_failed_share=1.0, region_tiles=8)
# Imported by the lane, which is a process of its own: there the reader breaks at one tile.
BREAKING = """
import os, time
from components.tile_images import encode, work
whole = encode.TileEncoder.encode
def broken(self, x, y):
    if (x, y) == (256, 512):
        {deed}
    return whole(self, x, y)
encode.TileEncoder.encode = broken
def tile_or_break(*arguments):
    return work.tile_or_record(*arguments)
"""


def snapshot(out):
    """Digest of every file that is compared; the ledger without its seconds."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_file() and not name.startswith(".tiling/"):
            content = path.read_bytes()
            if name == "ledger.jsonl":
                lines = [json.loads(line) for line in content.splitlines()]
                content = json.dumps([{k: v for k, v in line.items() if k != "seconds"} for line in lines]).encode()
            found[name] = hashlib.sha256(content).hexdigest()
    return found


def make_slides(drawn, root, count=1, **options):
    root.mkdir()
    rows = []
    for number in range(count):
        drawn.write_tiff(root / f"s{number}.tif", drawn.draw_slide(number), **options)
        rows.append(
            {"image_id": f"s{number}", "patient_id": f"p{number}", "label": "x", "image_path": f"s{number}.tif"}
        )
    return drawn.write_manifest(root / "m.csv", rows)


def corners(out):
    dataset = TiledDataset(str(out))
    tiles = [parse_example(record) for part in dataset.parts for record in read_tfrecord(dataset.path(part.path))]
    return [(tile["tile/x"][0], tile["tile/y"][0]) for tile in tiles]


def test_a_native_crash_and_a_hang_lose_the_call_not_the_run():
    lane = lanes.Lane()
    try:
        assert lane.call(abs, -3, timeout=60) == 3
        with pytest.raises(lanes.LaneLostError, match=r"crashed .SIGSEGV."):
            lane.call(eval, "__import__('os').kill(__import__('os').getpid(), 11)", timeout=60)
        assert lane.call(abs, -4, timeout=60) == 4
        with pytest.raises(lanes.LaneLostError, match=r"took longer than 0\.5 s"):
            lane.call(time.sleep, 60, timeout=0.5)
        with pytest.raises(ZeroDivisionError):
            lane.call(divmod, 1, 0, timeout=60)
    finally:
        lane.close()


@pytest.mark.parametrize(
    ("deed", "reason"),
    [("os.kill(os.getpid(), 11)", "the reader crashed (SIGSEGV)"), ("time.sleep(60)", "the reader took longer than")],
)
def test_a_crash_or_a_hang_costs_the_tile_at_fault_and_no_other(drawn, tmp_path, monkeypatch, deed, reason):
    manifest = make_slides(drawn, tmp_path / "images")
    (tmp_path / "breaking_lane.py").write_text(BREAKING.format(deed=deed))
    monkeypatch.syspath_prepend(str(tmp_path))
    import breaking_lane

    monkeypatch.setattr(attempts, "tile_or_record", breaking_lane.tile_or_break)
    try:
        run_tiling(manifest, str(tmp_path / "images"), str(tmp_path / "out"), EVERYTHING, timeout=6)
    finally:
        from components.tile_images import encode

        encode.TileEncoder.encode = breaking_lane.whole
        del sys.modules["breaking_lane"]
    (entry,) = TiledDataset(str(tmp_path / "out")).ledger
    assert (entry.status, entry.tiles, entry.tiles_failed) == ("partial", 11, 1)
    assert f"1 of 12 tiles lost, the first at (256, 512): {reason}" in entry.reason
    assert len(corners(tmp_path / "out")) == 11
    assert (256, 512) not in corners(tmp_path / "out")
    monkeypatch.undo()
    run_tiling(manifest, str(tmp_path / "images"), str(tmp_path / "out"), EVERYTHING)
    run_tiling(manifest, str(tmp_path / "images"), str(tmp_path / "whole"), EVERYTHING)
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")


def test_a_crash_that_does_not_come_again_costs_nothing(drawn, tmp_path, monkeypatch):
    manifest = make_slides(drawn, tmp_path / "images")
    once = f"open({str(tmp_path / 'been')!r}, 'x').close() or os.kill(os.getpid(), 9)"
    deed = f"os.path.exists({str(tmp_path / 'been')!r}) or {once}"
    (tmp_path / "breaking_once.py").write_text(BREAKING.format(deed=deed))
    monkeypatch.syspath_prepend(str(tmp_path))
    import breaking_once

    monkeypatch.setattr(attempts, "tile_or_record", breaking_once.tile_or_break)
    try:
        summary = run_tiling(manifest, str(tmp_path / "images"), str(tmp_path / "out"), EVERYTHING)
    finally:
        from components.tile_images import encode

        encode.TileEncoder.encode = breaking_once.whole
    assert (tmp_path / "been").exists()
    assert (summary["tiles"], summary["tiles_failed"]) == (12, 0)


def start_run(manifest, root, out):
    code = (
        "import sys; from components.tile_images.run import run_tiling;"
        "from components.tile_images.parameters import TilingParameters;"
        "p = TilingParameters(min_tissue=0.0, max_failed_share=1.0, region_tiles=8);"
        "run_tiling(*sys.argv[1:], p, workers=2)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, manifest, str(root), str(out)],
        env={**os.environ, "PYTHONPATH": str(HOME)},
        stderr=subprocess.DEVNULL,
    )


def children_of(pid):
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if status.read_text().rsplit(")", 1)[1].split()[1] == str(pid):
                found.append(int(status.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_killed_at_any_moment_and_run_again_gives_the_bytes_of_an_unbroken_run(drawn, tmp_path):
    manifest = make_slides(drawn, tmp_path / "images", count=6)
    run_tiling(manifest, str(tmp_path / "images"), str(tmp_path / "whole"), EVERYTHING)
    dice, out = random.Random(5), tmp_path / "out"
    for _ in range(5):
        process = start_run(manifest, tmp_path / "images", out)
        while process.poll() is None and not (out / ".tiling" / "s0").exists():
            time.sleep(0.01)
        time.sleep(dice.uniform(0, 0.5))
        lanes_of_it = children_of(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        ends = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in lanes_of_it) and time.monotonic() < ends:
            time.sleep(0.02)
        assert not [pid for pid in lanes_of_it if Path(f"/proc/{pid}").exists()]
        if dice.random() < 0.5:
            for result in list((out / ".tiling").glob("*/region-*.json"))[:2]:
                result.unlink()
    run_tiling(manifest, str(tmp_path / "images"), str(out), EVERYTHING)
    assert snapshot(out) == snapshot(tmp_path / "whole")


def test_a_lane_ends_with_its_parent_in_the_middle_of_its_work():
    code = (
        "import os, time; from components.tile_images import lanes; lane = lanes.Lane();"
        "lane._pipe.send((time.sleep, (60,))); print(lane._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(HOME)}
    ) as parent:
        pid = int(parent.stdout.readline())
        time.sleep(1)
        os.kill(pid, 0)
        parent.kill()
    ends = time.monotonic() + 10
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < ends:
            os.kill(pid, 0)
            time.sleep(0.05)
        pytest.fail("the lane outlived its parent")


def test_a_second_run_into_one_folder_is_refused_in_one_line(drawn, tmp_path):
    manifest = make_slides(drawn, tmp_path / "images")
    out = tmp_path / "out"
    with hold_out(str(out)), pytest.raises(InputError, match="another run tiles into it now; wait for it") as caught:
        run_tiling(manifest, str(tmp_path / "images"), str(out))
    assert "\n" not in str(caught.value)
    run_tiling(manifest, str(tmp_path / "images"), str(out))


def test_a_changed_slide_makes_its_parts_stale_and_no_other(drawn, tmp_path, caplog):
    manifest = make_slides(drawn, tmp_path / "images", count=2)
    out = tmp_path / "out"
    run_tiling(manifest, str(tmp_path / "images"), str(out), EVERYTHING)
    untouched = {path: path.stat().st_mtime_ns for path in out.glob("records/s0-*")}
    drawn.write_tiff(tmp_path / "images" / "s1.tif", drawn.draw_slide(9))
    with caplog.at_level("INFO"):
        run_tiling(manifest, str(tmp_path / "images"), str(out), EVERYTHING)
    assert "1 slides taken up, 1 stale and planned again" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in out.glob("records/s0-*")} == untouched
    run_tiling(manifest, str(tmp_path / "images"), str(tmp_path / "fresh"), EVERYTHING)
    assert snapshot(out) == snapshot(tmp_path / "fresh")


@pytest.mark.parametrize("levels", [1, 2])
def test_flipped_bits_in_blocks_are_found_before_a_tile_is_written(drawn, tmp_path, levels):
    """A flat slide's blocks are decoded for its low-resolution picture, a pyramid's when their tiles are cut."""
    manifest = make_slides(drawn, tmp_path / "images", levels=levels)
    path = tmp_path / "images" / "s0.tif"
    whole, dice = path.read_bytes(), random.Random(levels)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    run_tiling(manifest, str(path.parent), str(tmp_path / "whole"), EVERYTHING)
    records = {tuple(c): None for c in corners(tmp_path / "whole")}
    for number in range(4):
        content, hit = bytearray(whole), dice.randrange(len(places))
        offset, length = places[hit]
        at = offset + dice.randrange(length // 2, length - 8)
        content[at : at + 8] = bytes(8) if number % 2 else b"\xff\x17" * 4
        path.write_bytes(content)
        out = tmp_path / f"out{number}"
        run_tiling(manifest, str(path.parent), str(out), EVERYTHING)
        (entry,) = TiledDataset(str(out)).ledger
        left, top = hit % 4 * 256, hit // 4 * 256
        assert (entry.status, entry.tiles_failed) == ("partial", 1), (number, hit)
        assert f"({left}, {top}): s0.tif: block in column {hit % 4}, row {hit // 4} of level 0" in entry.reason
        assert set(corners(out)) == set(records) - {(left, top)}


def test_a_file_cut_off_anywhere_is_never_white(drawn, tmp_path):
    manifest = make_slides(drawn, tmp_path / "images", levels=1)
    path = tmp_path / "images" / "s0.tif"
    whole, dice = path.read_bytes(), random.Random(3)
    for number in range(4):
        path.write_bytes(whole[: dice.randrange(64, len(whole))])
        out = tmp_path / f"out{number}"
        run_tiling(manifest, str(path.parent), str(out), EVERYTHING)
        (entry,) = TiledDataset(str(out)).ledger
        assert entry.status in ("partial", "failed")
        assert entry.reason
        assert entry.tiles + entry.tiles_failed in (0, 12)


def test_lost_slides_stop_the_run_with_their_reason(drawn, tmp_path):
    manifest = make_slides(drawn, tmp_path / "images", levels=1)
    (tmp_path / "images" / "s0.tif").write_bytes(b"II*\0")
    with pytest.raises(WorkError, match="1 of 1 slides lost tiles: s0"):
        run_tiling(manifest, str(tmp_path / "images"), str(tmp_path / "out"))
