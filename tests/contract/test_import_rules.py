"""Every import rule of pyproject.toml holds here, and breaks where a line against it is planted."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TASKS = (
    *("split_metadata", "tile_images", "validate_records", "train_mil", "evaluate", "sample_cohort"),
    *("register_model", "prepare_prediction", "predict_bags"),
)
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
    ("rooms", "components/predict_bags/planted.py", "from components.evaluate import planted_target"),
    ("rooms", "components/mil/planted.py", "from components.explain import planted_target"),
    ("rooms", "components/registry/planted.py", "from components.register_model import planted_target"),
    ("rooms", "components/readers/planted.py", "from components.mil import planted_target"),
    ("rooms", "components/records/planted.py", "from components.readers import planted_target"),
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
    ("components/predict_bags/planted.py", "from components.explain import planted_target"),
    ("components/prepare_prediction/planted.py", "from components.registry import planted_target"),
    ("components/tile_images/planted.py", "from components.readers import planted_target"),
    ("components/readers/planted.py", "import openslide, tifffile, imagecodecs"),
]


def _contracts() -> dict[str, str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {contract["id"]: contract["name"] for contract in settings["tool"]["importlinter"]["contracts"]}


@pytest.fixture
def copy(tmp_path):
    return _copy_packages(tmp_path)


@pytest.fixture(scope="module")
def verdict(tmp_path_factory):
    """What the linter says of a copy in which every violation is planted at once, each in a module of its own."""
    root = _copy_packages(tmp_path_factory.mktemp("violations"))
    for number, (_, name, line) in enumerate(VIOLATIONS):
        _plant(root, name.replace("planted.py", f"planted_{number}.py"), line)
    return _lint(root)


def _copy_packages(root: Path) -> Path:
    """The packages' sources in a folder of their own, with an empty module in every room to import from."""
    for name in ("components", "pipelines"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    rooms = [f"components/{name}" for name in (*TASKS, "explain", "mil", "readers", "records", "registry")]
    for room in (*rooms, "pipelines"):
        _plant(root, f"{room}/planted_target.py", "")
    return root


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


@pytest.mark.parametrize("number", range(len(VIOLATIONS)), ids=lambda n: " ".join(VIOLATIONS[n][1:]))
def test_a_planted_import_breaks_its_rule(verdict, number):
    contract, name, line = VIOLATIONS[number]
    module = name.replace("planted.py", f"planted_{number}").replace("/", ".")
    assert verdict.returncode != 0
    assert contract in _broken(verdict), verdict.stdout + verdict.stderr
    title = _contracts()[contract]
    told = verdict.stdout.partition("Broken contracts")[2].partition(f"{title}\n{'-' * len(title)}")[2]
    assert f"{module} -> " in told.partition("\n-----")[0], (line, told)


def test_a_new_folder_has_to_be_placed_among_the_rooms(copy):
    _plant(copy, "components/unplaced/planted.py", "import os")
    result = _lint(copy)
    assert "rooms" in _broken(result)
    assert "unplaced" in result.stdout


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
