"""The worker's disk: shared, bounded, and empty in the end, however its users end."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.readers import spool
from components.records.errors import SlideError

_HOLDER = """
import sys, time
from components.readers import spool
copy = spool.SparseCopy("0" * 32, "left.svs", 1 << 20)
copy.write(0, b"x" * 1000)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(worker_disk):
    """Another process that uses the spool."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    process = subprocess.Popen([sys.executable, "-c", _HOLDER], stdout=subprocess.PIPE, env=environment)
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def files(folder):
    return sorted(
        os.path.relpath(os.path.join(root, name), folder) for root, _, names in os.walk(folder) for name in names
    )


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 40)), max_size=20))
def test_merged_spans_cover_the_same_and_never_touch(pairs):
    spans = np.array([(start, start + length) for start, length in pairs], np.int64).reshape(-1, 2)
    merged = spool.merge_spans(spans).tolist()
    assert {p for a, b in merged for p in range(a, b)} == {p for a, b in spans.tolist() for p in range(a, b)}
    assert all(before[1] < after[0] for before, after in itertools.pairwise(merged))


def test_a_sparse_copy_knows_what_it_has(worker_disk):
    copy = spool.SparseCopy("a" * 32, "one.svs", 100_000)
    copy.write(10, b"abcdef")
    copy.write(16, b"ghi")
    assert copy.read(10, 19) == b"abcdefghi"
    assert copy.read(9, 12) is copy.read(18, 20) is None
    copy.close()
    copy.close()
    again = spool.SparseCopy.find("a" * 32, "one.svs")
    assert again.read(12, 18) == b"cdefgh"
    assert os.path.getsize(again.path) == 100_000
    again.write(50, b"never kept")
    assert again.read(50, 52) is None
    again.close()
    assert spool.SparseCopy.find("b" * 32, "one.svs") is None


def test_the_last_to_leave_removes_everything(worker_disk):
    spool.SparseCopy("a" * 32, "one.svs", 1000).close()
    assert files(worker_disk)
    spool.release_spool()
    assert os.listdir(worker_disk) == []


def test_who_leaves_before_the_last_removes_nothing(worker_disk, holder):
    spool.hold_spool()
    before = files(worker_disk)
    assert any("left.svs" in name for name in before)
    spool.release_spool()
    assert files(worker_disk) == before


def test_leftovers_of_a_killed_process_go_at_the_next_start(worker_disk, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert any("left.svs" in name for name in files(worker_disk))
    spool.hold_spool()
    assert files(worker_disk) == [os.path.join(os.path.basename(spool.spool_folder()), "lock")]


def test_a_whole_copy_is_fetched_once_for_all(worker_disk):
    fetches = []

    def fetch(stream):
        fetches.append(1)
        time.sleep(0.1)
        stream.write(b"whole")

    def use():
        with spool.whole_copy("c" * 32, "a.mrxs", 5, fetch) as path, open(path, "rb") as stream:
            assert stream.read() == b"whole"

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fetches == [1]


def test_a_fetch_that_fails_leaves_nothing_and_can_be_tried_again(worker_disk):
    def fail(stream):
        stream.write(b"half")
        raise SlideError("the store is away")

    with pytest.raises(SlideError, match="the store is away"), spool.whole_copy("d" * 32, "a.svs", 8, fail):
        pass
    assert not [name for name in files(worker_disk) if "a.svs" in name]
    with spool.whole_copy("d" * 32, "a.svs", 8, lambda stream: stream.write(b"complete")) as path:
        assert os.path.getsize(path) == 8


def test_slides_that_nobody_reads_make_room_for_the_next(worker_disk, monkeypatch):
    monkeypatch.setenv("BAGLINE_SPOOL_BYTES", str(300_000))
    content = b"x" * 100_000
    fetch = lambda stream: stream.write(content)  # noqa: E731
    with spool.whole_copy("1" * 32, "a.svs", len(content), fetch) as kept:
        with spool.whole_copy("2" * 32, "b.svs", len(content), fetch) as other:
            pass
        with spool.whole_copy("3" * 32, "c.svs", len(content), fetch) as third:
            assert os.path.exists(kept)
            assert os.path.exists(third)
            assert not os.path.exists(other)
            with (
                pytest.raises(
                    SlideError, match=r"d\.svs: needs 400,000 bytes of the worker's disk.*BAGLINE_SPOOL_BYTES"
                ),
                spool.whole_copy("4" * 32, "d.svs", 400_000, fetch),
            ):
                pass
    assert spool.room() >= 90_000
