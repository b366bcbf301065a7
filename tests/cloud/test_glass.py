"""Which blocks are left unread: bare glass far from anything else, and nothing that only looks alike in size."""

import numpy as np
import pytest

from components.readers import glass

RNG = np.random.default_rng(2)


def counts_with(tissue, shape=(40, 40)):
    counts = RNG.integers(1000, 1060, shape).astype(np.uint64)
    for top, left, bottom, right in tissue:
        counts[top:bottom, left:right] = RNG.integers(4000, 20000, (bottom - top, right - left))
    return counts


def looks_of(samples, colour=(240, 240, 240)):
    return {
        place: np.full((32, 32, 3), colour, np.uint8) + RNG.integers(0, 3, (32, 32, 3), np.uint8) for place in samples
    }


def test_tissue_and_what_is_beside_it_is_read():
    counts = counts_with([(10, 10, 25, 25)])
    spare, samples = glass.choose_samples(counts)
    assert not spare[9:26, 9:26].any()
    assert spare.sum() > 0.85 * (1600 - 17 * 17)
    assert not any(spare[place] for place in samples)
    glass.confirm_glass(spare, looks_of(samples))
    assert spare.sum() > 0.85 * (1600 - 17 * 17)


def test_a_single_larger_block_is_read_with_its_neighbours():
    counts = counts_with([(10, 10, 25, 25)])
    counts[33, 33] = 1600
    assert not glass.choose_samples(counts)[0][32:35, 32:35].any()


@pytest.mark.parametrize(
    "odd", [np.full((32, 32, 3), (225, 200, 225), np.uint8), RNG.integers(200, 255, (32, 32, 3), np.uint8), None]
)
def test_a_cell_whose_sample_is_no_glass_is_read(odd):
    counts = counts_with([(10, 10, 25, 25)])
    spare, samples = glass.choose_samples(counts)
    looks = looks_of(samples)
    place = next(place for place in samples if place[0] >= 32 and place[1] >= 32)
    if odd is None:
        del looks[place]
    else:
        looks[place] = odd
    row, column = (length // 4 * 4 for length in place)
    assert spare[row : row + 4, column : column + 4].any()
    elsewhere = int(spare.sum() - spare[row : row + 4, column : column + 4].sum())
    glass.confirm_glass(spare, looks)
    assert not spare[row : row + 4, column : column + 4].any()
    assert spare.sum() == elsewhere


def test_the_most_doubtful_block_of_a_cell_stands_for_it():
    counts = counts_with([(10, 10, 25, 25)])
    counts[37, 38] = 1200
    assert (37, 38) in glass.choose_samples(counts)[1]


def test_slides_without_much_glass_are_read_whole():
    for counts in (counts_with([(0, 0, 40, 40)]), np.zeros((4, 4), np.uint64), counts_with([], (1, 1))):
        spare, samples = glass.choose_samples(counts)
        assert not spare.any()
        assert samples == []


def test_large_slides_have_no_more_than_some_thousand_samples():
    spare, samples = glass.choose_samples(counts_with([(50, 50, 150, 150)], (400, 500)))
    assert len(samples) <= 1100
    assert spare.mean() > 0.9
