"""Templates in a KFP repository, through KFP's own registry client: pushed with tags, run by tag or digest."""

import json

import pytest
from conftest import IMAGES
from fake_vertex import Fault

from components.records.provenance import code_version
from pipelines.cli import main

REPOSITORY = "https://europe-west4-kfp.pkg.dev/proj-123/templates"


def run(*words):
    try:
        return main(list(words))
    except SystemExit as stop:
        return stop.code


def push(config, tmp_path, *words):
    return run("compile", "--config", config(), "--to", str(tmp_path / "spec.json"), *words)


@pytest.fixture
def pushed(vertex, config, images_file, tmp_path, capsys):
    words = ("--images", images_file, "--push", "--tag", "feature/New_head", "--tag", "3f2a91c")
    assert push(config, tmp_path, *words) == 0
    return capsys.readouterr().out.splitlines()[1]


def test_a_template_is_pushed_with_its_tags_and_is_what_was_compiled(vertex, pushed, tmp_path):
    package = vertex.packages["proj-123/templates/whole-slide"]
    (version,) = package["versions"]
    assert pushed == f"{REPOSITORY}/whole-slide/{version}"
    code = code_version().rpartition("+")[2]
    assert package["tags"] == dict.fromkeys(("latest", f"code-{code}", "feature-new-head", "3f2a91c"), version)
    assert json.loads(package["versions"][version]) == json.loads((tmp_path / "spec.json").read_text())


def test_the_same_content_is_the_same_version(vertex, pushed, config, images_file, tmp_path, capsys):
    assert push(config, tmp_path, "--images", images_file, "--push", REPOSITORY, "--tag", "again") == 0
    assert capsys.readouterr().out.splitlines()[1] == pushed
    assert len(vertex.packages["proj-123/templates/whole-slide"]["versions"]) == 1


def test_a_job_is_run_from_a_template_by_tag_and_names_its_digest(vertex, pushed, config, tmp_path):
    assert run("submit", "--config", config(images=None), "--template", "feature/New_head") == 0
    job = vertex.only_job()
    assert job["templateUri"] == pushed
    compiled = json.loads((tmp_path / "spec.json").read_text())
    assert job["pipelineSpec"]["components"] == compiled["components"]
    assert job["runtimeConfig"]["parameterValues"]["manifest_hash"]


def test_a_schedule_pins_the_tag_to_its_digest(vertex, pushed, config):
    words = ("--template", "latest", "--cron", "0 3 * * *", "--name", "nightly")
    assert run("schedule", "--config", config(images=None), *words) == 0
    (made,) = vertex.schedules.values()
    assert made["createPipelineJobRequest"]["pipelineJob"]["templateUri"] == pushed


def test_a_template_is_run_by_digest(vertex, pushed, config):
    assert run("submit", "--config", config(), "--template", pushed.rpartition("/")[2]) == 0
    assert vertex.only_job()["templateUri"] == pushed


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (("--push", "--allow-tags"), "has no digest; compile with --images images.json"),
        (("--push", "https://example.org/r"), "'https://example.org/r' is no KFP repository; write it like"),
        (("--tag", "x"), "a tag is a pushed template's; add --push"),
        (("--push", "--tag", "!!"), "'!!' can't be a tag; use letters"),
    ],
)
def test_what_can_not_be_pushed_is_refused(vertex, config, images_file, tmp_path, capsys, words, fact):
    images = () if "--allow-tags" in words else ("--images", images_file)
    assert push(config, tmp_path, *words, *images) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert fact in error
    assert vertex.packages == {}


@pytest.mark.parametrize(
    ("prepare", "words", "fact"),
    [
        (lambda v: None, ("--template", "nosuch"), "template whole-slide:nosuch in https://europe-west4-kfp"),
        (lambda v: v.faults.append(Fault(403, "/tags/")), ("--template", "latest"), "docs/vertex.md, Roles"),
        (lambda v: None, ("--template", "latest", "--images", "i.json"), "a template holds its own images"),
    ],
)
def test_a_template_that_can_not_be_had_is_one_line(vertex, pushed, config, capsys, prepare, words, fact):
    prepare(vertex)
    assert run("submit", "--config", config(), *words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert fact in error
    assert vertex.jobs == {}


def test_compile_takes_images_and_resources_of_the_environment(vertex, config, tmp_path):
    path = config({"resources": {"train": {"cpu": 32}}})
    (tmp_path / "over.yaml").write_text("resources: {train: {memory: 99G}}\n")
    target = tmp_path / "spec.json"
    assert run("compile", "--env", "dev", "--config", path, "--to", str(target)) == 0
    container = json.loads(target.read_text())["deploymentSpec"]["executors"]["exec-train-mil"]["container"]
    assert container["image"] == IMAGES["training"]
    assert container["resources"]["cpuLimit"] == 32
