"""Every kind of slide from a bucket: the same reader, or refusal, and the same pixels as from disk."""

import contextlib
import os
from pathlib import Path

import pytest

from components.readers.open_slide import choose_reader, open_slide
from components.readers.ranged_slide import FetchedSlide, RangedSlide
from components.records.errors import SlideError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SLIDES = sorted([*SHARED.glob("slides/*"), *SHARED.glob("slides_bad/*")])


def look(slide) -> bytes | str:
    """The px in the middle, or why they can't be read."""
    try:
        return slide.read_region(slide.width // 2, slide.height // 2, 0, 200, 200).tobytes()
    except SlideError as error:
        return str(error)


@pytest.mark.skipif(not SLIDES, reason="needs ../shared/data")
@pytest.mark.parametrize("path", SLIDES, ids=lambda path: path.name)
def test_real_slides_are_as_from_disk(path, store, worker_disk):
    store.put("slides", path.name, path.read_bytes())
    uri = f"gs://slides/{path.name}"
    try:
        local, _ = choose_reader(str(path))
    except SlideError:
        with pytest.raises(SlideError):
            choose_reader(uri)
        return
    remote, reason = choose_reader(uri)
    with contextlib.closing(local), contextlib.closing(remote):
        assert isinstance(remote, RangedSlide if local.name == "jpeg-blocks" else FetchedSlide)
        assert (remote.name, remote.width, remote.height, remote.mpp) == (
            local.name, local.width, local.height, local.mpp,
        )  # fmt: skip
        assert remote.downsamples == local.downsamples
        assert bool(reason) == isinstance(remote, FetchedSlide)
        expected = look(local)
        assert look(remote) == expected
    with contextlib.closing(open_slide(uri, remote.name, digest=remote.digest)) as again:
        assert look(again) == expected
    assert store.fetched() <= os.path.getsize(path) * 1.1 + 65536


def test_a_slide_of_several_files_says_so(store, worker_disk):
    store.put("slides", "one.mrxs", b"\xff\xd8 a picture")
    with pytest.raises(SlideError, match=r"one\.mrxs: MIRAX slides are several files; tile them from a disk"):
        choose_reader("gs://slides/one.mrxs")


def test_a_store_that_fails_is_not_taken_for_a_slide_that_does_not_fit(store, worker_disk, monkeypatch):
    from fake_gcs import Fault

    from components.readers import bucket_object

    monkeypatch.setattr(bucket_object, "_WAITS", (0.01, 0.01))
    store.put("slides", "one.svs", b"II*\0" + bytes(5000))
    store.faults.append(Fault("503", 100))
    with pytest.raises(SlideError, match="can't be fetched at byte 0 in 3 tries"):
        choose_reader("gs://slides/one.svs")
