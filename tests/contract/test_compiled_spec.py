"""The compiled JSON is an interface: Vertex AI, Cloud Build and the cache's keys rely on it."""

import inspect
import json
import os
from pathlib import Path

import pytest

from components.records.errors import InputError
from pipelines.catalog import PIPELINES, STEPS, choose_steps, load_pipeline
from pipelines.compile import build_spec, compile_pipeline, read_images, render, signature_of
from pipelines.resources import DEFAULTS, read_resources

GOLDEN = Path(__file__).parent / "golden"
FACES = {
    "split": ("components.split_metadata.component", "split_metadata"),
    "tile": ("components.tile_images.component", "tile_images"),
    "validate": ("components.validate_records.component", "validate_records"),
    "train": ("components.train_mil.component", "train_mil"),
    "evaluate": ("components.evaluate.component", "evaluate"),
}


@pytest.fixture(scope="module")
def spec():
    return build_spec(load_pipeline("whole-slide").build())


def outline(spec):
    """What others rely on: parameters, tasks, artifacts, images; without the components' source text."""
    return {
        "parameters": spec["root"]["inputDefinitions"]["parameters"],
        "tasks": {
            name: {
                "depends_on": task.get("dependentTasks", []),
                "inputs": sorted(task["inputs"].get("artifacts", {})),
                "retries": task.get("retryPolicy", {}).get("maxRetryCount"),
            }
            for name, task in spec["root"]["dag"]["tasks"].items()
        },
        "outputs": {
            name: {
                key: value["artifactType"]["schemaTitle"]
                for key, value in component.get("outputDefinitions", {}).get("artifacts", {}).items()
            }
            for name, component in spec["components"].items()
        },
        "executors": {
            name: {"image": executor["container"]["image"], "resources": executor["container"].get("resources")}
            for name, executor in spec["deploymentSpec"]["executors"].items()
        },
    }


@pytest.mark.parametrize("name", PIPELINES)
def test_the_spec_is_the_golden_one(name):
    """After a change that is meant: BAGLINE_WRITE_GOLDEN=1 make test PYTEST=tests/contract/test_compiled_spec.py."""
    found = json.dumps(outline(build_spec(load_pipeline(name).build())), indent=1, sort_keys=True) + "\n"
    path = GOLDEN / f"{name}.json"
    if os.environ.get("BAGLINE_WRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(found)
    assert found == path.read_text()


def test_compiling_twice_gives_the_same_bytes():
    assert render(compile_pipeline("whole-slide", allow_tags=True)) == render(
        compile_pipeline("whole-slide", allow_tags=True)
    )


def test_the_graph_is_a_line_without_control_flow(spec):
    tasks = spec["root"]["dag"]["tasks"]
    order = [step.task for step in STEPS]
    order.insert(order.index("tile-images") + 1, "await-tiling")
    assert set(tasks) == set(order)
    for name, task in tasks.items():
        assert not {"iterator", "parameterIterator", "artifactIterator"} & set(task)
        assert "triggerPolicy" not in task
        before = order[: order.index(name)]
        assert set(task.get("dependentTasks", [])) <= set(before)
        if before:
            assert before[-1] in task["dependentTasks"]
    assert all("dag" not in component for component in spec["components"].values())


@pytest.mark.parametrize("step", FACES)
def test_every_parameter_of_a_component_is_one_of_the_pipeline_with_the_same_default(step, spec):
    module, name = FACES[step]
    function = getattr(__import__(module, fromlist=[name]), name).python_func
    known = signature_of(spec)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.annotation in (str, int, float, bool, list, dict):
            assert parameter.name in known, f"{step} knows {parameter.name}, the pipeline doesn't"
            assert known[parameter.name].kind is parameter.annotation
            if parameter.default is not inspect.Parameter.empty:
                assert (known[parameter.name].default or parameter.annotation()) == parameter.default


@pytest.mark.parametrize(
    ("step", "module", "kind"),
    [
        ("tile", "components.tile_images.parameters", "TilingParameters"),
        ("validate", "components.validate_records.outcome", "Thresholds"),
        ("train", "components.train_mil.parameters", "TrainingParameters"),
        ("evaluate", "components.evaluate.evaluation", "EvaluationParameters"),
    ],
)
def test_a_component_offers_what_its_function_takes(step, module, kind):
    from dataclasses import fields

    face_module, name = FACES[step]
    face = inspect.signature(getattr(__import__(face_module, fromlist=[name]), name).python_func).parameters
    for field in fields(getattr(__import__(module, fromlist=[kind]), kind)):
        if field.name == "top_tiles":  # a matter of the page alone
            continue
        assert field.name in face
        assert face[field.name].default == field.default


def test_every_artifact_has_its_type(spec):
    made = outline(spec)["outputs"]
    assert made["comp-tile-images"]["records"] == "system.Dataset"
    assert made["comp-train-mil"]["model"] == "system.Model"
    assert made["comp-evaluate"] == {
        "evaluation": "system.Artifact",
        "metrics": "system.Metrics",
        "roc": "system.ClassificationMetrics",
        "report": "system.HTML",
    }


def test_tasks_ask_for_what_the_resources_say():
    wanted = read_resources({"train": {"accelerator": "NVIDIA_TESLA_T4", "retries": 0, "cpu": 4}}, "c.yaml")
    spec = build_spec(load_pipeline("whole-slide").build(resources=wanted))
    train = spec["deploymentSpec"]["executors"]["exec-train-mil"]["container"]["resources"]
    assert train["accelerator"] == {
        "type": "NVIDIA_TESLA_T4", "resourceType": "NVIDIA_TESLA_T4", "count": "1", "resourceCount": "1"
    }  # fmt: skip
    assert train["cpuLimit"] == 4.0
    assert "retryPolicy" not in spec["root"]["dag"]["tasks"]["train-mil"]
    assert spec["root"]["dag"]["tasks"]["tile-images"]["retryPolicy"]["maxRetryCount"] == DEFAULTS["tile"].retries


@pytest.mark.parametrize(
    ("given", "facts"),
    [
        ({"trian": {}}, ["unknown step 'trian'", "did you mean train?"]),
        ({"train": {"memry": "8G"}}, ["unknown key 'memry'", "did you mean memory?"]),
        ({"train": {"cpu": "4"}}, ["cpu of train is '4'"]),
        ({"train": {"memory": "lots"}}, ["write it like 16G"]),
        ({"train": 3}, ["no mapping"]),
    ],
)
def test_resources_that_do_not_fit_are_refused(given, facts):
    with pytest.raises(InputError) as caught:
        read_resources(given, "c.yaml")
    assert all(fact in str(caught.value) for fact in facts)


def images(tmp_path, **more):
    names = {name: f"europe-docker.pkg.dev/p/r/{name}@sha256:{'a' * 64}" for name in ("pipeline", "tiling", "training")}
    path = tmp_path / "images.json"
    path.write_text(json.dumps({**names, **more}))
    return str(path)


def test_images_go_in_by_digest(tmp_path):
    spec = compile_pipeline("whole-slide", images=images(tmp_path))
    used = {executor["container"]["image"] for executor in spec["deploymentSpec"]["executors"].values()}
    assert used == {
        f"europe-docker.pkg.dev/p/r/{name}@sha256:{'a' * 64}" for name in ("pipeline", "tiling", "training")
    }


def test_the_images_know_themselves_and_dataflow_s_workers_by_them(tmp_path):
    spec = compile_pipeline("whole-slide", images=images(tmp_path))
    for executor in spec["deploymentSpec"]["executors"].values():
        told = {each["name"]: each["value"] for each in executor["container"]["env"]}
        assert told["BAGLINE_IMAGE"] == executor["container"]["image"]


def test_the_waiting_is_a_task_of_its_own_on_vertex_alone(spec):
    executors = spec["deploymentSpec"]["executors"]
    tile, wait = (executors[name]["container"] for name in ("exec-tile-images", "exec-await-tiling"))
    assert {"name": "BAGLINE_LAUNCH_ONLY", "value": "1"} in tile["env"]
    assert wait["command"] == ["python3", "-m", "components.tile_images.await_tiling"]
    given = spec["root"]["dag"]["tasks"]["await-tiling"]["inputs"]
    assert given["parameters"]["gcp_resources"]["taskOutputParameter"] == {
        "outputParameterKey": "gcp_resources", "producerTask": "tile-images"
    }  # fmt: skip
    local = build_spec(load_pipeline("whole-slide").build(local_code_version="x"))
    assert "await-tiling" not in local["root"]["dag"]["tasks"]
    assert "BAGLINE_LAUNCH_ONLY" not in json.dumps(local)


def test_images_by_tag_are_refused_unless_allowed(tmp_path):
    path = images(tmp_path, tiling="repo/tiling:latest")
    with pytest.raises(InputError, match="names tiling without a digest"):
        compile_pipeline("whole-slide", images=path)
    assert read_images(path, allow_tags=True)["tiling"] == "repo/tiling:latest"


@pytest.mark.parametrize(("content", "fact"), [("[]", "not a mapping"), ('{"tiling": "x"}', "lacks the image")])
def test_an_images_file_of_another_shape_is_refused(tmp_path, content, fact):
    path = tmp_path / "images.json"
    path.write_text(content)
    with pytest.raises(InputError, match=fact):
        read_images(str(path))


def test_a_pipeline_may_start_and_stop_in_the_middle():
    steps = tuple(step.name for step in choose_steps("validate", "train"))
    built = load_pipeline("whole-slide").build(steps=steps, earlier={"records": ("/out", "sha256:0")})
    tasks = build_spec(built)["root"]["dag"]["tasks"]
    assert {"validate-records", "train-mil"} < set(tasks)
    assert not {"split-metadata", "tile-images", "evaluate"} & set(tasks)


@pytest.mark.parametrize(
    ("first", "last", "fact"),
    [
        ("tlie", "", "did you mean tile?"),
        ("", "evaluation", "did you mean evaluate?"),
        ("train", "tile", "comes after"),
    ],
)
def test_steps_that_make_no_sense_are_refused(first, last, fact):
    with pytest.raises(InputError) as caught:
        choose_steps(first, last)
    assert fact in str(caught.value)
