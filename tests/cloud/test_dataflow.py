"""Tiling on Dataflow: the job's description, submit, wait, cancel, restart; buckets and service are fakes."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
from fake_dataflow import FakeDataflow, FakeJob, Refusal
from fake_gcs import FakeStore

from components.records.dataset import TiledDataset
from components.records.errors import InputError, WorkError
from components.tile_images import dataflow_job
from components.tile_images.await_tiling import await_tiling
from components.tile_images.dataflow_job import (
    DataflowJob,
    await_job,
    cancel_job,
    find_active_job,
    job_errors,
    job_link,
    job_state,
    read_gcp_resources,
    write_gcp_resources,
)
from components.tile_images.face import tile_into
from components.tile_images.launch import load_launch, name_job
from components.tile_images.parameters import TilingParameters
from components.tile_images.run import run_tiling
from pipelines.cli import main

PARAMETERS = {"tile_px": 128, "mpp": 0.5, "region_tiles": 16}
IMAGE = f"europe-docker.pkg.dev/p/r/tiling@sha256:{'a' * 64}"
TILES = "gs://results/pipelines/77/run-1/tile-images_1/records"
LATER = "gs://results/pipelines/77/run-1/await-tiling_2/records"
ANOTHER_RUN = "gs://results/pipelines/77/run-2/await-tiling_3/records"


def draw(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    picture = np.full((1024, 1024, 3), 242, np.uint8)
    picture[256:768, 128:896] = np.clip(rng.normal((190, 110, 165), 25, (512, 768, 3)), 0, 255)
    return picture


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> SimpleNamespace:
    """Two small slides, and what tiling them from disk gives."""
    root = tmp_path_factory.mktemp("cohort")
    for number in range(2):
        tifffile.imwrite(
            root / f"s{number}.tif", draw(number), tile=(128, 128), compression="jpeg", metadata=None,
            photometric="rgb", resolution=(2e4, 2e4), resolutionunit="CENTIMETER",
        )  # fmt: skip
    with open(root / "manifest.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([["image_id", "patient_id", "label"], ["s0", "a", "x"], ["s1", "b", "y"]])
    out = str(tmp_path_factory.mktemp("local") / "out")
    run_tiling(str(root / "manifest.csv"), str(root), out, TilingParameters(**PARAMETERS), workers=1)
    return SimpleNamespace(root=root, manifest=str(root / "manifest.csv"), out=out)


@pytest.fixture
def slides(cohort, store: FakeStore) -> str:
    for path in cohort.root.glob("*.tif"):
        store.put("cohort", path.name, path.read_bytes())
    store.buckets["results"] = {}
    store.buckets["staging"] = {}
    return "gs://cohort"


@pytest.fixture
def service(cohort, store: FakeStore, slides: str, monkeypatch: pytest.MonkeyPatch):
    """The service; a job's work is done by the same functions, in this process's lanes."""
    fake = FakeDataflow()

    def work(job: FakeJob) -> None:
        from components.records.manifest import read_manifest
        from components.tile_images.lanes import LanePool
        from components.tile_images.local import run_in_lanes
        from components.tile_images.run import list_tasks

        pool = LanePool(1, 60.0)
        try:
            tasks = list_tasks(read_manifest(cohort.manifest), slides)
            run_in_lanes(tasks, TilingParameters(**PARAMETERS), TILES, pool, 1)
        finally:
            pool.close()

    fake.work = work
    server = fake.start()
    monkeypatch.setattr(dataflow_job.time, "sleep", lambda seconds: None)
    yield fake
    server.shutdown()
    server.server_close()


def options(service: FakeDataflow | None = None, **more: Any) -> dict[str, Any]:
    given = {"project": "proj-123", "region": "europe-west4", "staging": "gs://staging/dataflow", "image": IMAGE}
    return {**given, **({"endpoint": service.url} if service else {}), **more}


def start(cohort, slides: str, dataflow: dict[str, Any], monkeypatch: pytest.MonkeyPatch, out: str = TILES):
    """The tiling task as it runs on Vertex AI, which mounts buckets below /gcs."""
    monkeypatch.setenv("BAGLINE_LAUNCH_ONLY", "1")
    return tile_into(
        cohort.manifest,
        slides.replace("gs://", "/gcs/"),
        out.replace("gs://", "/gcs/"),
        images_fingerprint="f1",
        runner="DataflowRunner",
        workers=1,
        beam_options=[],
        dataflow=dataflow,
        parameters=PARAMETERS,
    )


def assert_same_records(out: str, cohort) -> None:
    """The parts of the run from disk; bytes differ by the slide's digest, which the store tells in its own way."""
    found, wanted = TiledDataset(out), TiledDataset(cohort.out)
    assert [(part.path, part.tiles) for part in found.parts] == [(part.path, part.tiles) for part in wanted.parts]
    assert {**found.summary, "bytes": 0} == {**wanted.summary, "bytes": 0}


def test_every_option_is_in_the_job_s_description(cohort, slides, store, tmp_path, capsys):
    config = tmp_path / "tile.yaml"
    network = {
        "service_account": "tiler@proj-123.iam.gserviceaccount.com", "network": "lab",
        "subnetwork": "regions/europe-west4/subnetworks/private",
        "kms_key": "projects/proj-123/locations/europe-west4/keyRings/r/cryptoKeys/k",
    }  # fmt: skip
    size = {"machine_type": "n2-highmem-8", "disk_gb": 77, "workers": 3, "max_workers": 21, "max_hours": 1.5}
    dataflow = options(**network, **size, labels={"team": "pathology", "cost": "c7"})
    config.write_text(json.dumps({"parameters": {"tile_px": 128, "dataflow": dataflow}}))
    template = tmp_path / "job.json"
    code = main(
        ["tile", cohort.manifest, "--images-root", slides, "--out", "gs://results/run", "--runner", "DataflowRunner",
         "--config", str(config), "--", f"--template_location={template}", "--no_auth"]
    )  # fmt: skip
    assert code == 0, capsys.readouterr().err
    assert "nothing was run" in capsys.readouterr().out
    job = json.loads(template.read_text())
    environment, (pool,) = job["environment"], job["environment"]["workerPools"]
    assert job["name"] == name_job("gs://results/run")
    assert job["labels"] == {"team": "pathology", "cost": "c7"}
    assert environment["serviceAccountEmail"] == network["service_account"]
    assert environment["serviceKmsKeyName"] == network["kms_key"]
    assert environment["serviceOptions"] == ["max_workflow_runtime_walltime_seconds=5400"]
    assert environment["tempStoragePrefix"].startswith("storage.googleapis.com/staging/dataflow/temp/")
    assert (pool["network"], pool["subnetwork"]) == (network["network"], network["subnetwork"])
    assert pool["ipConfiguration"] in ("WORKER_IP_PRIVATE", 2)
    assert (pool["machineType"], pool["diskSizeGb"], pool["numWorkers"]) == ("n2-highmem-8", 77, 3)
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 21
    assert pool["autoscalingSettings"]["algorithm"] in ("AUTOSCALING_ALGORITHM_BASIC", 2)
    assert pool["workerHarnessContainerImage"] == IMAGE
    assert [each["containerImage"] for each in pool["sdkHarnessContainerImages"]] == [IMAGE]
    sent = environment["sdkPipelineOptions"]["options"]
    assert sent["sdk_location"] == "container"
    assert not sent["save_main_session"]
    assert sent["region"] == "europe-west4"
    assert any(name.endswith("pipeline.pb") for name in store.names("staging", "dataflow/staging/"))
    assert store.names("results") == []


def test_public_addresses_only_where_they_are_asked_for(cohort, slides, store, tmp_path):
    template = tmp_path / "job.json"
    run_tiling(
        cohort.manifest, slides, "gs://results/run", runner="DataflowRunner", dataflow=options(public_ips=True),
        beam_options=[f"--template_location={template}", "--no_auth"],
    )  # fmt: skip
    (pool,) = json.loads(template.read_text())["environment"]["workerPools"]
    assert pool["ipConfiguration"] in ("WORKER_IP_PUBLIC", 1)
    assert "network" not in pool or not pool["network"]


def test_a_job_is_started_then_awaited_and_its_records_finalised(cohort, slides, service, monkeypatch, caplog):
    caplog.set_level("INFO")
    metadata, totals, started = start(cohort, slides, options(service), monkeypatch)
    assert totals == {}
    assert metadata["images_fingerprint"] == "f1"
    (job,) = service.jobs
    assert job.looks == 0  # nobody waited
    assert json.loads(started) == {
        "resources": [
            {
                "resourceType": "DataflowJob",
                "resourceUri": f"https://dataflow.googleapis.com/v1b3/projects/proj-123/locations/europe-west4/jobs/{job.id}",
            }
        ]
    }
    metadata, totals = await_tiling(TILES, started, metadata, LATER)
    assert_same_records(TILES, cohort)
    assert (metadata["slides"], metadata["patients"], metadata["images_fingerprint"]) == (2, 2, "f1")
    assert metadata["tiles"] == totals["tiles"] == TiledDataset(cohort.out).summary["tiles"] > 20
    states = [record.message for record in caplog.records if f"job {job.id}: " in record.message]
    assert [line.split(": ")[1].split(",")[0] for line in states] == ["pending", "running", "done"]
    again = await_tiling(TILES, started, metadata, LATER)  # a restarted wait finds everything done
    assert again == (metadata, totals)
    assert len(service.jobs) == 1


def test_without_a_job_the_wait_hands_on_what_there_is(cohort):
    totals = await_tiling(cohort.out, write_gcp_resources(None), {"tiles": 7}, LATER)[1]
    assert await_tiling(cohort.out, "", {"tiles": 7}, LATER)[0] == {"tiles": 7}
    assert totals["tiles"] == TiledDataset(cohort.out).summary["tiles"]


def test_a_second_start_takes_the_job_that_runs(cohort, slides, service, monkeypatch):
    first = start(cohort, slides, options(service), monkeypatch)[2]
    service.jobs.insert(0, FakeJob("other", {"name": "other"}, ["JOB_STATE_RUNNING"]))
    service.jobs.insert(0, FakeJob("another", {"name": "another"}, ["JOB_STATE_RUNNING"]))
    assert start(cohort, slides, options(service), monkeypatch)[2] == first
    assert len(service.jobs) == 3
    monkeypatch.setitem(PARAMETERS, "tile_px", 256)
    with pytest.raises(InputError, match="tiles into it now, from other inputs or with other parameters"):
        start(cohort, slides, options(service), monkeypatch)
    assert len(service.jobs) == 3


def test_two_starts_at_once_share_a_job(cohort, slides, service, monkeypatch):
    first = start(cohort, slides, options(service), monkeypatch)[2]
    looked = []

    def not_yet(*arguments):
        looked.append(arguments)
        return None if len(looked) == 1 else find_active_job(*arguments)

    monkeypatch.setattr("components.tile_images.launch.find_active_job", not_yet)
    assert start(cohort, slides, options(service), monkeypatch)[2] == first
    assert (len(looked), len(service.jobs)) == (2, 1)


def test_a_failed_job_says_why_and_where(cohort, slides, service, monkeypatch):
    service.states = ["JOB_STATE_RUNNING", "JOB_STATE_FAILED"]
    service.messages = [
        ("JOB_MESSAGE_BASIC", "Worker configuration: n2-standard-4"),
        ("JOB_MESSAGE_ERROR", "Workflow failed.\nCauses: no such network"),
    ]
    metadata, _, started = start(cohort, slides, options(service), monkeypatch)
    with pytest.raises(WorkError) as caught:
        await_tiling(TILES, started, metadata, LATER)
    (job,) = service.jobs
    assert str(caught.value) == (
        f"tiling: Dataflow job {job.id} failed: Workflow failed. Causes: no such network; see "
        f"https://console.cloud.google.com/dataflow/jobs/europe-west4/{job.id}?project=proj-123"
    )
    found = read_gcp_resources(started, service.url)
    assert found is not None
    assert job_state(found) == "JOB_STATE_FAILED"
    assert job_errors(found) == ["Workflow failed. Causes: no such network"]
    assert job_link(found) in str(caught.value)


def test_a_job_that_failed_in_an_earlier_run_is_started_anew_once(cohort, slides, service, monkeypatch):
    """The tiling task comes from the cache then, with the old job."""
    service.states = ["JOB_STATE_FAILED"]
    metadata, _, started = start(cohort, slides, options(service), monkeypatch)
    with pytest.raises(WorkError):
        await_tiling(TILES, started, metadata, ANOTHER_RUN)
    assert len(service.jobs) == 2
    with pytest.raises(WorkError):  # its own retry has that run's job, and does not start a third
        await_tiling(TILES, started, metadata, ANOTHER_RUN)
    assert len(service.jobs) == 2
    service.states = ["JOB_STATE_RUNNING", "JOB_STATE_DONE"]
    metadata, _ = await_tiling(TILES, started, metadata, ANOTHER_RUN.replace("run-2", "run-3"))
    assert len(service.jobs) == 3
    assert metadata["slides"] == 2
    assert_same_records(TILES, cohort)


def test_a_job_that_lost_slides_fails_after_everything_is_written(cohort, slides, service, monkeypatch):
    service.work = None
    metadata, _, started = start(cohort, slides, options(service), monkeypatch)
    with pytest.raises(WorkError, match=r"2 of 2 slides lost tiles: s0 .was never planned"):
        await_tiling(TILES, started, metadata, LATER)
    assert len(TiledDataset(TILES).ledger) == 2


def test_what_may_pass_is_tried_again(cohort, slides, service, monkeypatch):
    metadata, _, started = start(cohort, slides, options(service), monkeypatch)
    service.refusals = [Refusal(503, times=3), Refusal(429, times=2), Refusal(500)]
    assert await_tiling(TILES, started, metadata, LATER)[0]["slides"] == 2
    assert all(refusal.times == 0 for refusal in service.refusals)


def test_a_service_that_is_gone_is_said_to_be(service):
    job = DataflowJob("proj-123", "europe-west4", "j", "http://localhost:1")
    with pytest.raises(WorkError, match=r"Dataflow: can't be reached .* run the step again; see https://console"):
        job_state(job, patience=0.1)
    service.refusals = [Refusal(503, times=99)]
    with pytest.raises(WorkError, match=r"Dataflow: answers 503, for 0.1 s now"):
        job_state(DataflowJob("proj-123", "europe-west4", "j", service.url), patience=0.1)


@pytest.mark.parametrize(
    ("status", "facts"),
    [
        (403, ["refuses: no permission", "grant roles/dataflow.developer"]),
        (404, ["refuses: no permission", "see https://console"]),
    ],
)
def test_a_refusal_is_not_tried_again(service, status, facts):
    service.refusals = [Refusal(status, "no permission", times=99)]
    with pytest.raises(WorkError) as caught:
        job_state(DataflowJob("proj-123", "europe-west4", "j", service.url))
    assert all(fact in str(caught.value) for fact in facts)
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    ("status", "message", "facts"),
    [
        (429, "Quota exceeded for quota metric 'jobs'", ["refuses the job: Quota exceeded", "ask for more quota"]),
        (403, "caller lacks dataflow.jobs.create", ["refuses the job: caller lacks", "grant roles/dataflow.developer"]),
        (400, "The network lab doesn't exist", ["refuses the job: The network lab", "correct the option"]),
    ],
)
def test_a_job_that_is_refused_says_why(cohort, slides, service, monkeypatch, status, message, facts):
    service.refusals = [Refusal(status, message, method="POST", times=9)]
    monkeypatch.setattr("apache_beam.utils.retry.Clock.sleep", lambda self, seconds: None)
    with pytest.raises(WorkError) as caught:
        start(cohort, slides, options(service), monkeypatch)
    assert all(fact in str(caught.value) for fact in facts), str(caught.value)
    assert "\n" not in str(caught.value)
    assert service.jobs == []


def test_a_hiccup_at_the_start_is_tried_again(cohort, slides, service, monkeypatch):
    service.refusals = [Refusal(503, method="POST", times=2)]
    monkeypatch.setattr("apache_beam.utils.retry.Clock.sleep", lambda self, seconds: None)
    start(cohort, slides, options(service), monkeypatch)
    assert len(service.jobs) == 1


def test_a_bucket_that_is_not_there_is_named(cohort, slides, service, store, monkeypatch):
    store.missing = {"staging"}
    monkeypatch.setattr("apache_beam.utils.retry.Clock.sleep", lambda self, seconds: None)
    with pytest.raises(WorkError, match=r"gs://staging/dataflow: the job can't be handed over"):
        start(cohort, slides, options(service), monkeypatch)


def test_cancelling_a_job_that_has_ended_changes_nothing(service):
    job = service.add({"name": "n"}, ["JOB_STATE_DONE"])
    seen = DataflowJob("proj-123", "europe-west4", job.id, service.url)
    cancel_job(seen)
    assert job_state(seen) == "JOB_STATE_DONE"
    await_job(seen)


def run_wait(started: str, tmp_path: Path) -> Any:
    """The wait as a process, as Vertex AI starts it."""
    made = {
        name: {"artifacts": [{"name": name, "uri": uri, "metadata": {}}]}
        for name, uri in (("records", LATER), ("summary", LATER.replace("records", "summary")))
    }
    executor_input = {
        "inputs": {
            "artifacts": {"tiled": {"artifacts": [{"name": "t", "uri": TILES, "metadata": {"tiles": 0}}]}},
            "parameterValues": {"gcp_resources": started},
        },
        "outputs": {"artifacts": made, "outputFile": str(tmp_path / "executor_output.json")},
    }
    return subprocess.Popen(
        [sys.executable, "-m", "components.tile_images.await_tiling", "--executor_input", json.dumps(executor_input)],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def until(condition: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    pause = threading.Event()  # time.sleep sleeps not at all in these tests
    while not condition():
        assert time.monotonic() < end
        pause.wait(0.05)


def test_the_task_writes_what_kfp_reads(cohort, slides, service, monkeypatch, tmp_path):
    started = start(cohort, slides, options(service), monkeypatch)[2]
    process = run_wait(started, tmp_path)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    made = json.loads((tmp_path / "executor_output.json").read_text())["artifacts"]
    (records,), (summary,) = made["records"]["artifacts"], made["summary"]["artifacts"]
    assert (records["name"], records["uri"], records["metadata"]["slides"]) == ("records", TILES, 2)
    assert summary["metadata"]["tiles"] == records["metadata"]["tiles"]
    assert_same_records(TILES, cohort)


def test_sigterm_cancels_the_job(cohort, slides, service, monkeypatch, tmp_path):
    service.states = ["JOB_STATE_RUNNING"]
    started = start(cohort, slides, options(service), monkeypatch)[2]
    process = run_wait(started, tmp_path)
    (job,) = service.jobs
    until(lambda: job.looks >= 1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert job.state == "JOB_STATE_CANCELLED"
    assert f"stopped; Dataflow job {job.id} is cancelled" in said
    assert "Traceback" not in said
    assert not (tmp_path / "executor_output.json").exists()


def test_a_wait_that_is_killed_leaves_the_job_and_the_next_finds_it(cohort, slides, service, monkeypatch, tmp_path):
    service.states = ["JOB_STATE_RUNNING", "JOB_STATE_RUNNING", "JOB_STATE_RUNNING", "JOB_STATE_DONE"]
    metadata, _, started = start(cohort, slides, options(service), monkeypatch)
    process = run_wait(started, tmp_path)
    (job,) = service.jobs
    until(lambda: job.looks >= 1)
    process.kill()
    process.communicate(timeout=60)
    assert job.state == "JOB_STATE_RUNNING"
    assert await_tiling(TILES, started, metadata, LATER)[0]["slides"] == 2
    assert len(service.jobs) == 1


def test_the_command_waits_itself(cohort, slides, service, capsys):
    given = json.dumps(options(service))
    assert main(
        ["tile", cohort.manifest, "--images-root", slides, "--out", TILES, "--runner", "DataflowRunner",
         "--set", f"dataflow={given}", "--set", "tile_px=128", "--set", "region_tiles=16"]
    ) == 0  # fmt: skip
    assert "2 slides of 2 patients: 2 tiled" in capsys.readouterr().out
    assert_same_records(TILES, cohort)


def test_ctrl_c_cancels_the_job_and_says_so(cohort, slides, service, capsys):
    service.states = ["JOB_STATE_RUNNING"]
    command = [
        sys.executable, "-m", "pipelines", "tile", cohort.manifest, "--images-root", slides, "--out", TILES,
        "--runner", "DataflowRunner", "--set", f"dataflow={json.dumps(options(service))}", "--set", "tile_px=128",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    until(lambda: bool(service.jobs) and service.jobs[0].looks >= 1, 120)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert service.jobs[0].state == "JOB_STATE_CANCELLED"
    assert f"Dataflow job {service.jobs[0].id} is cancelled" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"out": "/data/out"}, ["out /data/out: Dataflow's workers can't reach it", "give a gs:// folder"]),
        ({"images_root": "/data/slides"}, ["images_root /data/slides: Dataflow's workers can't reach it"]),
        ({"dataflow": {"region": "europe-west4"}}, ["dataflow: lacks project, staging"]),
        ({"dataflow": options(image="")}, ["dataflow.image: no image for the workers", "compile"]),
    ],
)
def test_what_dataflow_can_not_do_is_refused_before_anything_is_sent(cohort, slides, change, facts, monkeypatch):
    monkeypatch.delenv("BAGLINE_IMAGE", raising=False)
    given = {"images_root": slides, "out": "gs://results/run", "dataflow": options(), **change}
    with pytest.raises(InputError) as caught:
        run_tiling(cohort.manifest, runner="DataflowRunner", **given)
    assert all(fact in str(caught.value) for fact in facts), str(caught.value)


def test_the_launcher_s_own_image_runs_the_workers(cohort, slides, service, monkeypatch):
    monkeypatch.setenv("BAGLINE_IMAGE", IMAGE.replace("a", "b"))
    start(cohort, slides, options(service, image=""), monkeypatch)
    (pool,) = service.jobs[0].sent["environment"]["workerPools"]
    assert pool["workerHarnessContainerImage"] == IMAGE.replace("a", "b")
    assert load_launch(TILES).job_id == service.jobs[0].id


@pytest.mark.parametrize("text", ["{", "[]", '{"resources": [{"resourceType": "DataflowJob"}]}'])
def test_gcp_resources_that_are_none_are_refused(text):
    with pytest.raises(InputError, match="gcp_resources: is not a list of resources"):
        read_gcp_resources(text)


def test_gcp_resources_name_a_job_in_either_spelling():
    job = DataflowJob("p", "europe-west4", "2026-1")
    assert read_gcp_resources(write_gcp_resources(job)) == job
    old = "https://dataflow.googleapis.com/dataflow/v1b3/projects/p/regions/europe-west4/jobs/2026-1"
    assert read_gcp_resources(json.dumps({"resources": [{"resourceType": "DataflowJob", "resourceUri": old}]})) == job
    other = {"resources": [{"resourceType": "BatchPredictionJob", "resourceUri": "x"}]}
    assert read_gcp_resources(json.dumps(other)) is None
    with pytest.raises(InputError, match="is no Dataflow job"):
        read_gcp_resources(json.dumps({"resources": [{"resourceType": "DataflowJob", "resourceUri": "x"}]}))
