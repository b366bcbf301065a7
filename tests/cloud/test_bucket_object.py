"""Ranges of an object: right bytes, few of them, and what happens when the store or the object doesn't hold still."""

import io
import itertools
import pickle
import random

import pytest
from fake_gcs import FakeStore, Fault
from hypothesis import given
from hypothesis import strategies as st

from components.readers import bucket_object, spool
from components.readers.bucket_object import BucketObject, coalesce
from components.readers.byte_source import RangedSource, read_ranges
from components.records.errors import SlideError

CONTENT = random.Random(5).randbytes(3 << 20)
URI = "gs://slides/folder/a b.svs"


@pytest.fixture
def stored(store: FakeStore, monkeypatch) -> FakeStore:
    store.put("slides", "folder/a b.svs", CONTENT)
    monkeypatch.setattr(bucket_object, "_WAITS", (0.01,) * 4)
    return store


spans = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(1, 900)).map(lambda span: (span[0], span[0] + span[1])), max_size=30
)


@given(spans, st.floats(0, 1), st.integers(1, 3000))
def test_coalesced_runs_hold_every_span_and_waste_little(wanted, waste, most):
    runs = coalesce(wanted, waste, most).tolist()
    for start, stop in wanted:
        run = max((run for run in runs if run[0] <= start), key=lambda run: run[0])
        assert stop <= run[1]
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(runs))
    needed = len({place for start, stop in wanted for place in range(start, stop)})
    assert sum(stop - start for start, stop in runs) <= needed * (1 + waste)


def test_neighbours_become_one_run_and_far_spans_do_not():
    assert coalesce([(100, 200), (0, 100), (205, 300), (9000, 9100)]).tolist() == [[0, 300], [9000, 9100]]
    assert coalesce([(0, 600), (600, 1200)], most=1000).tolist() == [[0, 600], [600, 1200]]


def test_reads_are_the_objects_bytes_and_are_counted(stored):
    source = BucketObject(URI)
    assert isinstance(source, RangedSource)
    assert (source.size, source.name) == (len(CONTENT), "a b.svs")
    rng = random.Random(1)
    ranges = [(rng.randrange(len(CONTENT)), rng.choice((1, 100, 40_000, 200_000))) for _ in range(40)]
    for offset, length in ranges:
        assert source.read(offset, length) == CONTENT[offset : offset + length]
    assert source.read(len(CONTENT), 5) == source.read(-1, 5) == b""
    assert (source.fetched, source.requests) == (stored.fetched(), len(stored.fetches))
    source.close()


def test_small_reads_near_each_other_are_one_request(stored):
    source = BucketObject(URI)
    for offset in range(0, 20_000, 100):
        assert source.read(offset, 12) == CONTENT[offset : offset + 12]
    assert source.requests == 1


def test_announced_ranges_are_fetched_once_in_few_requests(stored):
    source = BucketObject(URI)
    ranges = [(start, 9_900) for start in range(0, 2_000_000, 10_000)]
    source.expect(ranges)
    assert read_ranges(source, ranges) == [CONTENT[start : start + length] for start, length in ranges]
    wanted = sum(length for _, length in ranges)
    assert wanted <= stored.fetched() <= 1.05 * wanted
    assert source.requests <= 3
    source.close()


def test_what_is_held_in_memory_is_bounded(stored, monkeypatch):
    monkeypatch.setattr(bucket_object, "_CACHE_BYTES", 600_000)
    monkeypatch.setattr(bucket_object, "_AHEAD", 2)
    source = BucketObject(URI)
    ranges = [(start, 100_000) for start in range(0, 3_000_000, 210_000)]
    source.expect(ranges)
    for offset, length in ranges:
        assert source.read(offset, length) == CONTENT[offset : offset + length]
        assert sum(len(future.result()) for future in list(source._runs.values())) <= 800_000
    assert stored.fetched() == sum(length for _, length in ranges)
    source.close()


@pytest.mark.parametrize("kind", ["503", "429", "cut", "short"])
def test_passing_faults_are_survived(stored, kind):
    stored.faults.append(Fault(kind, 3))
    source = BucketObject(URI)
    assert source.read(1000, 500_000) == CONTENT[1000:501_000]
    assert stored.injected == 3
    assert not source.failed


@pytest.mark.parametrize("kind", ["503", "short"])
def test_a_store_that_keeps_failing_is_told(stored, kind):
    stored.faults.append(Fault(kind, 1000))
    source = BucketObject(URI)
    with pytest.raises(
        SlideError, match=r"a b\.svs: can't be fetched at byte 70 in 5 tries: .*run again when the store"
    ):
        source.read(70, 50_000)
    assert source.failed


def test_an_object_that_is_overwritten_is_never_mixed(stored):
    source = BucketObject(URI)
    assert source.read(0, 40_000) == CONTENT[:40_000]
    stored.put("slides", "folder/a b.svs", CONTENT[::-1])
    with pytest.raises(SlideError, match="the object changed while the run was reading it"):
        source.read(50_000, 40_000)
    with pytest.raises(SlideError, match="the object changed"):
        BucketObject(URI, digest=source.digest)
    assert BucketObject(URI).read(0, 40_000) == CONTENT[::-1][:40_000]


def test_an_object_that_is_removed_is_told(stored):
    source = BucketObject(URI)
    del stored.buckets["slides"]["folder/a b.svs"]
    with pytest.raises(SlideError, match="the object changed"):
        source.read(0, 10)
    with pytest.raises(SlideError, match="there is no such object"):
        BucketObject(URI)


def test_the_digest_is_the_stores_own(store):
    store.put("slides", "md5.svs", b"content")
    store.put("slides", "composite.svs", b"content", md5=False)
    assert BucketObject("gs://slides/md5.svs").digest == "md5:9a0364b9e99bb480dd25e1f0284c8555"
    assert BucketObject("gs://slides/composite.svs").digest.startswith("crc32c:")


def test_what_is_kept_on_disk_is_not_fetched_again(stored):
    first = BucketObject(URI, keep=True)
    first.expect([(0, 100_000), (500_000, 100_000)])
    first.read_many([(0, 100_000), (500_000, 100_000)])
    first.close()
    second = pickle.loads(pickle.dumps(BucketObject(URI)))
    assert second.read(20_000, 50_000) == CONTENT[20_000:70_000]
    second.expect([(510_000, 5_000), (90_000, 20_000)])
    assert second.read(510_000, 5_000) == CONTENT[510_000:515_000]
    assert second.requests == 0
    assert second.read(90_000, 20_000) == CONTENT[90_000:110_000]
    assert second.fetched == 20_000
    second.close()


def test_a_full_disk_costs_bytes_and_nothing_else(stored, monkeypatch):
    monkeypatch.setenv("BAGLINE_SPOOL_BYTES", "60000")
    first = BucketObject(URI, keep=True)
    for offset in (0, 100_000, 200_000):
        assert first.read(offset, 50_000) == CONTENT[offset : offset + 50_000]
    first.close()
    assert BucketObject(URI).read(200_000, 50_000) == CONTENT[200_000:250_000]


def test_a_whole_download_is_held_against_the_checksum(stored):
    stored.faults.append(Fault("cut", 2))
    copy = io.BytesIO()
    BucketObject(URI).download(copy)
    assert copy.getvalue() == CONTENT
    source = BucketObject(URI)
    source._fetch = lambda start, stop: bytes(stop - start)
    with pytest.raises(SlideError, match="its bytes came damaged"):
        source.download(io.BytesIO())


def test_the_emulator_of_others_agrees(worker_disk, monkeypatch):
    """Reads and writes against gcp-storage-emulator, which is not ours; it holds no generation against a request's."""
    server = pytest.importorskip("gcp_storage_emulator.server").create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    try:
        port = server._api._httpd.socket.getsockname()[1]
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        from components.records import storage

        storage.bucket("gs://slides").client.create_bucket("slides")
        storage.write_bytes(URI, CONTENT)
        source = BucketObject(URI, keep=True)
        ranges = [(start, 9_900) for start in range(0, 2_000_000, 10_000)]
        source.expect(ranges)
        assert read_ranges(source, ranges) == [CONTENT[start : start + length] for start, length in ranges]
        assert source.fetched < 2_100_000
        source.close()
    finally:
        server.stop()
    spool.release_spool()
