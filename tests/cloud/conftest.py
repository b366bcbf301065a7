"""A bucket store for each test, with a temporary folder of its own, so that leftovers are seen."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_gcs import FakeStore

from components.readers import spool


@pytest.fixture
def worker_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The temporary folder of this process and those it starts."""
    spool.release_spool()
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    spool.release_spool()


@pytest.fixture
def store(worker_disk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeStore]:
    fake = FakeStore()
    server = fake.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    yield fake
    server.shutdown()
    server.server_close()
