import runpy
from pathlib import Path

import pytest

build_dataset = runpy.run_path(str(Path(__file__).parent.parent / "mil" / "tiny_dataset.py"))["build_dataset"]


@pytest.fixture(scope="session")
def tiled(tmp_path_factory):
    return build_dataset(tmp_path_factory.mktemp("tiled"))


@pytest.fixture
def build():
    return build_dataset
