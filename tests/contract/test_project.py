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
LOCKS = ["requirements.lock", "requirements-dev.lock", *(f"containers/{image}/requirements.lock" for image in IMAGES)]

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
    assert {name: versions for name, versions in pins.items() if versions != dev.get(name)} == {}


@pytest.mark.parametrize("lock", [*LOCKS, ".ci/uv.txt"])
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


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_locked_non_root_and_tests_itself(image):
    text = (ROOT / f"containers/{image}/Dockerfile").read_text()
    instructions = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert instructions[0] == "ARG BASE_IMAGE=python:3.11-slim"
    assert f"COPY containers/{image}/requirements.lock" in text
    assert "--require-hashes" in text
    assert "install --no-deps /tmp/bagline" in text
    assert instructions.index("USER bagline") < instructions.index(next(i for i in instructions if "python -c" in i))


def test_dependency_files_of_the_images_name_only_the_projects_dependencies():
    known = {canonicalize_name(requirement.name) for requirement in RUNTIME}
    for image in IMAGES:
        lines = (ROOT / f"containers/{image}/requirements.in").read_text().splitlines()
        named = {canonicalize_name(Requirement(line).name) for line in lines if not line.startswith("#")}
        assert named <= known


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
    for command in ("make lint", "make test", "make compile", "make images"):
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
