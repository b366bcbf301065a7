"""`bagline diagnose`: the task that failed, its own words, its log, its Dataflow job, and the mend."""

import json
from urllib.parse import quote

import pytest
from fake_dataflow import FakeDataflow
from fake_vertex import Failure, Fault

from components.records.errors import InputError
from components.tile_images.dataflow_job import DataflowJob, write_gcp_resources
from pipelines.cli import main
from pipelines.vertex.diagnose import job_name
from pipelines.vertex.environment import load_config

EXIT_1 = "The replica workerpool0-0 exited with a non-zero status of 1. To find out more, check the logs."


def run(*words):
    try:
        return main(list(words))
    except SystemExit as stop:
        return stop.code


@pytest.fixture
def failed(vertex, config, capsys):
    """Lets a job fail in a task; gives the config and the job's id."""

    def fail(task, failure, dataflow=None):
        vertex.failures[task] = failure
        if dataflow:
            vertex.parameters["tile-images"] = {"output:gcp_resources": write_gcp_resources(dataflow)}
        path = config()
        assert run("submit", "--config", path, "--wait", "--every", "0") == 1
        capsys.readouterr()
        return path, vertex.only_job()["name"].rpartition("/")[2]

    return fail


def look(capsys, path, job, *words):
    assert run("diagnose", job, "--config", path, *words) == 0
    return capsys.readouterr().out


def test_it_names_the_task_our_own_error_the_tries_and_the_log(vertex, failed, capsys):
    log = (
        "Traceback (most recent call last):",
        "components.records.errors.WorkError: p3: no tiles in train; lower min_tissue",
        "a line after it",
    )
    path, job = failed("train-mil", Failure(EXIT_1, tries=3, log=log))
    out = look(capsys, path, job)
    details = {detail["taskName"]: detail for detail in vertex.only_job()["jobDetail"]["taskDetails"]}
    custom = details["train-mil"]["executorDetail"]["containerDetail"]["mainJob"]
    log_filter = f'resource.type="ml_job" resource.labels.job_id="{custom.rpartition("/")[2]}" severity>=ERROR'
    assert "train failed, tried 3 times" in out
    assert "error    p3: no tiles in train; lower min_tissue" in out
    assert f"Vertex   {EXIT_1}" in out
    assert f"logs     {log_filter}\n" in out
    assert f"https://console.cloud.google.com/logs/query;query={quote(log_filter, safe='')}?project=proj-123" in out
    assert "evaluate" not in out
    assert "mend" not in out.splitlines()[-1]  # the error has its own


def test_json_holds_the_same(failed, capsys):
    path, job = failed("train-mil", Failure(EXIT_1))
    shown = json.loads(look(capsys, path, job, "--json", "--no-logs"))
    assert shown["state"] == "FAILED"
    (task,) = shown["failed"]
    assert (task["step"], task["task"], task["message"], task["attempts"]) == ("train", "train-mil", EXIT_1, 1)
    assert task["mend"].startswith("read the log")


@pytest.mark.parametrize(
    ("message", "log", "mend"),
    [
        ("The replica ran out of memory and exited with code 137.", (), "resources: train: {memory: …}"),
        ("RESOURCE_EXHAUSTED: CustomModelTrainingT4GPUsPerProjectPerRegion", (), "more quota"),
        ("Failed to pull image europe-west4-docker.pkg.dev/x", (), "push the image"),
        ("Permission storage.objects.get does not have any permission", (), "docs/vertex.md, Roles"),
        (EXIT_1, ("MemoryError: Unable to allocate 9 GiB",), "resources: train: {memory: …}"),
        ("Internal error occurred. UNAVAILABLE", (), "unchanged steps come from the cache"),
    ],
)
def test_each_kind_of_failure_has_its_mend(failed, capsys, message, log, mend):
    path, job = failed("train-mil", Failure(message, log=log))
    last = look(capsys, path, job).splitlines()[-1]
    assert last.startswith("  mend     ")
    assert mend in last


@pytest.fixture
def dataflow(monkeypatch):
    fake = FakeDataflow()
    server = fake.start()
    monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_DATAFLOW", fake.url)
    yield fake
    server.shutdown()
    server.server_close()


def test_a_failed_dataflow_job_speaks_for_the_task_that_waited_for_it(failed, dataflow, capsys):
    sent = {"name": "bagline-tile"}
    dataflow.messages = [("JOB_MESSAGE_ERROR", "Workflow failed: s3: the slide can't be opened")]
    job = dataflow.add(sent, ["JOB_STATE_FAILED"])
    told = DataflowJob("proj-123", "europe-west4", job.id)
    path, name = failed(
        "await-tiling", Failure(EXIT_1, log=("bagline wait: tiling: Dataflow job failed; see it",)), told
    )
    out = look(capsys, path, name)
    assert "wait failed" in out
    assert "error    tiling: Dataflow job failed; see it" in out
    assert (
        f"Dataflow failed  https://console.cloud.google.com/dataflow/jobs/europe-west4/{job.id}?project=proj-123" in out
    )
    assert "Workflow failed: s3: the slide can't be opened" in out


def test_a_dataflow_job_that_is_gone_is_said_and_not_a_failure_of_ours(failed, dataflow, capsys):
    path, name = failed("await-tiling", Failure(EXIT_1), DataflowJob("proj-123", "europe-west4", "gone"))
    assert "Dataflow of unknown state" in look(capsys, path, name)


def test_a_log_that_may_not_be_read_is_a_warning(vertex, failed, capsys):
    path, job = failed("train-mil", Failure(EXIT_1))
    vertex.faults.append(Fault(403, "entries:list", message="logging.logEntries.list denied"))
    assert run("diagnose", job, "--config", path) == 0
    captured = capsys.readouterr()
    assert "warning: the log: logging.logEntries.list denied" in captured.err
    assert f"error    {EXIT_1}" in captured.out


def test_a_job_that_runs_or_is_done_has_nothing_failed(vertex, config, capsys):
    path = config()
    assert run("submit", "--config", path) == 0
    job = vertex.only_job()["name"]
    capsys.readouterr()
    assert "RUNNING" in look(capsys, path, job)
    assert run("diagnose", "nosuch-job", "--config", path) == 2
    assert "nosuch-job is not found" in capsys.readouterr().err


def test_a_job_is_known_by_id_name_and_page():
    environment = load_config("dev").need_environment()
    name = "projects/p-1/locations/us-east1/pipelineJobs/whole-slide-1"
    page = "https://console.cloud.google.com/vertex-ai/locations/us-east1/pipelines/runs/whole-slide-1?project=p-1"
    assert job_name(name, None) == name
    assert job_name(page, None) == name
    assert job_name("whole-slide-1", environment) == f"{environment.parent}/pipelineJobs/whole-slide-1"
    with pytest.raises(InputError, match="pass --env dev"):
        job_name("whole-slide-1", None)
    with pytest.raises(InputError, match="is no job"):
        job_name("Whole Slide", environment)


def test_a_run_on_this_machine_is_diagnosed_by_its_events(tmp_path, capsys):
    from pipelines.lineage.events import TaskRecord, now, write_events

    out = tmp_path / "out"
    for step, error in (("split", ""), ("tile", "s1: can't be read; replace the file")):
        write_events(str(out), TaskRecord(f"whole-slide.{step}", {}, [], [], now(), now(), error=error))
    assert run("diagnose", str(out)) == 0
    shown = capsys.readouterr().out
    assert "tile failed" in shown
    assert "error    s1: can't be read; replace the file" in shown
    assert "split failed" not in shown
    write_events(str(out), TaskRecord("whole-slide.tile", {}, [], [], now(), now()))
    assert run("diagnose", str(out), "--json") == 0
    assert json.loads(capsys.readouterr().out)["failed"] == []
    assert run("diagnose", str(tmp_path)) == 2
    assert "lineage" in capsys.readouterr().err
