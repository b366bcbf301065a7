"""The tiny dataset of components/mil: red tiles are lesions."""

import importlib.util
from pathlib import Path

import pytest

_FILE = Path(__file__).parents[1] / "mil" / "tiny_dataset.py"


@pytest.fixture(scope="session")
def build_tiny():
    spec = importlib.util.spec_from_file_location("tiny_dataset", _FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build_dataset
