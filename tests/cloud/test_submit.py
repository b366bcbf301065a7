"""`bagline submit` with the true client library against a Vertex AI that checks what it is sent."""

import hashlib
import json
import re

import pytest
from conftest import ACCOUNT, BUCKET, IMAGES, MANIFEST
from fake_vertex import Failure, Fault

from pipelines.cli import main
from pipelines.local.inputs import look_at_inputs

KEY = "projects/proj-123/locations/europe-west4/keyRings/ring/cryptoKeys/key"


def run(*words):
    try:
        return main(list(words))
    except SystemExit as stop:
        return stop.code


def tasks(job):
    return job["pipelineSpec"]["root"]["dag"]["tasks"]


def test_a_job_carries_what_the_environment_says(vertex, config, capsys):
    path = config(
        {"parameters": {"epochs": 3}, "resources": {"train": {"cpu": 16}}},
        network="projects/123456789012/global/networks/private",
        kms_key=KEY,
        caching={"default": True, "tasks": {"evaluate": False}},
        failure_policy="fast",
    )
    assert run("submit", "--config", path, "--set", "head=mean_pooling") == 0
    job = vertex.only_job()
    assert job["serviceAccount"] == ACCOUNT
    assert job["network"] == "projects/123456789012/global/networks/private"
    assert job["encryptionSpec"] == {"kmsKeyName": KEY}
    assert job["labels"]["team"] == "pathology"
    assert job["labels"]["bagline-pipeline"] == "whole-slide"
    runtime = job["runtimeConfig"]
    assert runtime["gcsOutputDirectory"] == f"gs://{BUCKET}/runs"
    assert runtime["failurePolicy"] in ("PIPELINE_FAILURE_POLICY_FAIL_FAST", 2)
    values = runtime["parameterValues"]
    assert values["epochs"] == 3
    assert values["head"] == "mean_pooling"
    caching = {name: task["cachingOptions"].get("enableCache", False) for name, task in tasks(job).items()}
    assert caching.pop("evaluate") is False
    assert all(caching.values())
    train = job["pipelineSpec"]["deploymentSpec"]["executors"]["exec-train-mil"]["container"]
    assert train["resources"]["cpuLimit"] == 16
    out = capsys.readouterr().out
    assert out.splitlines()[0] == job["name"]
    link = "https://console.cloud.google.com/vertex-ai/locations/europe-west4/pipelines/runs/"
    assert out.splitlines()[1] == f"{link}{job['name'].rpartition('/')[2]}?project=proj-123"


def test_the_inputs_are_hashed_as_bagline_run_hashes_them(vertex, config):
    assert run("submit", "--config", config()) == 0
    values = vertex.only_job()["runtimeConfig"]["parameterValues"]
    manifest, fingerprint = look_at_inputs("gs://cohort/manifest.csv", "gs://cohort")
    assert values["manifest_hash"] == manifest.digest == hashlib.sha256(MANIFEST).hexdigest()
    assert values["images_fingerprint"] == fingerprint
    assert (values["manifest"], values["images_root"]) == ("gs://cohort/manifest.csv", "gs://cohort")


def test_every_task_runs_an_image_by_digest_and_knows_it(vertex, config):
    assert run("submit", "--config", config()) == 0
    executors = vertex.only_job()["pipelineSpec"]["deploymentSpec"]["executors"]
    ours = {name: body["container"] for name, body in executors.items() if "bagline" in body["container"]["image"]}
    assert {"exec-split-metadata", "exec-tile-images", "exec-train-mil"} <= set(ours)
    for container in ours.values():
        assert container["image"] in IMAGES.values()
        told = {entry["name"]: entry["value"] for entry in container["env"]}
        assert told["BAGLINE_IMAGE"] == container["image"]


def test_dataflow_takes_what_it_leaves_out_from_the_environment(vertex, config):
    path = config({"dataflow": {"subnetwork": "regions/europe-west4/subnetworks/w", "max_workers": 7}}, kms_key=KEY)
    assert run("submit", "--config", path) == 0
    assert vertex.only_job()["runtimeConfig"]["parameterValues"]["dataflow"] == {
        "project": "proj-123",
        "region": "europe-west4",
        "staging": f"gs://{BUCKET}/runs/dataflow",
        "service_account": ACCOUNT,
        "subnetwork": "regions/europe-west4/subnetworks/w",
        "kms_key": KEY,
        "max_workers": 7,
        "labels": {"team": "pathology"},
    }


def test_a_batch_prediction_takes_slides_without_labels_and_never_an_old_alias(vertex, config, tmp_path):
    path = tmp_path / "new.csv"
    path.write_text("image_id,patient_id,image_path\nnew,p,slides/a.tif\n")
    model = "projects/proj-123/locations/europe-west4/models/m@blessed"
    given = ["--config", config({}), "--pipeline", "batch-predict", "--set", f"model={model}"]
    assert run("submit", str(path), *given) == 0
    job = vertex.only_job()
    assert job["runtimeConfig"]["parameterValues"]["model"] == model
    caching = {name: task["cachingOptions"].get("enableCache", False) for name, task in tasks(job).items()}
    assert caching.pop("prepare-prediction") is False
    assert all(caching.values())


def test_a_local_manifest_is_copied_under_its_hash(vertex, store, config, tmp_path):
    local = tmp_path / "mine.csv"
    local.write_bytes(MANIFEST)
    assert run("submit", str(local), "--config", config()) == 0
    values = vertex.only_job()["runtimeConfig"]["parameterValues"]
    name = f"runs/manifests/{hashlib.sha256(MANIFEST).hexdigest()}.csv"
    assert values["manifest"] == f"gs://{BUCKET}/{name}"
    assert store.content(BUCKET, name) == MANIFEST


def test_a_dry_run_prints_the_request_and_sends_nothing(vertex, config, images_file, capsys):
    assert run("submit", "--config", config(images=None), "--images", images_file, "--dry-run") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["parent"] == "projects/proj-123/locations/europe-west4"
    assert re.fullmatch(r"whole-slide-\d{8}-\d{6}-[0-9a-f]{4}", shown["pipelineJobId"])
    assert shown["pipelineJob"]["serviceAccount"] == ACCOUNT
    assert vertex.asked == []


def test_wait_tells_of_every_task_and_ends_with_the_job(vertex, config, capsys):
    vertex.cached.add("split-metadata")
    assert run("submit", "--config", config(), "--wait", "--every", "0") == 0
    error = capsys.readouterr().err
    for line in ("split     unchanged, taken from the cache", "tile      runs", "train     done in 20 s", "done in "):
        assert line in error
    assert error.index("tile      runs") < error.index("tile      done") < error.index("train     runs")


def test_wait_ends_with_1_where_a_task_fails(vertex, config, capsys):
    vertex.failures["train-mil"] = Failure("exit code 1", tries=3)
    assert run("submit", "--config", config(), "--wait", "--every", "0") == 1
    *told, last = capsys.readouterr().err.splitlines()
    assert "train     runs, after 2 that failed" in told
    assert "evaluate  is left out" in told
    assert "the job ended as FAILED in train" in last
    assert f"bagline diagnose {vertex.only_job()['name']}" in last


def test_wait_outlives_a_service_that_is_away(vertex, config):
    vertex.faults += [Fault(503, "GET /v1/projects/proj-123/locations/europe-west4/pipelineJobs", times=2)]
    assert run("submit", "--config", config(), "--wait", "--every", "0") == 0
    assert vertex.faults[0].times == 0


@pytest.mark.parametrize(("words", "state"), [((), "RUNNING"), (("--cancel-on-interrupt",), "CANCELLING")])
def test_an_interrupt_leaves_the_job_or_stops_it_where_asked(vertex, config, capsys, monkeypatch, words, state):
    import pipelines.vertex.watch

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipelines.vertex.watch.time, "sleep", interrupt)
    assert run("submit", "--config", config(), "--wait", *words) == 130
    job, error = vertex.only_job(), capsys.readouterr().err
    assert job["state"] == f"PIPELINE_STATE_{state}"
    assert ("is asked to stop" if words else "goes on running") in error.splitlines()[-1]


def test_the_run_joins_its_experiment_which_is_made_once(vertex, config):
    path = config(experiment="bagline-dev")
    assert run("submit", "--config", path) == 0
    assert run("submit", "--config", path) == 0
    store = "projects/proj-123/locations/europe-west4/metadataStores/default"
    experiment = vertex.contexts[f"{store}/contexts/bagline-dev"]
    assert experiment["schemaTitle"] == "system.Experiment"
    runs = [each for each in vertex.contexts.values() if each["schemaTitle"] == "system.PipelineRun"]
    assert [each["parentContexts"] for each in runs] == [[experiment["name"]]] * 2


def test_an_experiment_that_can_not_be_had_costs_no_job(vertex, config, capsys):
    vertex.faults.append(Fault(403, "addContextChildren", message="denied on experiment"))
    assert run("submit", "--config", config(experiment="bagline-dev")) == 0
    assert "warning: experiment bagline-dev: the run is not in it" in capsys.readouterr().err
    assert len(vertex.jobs) == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [("batch-predict", ("--set", "model=gs://runs-bucket/models/1")), ("cross-validate", ())],
)
def test_every_pipeline_can_be_sent(vertex, config, name, words):
    path = config({"parameters": {"seed": 1, "patience": 3}})
    assert run("submit", "--config", path, "--pipeline", name, *words, "--wait", "--every", "0") == 0
    job = vertex.only_job()
    assert job["pipelineSpec"]["pipelineInfo"]["name"] == name
    assert job["runtimeConfig"]["parameterValues"]["manifest_hash"]


def refused(capsys, *words):
    assert run("submit", *words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


@pytest.mark.parametrize(
    ("prepare", "fact"),
    [
        (lambda v, s: s.buckets.pop(BUCKET), "there is no bucket gs://runs-bucket; make it: gcloud storage"),
        (lambda v, s: s.denied.add("storage.objects.create"), "you lack storage.objects.create on gs://runs-bucket"),
        (lambda v, s: v.accounts.clear(), f"there is no service account {ACCOUNT}; make it: gcloud iam"),
        (lambda v, s: v.add_account(ACCOUNT, disabled=True), f"{ACCOUNT} is disabled; enable it"),
        (lambda v, s: v.add_account(ACCOUNT, act_as=False), f"you may not act as {ACCOUNT}; ask for roles/iam"),
        (lambda v, s: v.images.discard(IMAGES["training"]), "training@sha256:333333333333…: is not in europe-west4"),
        (lambda v, s: s.buckets["cohort"].pop("manifest.csv"), "gs://cohort/manifest.csv: no such object"),
        (lambda v, s: s.put("cohort", "manifest.csv", b"image_id\n"), "gs://cohort/manifest.csv"),
    ],
)
def test_preflight_names_what_is_missing_in_one_line(vertex, store, config, capsys, prepare, fact):
    path = config()
    prepare(vertex, store)
    assert fact in refused(capsys, "--config", path)
    assert vertex.jobs == {}


def test_preflight_says_all_that_is_missing_at_once(vertex, store, config, capsys):
    vertex.accounts.clear()
    vertex.images.clear()
    del store.buckets[BUCKET]
    error = refused(capsys, "--config", config())
    assert error.count(" | ") == 4  # bucket, account, three images
    assert run("submit", "--config", config(), "--no-preflight") == 0


@pytest.mark.parametrize(
    ("words", "changes", "fact"),
    [
        ([], {"manifest": None}, "no manifest is named; pass MANIFEST"),
        ([], {"images_root": None}, "no images are named; pass --images-root"),
        (["--images-root", "/data"], {}, "/data is on this machine; name a gs:// folder"),
        ([], {"images": None}, "the images have no digests; pass --images"),
        (
            [],
            {"caching": {"tasks": {"trian": False}}},
            "unknown step 'trian' in environment.caching.tasks; did you mean",
        ),
        (["--set", "epoch=2"], {}, "unknown parameter 'epoch'; did you mean epochs?"),
        (["--set", "manifest_hash=0"], {}, "unknown parameter 'manifest_hash'"),
        (["--set", "previous_split=old.csv"], {}, "previous_split is 'old.csv', on this machine; copy it"),
        (["--cancel-on-interrupt"], {}, "add --wait"),
    ],
)
def test_a_call_that_does_not_fit_is_refused_before_anything_is_sent(vertex, config, capsys, words, changes, fact):
    assert fact in refused(capsys, "--config", config(**changes), *words)
    assert vertex.jobs == {}


@pytest.mark.parametrize(
    ("fault", "code", "facts"),
    [
        (Fault(403, "POST", message="Permission 'aiplatform.pipelineJobs.create' denied"), 2,
         ["aiplatform.pipelineJobs.create", "docs/vertex.md"]),
        (Fault(400, "POST", message="Invalid machine type"), 2, ["Invalid machine type", "environment file"]),
        (Fault(429, "POST", message="Quota exceeded"), 1, ["Quota exceeded", "more quota"]),
        (Fault(503, "POST"), 1, ["unavailable", "try again"]),
    ],
)  # fmt: skip
def test_a_refusal_of_vertex_is_one_line(vertex, config, capsys, fault, code, facts):
    fault.part = "POST /v1/projects/proj-123/locations/europe-west4/pipelineJobs"
    vertex.faults.append(fault)
    assert run("submit", "--config", config()) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(fact in error for fact in facts)


def test_without_credentials_it_says_how_to_get_them(vertex, config, capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    assert "gcloud auth application-default login" in refused(capsys, "--config", config())


def test_nowhere_to_run_is_said(capsys):
    assert "pass --env dev, or --config FILE" in refused(capsys)
    assert "did you mean dev?" in refused(capsys, "--env", "dve")
    assert "has no section environment:" in refused(capsys, "--env", "local")
