"""What the report makes of other steps' files, and the pieces it is drawn from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.evaluate.collect import GALLERY_SLIDES, pick_gallery
from components.evaluate.report import show_number
from components.evaluate.report_steps import (
    describe_split_table,
    describe_tiling,
    describe_training,
    describe_validation,
)
from components.explain.attention import TopTile
from components.explain.pictures import crop_around, data_uri, read_tile, shrink
from components.records import storage
from components.records.dataset import RecordSpan, TiledDataset
from components.records.errors import InputError, WorkError
from components.records.example import encode_example, encode_features
from components.statistics.charts import Plot, draw_history, draw_tile_counts, nice_ticks


def test_split_table_counts_patients_and_slides(dataset_root: str) -> None:
    table = describe_split_table(TiledDataset(dataset_root))
    assert table["patients"] == {"train": [3, 3], "val": [3, 3], "test": [4, 3]}
    assert table["slides"] == {"train": [4, 3], "val": [4, 3], "test": [6, 3]}
    assert table["centers"] == [("0", [2, 2, 2]), ("1", [2, 2, 3]), ("2", [2, 2, 2])]
    assert table["mixed"] == 0


def test_a_patient_in_two_splits_is_said(kit: Any, tmp_path: Path) -> None:
    slides = [kit.slide("a", "p", "CE", "train"), kit.slide("b", "p", "CE", "test"), kit.slide("c", "q", "LAA", "test")]
    assert describe_split_table(TiledDataset(kit.write(tmp_path, slides)))["mixed"] == 1


def test_tiling_adds_up_and_names_what_failed(dataset_root: str) -> None:
    tiling = describe_tiling(TiledDataset(dataset_root))
    assert dict(tiling["status"]) == {"tiled": 21, "empty": 1, "failed": 1}
    assert (tiling["slides"], tiling["tiles"]) == (23, 84)
    assert [(p["image_id"], p["patient_id"], p["reason"]) for p in tiling["problems"]] == [
        ("test9_0", "test9", "no tissue"),
        ("test9_1", "test9", "can't be opened"),
    ]


def test_validation_is_read_whatever_its_optional_keys(tmp_path: Path) -> None:
    path = tmp_path / "v.json"
    checks = [
        {
            "name": "every_tile_decodes", "status": "fail", "measured": 0.123456, "threshold": {"max": 0},
            "offenders": list("abcdefg"),
        },
        {"check": "other", "passed": True},
        {"id": "drift", "status": "not applicable", "message": "one center only"},
        "not a check",
    ]  # fmt: skip
    storage.write_json(path, {"verdict": "fail", "checks": checks})
    found = describe_validation(str(path))
    assert found is not None
    first, second, third = found["checks"]
    assert (found["verdict"], found["tone"], found["bad"]) == ("fail", "red", 1)
    assert first["name"] == "every tile decodes"
    assert (first["measured"], first["threshold"]) == ("0.1235", "max 0")
    assert first["offenders"] == "a, b, c, d, e and 2 more"
    assert second["status"] == "pass"
    assert third["status"] == "not applicable"
    for verdict, tone in (("pass", "green"), ("warn", "amber"), ("", "red")):
        storage.write_json(path, {"verdict": verdict})
        assert describe_validation(str(path))["tone"] == tone  # type: ignore[index]


def test_no_validation(tmp_path: Path) -> None:
    assert describe_validation("") is None
    assert describe_validation(str(tmp_path / "none.json")) is None
    assert describe_validation(str(tmp_path)) is None
    storage.write_json(tmp_path / "list.json", [])
    assert describe_validation(str(tmp_path / "list.json")) is None
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        describe_validation(str(tmp_path / "bad.json"))


def test_histories_of_either_shape_are_read(tmp_path: Path) -> None:
    epochs = [
        {"epoch": n, "seconds": 3.0, "loss": 1 / n, "val_loss": abs(n - 2) + 0.5, "val_auc": 0.5} for n in (1, 2, 3)
    ]
    series = {key: [row[key] for row in epochs] for key in ("loss", "val_loss", "val_auc")}
    found = []
    for name, history in (
        ("a", {"epochs": epochs, "best_epoch": 2}),
        ("b", series),
        ("c", {"history": series}),
        ("d", epochs),
    ):
        storage.write_json(tmp_path / name / "history.json", history)
        found.append(describe_training(str(tmp_path / name)))
    assert found[0] == found[1] == found[2] == found[3]
    first = found[0]
    assert first is not None
    assert (first["epochs"], first["best"], first["val_loss"]) == (3, 2, 0.5)
    assert [chart["name"] for chart in first["charts"]] == ["loss", "auc"]
    assert 'class="line blue"' not in first["charts"][1]["svg"]


def test_histories_that_say_nothing(tmp_path: Path) -> None:
    assert describe_training("") is None
    assert describe_training(str(tmp_path)) is None
    for history in ({}, [], 3, {"loss": []}, {"seconds": [1.0]}):
        storage.write_json(tmp_path / "history.json", history)
        assert describe_training(str(tmp_path)) is None
    storage.write_json(tmp_path / "history.json", {"loss": [None, 0.5, None]})
    assert describe_training(str(tmp_path))["epochs"] == 3  # type: ignore[index]


def test_ticks_are_round_and_cover_the_values() -> None:
    assert nice_ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert nice_ticks(0, 33) == [0, 10, 20, 30, 40]
    assert nice_ticks(2, 2) == [2, 2.2, 2.4, 2.6, 2.8, 3.0]
    for low, high in ((0, 1e-5), (-3, 7e6), (0.31, 0.34)):
        ticks = nice_ticks(low, high)
        assert ticks[0] <= low
        assert ticks[-1] >= high
        assert 3 <= len(ticks) <= 9


def test_charts_put_values_where_the_axes_say() -> None:
    plot = Plot("t", "x", "y", [0, 10], [0, 100])
    plot.line([0, 10], [0, 100], "blue")
    assert 'points="52.0,256.0 446.0,14.0"' in plot.svg()
    assert "&lt;b&gt;" in Plot("<b>", "<b>", "<b>", [0, 1], [0, 1]).svg()
    assert "<b>" not in Plot("<b>", "<b>", "<b>", [0, 1], [0, 1]).svg()


def test_histories_with_holes_or_one_epoch_draw() -> None:
    assert draw_history("loss", {"loss": [math.nan]}, None) == ""
    assert "circle" in draw_history("loss", {"loss": [0.5]}, 1)
    assert "nan" not in draw_history("loss", {"loss": [0.5, math.nan, 0.4], "val_loss": [0.5, 0.6, 0.4]}, 3)
    assert draw_history("loss", {"loss": [0.1] * 50}, 7).count("<text") < 20


def test_many_slides_become_a_histogram() -> None:
    few = draw_tile_counts([(f"s{n}", n) for n in range(20)])
    many = draw_tile_counts([(f"s{n}", n) for n in range(500)])
    assert few.count("column") == 20
    assert "s3: 3 tiles" in few
    assert many.count("column") <= 24
    assert draw_tile_counts([]) == ""
    assert "column red" in draw_tile_counts([("s", 0)])


def test_gallery_shows_trouble_first_and_is_bounded(kit: Any, tmp_path: Path) -> None:
    slides = [kit.slide(f"s{n}", f"p{n}", "CE", "train", status="tiled" if n % 5 else "empty") for n in range(60)]
    picked = pick_gallery(TiledDataset(kit.write(tmp_path, slides)))
    assert len(picked) == len(set(picked)) == GALLERY_SLIDES
    assert picked[:6] == ["s0", "s5", "s10", "s15", "s20", "s25"]


def test_pictures_shrink_and_repeat() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8))
    assert shrink(picture, 30).size == (30, 20)
    assert shrink(picture, 500).size == (90, 60)
    assert data_uri(picture, 30) == data_uri(picture, 30)
    assert data_uri(picture, 30).startswith("data:image/jpeg;base64,/9j/")


def test_crops_hold_the_box_and_stay_inside() -> None:
    left, top, right, bottom = crop_around((1000, 1000, 2000, 1500), 10.0, (400, 400))
    assert left <= 100 < 200 <= right
    assert top <= 100 < 150 <= bottom
    assert crop_around((0, 0, 4000, 4000), 10.0, (400, 400)) == (0, 0, 400, 400)


def test_numbers_are_shown_with_fixed_digits() -> None:
    assert [show_number(value) for value in (None, 0.5, 1, "x")] == ["–", "0.500", "1.000", "x"]


def test_a_tile_that_cannot_be_read_names_itself(kit: Any, tmp_path: Path) -> None:
    def tile(content: bytes | None, length: int | None = None) -> TopTile:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.tfrecord"
        if content is not None:
            path.write_bytes(content)
        return TopTile(
            1.0, "p", "s0", 10, 20, RecordSpan(str(path), 0, len(content or b"") if length is None else length)
        )

    good = encode_example(encode_features({"image/encoded": kit.picture((1, 2, 3))}))
    assert read_tile(tile(good)).size == (32, 32)
    with pytest.raises(WorkError, match=r"s0, tile at 10, 20: .*tfrecord is missing; run the tiling step again"):
        read_tile(tile(None))
    with pytest.raises(WorkError, match="s0, tile at 10, 20: the record holds no picture"):
        read_tile(tile(encode_example(encode_features({"tile/x": 1}))))
    with pytest.raises(WorkError, match="s0, tile at 10, 20: the record holds no picture"):
        read_tile(tile(good, len(good) + 5))
    with pytest.raises(WorkError, match="s0, tile at 10, 20: the picture does not decode"):
        read_tile(tile(encode_example(encode_features({"image/encoded": b"no picture"}))))
    with pytest.raises(WorkError, match=r"the record is not a tf\.train\.Example"):
        read_tile(tile(b"\xff\xff\xff"))
