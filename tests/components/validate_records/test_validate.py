"""validate_records on datasets with one thing wrong at a time."""

import csv
import io
import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.records import storage
from components.records.errors import InputError, WorkError
from components.records.example import encode_example, encode_features
from components.records.tfrecord import index_tfrecord
from components.validate_records.outcome import MAX_OFFENDERS, Thresholds
from components.validate_records.validate import validate_records

BAD = ("p03_0", 2)


def run(root, workers=1, **thresholds):
    out = Path(root).parent
    return validate_records(root, str(out / "v.json"), str(out / "v.html"), Thresholds(**thresholds), workers)


def status(validation):
    return {check.name: check.status for check in validation.checks}


def check_of(validation, name):
    return next(check for check in validation.checks if check.name == name)


def only_fails(validation, *names):
    return {name for name, found in status(validation).items() if found == "fail"} == set(names)


def edit_bad(**changes):
    """An edit of the one bad record's features; None removes one."""

    def edit(row, number, features):
        if (row.image_id, number) != BAD:
            return features
        return {key: value for key, value in {**features, **changes}.items() if value is not None}

    return edit


def edit_json(root, name, change):
    path = str(Path(root) / name)
    value = storage.read_json(path)
    change(value)
    storage.write_json(path, value)


def part_path(root, image_id="p03_0"):
    return next(Path(root).glob(f"records/**/{image_id}-00000.tfrecord"))


def test_a_sound_dataset_passes_every_check(tiled_dataset):
    root = tiled_dataset(slides=2, parts=2)
    found = run(root)
    assert set(status(found).values()) == {"pass"}, status(found)
    assert found.verdict == "pass"
    assert found.totals | {"bytes": 0} == {
        "patients": 12, "slides": 24, "tiles": 96, "blank": 0, "records": 96, "parts": 48, "bytes": 0,
    }  # fmt: skip
    found.raise_on_failure("here")
    written = json.loads((Path(root).parent / "v.json").read_text())
    assert written["verdict"] == "pass"
    assert written == json.loads(json.dumps(found.to_json()))
    assert "These records can be trained on" in (Path(root).parent / "v.html").read_text()


def test_without_splits_the_split_checks_do_not_apply(tiled_dataset):
    found = run(tiled_dataset(splits=False))
    names = {name for name, one in status(found).items() if one == "not applicable"}
    assert names == {"split_leakage", "classes", "duplicates_across_splits", "colour_drift_splits"}
    assert found.verdict == "pass"


def test_workers_do_not_change_a_byte(tiled_dataset):
    root = tiled_dataset(patients=6, slides=2, parts=2, edit_record=edit_bad(**{"tile/tissue": 2.0}))
    run(root)
    first = [(Path(root).parent / name).read_bytes() for name in ("v.json", "v.html")]
    run(root, workers=2)
    assert first == [(Path(root).parent / name).read_bytes() for name in ("v.json", "v.html")]


RECORD_FAULTS = [
    ("schema", {"tile/tissue": None}, "lacks tile/tissue"),
    ("schema", {"image/height": 32.0}, "image/height is not int64"),
    ("schema", {"tile/tissue": 1}, "tile/tissue is not float"),
    ("schema", {"image/format": "webp"}, "'webp' is none of jpeg, png"),
    ("decode", {"image/format": "png"}, "image/format is png, the bytes are jpeg"),
    ("decode", {"image/encoded": b"rubbish"}, "the bytes are neither jpeg nor png"),
    ("decode", {"image/encoded": b"\xff\xd8\xff\xe0"}, "does not decode"),
    ("size", {"image/width": 31}, "schema.json says 32"),
    ("identity", {"slide/id": "p04_0"}, "slide/id is 'p04_0', not 'p03_0'"),
    ("identity", {"patient/id": "p04"}, "patient/id is 'p04', not 'p03'"),
    ("identity", {"slide/digest": "sha256:0"}, "slide/digest is 'sha256:0'"),
    ("labels", {"image/class/text": "CE"}, "image/class/text is 'CE', the manifest says 'LAA'"),
    ("labels", {"image/class/label": 0}, "'LAA' is number 1 of the sorted labels"),
    ("places", {"tile/x": -1}, "tile/x -1 lies outside the slide (0 to 127)"),
    ("places", {"tile/y": 128}, "tile/y 128 lies outside the slide (0 to 127)"),
    ("places", {"tile/level0_height": 0}, "tile/level0_height is 0"),
    ("places", {"tile/x": 0, "tile/y": 0}, "a second tile at one place"),
    ("values", {"tile/tissue": 1.5}, "tile/tissue 1.5 is not between 0 and 1"),
    ("values", {"tile/tissue": float("nan")}, "tile/tissue nan"),
    ("values", {"tile/lossless": 2}, "tile/lossless is 2"),
    ("values", {"tile/label": -1}, "tile/label is -1"),
    ("mpp", {"tile/mpp": float("inf")}, "tile/mpp is inf"),
    ("mpp", {"tile/mpp": 1.0}, "tile/mpp is 1, its place says 0.5"),
    ("mpp", {"tile/mpp": None}, "lacks tile/mpp"),
]


@pytest.mark.parametrize(("check", "changes", "text"), RECORD_FAULTS)
def test_a_bad_record_is_named(tiled_dataset, check, changes, text):
    found = run(tiled_dataset(patients=6, edit_record=edit_bad(**changes)))
    assert only_fails(found, check) or (check == "size" and only_fails(found, "size", "mpp")), status(found)
    offender = next(one for one in check_of(found, check).offenders if text in one.what)
    assert (offender.image_id, offender.part) == ("p03_0", "records/val/p03_0-00000.tfrecord")
    assert offender.record == 2
    if check != "schema":
        assert (offender.x, offender.y) == (changes.get("tile/x", 0), changes.get("tile/y", 64))
    with pytest.raises(WorkError) as error:
        found.raise_on_failure("validate_records")
    assert all(fact in str(error.value) for fact in ("p03_0", "records/val/p03_0-00000.tfrecord", "record 2"))
    assert "\n" not in str(error.value)


def test_a_record_that_is_no_example(tiled_dataset):
    found = run(tiled_dataset(patients=6, edit_record=edit_bad(raw=b"\xff\xff no protobuf")))
    assert only_fails(found, "schema")
    assert "not a tf.train.Example" in check_of(found, "schema").offenders[0].what


def test_a_feature_with_two_values(tiled_dataset):
    def edit(row, number, features):
        if (row.image_id, number) != BAD:
            return features
        double = bytes([0x0A, 16, 0x0A, 6, *b"tile/x", 0x12, 6, 0x1A, 4, 0x0A, 2, 1, 2])
        return {"raw": encode_example(encode_features(features), double)}

    found = run(tiled_dataset(patients=6, edit_record=edit))
    assert only_fails(found, "schema")
    assert check_of(found, "schema").offenders[0].what == "tile/x holds 2 values, not 1"


def test_an_unknown_feature_warns(tiled_dataset):
    found = run(tiled_dataset(patients=6, edit_record=edit_bad(**{"tile/colour": 1})))
    assert status(found)["unknown_features"] == "warn"
    assert found.verdict == "warn"
    assert check_of(found, "unknown_features").offenders[0].what == "carries tile/colour"


@pytest.mark.parametrize("cut", [0.3, 0.9, 0.998])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
def test_a_cut_off_jpeg_is_found_even_with_an_end_marker(tiled_dataset, cut, end):
    def edit(row, number, features):
        if (row.image_id, number) == BAD:
            data = features["image/encoded"]
            head = data.rfind(b"\xff\xda") + 14
            features = {**features, "image/encoded": data[: head + int((len(data) - head) * cut)] + end}
        return features

    found = run(tiled_dataset(patients=6, tile_px=128, edit_record=edit))
    assert only_fails(found, "decode"), status(found)
    assert check_of(found, "decode").offenders[0].record == 2


@pytest.mark.parametrize("place", [200, -13], ids=["pixels", "checksum only"])
def test_a_png_with_a_flipped_byte(tiled_dataset, place):
    def edit(row, number, features):
        if (row.image_id, number) == BAD:
            data = bytearray(features["image/encoded"])
            data[place] ^= 1
            features = {**features, "image/encoded": bytes(data)}
        return features

    found = run(tiled_dataset(patients=6, kind="png", edit_record=edit))
    assert only_fails(found, "decode")
    assert check_of(found, "decode").offenders[0].record == 2


def test_a_tile_of_another_size_and_one_of_another_mode(tiled_dataset):
    def edit(row, number, features):
        if row.image_id == "p03_0" and number < 2:
            buffer = io.BytesIO()
            picture = Image.effect_noise((40, 32), 60)
            picture.convert("CMYK" if number else "RGB").save(buffer, "JPEG")
            features = {**features, "image/encoded": buffer.getvalue()}
        return features

    found = run(tiled_dataset(patients=6, edit_record=edit))
    assert only_fails(found, "size", "decode")
    assert "decodes to 40 x 32 px, says 32 x 32" in check_of(found, "size").offenders[0].what
    assert "colour mode CMYK" in check_of(found, "decode").offenders[0].what


def test_a_flipped_byte_fails_the_checksum_and_the_other_records_are_still_read(tiled_dataset):
    root = tiled_dataset(patients=6)
    path = part_path(root)
    content = bytearray(path.read_bytes())
    offset, length = index_tfrecord(path)[1]
    content[offset + length // 2] ^= 1
    path.write_bytes(content)
    found = run(root)
    assert only_fails(found, "checksums")
    crc, sha = check_of(found, "checksums").offenders
    assert (crc.image_id, crc.record, "fails its checksum" in crc.what) == ("p03_0", 1, True)
    assert "sha256" in sha.what
    assert found.totals["tiles"] == 23


def test_a_broken_record_header_ends_the_part(tiled_dataset):
    root = tiled_dataset(patients=6)
    path = part_path(root)
    content = bytearray(path.read_bytes())
    content[index_tfrecord(path)[2][0] - 12] ^= 1
    path.write_bytes(content)
    found = run(root)
    assert only_fails(found, "checksums", "counts")
    assert check_of(found, "checksums").offenders[0].record == 2
    assert "holds 2 records, parts.json says 4" in check_of(found, "counts").offenders[0].what


def test_a_cut_off_part(tiled_dataset):
    root = tiled_dataset(patients=6)
    path = part_path(root)
    path.write_bytes(path.read_bytes()[:-10])
    found = run(root)
    assert only_fails(found, "checksums", "counts")
    assert "is cut off" in check_of(found, "checksums").offenders[0].what
    assert "parts.json says" in check_of(found, "checksums").offenders[1].what


def test_a_whole_record_more_than_parts_json_knows(tiled_dataset):
    root = tiled_dataset(patients=6)
    path = part_path(root)
    offset, length = index_tfrecord(path)[0]
    path.write_bytes(path.read_bytes() + path.read_bytes()[: offset + length + 4])
    found = run(root)
    assert only_fails(found, "checksums", "counts", "places")
    assert "has 5 records, the ledger says 4" in " ".join(o.what for o in check_of(found, "counts").offenders)


def test_missing_and_unknown_parts(tiled_dataset):
    root = tiled_dataset(patients=6)
    path = part_path(root)
    path.rename(path.with_name("stray-00000.tfrecord"))
    found = run(root)
    assert only_fails(found, "files", "counts", "classes")
    assert [(o.what, o.part) for o in check_of(found, "files").offenders] == [
        ("is in parts.json and not on disk", "records/val/p03_0-00000.tfrecord"),
        ("is on disk and not in parts.json", "records/val/stray-00000.tfrecord"),
    ]


def test_a_left_over_temporary_file_warns(tiled_dataset):
    root = tiled_dataset(patients=6)
    part_path(root).with_name(".p03_0-00001.tfrecord.abc.tmp").write_bytes(b"half")
    found = run(root)
    assert status(found)["files"] == "warn"
    assert found.verdict == "warn"


def test_a_part_of_no_row_and_a_part_named_twice(tiled_dataset):
    root = tiled_dataset(patients=6)
    edit_json(root, "parts.json", lambda parts: parts.append(dict(parts[0])))
    found = run(root)
    assert "stands 2 times in parts.json" in [o.what for o in check_of(found, "files").offenders]
    edit_json(root, "parts.json", lambda parts: (parts.pop(), parts[0].update(image_id="nobody")))
    found = run(root)
    assert "its image id is not in the manifest" in check_of(found, "files").offenders[0].what
    assert status(found)["identity"] == "fail"


LEDGER_FAULTS = [
    ({"tiles": 3}, "has 4 records, the ledger says 3"),
    ({"tiles_failed": 1}, "has 0 failed tiles listed, the ledger says 1"),
    ({"status": "empty"}, "is empty with 4 tiles"),
]


@pytest.mark.parametrize(("changes", "text"), LEDGER_FAULTS)
def test_a_ledger_line_that_does_not_add_up(tiled_dataset, changes, text):
    found = run(tiled_dataset(patients=6, edit_entry=lambda e: replace(e, **changes) if e.image_id == "p03_0" else e))
    assert only_fails(found, "counts")
    assert (check_of(found, "counts").offenders[0].image_id, text) == (
        "p03_0",
        check_of(found, "counts").offenders[0].what,
    )


def test_ledger_lines_missing_doubled_and_foreign(tiled_dataset):
    root = tiled_dataset(patients=6)
    path = Path(root) / "ledger.jsonl"
    lines = path.read_text().splitlines()
    foreign = lines[5].replace("p05_0", "zz")
    path.write_text("\n".join([*lines[:4], lines[0], foreign]) + "\n")
    offenders = [(o.image_id, o.what) for o in check_of(run(root), "counts").offenders]
    assert ("p00_0", "stands 2 times in the ledger, not once") in offenders
    assert ("p04_0", "stands 0 times in the ledger, not once") in offenders
    assert ("zz", "stands in the ledger and not in the manifest") in offenders


def test_summary_and_failed_tiles(tiled_dataset):
    root = tiled_dataset(patients=6)
    edit_json(root, "summary.json", lambda summary: summary.update(tiles=7))
    found = run(root)
    assert only_fails(found, "counts")
    assert check_of(found, "counts").offenders[0].what == "summary.json says 7 tiles, the ledger 24"
    for name in ("summary.json", "failed_tiles.jsonl"):
        (Path(root) / name).unlink()
    assert {o.what for o in check_of(run(root), "counts").offenders} == {
        "summary.json is missing",
        "failed_tiles.jsonl is missing",
    }


def test_a_lost_slide_warns_and_names_the_patient_without_tiles(tiled_dataset):
    found = run(tiled_dataset(patients=12, tiles=4, edit_entry=lambda e: replace(e, status="partial", reason="torn")))
    assert status(found)["lost"] == "warn"
    assert check_of(found, "lost").offenders[0].what == "is partial: torn"


def test_a_patient_in_two_splits(tiled_dataset):
    def edit(row):
        return replace(row, split="test") if row.image_id == "p00_1" else row

    found = run(tiled_dataset(slides=2, edit_row=edit))
    assert only_fails(found, "split_leakage")
    assert "patient p00 is in test and train" in str(check_of(found, "split_leakage").offenders[0])


def test_a_row_without_split_where_others_have_one(tiled_dataset):
    found = run(tiled_dataset(edit_row=lambda row: replace(row, split="") if row.image_id == "p00_0" else row))
    assert only_fails(found, "split_leakage")
    assert "p00_0: has no split, others have" in str(check_of(found, "split_leakage").offenders[0])


def test_the_same_image_content_in_two_splits(tiled_dataset):
    def same(row, number, features):
        return {**features, "slide/digest": "md5:1"} if row.image_id in ("p00_0", "p02_0") else features

    found = run(
        tiled_dataset(
            edit_record=same,
            edit_entry=lambda e: replace(e, digest="md5:1") if e.image_id in ("p00_0", "p02_0") else e,
        )
    )
    assert only_fails(found, "split_leakage")
    assert check_of(found, "split_leakage").offenders[0].what == "(val) has the same content as p00_0 (train)"


def test_a_part_filed_under_another_split(tiled_dataset):
    root = tiled_dataset(patients=6)
    edit_json(
        root, "parts.json", lambda parts: parts[0].update(split="train" if parts[0]["split"] != "train" else "val")
    )
    found = run(root)
    assert "split_leakage" in {name for name, one in status(found).items() if one == "fail"}
    assert "is filed under" in check_of(found, "split_leakage").offenders[0].what


def test_a_manifest_whose_labels_moved_after_tiling(tiled_dataset):
    root = tiled_dataset(patients=6)
    path = Path(root) / "split.csv"
    rows = list(csv.reader(path.open()))
    path.write_text("\n".join(",".join(["AA" if cell == "LAA" else cell for cell in row]) for row in rows) + "\n")
    found = run(root)
    assert only_fails(found, "labels")
    assert check_of(found, "labels").count == 24 + 1


def test_a_patient_with_two_labels(tiled_dataset):
    found = run(tiled_dataset(slides=2, edit_row=lambda r: replace(r, label="LAA") if r.image_id == "p00_1" else r))
    assert only_fails(found, "labels")
    assert "patient p00 is CE and LAA" in str(check_of(found, "labels").offenders[0])


def test_a_class_missing_from_a_split(tiled_dataset):
    root = tiled_dataset(patients=6, edit_row=lambda r: replace(r, split="train") if r.image_id == "p03_0" else r)
    found = run(root)
    assert only_fails(found, "classes")
    assert check_of(found, "classes").offenders[0].what == "val has 0 patients of LAA"
    assert run(root, min_patients_per_class=0).verdict != "fail"
    assert only_fails(run(tiled_dataset(name="sound"), min_patients_per_class=3), "classes")


def blank_tiles(row, number, pixels):
    return np.full_like(pixels, 240) + np.random.default_rng(number).integers(0, 3, pixels.shape, dtype=np.uint8)


def test_too_many_blank_tiles_fail_and_are_no_duplicates(tiled_dataset):
    def edit(row, number, pixels):
        return blank_tiles(row, number, pixels) if number < 2 else pixels

    root = tiled_dataset(edit_pixels=edit)
    assert status(run(root))["blank_tiles"] == "pass"
    found = run(root, max_blank_share=0.4)
    assert only_fails(found, "blank_tiles")
    assert check_of(found, "blank_tiles").measured == "50.0% of 48 tiles"
    assert len(check_of(found, "blank_tiles").offenders) == MAX_OFFENDERS < check_of(found, "blank_tiles").count == 24
    assert check_of(found, "blank_tiles").offenders[0].image_id == "p00_0"
    assert status(found)["duplicates_across_splits"] == "pass"


def copy_tile(*targets, exact=True):
    """The same pixels in tile 1 of every target; encoded otherwise where not `exact`."""

    def edit(row, number, features):
        if row.image_id in targets and number == 1:
            pixels = np.random.default_rng(5).integers(0, 255, (32, 32, 3), dtype=np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG", compress_level=1 if exact else 1 + int(row.image_id[1:3]))
            features = {**features, "image/encoded": buffer.getvalue(), "image/format": "png"}
        return features

    return edit


def test_the_same_tile_in_patients_of_two_splits_fails(tiled_dataset):
    root = tiled_dataset(edit_record=copy_tile("p00_0", "p02_0", "p06_0"))
    found = run(root)
    assert only_fails(found, "duplicates_across_splits")
    check = check_of(found, "duplicates_across_splits")
    assert check.count == 3
    assert check.measured == "3 tiles, 3 of them equal byte for byte"
    assert str(check.offenders[0]) == (
        "p00_0, records/train/p00_0-00000.tfrecord record 1, x 64 y 0: patient p00 (train) has the same bytes as "
        "patient p02 (val): p02_0, records/val/p02_0-00000.tfrecord record 1, x 64 y 0"
    )
    assert only_fails(run(root, max_duplicates_across_splits=3))


def test_equal_pixels_of_different_bytes_are_found_too(tiled_dataset):
    found = run(tiled_dataset(edit_record=copy_tile("p00_0", "p02_0", exact=False)))
    assert "has the same pixels as" in check_of(found, "duplicates_across_splits").offenders[0].what


def test_the_same_tile_in_one_split_warns_and_in_one_patient_is_fine(tiled_dataset):
    found = run(tiled_dataset(edit_record=copy_tile("p00_0", "p01_0")))
    assert status(found)["duplicates_within_split"] == "warn"
    assert status(found)["duplicates_across_splits"] == "pass"
    assert "2 tiles, 2 of them equal" in check_of(found, "duplicates_within_split").measured
    assert run(tiled_dataset(name="one", slides=2, edit_record=copy_tile("p00_0", "p00_1"))).verdict == "pass"


def test_duplicates_without_splits_warn(tiled_dataset):
    found = run(tiled_dataset(splits=False, edit_record=copy_tile("p00_0", "p02_0")))
    assert status(found)["duplicates_within_split"] == "warn"


def test_colour_drift_of_a_split_and_a_center(tiled_dataset):
    def edit(row, number, pixels):
        return (pixels * [1, 0.6, 1]).astype(np.uint8) if row.split == "test" or row.center_id == "c1" else pixels

    root = tiled_dataset(edit_pixels=edit)
    found = run(root)
    assert found.verdict == "warn"
    assert check_of(found, "colour_drift_splits").offenders[0].what.startswith("split ")
    assert "center c1: mean G lies" in " ".join(o.what for o in check_of(found, "colour_drift_centers").offenders)
    assert only_fails(run(root, colour_drift_fails=True), "colour_drift_splits", "colour_drift_centers")
    table = {(row["kind"], row["name"]): row for row in found.colours}
    assert set(table) == {("split", s) for s in ("train", "val", "test")} | {("center", c) for c in ("c0", "c1")}
    assert table["split", "test"]["mean"][1] < 0.7 * table["center", "c0"]["mean"][1]


def test_unknown_mpp_and_another_mpp_warn(tiled_dataset):
    assert status(run(tiled_dataset(mpp=None)))["mpp_asked"] == "not applicable"

    def double(row, number, features):
        return {**features, "tile/mpp": 1.0} if row.image_id == "p03_0" else features

    root = tiled_dataset(
        name="two", edit_record=double, edit_entry=lambda e: replace(e, mpp=0.5) if e.image_id == "p03_0" else e
    )
    found = run(root)
    assert found.verdict == "warn"
    assert check_of(found, "mpp_asked").offenders[0].what == "is at 1 µm/px, 0.5 was asked for"


def test_a_dataset_without_a_tile_fails(tiled_dataset):
    found = run(tiled_dataset(tiles=0, parts=1))
    assert found.totals["tiles"] == 0
    assert "classes" in {name for name, one in status(found).items() if one == "fail"}


def test_what_the_user_can_get_wrong(tiled_dataset, tmp_path):
    with pytest.raises(InputError, match="holds no tiled records"):
        run(str(tmp_path / "nowhere"))
    root = tiled_dataset(patients=2)
    with pytest.raises(InputError, match="0 workers"):
        run(root, workers=0)
    with pytest.raises(InputError, match=r"max_blank_share: 1.5 is out of range; give a number between 0 and 1"):
        Thresholds(max_blank_share=1.5)
    with pytest.raises(InputError, match="max_colour_drift: nan is out of range"):
        Thresholds(max_colour_drift=float("nan"))


def test_the_table_for_a_terminal_names_offenders_and_verdict(tiled_dataset):
    lines = str(run(tiled_dataset(patients=6, edit_record=edit_bad(**{"tile/tissue": 2.0})))).splitlines()
    assert "pass            checksums                 24 records" in lines
    assert any(
        line.startswith("  values: p03_0, records/val/p03_0-00000.tfrecord record 2, x 0 y 64") for line in lines
    )
    assert lines[-1] == "verdict: fail"


def test_ids_are_escaped_in_the_page(tiled_dataset):
    root = tiled_dataset(edit_row=lambda row: replace(row, center_id="<script>"))
    run(root)
    page = (Path(root).parent / "v.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page


def test_struct_sizes_say_what_the_docstring_says():
    from components.validate_records.scan import DIGEST

    assert DIGEST.itemsize == 32 == struct.calcsize("<QQQii")
