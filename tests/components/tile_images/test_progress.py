"""Progress counts what is in OUT."""

from components.tile_images.finalise import Outcome, check_totals
from components.tile_images.parameters import TilingParameters
from components.tile_images.plan import SlidePlan, SlideTask, save_plan
from components.tile_images.progress import Progress, ProgressMonitor
from components.tile_images.region import RegionResult, save_result


def test_the_line():
    line = str(Progress(12, 48, 3210, 410.2, 32.4))
    assert line == "tiled 12/48 slides, 3,210 tiles, 410 tiles/s, 0:32 left"
    assert str(Progress(0, 2, 0, 0.0, None)) == "tiled 0/2 slides, 0 tiles, 0 tiles/s"


def test_slides_and_regions_are_counted_as_they_appear(tmp_path):
    out = str(tmp_path)
    told = []
    tasks = [SlideTask(name, name, "x", 0, "", None, name, name, "") for name in "ab"]
    with ProgressMonitor(out, tasks, TilingParameters(), told.append, every=1000) as monitor:
        assert monitor.measure().slides_done == 0
        save_plan(out, SlidePlan("k", "a", {}, "tiled", tiles=5, regions=2))
        save_plan(out, SlidePlan("k", "b", {}, "failed", "broken"))
        assert monitor.measure().slides_done == 1
        save_result(out, "a", RegionResult("old", 0, "", 0, 0, "", 0.0))
        save_result(out, "a", RegionResult("k", 1, "", 0, 0, "", 0.0, failed=[[0, 0, "x"]]))
        half = monitor.measure()
        assert (half.slides_done, half.seconds_left is not None) == (1, True)
        save_result(out, "a", RegionResult("k", 0, "", 0, 0, "", 0.0))
    assert told[-1].slides_done == 2
    assert told[-1].seconds_left == 0


def test_totals_that_differ_are_refused(tmp_path):
    import pytest

    from components.records.errors import WorkError
    from components.records.manifest import Manifest

    summary = {
        "slides": 1, "slides_by_status": {"tiled": 1}, "tiles": 3, "tiles_planned": 4, "tiles_failed": 0,
        "tiles_blurred": 0,
        "splits": {"all": {"tiles": 3}},
    }  # fmt: skip
    with pytest.raises(WorkError, match=r"tiles planned and accounted for .4 and 3."):
        check_totals(summary, Outcome(), Manifest("m.csv", (), (), ""))
