"""The compiled files that a build is about to push, in the folder BAGLINE_SPECS: pinned, and of this code."""

import copy
import json
import os
import re
from pathlib import Path

import pytest

from pipelines.catalog import PIPELINES, load_pipeline
from pipelines.compile import build_spec

FOLDER = os.environ.get("BAGLINE_SPECS", "")
PINNED = re.compile(r"^[^\s@]+@sha256:[0-9a-f]{64}$")
IMAGES = {name: f"host/{name}@sha256:{'0' * 64}" for name in ("pipeline", "tiling", "training")}


def images_of(spec):
    executors = spec["deploymentSpec"]["executors"]
    return {name: body["container"]["image"] for name, body in executors.items() if "container" in body}


def check_spec(spec, name):
    """Raises AssertionError where a template can't be trusted to be this code's, with images that never change."""
    here = build_spec(load_pipeline(name).build())
    found = images_of(spec)
    ours = {executor for executor, image in images_of(here).items() if image.startswith("bagline-")}
    assert ours
    assert {executor: found[executor] for executor in ours if not PINNED.match(found[executor])} == {}
    assert spec["root"]["inputDefinitions"] == here["root"]["inputDefinitions"]
    assert spec["root"]["dag"]["tasks"].keys() == here["root"]["dag"]["tasks"].keys()
    assert spec["components"].keys() == here["components"].keys()


@pytest.mark.parametrize("name", PIPELINES)
def test_the_file_of_the_build_is_pinned_and_of_this_code(name):
    if not FOLDER:
        pytest.skip("no BAGLINE_SPECS: the build names the folder of what it is about to push")
    check_spec(json.loads(Path(FOLDER, f"{name}.json").read_text()), name)


@pytest.mark.parametrize("name", PIPELINES)
def test_a_file_with_tags_or_of_other_code_is_refused(name):
    spec = build_spec(load_pipeline(name).build(), IMAGES)
    check_spec(spec, name)
    by_tag, shorter = copy.deepcopy(spec), copy.deepcopy(spec)
    executor = next(executor for executor, image in images_of(spec).items() if image in IMAGES.values())
    by_tag["deploymentSpec"]["executors"][executor]["container"]["image"] = "host/pipeline:latest"
    shorter["root"]["dag"]["tasks"].popitem()
    for broken in (by_tag, shorter):
        with pytest.raises(AssertionError):
            check_spec(broken, name)
