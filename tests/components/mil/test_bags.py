from pathlib import Path

import numpy as np
import pytest

from components.mil.bags import (
    TileSource,
    index_bags,
    order_bags,
    patients_without_tiles,
    read_spans,
    sample_spans,
    spread_spans,
)
from components.mil.encoders.preprocessing import shrink_tiles
from components.records.dataset import TiledDataset
from components.records.errors import WorkError


@pytest.fixture
def dataset(tiled):
    return TiledDataset(tiled)


def test_every_slide_of_a_patient_is_in_one_bag(dataset):
    bags = index_bags(dataset)
    assert sum(len(bag.spans) for bag in bags) == sum(part.tiles for part in dataset.parts)
    first = bags[0]
    assert set(first.image_ids) == {"p00_0", "p00_1"}
    assert len(first.image_ids) == len(first.spans)
    assert {bag.split for bag in index_bags(dataset, "val")} == {"val"}


def test_patients_without_tiles_are_told(dataset):
    assert patients_without_tiles(dataset) == ["p10"]
    assert patients_without_tiles(dataset, "test") == []
    assert "p10" not in [bag.patient_id for bag in index_bags(dataset)]


def test_samples_depend_on_seed_epoch_and_patient_alone(dataset):
    bag = index_bags(dataset)[0]
    sample = sample_spans(bag, 3, 0, 1)
    assert sample == sample_spans(bag, 3, 0, 1)
    assert len(set(sample)) == 3
    assert len({sample_spans(bag, 3, seed, epoch) for seed in (0, 1) for epoch in range(4)}) > 2
    assert sample_spans(bag, 100, 0, 1) == bag.spans
    assert len(spread_spans(bag, 3)) == 3
    assert spread_spans(bag, 3)[0] == bag.spans[0]


def test_order_depends_on_seed_and_epoch(dataset):
    bags = index_bags(dataset)
    assert order_bags(bags, 0, 1) == order_bags(bags, 0, 1)
    assert order_bags(bags, 0, 1) != order_bags(bags, 0, 2)
    assert sorted(bag.patient_id for bag in order_bags(bags, 0, 1)) == [bag.patient_id for bag in bags]


@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
def test_batches_are_padded_and_in_order(dataset, cache_bytes):
    bags = index_bags(dataset, "train")
    source = TileSource(bags, tile_px=32, side=16, cache_bytes=cache_bytes)
    assert bool(source.kept) == bool(cache_bytes)
    batches = list(source.batches(bags, lambda bag: spread_spans(bag, 9), instances=9, bags_per_batch=4))
    assert [len(labels) for _, labels in batches] == [4, 2]
    for inputs, _ in batches:
        assert inputs["tiles"].shape[1:] == (9, 16, 16, 3)
    masks = np.concatenate([inputs["mask"] for inputs, _ in batches])
    assert masks.sum(axis=1).tolist() == [min(9, len(bag.spans)) for bag in bags]
    tiles = np.concatenate([inputs["tiles"] for inputs, _ in batches])
    assert (tiles[~masks] == 0).all()
    labels = np.concatenate([labels for _, labels in batches])
    assert labels.tolist() == [bag.label_index for bag in bags]


def test_kept_tiles_are_the_tiles_that_are_read(dataset):
    bags = index_bags(dataset, "val")

    def tiles(cache_bytes):
        source = TileSource(bags, tile_px=32, side=16, cache_bytes=cache_bytes)
        batches = source.batches(bags, lambda bag: sample_spans(bag, 4, 0, 1), instances=4, bags_per_batch=1)
        return np.concatenate([inputs["tiles"] for inputs, _ in batches])

    np.testing.assert_array_equal(tiles(0), tiles(1 << 30))


@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_png_and_jpeg_decode_to_what_pillow_sees(build, tmp_path, form):
    import io

    from PIL import Image

    from components.records.example import parse_example

    dataset = TiledDataset(build(tmp_path, patients=2, splits=("train",), form=form))
    bag = index_bags(dataset)[0]
    source = TileSource([bag], tile_px=32, side=32)
    (tiles,) = source.stream(lambda: iter(bag.spans), len(bag.spans))
    for tile, record in zip(tiles, read_spans(bag.spans), strict=True):
        encoded = parse_example(record)["image/encoded"][0]
        np.testing.assert_allclose(
            tile.astype(int), np.asarray(Image.open(io.BytesIO(encoded))), atol=0 if form == "png" else 3
        )


def test_shrinking_averages_blocks_and_twice_is_once():
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    small = shrink_tiles(tiles, 8).numpy()
    means = tiles.reshape(3, 8, 4, 8, 4, 3).mean((2, 4))
    np.testing.assert_allclose(small, means, atol=0.5001)
    np.testing.assert_array_equal(shrink_tiles(small.astype(np.uint8), 8), small)
    assert shrink_tiles(tiles, 20).shape == (3, 20, 20, 3)


def test_a_lost_part_and_a_broken_tile_are_named(build, tmp_path):
    dataset = TiledDataset(build(tmp_path, patients=2, splits=("train",)))
    bags = index_bags(dataset)
    span = bags[0].spans[0]
    content = bytearray(Path(span.path).read_bytes())
    at = content.index(b"IHDR")
    content[at : at + 40] = bytes(40)
    Path(span.path).write_bytes(content)
    source = TileSource(bags, tile_px=32, side=32)
    with pytest.raises(WorkError, match="does not decode"):
        list(source.stream(lambda: iter(bags[0].spans), 4))
    Path(span.path).unlink()
    with pytest.raises(WorkError, match=r"p00_0-00000\.tfrecord: is missing"):
        list(source.stream(lambda: iter(bags[0].spans), 4))
