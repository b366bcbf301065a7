"""cloudbuild.yaml: its graph, its substitutions, and every step's command line run as the build would run it.

Docker, make and what speaks to the cloud are stood in for by programs that record how they were called.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.catalog import PIPELINES

ROOT = Path(__file__).parents[2]
BUILD = yaml.safe_load((ROOT / "cloudbuild.yaml").read_text())
STEPS = {step["id"]: step for step in BUILD["steps"]}
NAMED_BY_PIPELINES = ("pipeline", "tiling", "training")
IMAGES = (*NAMED_BY_PIPELINES, "viewer")
# https://cloud.google.com/build/docs/configuring-builds/substitute-variable-values
BUILT_IN = {
    "PROJECT_ID": "proj-123",
    "COMMIT_SHA": "0123456789abcdef0123456789abcdef01234567",
    "SHORT_SHA": "0123456",
}
FREE = dict(BUILD["substitutions"])
REGISTRY = "europe-west4-docker.pkg.dev/proj-123/bagline"
_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Z_][A-Z0-9_]*)\}|([A-Z_][A-Z0-9_]*))")


def substitute(text, **changes):
    """As Cloud Build does: `$$` is a dollar sign, and an unknown name is an error."""
    values = {**BUILT_IN, **FREE, **changes}

    def replace(match):
        if match[1]:
            return "$"
        name = match[2] or match[3]
        assert name in values, f"{name} is no substitution"
        return _VARIABLE.sub(replace, values[name])

    return _VARIABLE.sub(replace, text)


def texts(value):
    if isinstance(value, dict):
        return [text for item in value.values() for text in texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [str(value)]


def script_of(step):
    *options, script = step["args"]
    assert (step["entrypoint"], options) == ("bash", ["-euo", "pipefail", "-c"])
    return script


def ancestors(name, path=()):
    assert name not in path, f"a circle: {path}"
    before = [earlier for earlier in STEPS[name].get("waitFor", []) if earlier != "-"]
    return {earlier for near in before for earlier in {near} | ancestors(near, (*path, name))}


STAND_IN = """#!{python}
import json, os, sys
name = os.path.basename(sys.argv[0])
with open({log!r}, "a") as stream:
    stream.write(json.dumps([name, *sys.argv[1:]]) + "\\n")
if name == "docker" and sys.argv[1:3] == ["image", "inspect"]:
    reference = sys.argv[-1].rpartition(":")[0]
    print("other.example/" + reference.rpartition("/")[2] + "@sha256:" + "f" * 64)
    print(reference + "@sha256:" + "a" * 64)
if name == os.environ.get("FAILS"):
    sys.exit(3)
"""


@pytest.fixture
def workspace(tmp_path):
    """The checkout as a step finds it, with stand-ins; `run(step, _SUBMIT="true")` gives what was called."""
    place = tmp_path / "workspace"
    place.mkdir()
    for name in ("containers", "pipelines"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    log = tmp_path / "calls"
    tools = tmp_path / "tools"
    (place / ".venv/bin").mkdir(parents=True)
    (place / ".venv/bin/python").symlink_to(sys.executable)
    tools.mkdir()
    for path in (tools / "docker", tools / "make", place / ".venv/bin/bagline"):
        path.write_text(STAND_IN.format(python=sys.executable, log=str(log)))
        path.chmod(0o755)

    def run(name, check=True, fails="", **changes):
        step = STEPS[name]
        log.write_text("")
        words = [step["entrypoint"], *(substitute(word, **changes) for word in step["args"])]
        variables = dict(substitute(entry, **changes).split("=", 1) for entry in step.get("env", []))
        done = subprocess.run(
            words,
            cwd=place,
            env={"PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(tmp_path), "FAILS": fails, **variables},
            capture_output=True,
            text=True,
        )
        assert not check or done.returncode == 0, done.stderr
        calls = [json.loads(line) for line in log.read_text().splitlines()]
        return calls, done

    run.place = place
    return run


def test_the_steps_wait_for_what_they_need():
    images = {f"image-{name}" for name in IMAGES}
    assert {name for name in STEPS if name.startswith("image-")} == images
    assert len(STEPS) == len(BUILD["steps"])
    known: set[str] = set()
    for name, step in STEPS.items():
        assert set(step.get("waitFor", [])) <= known | {"-"}, f"{name} waits for a step that comes later or never"
        known.add(name)
    assert ancestors("test-images") == images
    assert ancestors("compile") == images | {"check", "test-images"}
    assert ancestors("contract") == ancestors("compile") | {"compile"}
    assert ancestors("push-template") == ancestors("contract") | {"contract"}
    assert ancestors("submit") == ancestors("push-template") | {"push-template"}


def test_every_substitution_is_declared_and_used():
    everything = {key: value for key, value in BUILD.items() if key != "substitutions"}
    found = [match for text in [*texts(everything), *FREE.values()] for match in _VARIABLE.findall(text)]
    used = {braced or bare for dollar, braced, bare in found if not dollar}
    assert used <= set(FREE) | set(BUILT_IN)
    assert {name for name in FREE if name not in used} == set()
    assert all(re.fullmatch(r"_[A-Z0-9_]+", name) for name in FREE)


@pytest.mark.parametrize("name", STEPS)
def test_a_dollar_sign_of_the_shell_is_written_twice(name):
    """What is left after the substitution may name only variables that the step or the script itself sets."""
    script = substitute(script_of(STEPS[name]))
    set_here = {entry.split("=")[0] for entry in STEPS[name].get("env", [])}
    set_here |= set(re.findall(r"\bfor (\w+) in|^(\w+)=", script, re.MULTILINE)[0]) if "for " in script else set()
    assert set(re.findall(r"\$\{?(\w+)", script)) <= set_here
    result = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for program in re.findall(r"<<'END'\n(.*?)\nEND\n", script, re.DOTALL):
        ast.parse(program)


def test_check_runs_what_ci_runs(workspace):
    calls, _ = workspace("check")
    assert calls == [["make", "lint"], ["make", "test"]]


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_built_with_its_cache_pushed_and_known_by_digest(image, workspace):
    calls, _ = workspace(f"image-{image}")
    (build,) = [call for call in calls if call[1] == "build"]
    reference = f"{REGISTRY}/bagline-{image}"
    assert build[build.index("--file") + 1] == f"containers/{image}/Dockerfile"
    assert build[build.index("--cache-from") + 1] == f"{reference}:latest"
    assert "BASE_IMAGE=python:3.11-slim" in build
    assert ("BEAM_SDK=apache/beam_python3.11_sdk:2.77.0" in build) == (image == "tiling")
    pushed = [call[2] for call in calls if call[1] == "push"]
    assert pushed == [f"{reference}:{BUILT_IN['COMMIT_SHA']}", f"{reference}:latest"]
    assert (workspace.place / f"build/digests/{image}").read_text() == f"{reference}@sha256:{'a' * 64}\n"


def test_an_image_that_fails_leaves_no_digest(workspace):
    _, done = workspace("image-tiling", check=False, fails="docker")
    assert done.returncode != 0
    assert not (workspace.place / "build/digests/tiling").exists()


@pytest.fixture
def built(workspace):
    for image in IMAGES:
        workspace(f"image-{image}")
    return workspace


def test_every_image_is_tested_as_it_was_pushed(built):
    calls, _ = built("test-images")
    pushed = [f"{REGISTRY}/bagline-{image}@sha256:{'a' * 64}" for image in IMAGES]
    assert calls == [["docker", "run", "--rm", image, "python", "/opt/bagline/health.py"] for image in pushed]
    for image in IMAGES:
        text = (ROOT / f"containers/{image}/Dockerfile").read_text()
        assert f"COPY containers/{image}/health.py /opt/bagline/health.py" in text
    _, done = built("test-images", check=False, fails="docker")
    assert done.returncode != 0


def test_compile_collects_the_digests_of_all_images(built):
    from pipelines.compile import read_images

    calls, _ = built("compile")
    assert calls == [["make", "compile"]]
    images = read_images(str(built.place / "images.json"))
    assert images == {name: f"{REGISTRY}/bagline-{name}@sha256:{'a' * 64}" for name in NAMED_BY_PIPELINES}


def test_the_contract_tests_see_the_compiled_spec():
    script = substitute(script_of(STEPS["contract"]))
    assert "BAGLINE_SPECS=build " in script
    assert (ROOT / script.split()[-1]).is_dir()


def parsed(words):
    """The words as the true command line takes them."""
    from pipelines.cli import build_parser

    return build_parser(words[0]).parse_args(words)


def test_the_template_is_pushed_with_the_commit_as_tag(workspace):
    calls, _ = workspace("push-template")
    every = [parsed(call[1:]) for call in calls]
    assert [arguments.pipeline for arguments in every] == list(PIPELINES)
    for arguments in every:
        assert arguments.push == "https://europe-west4-kfp.pkg.dev/proj-123/bagline-templates"
        assert (arguments.images, arguments.tag) == ("images.json", ["commit-0123456"])
        assert arguments.to == f"build/{arguments.pipeline}.json"
    calls, done = workspace("push-template", _PUSH_TEMPLATE="false")
    assert (calls, done.stdout) == ([], "not pushed: _PUSH_TEMPLATE is not true\n")


def test_nothing_is_submitted_unless_asked(workspace):
    assert FREE["_SUBMIT"] == "false"
    calls, done = workspace("submit")
    assert (calls, done.stdout) == ([], "not submitted: _SUBMIT is not true\n")
    (call,), _ = workspace("submit", _SUBMIT="true")
    arguments = parsed(call[1:])
    assert (arguments.env, arguments.images) == ("dev", "images.json")
    assert (ROOT / f"pipelines/configs/{FREE['_ENVIRONMENT']}.yaml").exists()


def test_what_is_kept_is_what_the_steps_write():
    objects = BUILD["artifacts"]["objects"]
    assert objects["paths"] == ["build/*.json", "images.json"]
    assert substitute(objects["location"]) == f"gs://proj-123-bagline/specs/{BUILT_IN['COMMIT_SHA']}"


def test_there_are_no_secrets():
    assert "availableSecrets" not in BUILD
    assert not any("secretEnv" in step for step in BUILD["steps"])


def test_the_roles_are_those_that_the_setup_gives():
    told = set(re.findall(r"roles/[a-zA-Z.]+", (ROOT / "cloudbuild.yaml").read_text()))
    setup = (ROOT / "docs/cloud-setup.md").read_text()
    assert told
    assert {role for role in told if role not in setup} == set()
