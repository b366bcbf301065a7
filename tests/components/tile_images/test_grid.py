"""Properties of the grid, the shares and the regions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.tile_images import grid
from components.tile_images.parameters import TilingParameters
from components.tile_images.scale import Scale

SIDES = st.integers(1, 5000)
DOWNSAMPLES = st.sampled_from([1.0, 2.0, 4.0, 4.00012, 15.997, 1.37])


def scale_of(px: int, downsample: float) -> Scale:
    return Scale(0, downsample, downsample, round(px * downsample), True, None)


@given(SIDES, SIDES, st.integers(16, 600), DOWNSAMPLES, st.integers(0, 700))
@settings(deadline=None)
def test_every_tile_lies_inside_and_none_that_fits_is_missing(width, height, px, downsample, stride):
    scale = scale_of(px, downsample)
    parameters = TilingParameters(tile_px=px, stride=stride)
    tiles = grid.lay_grid(width, height, scale, parameters)
    assert (tiles["x"] >= 0).all()
    assert (tiles["y"] >= 0).all()
    assert (tiles["x"] + scale.side <= width).all()
    assert (tiles["y"] + scale.side <= height).all()
    assert len(np.unique(tiles[["x", "y"]])) == len(tiles)
    step = (stride or px) * downsample
    if len(tiles):
        assert tiles["x"].max() + step + scale.side > width - downsample - 1
        assert tiles["y"].max() + step + scale.side > height - downsample - 1
    else:
        assert min(width, height) < scale.side + downsample + 1


@given(SIDES, SIDES, st.integers(16, 600), st.sampled_from([1.0, 2.0, 4.0, 16.0]))
@settings(deadline=None)
def test_tiles_do_not_overlap_when_the_stride_is_a_tile(width, height, px, downsample):
    scale = scale_of(px, downsample)
    tiles = grid.lay_grid(width, height, scale, TilingParameters(tile_px=px))
    for axis in "xy":
        steps = np.diff(np.unique(tiles[axis]))
        assert (steps == scale.side).all()


@given(st.integers(0, 3000), st.integers(1, 700))
def test_regions_partition_the_tiles_in_order(count, region_tiles):
    parameters = TilingParameters(region_tiles=region_tiles)
    tiles = np.zeros(count, grid.TILE)
    tiles["x"] = np.arange(count)
    regions = [grid.cut_region(tiles, i, parameters) for i in range(grid.count_regions(count, parameters))]
    assert [int(x) for region in regions for x in region["x"]] == list(range(count))
    lengths = [len(region) for region in regions]
    assert all(0 < length <= parameters.tiles_per_region for length in lengths)
    assert not lengths or max(lengths) - min(lengths) <= 1


@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from(["even", "random"]), st.integers(0, 5))
def test_a_sample_keeps_order_number_and_seed(count, most, sampling, seed):
    parameters = TilingParameters(max_tiles_per_slide=most, tile_sampling=sampling, seed=seed)
    tiles = np.zeros(count, grid.TILE)
    tiles["x"] = np.arange(count)
    kept = grid.sample_tiles(tiles, parameters, "slide_0")["x"]
    assert len(kept) == min(count, most)
    assert (np.diff(kept) > 0).all()
    assert (kept == grid.sample_tiles(tiles, parameters, "slide_0")["x"]).all()


def test_random_samples_differ_between_slides_and_seeds():
    tiles = np.zeros(1000, grid.TILE)
    tiles["x"] = np.arange(1000)

    def sample(seed, image_id):
        parameters = TilingParameters(max_tiles_per_slide=20, tile_sampling="random", seed=seed)
        return tuple(grid.sample_tiles(tiles, parameters, image_id)["x"])

    assert len({sample(0, "a"), sample(0, "b"), sample(1, "a")}) == 3


@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 2.0, 8.0, 16.0]), st.sampled_from([16, 40, 64]))
@settings(deadline=None, max_examples=40)
def test_tissue_share_equals_the_mean_of_the_mask(seed, downsample, side):
    rng = np.random.default_rng(seed)
    mask = rng.random((30, 50)) < 0.4
    side = int(side * downsample / 8) * 8 or 8
    tiles = grid.lay_grid(
        int(50 * downsample), int(30 * downsample), scale_of(side, 1.0), TilingParameters(tile_px=max(side, 16))
    )
    side = max(side, 16)
    if side % downsample:
        return
    shares = grid.measure_share(mask, downsample, tiles, side)
    k = int(side // downsample)
    for tile, share in zip(tiles, shares, strict=True):
        x, y = int(tile["x"] // downsample), int(tile["y"] // downsample)
        if tile["x"] % downsample == 0 and tile["y"] % downsample == 0:
            assert share == pytest.approx(mask[y : y + k, x : x + k].mean())


@pytest.mark.parametrize(
    ("least", "labels"), [(0, [0, 1, 1, 1, 1]), (1, [0, 0, 1, 1, 1]), (0.25, [0, 0, 0, 1, 1]), (1024, [0, 0, 0, 0, 1])]
)
def test_a_label_takes_as_much_of_a_tile_as_is_asked_for(least, labels):
    areas = np.array([0.0, 0.01, 1.0, 256.0, 1024.0])
    assert grid.mark_labels(areas, 32, least).tolist() == labels
