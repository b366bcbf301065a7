"""Every import rule of pyproject.toml holds here, and breaks where a line against it is planted."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TASKS = ("split_metadata", "tile_images", "validate_records", "train_mil", "evaluate", "sample_cohort")
HEAVY = [
    *("apache_beam", "imagecodecs", "keras", "kfp", "matplotlib", "numba", "openslide", "pandas"),
    *("scipy", "skimage", "sklearn", "tensorflow", "tifffile"),
]

VIOLATIONS = [
    ("rooms", "components/train_mil/planted.py", "import components.evaluate.planted_target"),
    ("rooms", "components/evaluate/planted.py", "from components.train_mil import planted_target"),
    ("rooms", "components/split_metadata/planted.py", "from components.tile_images import planted_target"),
    ("rooms", "components/sample_cohort/planted.py", "from components.tile_images import planted_target"),
    ("rooms", "components/validate_records/planted.py", "from components.tile_images import planted_target"),
    ("rooms", "components/readers/planted.py", "from components.tile_images import planted_target"),
    ("rooms", "components/readers/planted.py", "from components.mil import planted_target"),
    ("rooms", "components/records/planted.py", "from components.readers import planted_target"),
    ("rooms", "components/unplaced/planted.py", "import os"),
    ("no-pipelines", "components/evaluate/planted.py", "from pipelines import planted_target"),
    ("records-stay-light", "components/records/planted.py", "import tensorflow"),
    ("kfp", "components/split_metadata/planted.py", "from kfp import dsl"),
    ("beam", "pipelines/planted.py", "import apache_beam as beam"),
    ("beam", "components/readers/planted.py", "import apache_beam as beam"),
    ("tensorflow", "components/validate_records/planted.py", "import tensorflow as tf"),
    ("tensorflow", "pipelines/planted.py", "from keras import layers"),
    ("openslide", "components/tile_images/planted.py", "from openslide import OpenSlide"),
    ("tiff", "components/tile_images/planted.py", "import tifffile"),
    ("tiff", "components/sample_cohort/planted.py", "import imagecodecs"),
    ("qdrant", "components/evaluate/planted.py", "import qdrant_client"),
]

ALLOWED = [
    ("components/evaluate/component.py", "from kfp import dsl"),
    ("pipelines/planted.py", "from kfp import dsl"),
    ("components/tile_images/planted.py", "import apache_beam as beam"),
    ("components/mil/heads/planted.py", "import keras"),
    ("components/train_mil/planted.py", "import tensorflow as tf"),
    ("components/evaluate/planted.py", "import tensorflow as tf"),
    ("components/evaluate/planted.py", "import matplotlib"),
    ("components/evaluate/planted.py", "from components.mil import planted_target"),
    ("components/tile_images/planted.py", "from components.readers import planted_target"),
    ("components/readers/planted.py", "import openslide, tifffile, imagecodecs"),
]


def _contracts() -> dict[str, str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {contract["id"]: contract["name"] for contract in settings["tool"]["importlinter"]["contracts"]}


@pytest.fixture
def copy(tmp_path):
    """The packages' sources in a folder of their own, with an empty module in every room to import from."""
    for name in ("components", "pipelines"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    rooms = [f"components/{name}" for name in (*TASKS, "mil", "readers", "records")]
    for room in (*rooms, "pipelines"):
        _plant(tmp_path, f"{room}/planted_target.py", "")
    return tmp_path


def _plant(root: Path, name: str, line: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder in path.relative_to(root).parents:
        if folder != Path():
            (root / folder / "__init__.py").touch()
    if name.endswith("component.py") and path.exists():
        path.write_text(path.read_text() + f"\n{line}\n")
    else:
        path.write_text(f"def lazily():\n    {line}\n" if line else "")


def _lint(root: Path) -> subprocess.CompletedProcess[str]:
    lint_imports = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", lint_imports, "--no-cache"],
        cwd=root,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "NO_COLOR": "1", "COLUMNS": "300"},
        capture_output=True,
        text=True,
    )


def _broken(result: subprocess.CompletedProcess[str]) -> set[str]:
    by_name = {name: key for key, name in _contracts().items()}
    verdicts = [line.strip().partition(" BROKEN") for line in result.stdout.splitlines()]
    return {by_name[name] for name, broken, _ in verdicts if broken}


@pytest.mark.parametrize(("contract", "name", "line"), VIOLATIONS)
def test_a_planted_import_breaks_its_rule(copy, contract, name, line):
    _plant(copy, name, line)
    result = _lint(copy)
    assert contract in _broken(result), result.stdout + result.stderr
    assert result.returncode != 0


def test_records_may_import_none_of_the_heavy_packages(copy):
    _plant(copy, "components/records/planted.py", f"import {', '.join(HEAVY)}")
    told = _lint(copy).stdout.partition("Broken contracts")[2]
    assert [name for name in HEAVY if f"components.records.planted -> {name} " not in told] == []


def test_what_the_rules_allow_breaks_none(copy):
    for number, (name, line) in enumerate(ALLOWED):
        _plant(copy, name.replace("planted.py", f"planted_{number}.py"), line)
    result = _lint(copy)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_rule_was_seen_broken():
    assert {contract for contract, _, _ in VIOLATIONS} == set(_contracts())
