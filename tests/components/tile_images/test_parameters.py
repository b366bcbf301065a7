"""Parameters are checked by name."""

import pytest

from components.records.errors import InputError
from components.tile_images.parameters import TilingParameters


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tile_px", 0),
        ("mpp", -0.5),
        ("mpp", float("nan")),
        ("level", -1),
        ("stride", -1),
        ("min_tissue", 1.5),
        ("max_tiles_per_slide", -1),
        ("tile_sampling", "evne"),
        ("default_mpp", -1),
        ("mpp_tolerance", 0.9),
        ("max_failed_share", 2),
        ("tile_format", "webp"),
        ("jpeg_quality", 0),
        ("region_tiles", 0),
        ("part_bytes", 1000),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(name, value):
    with pytest.raises(InputError) as caught:
        TilingParameters(**{name: value})
    assert str(caught.value).startswith(f"{name}: ")
    assert ";" in str(caught.value)


def test_a_part_never_holds_more_raw_tiles_than_fit():
    parameters = TilingParameters(tile_px=512, part_bytes=4 << 20)
    assert parameters.tiles_per_region == 5
    assert parameters.tiles_per_region * parameters.tile_bytes <= parameters.part_bytes


def test_the_gate_does_not_make_records_stale():
    assert TilingParameters(max_failed_share=0.5).record_parameters() == TilingParameters().record_parameters()
    assert TilingParameters(seed=1).record_parameters() != TilingParameters().record_parameters()
