"""The project's files agree with each other: dependencies and locks, make targets, the two commands, the licence."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
IMAGES = ("pipeline", "tiling", "training")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNTIME = [Requirement(text) for text in PYPROJECT["project"]["dependencies"]]
DEV = [Requirement(text) for text in PYPROJECT["dependency-groups"]["dev"]]
LOCKS = [
    "requirements.lock",
    "requirements-dev.lock",
    *(f"containers/{image}/requirements.lock" for image in (*IMAGES, "viewer")),
    "containers/training/requirements-gpu.lock",
]
# In images alone: TensorFlow without CUDA and CUDA's libraries, and the pip that Beam's boot asks for Beam.
ONLY_IN_IMAGES = re.compile(r"^(tensorflow-cpu|nvidia-[a-z0-9-]+|pip)$")

_PIN = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==([^ ;\\]+)(?:\s*;\s*([^\\]+?))?\s*\\?$")


def read_lock(name: str) -> dict[str, set[str]]:
    """Every version of each package in a lock (several where markers choose between them)."""
    pins: dict[str, set[str]] = {}
    for line in (ROOT / name).read_text().splitlines():
        if found := _PIN.match(line):
            pins.setdefault(canonicalize_name(found[1]), set()).add(found[2])
    return pins


@pytest.mark.parametrize(("lock", "wanted"), [("requirements.lock", RUNTIME), ("requirements-dev.lock", RUNTIME + DEV)])
def test_every_dependency_is_locked_within_its_bounds(lock, wanted):
    pins = read_lock(lock)
    for requirement in wanted:
        versions = pins.get(canonicalize_name(requirement.name), set())
        assert versions, f"{requirement.name} is not in {lock}: run make lock"
        assert all(requirement.specifier.contains(Version(version)) for version in versions), requirement


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_agree_on_every_version(lock):
    pins, dev = read_lock(lock), read_lock("requirements-dev.lock")
    assert len(pins) > 20
    others = {name: versions for name, versions in pins.items() if versions != dev.get(name)}
    assert {name: versions for name, versions in others.items() if not ONLY_IN_IMAGES.match(name)} == {}
    if "tensorflow-cpu" in others:
        assert others["tensorflow-cpu"] == dev["tensorflow"]


def test_images_are_built_with_the_uv_and_hatchling_of_the_project():
    pins = read_lock("containers/build/requirements.lock")
    assert pins["uv"] == read_lock(".ci/uv.txt")["uv"]
    assert pins["hatchling"] == read_lock("requirements-dev.lock")["hatchling"]


@pytest.mark.parametrize("lock", [*LOCKS, ".ci/uv.txt", "containers/build/requirements.lock"])
def test_every_pin_has_hashes_and_no_lock_names_an_index(lock):
    text = (ROOT / lock).read_text()
    blocks = re.split(r"\n(?=[A-Za-z0-9])", text)
    pins = [block for block in blocks if _PIN.match(block.splitlines()[0])]
    assert pins
    assert [block.splitlines()[0] for block in pins if "--hash=sha256:" not in block] == []
    assert "://" not in text
    assert "--index" not in text


@pytest.mark.parametrize(
    ("image", "without"),
    [
        ("pipeline", ("apache-beam", "tensorflow", "openslide-python")),
        ("tiling", ("tensorflow", "keras", "matplotlib")),
        ("training", ("apache-beam", "openslide-python", "google-cloud-aiplatform")),
    ],
)
def test_images_are_lean_and_carry_the_kfp_executor(image, without):
    pins = read_lock(f"containers/{image}/requirements.lock")
    assert "kfp" in pins
    assert not set(without) & set(pins)


def test_dependency_files_of_the_images_name_only_the_projects_dependencies():
    known = {canonicalize_name(requirement.name) for requirement in RUNTIME}
    for image in (*IMAGES, "viewer"):
        lines = (ROOT / f"containers/{image}/requirements.in").read_text().splitlines()
        named = {canonicalize_name(Requirement(line).name) for line in lines if not line.startswith("#")}
        # What Beam's `gcp` extra would bring is named by itself, to leave the rest of it out.
        assert {name for name in named - known if not ONLY_IN_IMAGES.match(name)} <= set(read_lock("requirements.lock"))


def test_the_training_image_for_accelerators_differs_by_tensorflow_alone():
    names = []
    for file in ("requirements", "requirements-gpu"):
        lines = (ROOT / f"containers/training/{file}.in").read_text().splitlines()
        names.append({line for line in lines if not line.startswith("#")})
    assert names[0] ^ names[1] == {"tensorflow-cpu", "tensorflow[and-cuda]"}


def test_make_help_lists_every_target():
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("help", "run", "test", "lint", "compile", "bench", "lock", "images", "clean"):
        assert re.search(rf"^  make {target} +\S", told, re.MULTILINE), target
    plain = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert plain == told


def test_make_without_a_fitting_python_says_so(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "awk", "make", "touch", "rm"):
        found = next(p / tool for p in map(Path, os.environ["PATH"].split(os.pathsep)) if (p / tool).exists())
        (tools / tool).symlink_to(found)
    old = tools / "python3"
    old.write_text("#!/bin/bash\nexit 1\n")
    old.chmod(0o755)
    result = subprocess.run(
        ["make", "SHELL=" + str(tools / "bash"), f"VENV={tmp_path / 'venv'}", str(tmp_path / "venv/bin/python")],
        cwd=ROOT,
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert "bagline needs Python 3.11 or 3.12" in result.stderr


def test_readme_and_ci_use_the_two_commands():
    readme = (ROOT / "README.md").read_text()
    assert "make run" in readme
    assert "make test" in readme
    ci = ROOT / ".ci/run"
    assert os.access(ci, os.X_OK)
    for command in ("make lint", "make test", "make compile", "make test-containers"):
        assert command in ci.read_text()


def test_the_licence_is_apache_2():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert PYPROJECT["project"]["license"] == "Apache-2.0"


def test_pre_commit_runs_tools_of_the_lock():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    entries = [hook["entry"] for hook in hooks[0]["hooks"]]
    assert {entry.split()[0].removeprefix(".venv/bin/") for entry in entries} >= {"ruff", "mypy", "lint-imports"}
