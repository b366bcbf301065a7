"""cloudbuild.yaml: what runs in which order, with which substitutions, and that its scripts are well formed."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BUILD = yaml.safe_load((ROOT / "cloudbuild.yaml").read_text())
STEPS = {step["id"]: step for step in BUILD["steps"]}
IMAGES = sorted(path.parent.name for path in (ROOT / "containers").glob("*/Dockerfile"))
# https://cloud.google.com/build/docs/configuring-builds/substitute-variable-values
BUILT_IN = {"PROJECT_ID", "COMMIT_SHA", "SHORT_SHA"}


def _script(step: dict) -> str:
    *options, script = step["args"]
    assert (step["entrypoint"], options) == ("bash", ["-euo", "pipefail", "-c"])
    return script


def _ancestors(step: str) -> set[str]:
    before = set(STEPS[step].get("waitFor", []))
    return before | {earlier for name in before for earlier in _ancestors(name)}


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [str(value)]


def test_the_steps_wait_for_what_they_need():
    images = {f"image-{name}" for name in IMAGES}
    assert list(STEPS) == [
        "check",
        *(f"image-{name}" for name in ("pipeline", "tiling", "training")),
        "compile",
        "submit",
    ]
    assert {name for name in STEPS if name.startswith("image-")} == images
    assert all(_ancestors(name) == {"check"} for name in images)
    assert _ancestors("compile") == images | {"check"}
    assert _ancestors("submit") == images | {"check", "compile"}
    assert all(STEPS[name]["env"][1] == f"IMAGE={name.removeprefix('image-')}" for name in images)


def test_every_substitution_is_declared_and_used():
    text = "\n".join(_texts({key: value for key, value in BUILD.items() if key != "substitutions"}))
    text += "\n".join(BUILD["substitutions"].values())
    used = set(re.findall(r"(?<!\$)\$\{?([A-Z_][A-Z0-9_]*)", text))
    assert used <= set(BUILD["substitutions"]) | BUILT_IN
    assert {name for name in BUILD["substitutions"] if name not in used} == set()


@pytest.mark.parametrize("name", STEPS)
def test_a_script_is_bash(name):
    script = _script(STEPS[name]).replace("$$", "$")
    result = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for program in re.findall(r"<<'END'\n(.*?)\nEND\n", script, re.DOTALL):
        ast.parse(program)


def test_compile_collects_the_digests_of_all_images(tmp_path):
    (tmp_path / "build/digests").mkdir(parents=True)
    for name in IMAGES:
        (tmp_path / "build/digests" / name).write_text(f"registry/{name}@sha256:{'0' * 64}\n")
    (program,) = re.findall(r"<<'END'\n(.*?)\nEND\n", _script(STEPS["compile"]), re.DOTALL)
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    written = json.loads((tmp_path / "images.json").read_text())
    assert written == {name: f"registry/{name}@sha256:{'0' * 64}" for name in IMAGES}


def test_nothing_is_submitted_unless_asked():
    assert BUILD["substitutions"]["_SUBMIT"] == "false"
    script = _script(STEPS["submit"]).replace("$_SUBMIT", "false")
    result = subprocess.run(["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "not submitted: _SUBMIT is not true\n")


def test_there_are_no_secrets():
    assert "availableSecrets" not in BUILD
    assert not any("secretEnv" in step for step in BUILD["steps"])
