"""`bagline schedule`: one schedule of a name, tied to digests, never two at work."""

import json

import pytest
from conftest import IMAGES
from fake_vertex import Fault, Refused

from pipelines.cli import main

CRON = "TZ=Europe/Berlin 0 3 * * 1"


def run(*words):
    try:
        return main(list(words))
    except SystemExit as stop:
        return stop.code


@pytest.fixture
def schedule(vertex, config):
    path = config()
    return lambda *words: run("schedule", "--config", path, *words)


def test_a_schedule_is_tied_to_digests_but_not_to_the_cohort_of_today(vertex, schedule, capsys):
    assert schedule("--cron", CRON, "--name", "weekly", "--set", "epochs=4") == 0
    (made,) = vertex.schedules.values()
    assert (made["cron"], made["displayName"], made["state"]) == (CRON, "weekly", "ACTIVE")
    job = made["createPipelineJobRequest"]["pipelineJob"]
    containers = [body["container"]["image"] for body in job["pipelineSpec"]["deploymentSpec"]["executors"].values()]
    assert set(containers) <= set(IMAGES.values())
    values = job["runtimeConfig"]["parameterValues"]
    assert values["epochs"] == 4
    assert "manifest_hash" not in values
    assert "images_fingerprint" not in values
    caching = {
        name: task["cachingOptions"].get("enableCache", False)
        for name, task in job["pipelineSpec"]["root"]["dag"]["tasks"].items()
    }
    assert not caching["split-metadata"]
    assert not caching["tile-images"]
    assert caching["train-mil"]
    assert capsys.readouterr().out.splitlines()[0] == made["name"]


def test_a_new_one_takes_the_place_of_the_old_and_they_never_work_together(vertex, schedule, capsys):
    assert schedule("--cron", CRON, "--name", "weekly") == 0
    assert schedule("--cron", "0 0 * * *", "--name", "other") == 0
    (old,) = [name for name, each in vertex.schedules.items() if each["displayName"] == "weekly"]
    seen = []
    create = vertex.create_schedule
    vertex.create_schedule = lambda *args: (seen.append(list(vertex.active())), create(*args))[1]
    capsys.readouterr()
    assert schedule("--cron", "0 5 * * *", "--name", "weekly", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["replaced"] == [old]
    assert old not in seen[0]
    assert old not in vertex.schedules
    assert sorted(each["cron"] for each in vertex.schedules.values()) == ["0 0 * * *", "0 5 * * *"]


def test_where_the_new_one_can_not_be_made_the_old_goes_on(vertex, schedule, capsys):
    assert schedule("--cron", CRON, "--name", "weekly") == 0
    (old,) = vertex.schedules

    def refuse(*args):
        raise Refused(403, "no schedules for you")

    vertex.create_schedule = refuse
    assert schedule("--cron", "0 5 * * *", "--name", "weekly") == 2
    assert "schedule weekly: " in capsys.readouterr().err
    assert vertex.active() == [old]


def test_an_old_one_that_can_not_be_deleted_is_left_paused(vertex, schedule, capsys):
    assert schedule("--cron", CRON, "--name", "weekly") == 0
    (old,) = vertex.schedules
    vertex.faults.append(Fault(403, "DELETE"))
    assert schedule("--cron", "0 5 * * *", "--name", "weekly") == 1
    assert "it is paused and starts nothing" in capsys.readouterr().err
    assert vertex.schedules[old]["state"] == "PAUSED"
    assert len(vertex.active()) == 1


def test_list_pause_resume_delete(vertex, schedule, capsys):
    assert schedule("--list") == 0
    assert capsys.readouterr().out == "no schedules\n"
    assert schedule("--cron", CRON, "--name", "weekly") == 0
    capsys.readouterr()
    for words, state in ((("--pause",), "PAUSED"), (("--pause",), "PAUSED"), (("--resume",), "ACTIVE")):
        assert schedule("--name", "weekly", *words) == 0
        assert capsys.readouterr().out.startswith(f"weekly  {state}  {CRON}  next 2027")
    assert schedule("--list", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "weekly"
    assert schedule("--name", "weekly", "--delete") == 0
    assert vertex.schedules == {}


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (["--cron", CRON], "the schedule has no name; pass --name"),
        (["--name", "weekly"], "no time is given; pass --cron"),
        (["--name", "weekly", "--cron", "0 3 * *"], "'0 3 * *' is no cron expression; write minute, hour"),
        (["--name", "weekly", "--cron", "every monday at three o'clock"], "is no cron expression"),
        (["--name", "weekly", "--pause"], "there is no schedule 'weekly'; see `bagline schedule --list`"),
        (["local.csv", "--name", "weekly", "--cron", CRON], "local.csv"),
    ],
)
def test_a_call_that_does_not_fit_is_refused(schedule, capsys, words, fact):
    assert schedule(*words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert fact in error


def test_images_by_tag_are_no_schedule(vertex, config, capsys):
    path = config(images={name: f"europe-west4-docker.pkg.dev/p/r/{name}:latest" for name in IMAGES})
    assert run("schedule", "--config", path, "--allow-tags", "--name", "x", "--cron", CRON) == 2
    assert "has no digest; pass --images images.json" in capsys.readouterr().err
    assert vertex.schedules == {}


def test_a_dry_run_sends_nothing(vertex, schedule, capsys):
    assert schedule("--cron", CRON, "--name", "weekly", "--dry-run") == 0
    assert json.loads(capsys.readouterr().out)["cron"] == CRON
    assert vertex.asked == []
