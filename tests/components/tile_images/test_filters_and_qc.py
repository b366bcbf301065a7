"""Filters by quality, the ways to override the mask, and the QC sheets, on whole runs."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from components.records.dataset import TiledDataset
from components.records.errors import InputError
from components.records.ledger import LedgerEntry
from components.tile_images import contact_sheet
from components.tile_images.parameters import TilingParameters
from components.tile_images.run import run_tiling
from components.tile_images.sharpness import measure_sharpness, score_sharpness

SMALL = {"tile_px": 128, "mpp": 0, "level": 0}


@pytest.fixture
def tile(tmp_path, drawn):
    def run(pictures, rows=None, **parameters):
        rows = rows or [{} for _ in pictures]
        images = tmp_path / "images"
        images.mkdir(exist_ok=True)
        for number, picture in enumerate(pictures):
            drawn.write_tiff(images / f"s{number}.tif", picture, levels=1)
            rows[number] |= {"image_id": f"s{number}", "patient_id": f"p{number}", "label": "x"}
        manifest = drawn.write_manifest(tmp_path / "m.csv", rows)
        out = tmp_path / "out"
        run_tiling(manifest, str(images), str(out), TilingParameters(**{**SMALL, **parameters}))
        return out, [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]

    return run


def soften(picture, radius=6):
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def test_sharpness_falls_with_blur_and_not_with_contrast():
    rng = np.random.default_rng(0)
    sharp = rng.integers(60, 200, (128, 128)).astype(np.uint8)
    sharp = np.asarray(Image.fromarray(sharp).filter(ImageFilter.GaussianBlur(1)))
    soft = np.asarray(Image.fromarray(sharp).filter(ImageFilter.GaussianBlur(3)))
    assert score_sharpness(sharp) > 5 * score_sharpness(soft) > 0
    fainter = (sharp // 2 + 100).astype(np.uint8)
    assert score_sharpness(fainter) == pytest.approx(score_sharpness(sharp), rel=0.15)
    assert score_sharpness(np.full((64, 64), 200, np.uint8)) == 0
    assert score_sharpness(np.zeros((2, 9), np.uint8)) == 0
    content = io.BytesIO()
    Image.fromarray(np.stack([sharp] * 3, axis=2)).save(content, "JPEG", quality=95)
    assert measure_sharpness(content.getvalue()) == pytest.approx(score_sharpness(sharp), rel=0.1)


def test_blurred_tiles_are_left_out_and_counted(tile, drawn):
    sharp, soft = drawn.draw_slide(0), soften(drawn.draw_slide(1))
    half = sharp.copy()
    half[:, 512:] = soften(half)[:, 512:]
    out, ledger = tile([sharp, soft, half], min_sharpness=0.03)
    assert [entry["status"] for entry in ledger] == ["tiled", "empty", "tiled"]
    assert (
        ledger[1]["reason"] == f"every tile with tissue ({ledger[1]['tiles_blurred']}) is less sharp than min_sharpness"
    )
    assert ledger[0]["tiles_blurred"] < ledger[2]["tiles_blurred"] < ledger[1]["tiles_blurred"]
    assert ledger[2]["tiles"] > 5
    dataset = TiledDataset(str(out))
    assert dataset.summary["tiles_blurred"] == sum(entry["tiles_blurred"] for entry in ledger)
    assert not dataset.spans("s1")
    assert len(dataset.spans("s2")) == ledger[2]["tiles"]


def test_blur_is_left_alone_unless_asked(tile, drawn):
    _, (entry,) = tile([soften(drawn.draw_slide(1))])
    assert (entry["status"], entry["tiles_blurred"]) == ("tiled", 0)


def test_folded_tiles_are_left_out_and_counted(tile, drawn):
    picture = drawn.draw_slide(0)
    picture[256:512, 192:832] = (picture[256:512, 192:832].astype(float) ** 3 / 243**2).astype(np.uint8)
    _, (kept,) = tile([picture])
    _, (entry,) = tile([picture], max_fold=0.3)
    assert (kept["tiles_folded"], entry["status"]) == (0, "tiled")
    assert entry["tiles_folded"] >= 8
    assert entry["tiles"] + entry["tiles_folded"] == kept["tiles"]


def test_a_slide_lost_to_pen_says_so(tile, drawn):
    picture = drawn.draw_slide(0, tissue=(300, 200, 420, 600))
    for top in range(256, 512, 64):
        picture[top : top + 30] = (40, 60, 190)
    _, (entry,) = tile([picture])
    assert entry["status"] == "empty"
    assert entry["reason"] == f"every tile with tissue ({entry['tiles_on_pen']}) is on a pen stroke"


def test_the_manifest_overrides_the_mask(tile, drawn):
    faint = drawn.draw_slide(0)
    faint[128:256, 192:832] = (228, 212, 226)
    rows = [{}, {"tissue_method": "all"}, {"tissue_threshold": "0.3"}]
    _, (plain, everything, fixed) = tile([faint] * 3, rows)
    assert everything["tiles"] == 48
    assert everything["tissue_share"] == 1
    assert fixed["tiles"] < plain["tiles"] < 48


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tissue_method": "magic"}, "line 2: tissue_method 'magic' is unknown; tissue_method is empty or auto, otsu"),
        ({"tissue_threshold": "-1"}, "line 2: tissue_threshold '-1' is no number from 0 on"),
        ({"tissue_threshold": "many"}, "line 2: tissue_threshold 'many' is no number from 0 on"),
        ({"tissue_method": "fixed"}, "line 2: tissue_method 'fixed' needs a tissue_threshold"),
    ],
)
def test_wrong_overrides_are_named(tile, drawn, row, message):
    with pytest.raises(InputError, match=message):
        tile([drawn.draw_slide(0)], [row])


def test_every_slide_has_a_sheet_and_the_page_shows_all(tile, drawn):
    picture = drawn.draw_slide(0)
    picture[20:60, :400] = (40, 60, 190)
    out, ledger = tile([picture, drawn.draw_slide(1, tissue=None)])
    sheet = np.asarray(Image.open(out / "qc" / "s0.jpg")).astype(int)
    assert sheet.shape == (768, 1024, 3)
    kept, glass = sheet[300:350, 400:450], sheet[700:750, 900:950]
    assert np.abs(kept.mean((0, 1)) - picture[300:350, 400:450].mean((0, 1))).max() < 25
    assert glass.min() > 235
    red, green, blue = sheet[35:45, 100:300].mean((0, 1))
    assert red > max(green, blue) + 25
    page = (out / "qc" / "index.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2
    assert "http" not in page
    assert "2 slides: 1 tiled, 1 empty" in page
    assert f"{ledger[0]['tiles']:,} tiles" in page
    assert "no tissue" in page
    first = page, (out / "qc" / "s0.jpg").read_bytes()
    out, _ = tile([picture, drawn.draw_slide(1, tissue=None)])
    assert ((out / "qc" / "index.html").read_text(), (out / "qc" / "s0.jpg").read_bytes()) == first


def test_qc_can_be_left_out(tile, drawn):
    out, _ = tile([drawn.draw_slide(0)], qc=False)
    assert not (out / "qc").exists()


def test_qc_turned_on_later_draws_the_same_sheets_and_no_tile_again(tile, drawn, tmp_path):
    out, _ = tile([drawn.draw_slide(0), drawn.draw_slide(1, tissue=None)])
    sheets = {name: (out / "qc" / name).read_bytes() for name in ("s0.jpg", "s1.jpg", "index.html")}
    results = [*out.rglob("*.tfrecord"), *(out / ".tiling").rglob("*.json")]
    assert len(results) >= 4
    kept = {path: path.stat().st_mtime_ns for path in results}
    for qc in (False, True):
        parameters = TilingParameters(**SMALL, qc=qc)
        run_tiling(str(tmp_path / "m.csv"), str(tmp_path / "images"), str(out), parameters)
        assert len(list((out / "qc").glob("*.jpg"))) == (2 if qc else 0)
        assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert {name: (out / "qc" / name).read_bytes() for name in sheets} == sheets


def test_the_page_says_that_sheets_show_blurred_tiles_as_kept(tmp_path):
    sharp, blurred = entry("a"), replace(entry("b"), details={"tiles_blurred": 2})
    contact_sheet.write_contact_sheet(str(tmp_path), [sharp])
    assert "left out as blurred" not in (tmp_path / "qc" / "index.html").read_text()
    contact_sheet.write_contact_sheet(str(tmp_path), [sharp, blurred])
    assert "left out as blurred" in (tmp_path / "qc" / "index.html").read_text()


def entry(name, status="tiled", reason=""):
    return LedgerEntry(name, status, reason, 3, 0, 0.0, name, "", "", None, "unknown", {})


def test_names_and_reasons_are_escaped(tmp_path):
    contact_sheet.write_contact_sheet(str(tmp_path), [entry("<b>&", "failed", "<script>alert(1)</script>")])
    page = (tmp_path / "qc" / "index.html").read_text()
    assert "<script>" not in page
    assert "&lt;b&gt;&amp;" in page
    assert "no picture" in page


def test_many_slides_make_pages_and_trouble_comes_first(tmp_path, monkeypatch):
    monkeypatch.setattr(contact_sheet, "PAGE_SLIDES", 4)
    monkeypatch.setattr(contact_sheet, "MOST_SLIDES", 10)
    entries = [entry(f"s{n:02d}", "failed" if n in (7, 33) else "tiled") for n in range(40)]
    pages = contact_sheet.write_contact_sheet(str(tmp_path), entries)
    assert pages == ["qc/index.html", "qc/page-002.html", "qc/page-003.html"]
    text = "".join((tmp_path / page).read_text() for page in pages)
    assert text.count("<figure>") == 10
    assert "<b>s07</b>" in text
    assert "<b>s33</b>" in text
    assert "Shown: 10" in text
    assert 'href="page-002.html"' in (tmp_path / pages[0]).read_text()
