"""The compiled JSON is an interface: Vertex AI, Cloud Build and the cache's keys rely on it."""

import inspect
import json
import os
from pathlib import Path

import pytest

from components.records.errors import InputError
from pipelines.catalog import PIPELINES, STEPS, choose_steps, load_pipeline, local_steps
from pipelines.compile import build_spec, compile_pipeline, read_images, render, signature_of
from pipelines.resources import DEFAULTS, read_resources

GOLDEN = Path(__file__).parent / "golden"
FACES = {
    "split": ("components.split_metadata.component", "split_metadata"),
    "tile": ("components.tile_images.component", "tile_images"),
    "validate": ("components.validate_records.component", "validate_records"),
    "train": ("components.train_mil.component", "train_mil"),
    "evaluate": ("components.evaluate.component", "evaluate"),
    "register": ("components.register_model.component", "register_model"),
}
PREDICT_FACES = {
    "prepare": ("components.prepare_prediction.component", "prepare_prediction"),
    "predict": ("components.predict_bags.component", "predict_bags"),
}
TILE_FACES = {
    "train": ("components.train_tiles.component", "train_tiles"),
    "evaluate": ("components.evaluate_tiles.component", "evaluate_tiles"),
}
PLACED_BY_VERTEX = ("project", "location")


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


@pytest.mark.parametrize(
    ("pipeline", "module", "name"),
    [
        *(("whole-slide", *face) for face in FACES.values()),
        *(("batch-predict", *face) for face in PREDICT_FACES.values()),
        *(("tile-classifier", *face) for face in TILE_FACES.values()),
    ],
)
def test_every_parameter_of_a_component_is_one_of_the_pipeline_with_the_same_default(pipeline, module, name):
    function = getattr(__import__(module, fromlist=[name]), name).python_func
    known = signature_of(build_spec(load_pipeline(pipeline).build()))
    for parameter in inspect.signature(function).parameters.values():
        if parameter.annotation in (str, int, float, bool, list, dict) and parameter.name not in PLACED_BY_VERTEX:
            assert parameter.name in known, f"{name} knows {parameter.name}, the pipeline doesn't"
            assert known[parameter.name].kind is parameter.annotation
            if parameter.default is not inspect.Parameter.empty:
                assert (known[parameter.name].default or parameter.annotation()) == parameter.default


@pytest.mark.parametrize("step", ["tile", "validate"])
def test_the_steps_of_both_pipelines_have_the_same_defaults(step, spec):
    """A batch prediction tiles as the model says, and offers the rest of what a whole run does."""
    module, name = FACES[step]
    offered = signature_of(build_spec(load_pipeline("batch-predict").build()))
    shared = set(offered) & set(
        inspect.signature(getattr(__import__(module, fromlist=[name]), name).python_func).parameters
    )
    assert len(shared) > 5
    for parameter in shared - {"tile_px", "mpp"}:  # where 0 stands for the model's
        assert offered[parameter] == signature_of(spec)[parameter]


def test_a_batch_prediction_tiles_as_the_model_says():
    from components.prepare_prediction.prepare import TILING

    tasks = build_spec(load_pipeline("batch-predict").build())["root"]["dag"]["tasks"]
    given = tasks["tile-images"]["inputs"]["parameters"]
    for name in TILING:
        source = {"producerTask": "prepare-prediction", "outputParameterKey": name}
        assert given[name] == {"taskOutputParameter": source}


def test_a_batch_prediction_on_vertex_asks_for_the_model_anew_and_waits_for_dataflow():
    """An alias such as `blessed` moves while its name, a part of the cache's key, stays."""
    tasks = build_spec(load_pipeline("batch-predict").build())["root"]["dag"]["tasks"]
    assert not tasks["prepare-prediction"]["cachingOptions"].get("enableCache")
    assert tasks["tile-images"]["cachingOptions"]["enableCache"]
    assert tasks["validate-records"]["dependentTasks"] == ["await-tiling"]
    local = build_spec(load_pipeline("batch-predict").build(local_code_version="1"))["root"]["dag"]["tasks"]
    assert set(local) == {step.task for step in local_steps("batch-predict")}
    assert local["prepare-prediction"]["cachingOptions"]["enableCache"]


CUSTOM = {
    "train": {
        "machine_type": "n1-standard-16",
        "accelerator": "NVIDIA_TESLA_T4",
        "accelerator_count": 2,
        "workers": 3,
        "disk_gb": 200,
        "spot": True,
        "service_account": "train@p.iam.gserviceaccount.com",
        "network": "projects/1/global/networks/private",
        "kms_key": "projects/p/locations/l/keyRings/r/cryptoKeys/k",
    }
}


def test_training_may_be_a_custom_job_of_several_workers_with_accelerators(tmp_path):
    references = read_images(images(tmp_path))
    built = build_spec(load_pipeline("whole-slide").build(resources=read_resources(CUSTOM, "c.yaml")), references)
    (task,) = [task for task in built["root"]["dag"]["tasks"].values() if task["taskInfo"]["name"] == "train"]
    component = built["components"][task["componentRef"]["name"]]
    asked = {name: value.get("defaultValue") for name, value in component["inputDefinitions"]["parameters"].items()}
    pools = asked["worker_pool_specs"]
    assert [pool["replica_count"] for pool in pools] == [1, 2]
    for pool in pools:
        assert pool["machine_spec"] == {
            "machine_type": "n1-standard-16", "accelerator_type": "NVIDIA_TESLA_T4", "accelerator_count": 2
        }  # fmt: skip
        assert pool["disk_spec"]["boot_disk_size_gb"] == 200
        container = pool["container_spec"]
        assert container["image_uri"] == references["training"]
        assert container["env"] == [{"name": "BAGLINE_IMAGE", "value": references["training"]}]
        assert "train_mil" in container["args"]
        assert "{{$.json_escape[1]}}" in container["args"]
    assert asked["service_account"] == CUSTOM["train"]["service_account"]
    assert asked["network"] == CUSTOM["train"]["network"]
    assert asked["encryption_spec_key_name"] == CUSTOM["train"]["kms_key"]
    assert asked["strategy"] == "SPOT"
    assert asked["restart_job_on_worker_restart"] is True
    assert asked["timeout"] == "604800s"
    assert task["retryPolicy"]["maxRetryCount"] == DEFAULTS["train"].retries
    launcher = built["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
    assert "resources" not in launcher
    assert "bagline-" not in json.dumps(launcher).replace("bagline-train", "")
    plain = build_spec(load_pipeline("whole-slide").build(), references)
    before = plain["components"]["comp-train-mil"]
    for side in ("inputDefinitions", "outputDefinitions"):
        assert component[side]["artifacts"] == before[side]["artifacts"]
    evaluated = built["root"]["dag"]["tasks"]["evaluate"]["inputs"]["artifacts"]["model"]["taskOutputArtifact"]
    assert built["root"]["dag"]["tasks"][evaluated["producerTask"]] is task
    assert ":python3.11" not in json.dumps(built)


def test_a_local_run_knows_no_custom_job_and_no_registry():
    wanted = read_resources(CUSTOM, "c.yaml")
    built = build_spec(load_pipeline("whole-slide").build(resources=wanted, local_code_version="1"))
    assert set(built["root"]["dag"]["tasks"]) == {step.task for step in local_steps()}
    assert "worker_pool_specs" not in json.dumps(built)


def test_the_registry_is_the_one_of_the_running_pipeline(spec):
    given = spec["root"]["dag"]["tasks"]["register-model"]["inputs"]["parameters"]
    assert given["project"]["runtimeValue"]["constant"] == "{{$.pipeline_google_cloud_project_id}}"
    assert given["location"]["runtimeValue"]["constant"] == "{{$.pipeline_google_cloud_location}}"
    assert "retryPolicy" not in spec["root"]["dag"]["tasks"]["register-model"]


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


@pytest.mark.parametrize(
    ("step", "module", "kind"),
    [
        ("train", "components.train_tiles.parameters", "TileTrainingParameters"),
        ("evaluate", "components.evaluate_tiles.evaluation", "TileEvaluationParameters"),
    ],
)
def test_the_tile_classifier_offers_what_its_functions_take(step, module, kind):
    from dataclasses import fields

    face_module, name = TILE_FACES[step]
    face = inspect.signature(getattr(__import__(face_module, fromlist=[name]), name).python_func).parameters
    for field in fields(getattr(__import__(module, fromlist=[kind]), kind)):
        assert face[field.name].default == field.default


def test_the_tile_classifier_tiles_as_the_whole_slide_pipeline_does_and_trains_on_one_machine(spec):
    built = build_spec(load_pipeline("tile-classifier").build())
    tasks = built["root"]["dag"]["tasks"]
    assert set(tasks) == {
        "split-metadata", "tile-images", "await-tiling", "validate-records", "train-tiles", "evaluate-tiles"
    }  # fmt: skip
    for step in ("split", "tile", "validate"):
        module, name = FACES[step]
        for parameter in inspect.signature(getattr(__import__(module, fromlist=[name]), name).python_func).parameters:
            if parameter in signature_of(spec):
                assert signature_of(built)[parameter] == signature_of(spec)[parameter]
    local = build_spec(load_pipeline("tile-classifier").build(local_code_version="1"))["root"]["dag"]["tasks"]
    assert set(local) == {step.task for step in local_steps("tile-classifier")}
    late = load_pipeline("tile-classifier").build(steps=("train",), earlier={"records": ("/out", "sha256:0")})
    assert "train-tiles" in build_spec(late)["root"]["dag"]["tasks"]
    with pytest.raises(InputError, match="3 workers can't train a tile classifier"):
        load_pipeline("tile-classifier").build(resources=read_resources(CUSTOM, "c.yaml"))


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
        ({"train": {"workers": 2}}, ["2 workers without a machine_type"]),
        ({"train": {"machine_type": "n1", "workers": 0}}, ["workers of train is 0"]),
        ({"train": {"spot": 1}}, ["spot of train is 1"]),
        ({"train": {"network": "n"}}, ["network of train is of custom jobs only", "give a machine_type"]),
        ({"evaluate": {"machine_type": "n1"}}, ["evaluate can't be a custom job"]),
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
