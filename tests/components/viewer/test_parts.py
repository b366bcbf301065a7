"""Caches that can't grow, geometry, and shapes that people drew."""

import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.viewer.bounded import ByteCache, OneAtATime, SlidePool
from components.viewer.geometry import Pyramid, choose_tile
from components.viewer.lineage import draw_graph
from components.viewer.overlays import read_annotations


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40)), max_size=60))
def test_a_byte_cache_never_holds_more(puts):
    cache = ByteCache(100)
    last = {}
    for key, size in puts:
        cache.put(key, size, size)
        last[key] = size
        held = {k: v for k in range(10) if (v := cache.get(k)) is not None}
        assert cache.bytes == sum(held.values()) <= 100
        assert all(last[k] == v for k, v in held.items())


def test_a_pool_closes_what_is_idle_and_nothing_that_is_used():
    class Reader:
        def __init__(self, name):
            self.name, self.closed = name, False

        def close(self):
            self.closed = True

    made = []

    def opener(name):
        def open_it():
            made.append(Reader(name))
            return made[-1]

        return open_it

    pool = SlidePool(2)
    with pool.lease("a", opener("a")):
        for name in "bcd":
            with pool.lease(name, opener(name)):
                pass
        assert not made[0].closed
        assert [reader.name for reader in made if reader.closed] == ["b", "c"]
    with pool.lease("a", opener("again")) as slide:
        assert slide.reader is made[0]
        pool.close()
        assert not made[0].closed
    assert all(reader.closed for reader in made)
    assert len(pool) == 0


def test_one_at_a_time_forgets_its_locks():
    locks, inside, most = OneAtATime(), [], []

    def work():
        with locks.hold("x"):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert max(most) == 1
    assert not locks._locks


@given(st.integers(1, 300_000), st.integers(1, 300_000), st.sampled_from([256, 512, 240]))
def test_tiles_cover_every_level_and_nothing_else(width, height, side):
    pyramid = Pyramid(width, height, side, side)
    assert pyramid.place(pyramid.max_level + 1, 0, 0) is None
    assert pyramid.place(0, 0, 0).scale >= max(width, height)
    scale = 1
    for level in range(pyramid.max_level, max(-1, pyramid.max_level - 4), -1):
        across = -(-width // scale)
        columns = -(-across // side)
        last = pyramid.place(level, columns - 1, 0)
        assert (columns - 1) * side + last.width == across
        assert pyramid.place(level, columns, 0) is None
        scale *= 2


@pytest.mark.parametrize(
    ("blocks", "tile"),
    [((256, 256), (256, 256)), ((128, 128), (256, 256)), ((240, 240), (480, 480)), ((0, 0), (512, 512)),
     ((8192, 8192), (512, 512)), ((512, 256), (512, 256)), ((4096, 16), (512, 512))],
)  # fmt: skip
def test_tiles_are_whole_blocks_where_blocks_are_of_a_size(blocks, tile):
    assert choose_tile(*blocks) == tile


def test_annotations_leave_out_what_is_no_shape(tmp_path):
    path = tmp_path / "a.geojson"
    polygon = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
    features = [
        {"geometry": polygon, "properties": {"classification": {"name": "tumour", "color": [1, 2, 3]}}},
        {"geometry": {"type": "Point", "coordinates": [5, 6]}, "properties": None},
        {"geometry": {"type": "MultiPolygon", "coordinates": [polygon["coordinates"], polygon["coordinates"]]}},
        {"geometry": {"type": "Polygon", "coordinates": [[["a", 0]]]}},
        {"geometry": {"type": "Polygon", "coordinates": []}},
        {"geometry": {"type": "Sphere", "coordinates": [0, 0]}},
        {"geometry": {"type": ["Polygon"]}},
        {"geometry": None},
        {},
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    found = read_annotations(str(path))
    assert [(len(shape["lines"]), shape["name"], shape["color"]) for shape in found["shapes"]] == [
        (1, "tumour", [1, 2, 3]),
        (1, "", None),
        (2, "", None),
    ]
    assert found["left_out"] == 6
    for text in ("", "[", "7", '{"features": 3}', "[" * 100_000):
        path.write_text(text)
        assert read_annotations(str(path))["shapes"] == []


def test_a_graph_with_a_loop_is_still_drawn():
    def step(name, inputs, outputs):
        return {
            "eventType": "COMPLETE", "job": {"name": name},
            "inputs": [{"name": one} for one in inputs], "outputs": [{"name": one} for one in outputs],
        }  # fmt: skip

    found = draw_graph([step("a", ["x"], ["y"]), step("b", ["y"], ["x"])])
    assert len(found["nodes"]) == 4
    assert all(0 <= node["depth"] <= 4 for node in found["nodes"])
