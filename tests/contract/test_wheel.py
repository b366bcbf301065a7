"""The wheel, installed by itself and called from another folder, is a working bagline."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run(
        [
            *pip,
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "--wheel-dir",
            str(out),
            str(ROOT),
        ],
        check=True,
    )
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder that holds the installed wheel and nothing else; the locked packages come from this environment."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "install", "--quiet", "--no-deps", "--no-index", "--target", str(target), str(wheel)], check=True
    )
    return target


def _run(installed: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


def test_the_wheel_carries_every_tracked_file_of_the_packages(wheel):
    tracked = [path for name in ("components", "pipelines") for path in (ROOT / name).rglob("*") if path.is_file()]
    names = {path.relative_to(ROOT).as_posix() for path in tracked if "__pycache__" not in path.parts}
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert names
    assert names - inside == set()
    assert any(name.endswith("licenses/LICENSE") for name in inside)


def test_the_wheel_carries_nothing_else(wheel):
    inside = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in inside} == {"components", "pipelines", "bagline"}


def test_the_console_script_runs_from_another_folder(installed, tmp_path):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"bagline": "pipelines.cli:main"}
    result = _run(installed, tmp_path, str(installed / "bin" / "bagline"), "--help")
    assert result.returncode == 0, result.stderr
    for command in ("run", "tile", "validate", "train", "evaluate", "compile", "check", "lineage"):
        assert command in result.stdout


def test_python_m_pipelines_is_the_same(installed, tmp_path):
    script = _run(installed, tmp_path, str(installed / "bin" / "bagline"), "--help")
    module = _run(installed, tmp_path, "-m", "pipelines", "--help")
    assert (module.returncode, module.stdout) == (0, script.stdout)


def test_it_is_the_installed_package_that_answers(installed, tmp_path):
    result = _run(
        installed, tmp_path, "-c", "import components, pipelines; print(components.__file__, pipelines.__file__)"
    )
    assert [Path(name).parents[1] for name in result.stdout.split()] == [installed, installed]


def test_check_finds_pipelines_and_configs_in_the_installed_wheel(installed, tmp_path):
    result = _run(installed, tmp_path, str(installed / "bin" / "bagline"), "check")
    assert result.returncode == 0, result.stderr
