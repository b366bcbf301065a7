"""The whole step on small slides: what is written, what is lost, and that bytes repeat."""

import hashlib
import io
import json
import logging

import numpy as np
import pytest
import tifffile
from PIL import Image

from components.readers.open_slide import open_slide
from components.records import storage
from components.records.dataset import TiledDataset
from components.records.errors import InputError, WorkError
from components.records.example import parse_example
from components.records.manifest import read_manifest
from components.records.schema import FEATURES
from components.records.tfrecord import read_tfrecord
from components.tile_images.parameters import TilingParameters
from components.tile_images.plan import SlideTask
from components.tile_images.region import load_result, result_path
from components.tile_images.run import list_tasks, run_tiling
from components.tile_images.work import plan_or_record, tile_or_record

LENIENT = TilingParameters(max_failed_share=1.0, region_tiles=3)


@pytest.fixture(scope="module")
def tiled(cohort, tmp_path_factory):
    root, manifest = cohort
    out = tmp_path_factory.mktemp("out")
    lines = []
    summary = run_tiling(manifest, str(root), str(out), LENIENT, tell=lambda p: lines.append(str(p)))
    return root, manifest, out, summary, lines


def read_tiles(dataset, image_id):
    parts = [part for part in dataset.parts if part.image_id == image_id]
    return [parse_example(record) for part in parts for record in read_tfrecord(dataset.path(part.path))]


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


def test_every_row_is_in_the_ledger_in_order_with_its_fate(tiled):
    dataset = TiledDataset(str(tiled[2]))
    assert [(entry.image_id, entry.status) for entry in dataset.ledger] == [
        ("a_0", "tiled"),
        ("a_1", "tiled"),
        ("b_0", "empty"),
        ("c_0", "failed"),
        ("d_0", "failed"),
    ]
    reasons = {entry.image_id: entry.reason for entry in dataset.ledger}
    assert reasons["a_0"] == ""
    assert reasons["b_0"] == "no tissue"
    assert reasons["c_0"]
    assert reasons["d_0"] == "no file d_0.tif"
    for line in (tiled[2] / "ledger.jsonl").read_text().splitlines():
        assert set(json.loads(line)) >= {
            "image_id", "status", "reason", "tiles", "tiles_failed", "seconds", "path", "digest", "reader", "mpp",
            "mpp_source",
        }  # fmt: skip
        assert str(tiled[0]) not in line


def test_the_totals_add_up(tiled):
    summary = tiled[3]
    dataset = TiledDataset(str(tiled[2]))
    assert summary == dataset.summary
    assert summary["slides_by_status"] == {"tiled": 2, "empty": 1, "partial": 0, "failed": 2}
    assert summary["tiles"] == sum(entry.tiles for entry in dataset.ledger) == sum(p.tiles for p in dataset.parts) > 10
    assert summary["bytes"] == sum((tiled[2] / part.path).stat().st_size for part in dataset.parts)
    for part in dataset.parts:
        assert hashlib.sha256((tiled[2] / part.path).read_bytes()).hexdigest() == part.sha256
        assert part.tiles <= 3
        assert part.path.startswith("records/train/a_")


def test_records_carry_the_features_of_the_schema(tiled):
    root, _, out, _, _ = tiled
    dataset = TiledDataset(str(out))
    assert dataset.schema.labels == ("CE", "LAA")
    reader = open_slide(str(root / "a_0.tif"))
    tiles = read_tiles(dataset, "a_0")
    for tile in tiles:
        assert set(tile) <= set(FEATURES)
        assert set(tile) >= {name for name, feature in FEATURES.items() if feature.required}
        picture = np.asarray(Image.open(io.BytesIO(tile["image/encoded"][0])).convert("RGB")).astype(int)
        assert picture.shape == (256, 256, 3)
        x, y = tile["tile/x"][0], tile["tile/y"][0]
        stored = reader.read_region(x, y, 0, 256, 256).astype(int)
        assert abs(picture - stored).mean() < 3
        assert tile["slide/id"] == [b"a_0"]
        assert tile["patient/id"] == [b"a"]
        assert (tile["image/class/text"], tile["image/class/label"]) == ([b"CE"], [0])
        digest = hashlib.sha256((root / "a_0.tif").read_bytes()).hexdigest()
        assert tile["slide/digest"] == [f"sha256:{digest}".encode()]
        assert tile["tile/mpp"] == [pytest.approx(0.5)]
        assert tile["tile/label"] == [int((x, y) == (256, 256))]
        assert 0.02 <= tile["tile/tissue"][0] <= 1
    positions = [(tile["tile/y"][0], tile["tile/x"][0]) for tile in tiles]
    assert positions == sorted(set(positions))
    assert (256, 256) in positions
    assert all("tile/label" not in tile for tile in read_tiles(dataset, "a_1"))


def test_thumbnails_and_the_split_manifest_are_there(tiled):
    root, _, out, _, _ = tiled
    dataset = TiledDataset(str(out))
    assert set(dataset.thumbnails) == {"a_0", "a_1", "b_0"}
    thumbnail = dataset.thumbnails["a_0"]
    size = Image.open(out / thumbnail.path).size
    assert max(size) <= 1024
    assert (round(size[0] * thumbnail.downsample), round(size[1] * thumbnail.downsample)) == (1024, 768)
    assert (thumbnail.width, thumbnail.height) == (1024, 768)
    assert (out / "split.csv").read_bytes() == (root / "manifest.csv").read_bytes()


def test_progress_ends_with_everything_done(tiled):
    assert tiled[4][-1].startswith(f"tiled 5/5 slides, {tiled[3]['tiles']} tiles")


def test_workers_and_runs_do_not_change_a_byte(tiled, tmp_path):
    root, manifest, out, _, _ = tiled
    run_tiling(manifest, str(root), str(tmp_path / "two"), LENIENT, workers=2)
    assert snapshot(tmp_path / "two") == snapshot(out)


def test_a_run_takes_up_what_an_earlier_one_left(tiled, tmp_path, caplog):
    root, manifest, _, _, _ = tiled
    again = tmp_path / "again"
    run_tiling(manifest, str(root), str(again), LENIENT)
    before = snapshot(again)
    parts = sorted((again / "records").rglob("*.tfrecord"))
    times = {part: part.stat().st_mtime_ns for part in parts}
    parts[1].unlink()
    (again / "records" / "train" / ".a_0-00009.tfrecord.x.tmp").write_bytes(b"cut off")
    (again / "records" / "train" / "zz-00000.tfrecord").write_bytes(b"of a slide that is no more")
    (again / "schema.json").unlink()
    with caplog.at_level(logging.INFO):
        run_tiling(manifest, str(root), str(again), LENIENT)
    assert snapshot(again) == before
    assert "3 slides taken up, 2 stale" in caplog.text
    untouched = [part for part in parts if part.stat().st_mtime_ns == times[part]]
    assert untouched == [parts[0], *parts[2:]]


def test_changed_parameters_make_the_earlier_parts_stale(tiled, tmp_path):
    root, manifest, _, _, _ = tiled
    other = TilingParameters(max_failed_share=1.0, region_tiles=3, tile_px=128, tile_format="png")
    for parameters in (LENIENT, other):
        run_tiling(manifest, str(root), str(tmp_path / "changed"), parameters)
    run_tiling(manifest, str(root), str(tmp_path / "fresh"), other)
    assert snapshot(tmp_path / "changed") == snapshot(tmp_path / "fresh")


def test_png_of_a_native_level_is_lossless_and_of_a_reduced_one_not(drawn, cohort, tmp_path):
    root, _ = cohort
    rows = [{"image_id": "a_0", "patient_id": "a", "label": "CE", "image_path": "a_0.tif"}]
    manifest = drawn.write_manifest(tmp_path / "m.csv", rows)
    reader = open_slide(str(root / "a_0.tif"))
    for mpp, side, lossless in ((0.5, 256, 1), (1.0, 512, 1), (0.75, 384, 0)):
        out = tmp_path / str(mpp)
        run_tiling(manifest, str(root), str(out), TilingParameters(mpp=mpp, tile_format="png"))
        dataset = TiledDataset(str(out))
        assert dataset.parts[0].path.startswith("records/a_0-")
        for tile in read_tiles(dataset, "a_0"):
            assert tile["image/format"] == [b"png"]
            assert tile["tile/lossless"] == [lossless]
            assert tile["tile/level0_width"] == [side]
            assert tile["tile/mpp"] == [pytest.approx(mpp)]
            if lossless:
                picture = np.asarray(Image.open(io.BytesIO(tile["image/encoded"][0])))
                x, y = tile["tile/x"][0], tile["tile/y"][0]
                assert (picture == reader.read_region(x, y, int(side == 512), 256, 256)).all()


def test_lost_slides_fail_the_step_after_everything_is_written(cohort, tmp_path):
    root, manifest = cohort
    with pytest.raises(WorkError, match=r"2 of 5 slides lost tiles: c_0 \(.+\), d_0 \(no file d_0.tif\); see ledger"):
        run_tiling(manifest, str(root), str(tmp_path / "out"))
    assert TiledDataset(str(tmp_path / "out")).summary["tiles"] > 0
    run_tiling(manifest, str(root), str(tmp_path / "out"), TilingParameters(max_failed_share=0.4))


def one_slide(drawn, root, tmp_path, **columns):
    row = {"image_id": "s", "patient_id": "p", "label": "x", "image_path": "s.tif", **columns}
    return drawn.write_manifest(tmp_path / "m.csv", [row])


def only_entry(drawn, root, tmp_path, parameters=None, **columns):
    manifest = read_manifest(one_slide(drawn, root, tmp_path, **columns))
    (task,) = list_tasks(manifest, str(root))
    parameters = parameters or TilingParameters()
    out = str(tmp_path / "out")
    for region in plan_or_record(task, parameters, out):
        tile_or_record(region, parameters, out)
    from components.tile_images.finalise import Outcome, add_slide

    outcome = Outcome()
    add_slide(outcome, task, parameters, out)
    return outcome.entries[0], outcome


def test_masks_that_do_not_do_fail_the_slide_with_the_reason(drawn, tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    drawn.write_tiff(root / "s.tif", drawn.draw_slide(1))
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(root / "colour.png")
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(root / "square.png")
    (root / "text.tif").write_bytes(b"II*\0 no tiff at all")
    for mask, reason in [
        ("none.tif", "the mask is missing"),
        ("colour.png", "the mask has 3 channels"),
        ("square.png", "does not have the slide's proportions"),
        ("text.tif", "the mask can't be read"),
    ]:
        entry, _ = only_entry(drawn, root, tmp_path, mask_path=mask)
        assert entry.status == "failed"
        assert reason in entry.reason
        assert entry.digest.startswith("sha256:")


def test_mpp_is_recorded_with_its_source_also_of_slides_that_fail(drawn, tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    drawn.write_tiff(root / "s.tif", drawn.draw_slide(1), mpp=0)
    entry, _ = only_entry(drawn, root, tmp_path)
    assert (entry.status, entry.mpp, entry.mpp_source) == ("tiled", None, "unknown")
    entry, _ = only_entry(drawn, root, tmp_path, TilingParameters(default_mpp=0.25, mpp=0.5))
    assert (entry.mpp, entry.mpp_source, entry.details["level"]) == (0.25, "default", 1)
    entry, _ = only_entry(drawn, root, tmp_path, mpp="0.3")
    assert (entry.mpp, entry.mpp_source, entry.details["resampled"]) == (0.3, "manifest", True)
    entry, _ = only_entry(drawn, root, tmp_path, mpp="352.8")
    assert (entry.status, entry.mpp, entry.mpp_source) == ("failed", 352.8, "manifest")
    assert "allow_absurd_mpp" in entry.reason


def test_a_slide_smaller_than_a_tile_is_empty_and_says_so(drawn, tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    drawn.write_tiff(root / "s.tif", drawn.draw_slide(1, 200, 300, None), levels=1)
    entry, _ = only_entry(drawn, root, tmp_path)
    assert (entry.status, entry.reason) == ("empty", "200 × 300 px is smaller than one tile of 256 px")


def test_tiles_on_a_pen_stroke_are_left_out_and_counted(drawn, tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    picture = drawn.draw_slide(1)
    picture[660:690, 200:600] = (40, 60, 190)
    drawn.write_tiff(root / "s.tif", picture)
    kept, _ = only_entry(drawn, root, tmp_path, TilingParameters(max_pen=1))
    entry, _ = only_entry(drawn, root, tmp_path)
    assert kept.details["tiles_on_pen"] == 0
    assert entry.details["tiles_on_pen"] == kept.tiles - entry.tiles == 3


def test_a_corrupt_block_loses_its_tile_only(drawn, tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    drawn.write_tiff(root / "s.tif", drawn.draw_slide(1), levels=2)
    with tifffile.TiffFile(root / "s.tif") as tiff:
        page = tiff.pages[0]
        offset, length = page.dataoffsets[5], page.databytecounts[5]  # x 256, y 256
    content = bytearray((root / "s.tif").read_bytes())
    content[offset : offset + length] = b"\xff" * length
    (root / "s.tif").write_bytes(content)
    entry, outcome = only_entry(drawn, root, tmp_path, TilingParameters(region_tiles=4))
    assert (entry.status, entry.tiles_failed) == ("partial", 1)
    assert [(line["x"], line["y"]) for line in outcome.failed_tiles] == [(256, 256)]
    assert "the first at (256, 256): s.tif: block in column 1, row 1 of level 0: " in entry.reason
    assert entry.reader == "jpeg-blocks"


def test_what_the_user_got_wrong_is_said_before_any_work(drawn, cohort, tmp_path):
    root, manifest = cohort
    with pytest.raises(InputError, match="workers: 0 is out of range"):
        run_tiling(manifest, str(root), str(tmp_path / "o"), workers=0)
    with pytest.raises(InputError, match="no such folder"):
        run_tiling(manifest, str(tmp_path / "none"), str(tmp_path / "o"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file, not a folder"):
        run_tiling(manifest, str(root), str(tmp_path / "file"))
    (tmp_path / "foreign" / "records").mkdir(parents=True)
    (tmp_path / "foreign" / "records" / "mine.tfrecord").write_bytes(b"")
    with pytest.raises(InputError, match="holds records of another origin"):
        run_tiling(manifest, str(root), str(tmp_path / "foreign"))
    assert (tmp_path / "foreign" / "records" / "mine.tfrecord").exists()
    rows = [{"image_id": n, "patient_id": n, "label": "x", "split": s} for n, s in (("a_0", "train"), ("a_1", ""))]
    with pytest.raises(InputError, match="line 3: no split, while other rows have one"):
        run_tiling(drawn.write_manifest(tmp_path / "m.csv", rows), str(root), str(tmp_path / "o"))


def test_output_that_can_not_be_written_stops_the_run_in_one_line(cohort, tmp_path):
    root, manifest = cohort
    out = tmp_path / "out"
    (out / ".tiling").mkdir(parents=True)
    (out / "records").write_text("in the way")
    with pytest.raises(InputError, match="in the way of a folder"):
        run_tiling(manifest, str(root), str(out), LENIENT)
    assert not (out / "schema.json").exists()


def test_a_result_of_another_key_or_with_a_part_of_another_size_does_not_count(tiled):
    _, _, out, _, _ = tiled
    stored = storage.read_json(result_path(str(out), "a_0", 0))
    assert load_result(str(out), "a_0", 0, stored["key"]) is not None
    assert load_result(str(out), "a_0", 0, "another") is None
    assert load_result(str(out), "a_0", 99, stored["key"]) is None


def test_work_items_are_small(tiled):
    import pickle

    root, manifest, _, _, _ = tiled
    task = list_tasks(read_manifest(manifest), str(root))[0]
    assert isinstance(task, SlideTask)
    assert len(pickle.dumps(task)) < 1000


def test_every_shared_slide_ends_in_the_ledger(drawn, shared_slides, tmp_path):
    rows = []
    for folder in ("slides", "slides_bad"):
        for path in sorted((shared_slides / folder).iterdir()):
            name = path.name.replace(".", "_")
            rows.append({"image_id": name, "patient_id": name, "label": "x", "image_path": f"{folder}/{path.name}"})
    manifest = drawn.write_manifest(tmp_path / "m.csv", rows)
    parameters = TilingParameters(mpp=0, allow_absurd_mpp=True, tile_format="png", max_failed_share=1)
    run_tiling(manifest, str(shared_slides), str(tmp_path / "out"), parameters)
    dataset = TiledDataset(str(tmp_path / "out"))
    status = {entry.image_id: entry.status for entry in dataset.ledger}
    assert list(status) == [row["image_id"] for row in rows]
    assert status["CMU-1-Small-Region_svs"] == "tiled"
    assert status["openslide-python_small_svs"] == "empty"
    assert status["test3-DAPI-2-387_ndpi"] == "tiled"
    assert status["multiframe_camelyon_challenge_image_dcm"] == "tiled"
    for name in ("unreadable_svs", "unopenable_tiff", "histolab_broken_svs", "sm_image_jpegls_dcm"):
        assert status[name] == "failed"
    reader = open_slide(str(shared_slides / "slides" / "CMU-1-Small-Region.svs"))
    tiles = read_tiles(dataset, "CMU-1-Small-Region_svs")
    assert len(tiles) > 30
    for tile in tiles:
        picture = np.asarray(Image.open(io.BytesIO(tile["image/encoded"][0])))
        assert (picture == reader.read_region(tile["tile/x"][0], tile["tile/y"][0], 0, 256, 256)).all()


@pytest.mark.parametrize(("runner", "fact"), [("DirectRuner", "did you mean DirectRunner?"), ("xyz", "choose one of")])
def test_an_unknown_runner_is_refused_before_anything_is_written(runner, fact, tmp_path):
    with pytest.raises(InputError, match="unknown Beam runner") as caught:
        run_tiling("m.csv", str(tmp_path), str(tmp_path / "out"), runner=runner)
    assert fact in str(caught.value)
    assert not (tmp_path / "out").exists()
