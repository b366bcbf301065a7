"""What there is to see."""

import shutil

import pytest
from viewer_run import paint, write_run, write_slide

from components.records.errors import InputError
from components.viewer.catalog import read_catalog
from components.viewer.tiles import TileMaker


def test_several_runs_have_names_and_keys_of_their_own(run_folders, tmp_path):
    shutil.copytree(run_folders[0], tmp_path / "run")
    catalog = read_catalog([str(run_folders[0]), str(tmp_path / "run")])
    assert list(catalog.runs) == ["run", "run (2)"]
    assert len(catalog.slides) == 8


def test_runs_below_a_folder_are_found_beside_its_slides(tmp_path):
    write_run(tmp_path)
    catalog = read_catalog([str(tmp_path)])
    assert list(catalog.runs) == ["run"]
    assert sorted(slide.image_id for slide in catalog.slides.values() if not slide.run) == [
        f"slides/{name}_0.tif" for name in "ABCD"
    ]


def test_keys_are_the_same_after_a_restart(run_folders):
    place = [str(run_folders[0])]
    assert list(read_catalog(place).slides) == list(read_catalog(place).slides)


def test_a_run_whose_slides_are_gone_still_shows_its_thumbnails(tmp_path):
    out, images = write_run(tmp_path)
    shutil.move(images, tmp_path / "moved")
    slide = next(iter(read_catalog([str(out)]).slides.values()))
    assert slide.path == ""
    assert TileMaker().overview("", 100, slide.stand_in).shape == (100, 100, 3)
    found = next(iter(read_catalog([str(out)], str(tmp_path / "moved")).slides.values()))
    assert found.path.endswith("moved/A_0.tif")


def test_a_manifest_can_not_point_outside(tmp_path):
    out, _ = write_run(tmp_path)
    write_slide(tmp_path / "secret.tif", paint(1, 256))
    table = (out / "split.csv").read_text().replace(",A_0.tif,A_0_mask.tif", ",../secret.tif,../secret.tif")
    (out / "split.csv").write_text(table)
    with pytest.raises(InputError, match="leaves --images-root"):
        read_catalog([str(out)])


def test_a_place_without_anything_is_refused(tmp_path, run_folders):
    with pytest.raises(InputError, match="neither a run nor a slide"):
        read_catalog([str(tmp_path)])
    with pytest.raises(InputError, match="no such folder"):
        read_catalog([str(tmp_path / "none")])
    (tmp_path / "other.txt").write_text("x")
    with pytest.raises(InputError, match="holds no slide of the run run"):
        read_catalog([str(run_folders[0])], str(tmp_path))
