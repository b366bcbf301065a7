"""The compiled file that a build is about to push, named by BAGLINE_SPEC: pinned, and the same interface as here."""

import json
import os
import re
from pathlib import Path

import pytest

from pipelines.catalog import load_pipeline
from pipelines.compile import build_spec

SPEC = os.environ.get("BAGLINE_SPEC", "")
PINNED = re.compile(r"^[^\s@]+@sha256:[0-9a-f]{64}$")


def check_spec(spec):
    """Raises AssertionError where a template can't be trusted to be this code's, with images that never change."""
    here = build_spec(load_pipeline("whole-slide").build())
    containers = {
        name: body["container"] for name, body in spec["deploymentSpec"]["executors"].items() if "container" in body
    }
    ours = {
        name
        for name, body in here["deploymentSpec"]["executors"].items()
        if body.get("container", {}).get("image", "").startswith("bagline-")
    }
    assert ours
    assert {name: containers[name]["image"] for name in ours if not PINNED.match(containers[name]["image"])} == {}
    assert spec["root"]["inputDefinitions"] == here["root"]["inputDefinitions"]
    assert spec["root"]["dag"]["tasks"].keys() == here["root"]["dag"]["tasks"].keys()
    assert spec["components"].keys() == here["components"].keys()


def test_the_file_of_the_build_is_pinned_and_of_this_code():
    if not SPEC:
        pytest.skip("no BAGLINE_SPEC: the build names the file that it is about to push")
    check_spec(json.loads(Path(SPEC).read_text()))


def test_a_file_with_tags_or_of_other_code_is_refused():
    images = {name: f"host/{name}@sha256:{'0' * 64}" for name in ("pipeline", "tiling", "training")}
    spec = build_spec(load_pipeline("whole-slide").build(), images)
    check_spec(spec)
    for change in ("image", "task"):
        broken = json.loads(json.dumps(spec))
        if change == "image":
            broken["deploymentSpec"]["executors"]["exec-tile-images"]["container"]["image"] = "bagline-tiling:latest"
        else:
            del broken["root"]["dag"]["tasks"]["train-mil"]
        with pytest.raises(AssertionError):
            check_spec(broken)
