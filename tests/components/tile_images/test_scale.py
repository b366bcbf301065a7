"""Which level, how many level-0 px, and what is refused."""

import pytest

from components.records.errors import SlideError
from components.tile_images.parameters import TilingParameters
from components.tile_images.scale import check_mpp, choose_scale, resolve_mpp

PYRAMID = (1.0, 2.0, 4.0, 16.0)


def test_mpp_comes_from_manifest_then_file_then_default():
    with_default = TilingParameters(default_mpp=0.3)
    assert resolve_mpp(0.25, 0.5, with_default) == (0.25, "manifest")
    assert resolve_mpp(None, 0.5, with_default) == (0.5, "file")
    assert resolve_mpp(None, None, with_default) == (0.3, "default")
    assert resolve_mpp(None, None, TilingParameters()) == (None, "unknown")


@pytest.mark.parametrize("mpp", [0.049, 40.1, 352.8])
def test_absurd_mpp_is_refused_unless_allowed(mpp):
    with pytest.raises(SlideError, match=r"outside 0.05–40; give mpp in the manifest, or allow_absurd_mpp"):
        check_mpp(mpp, "file", TilingParameters())
    check_mpp(mpp, "file", TilingParameters(allow_absurd_mpp=True))


@pytest.mark.parametrize("mpp", [0.05, 0.25, 40.0, None])
def test_sound_mpp_passes(mpp):
    check_mpp(mpp, "file", TilingParameters())


def test_a_level_within_tolerance_is_taken_as_it_is_with_its_true_mpp():
    scale = choose_scale(PYRAMID, 0.2281750559, TilingParameters(mpp=0.5))
    assert (scale.level, scale.native, scale.side) == (1, True, 512)
    assert scale.mpp == pytest.approx(0.4563501118)


def test_between_levels_the_finer_one_is_reduced_and_the_mpp_is_that_of_whole_px():
    scale = choose_scale(PYRAMID, 0.25, TilingParameters(mpp=0.7))
    assert (scale.level, scale.native, scale.side) == (1, False, 717)
    assert scale.mpp == pytest.approx(0.25 * 717 / 256)


def test_nothing_is_upsampled():
    with pytest.raises(SlideError, match=r"28.9685 µm/px is coarser than the wanted 0.5"):
        choose_scale((1.0,), 28.9685, TilingParameters())
    slightly = choose_scale((1.0,), 0.54, TilingParameters())
    assert (slightly.native, slightly.mpp) == (True, 0.54)


def test_unknown_mpp_takes_level_0_and_claims_nothing():
    scale = choose_scale(PYRAMID, None, TilingParameters(mpp=0.5))
    assert (scale.level, scale.scale, scale.mpp) == (0, 1.0, None)


def test_a_level_by_number():
    scale = choose_scale(PYRAMID, 0.25, TilingParameters(mpp=0, level=2))
    assert (scale.level, scale.side, scale.mpp) == (2, 1024, 1.0)
    with pytest.raises(SlideError, match="has 4 levels, none numbered 4"):
        choose_scale(PYRAMID, 0.25, TilingParameters(mpp=0, level=4))
