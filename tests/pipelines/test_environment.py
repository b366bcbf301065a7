"""The sections `environment:` and `dataflow:`: each wrong key is one line with key, file and mend."""

import pytest
import yaml

from components.records.errors import InputError
from pipelines.check import check_all
from pipelines.cli import main
from pipelines.vertex.environment import EXAMPLES, Environment, load_config

GOOD = {"project": "proj-123", "region": "europe-west4", "pipeline_root": "gs://bucket-1/runs"}


def write(tmp_path, name="env.yaml", **sections):
    path = tmp_path / name
    path.write_text(yaml.safe_dump(sections))
    return str(path)


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_the_shipped_environments_are_read(name):
    config = load_config(name)
    environment = config.need_environment()
    assert environment.project == f"example-pathology-{name}"
    assert config.dataflow["project"] == environment.project
    assert config.dataflow["staging"].startswith(environment.pipeline_root)


def test_every_key_has_an_example_that_is_itself_good():
    assert set(EXAMPLES) == set(Environment.model_fields)
    Environment.model_validate({key: yaml.safe_load(text) for key, text in EXAMPLES.items()})


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"projct": "proj-123"}, "unknown key environment.projct; did you mean project?"),
        ({"zone": "europe-west4-a"}, "unknown key environment.zone; keys are project, region"),
        ({"caching": {"task": {}}}, "unknown key environment.caching.task; did you mean tasks?"),
        ({"caching": {"tasks": {"tile": "no way"}}}, "environment.caching.tasks.tile is 'no way'; write it like"),
        ({"project": None}, "environment.project is None; write it like my-project-123"),
        ({"region": "Europe"}, "environment.region is 'Europe'; write it like europe-west4"),
        ({"pipeline_root": "/data"}, "environment.pipeline_root is '/data'; write it like gs://"),
        ({"service_account": "me@home.org"}, "environment.service_account is 'me@home.org'; write it like bagline@"),
        ({"network": "projects/name/global/networks/n"}, "write it like projects/123456789012/global/networks/"),
        ({"kms_key": "key"}, "environment.kms_key is 'key'; write it like projects/"),
        ({"kms_key": "projects/p/locations/us-east1/keyRings/r/cryptoKeys/k"},
         "kms_key is in us-east1, the region is europe-west4"),
        ({"labels": {"Team": "x"}}, "label Team: x has other signs than a-z, 0-9, _ and -"),
        ({"labels": {"team": 3}}, "environment.labels.team is 3; write it like {team: pathology}"),
        ({"experiment": "My Experiment"}, "environment.experiment is 'My Experiment'"),
        ({"template_repository": "https://example.org/x"}, "write it like https://europe-west4-kfp.pkg.dev/"),
        ({"failure_policy": "quick"}, "environment.failure_policy is 'quick'; write it like fast"),
        ({"images": 3}, "environment.images is 3 (and 1 more); write it like images.json"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_one_line_with_key_file_and_mend(tmp_path, change, fact):
    path = write(tmp_path, environment={**GOOD, **change})
    with pytest.raises(InputError) as caught:
        load_config(config=path)
    assert str(caught.value).startswith(f"{path}: ")
    assert fact in str(caught.value)
    with pytest.raises(InputError, match=r"env\.yaml"):
        check_all(str(tmp_path))


def test_a_missing_key_is_named_and_the_others_counted(tmp_path):
    path = write(tmp_path, environment={"region": "europe-west4"})
    with pytest.raises(InputError) as caught:
        load_config(config=path)
    assert "environment.project is missing (and 1 more); write project: my-project-123" in str(caught.value)


@pytest.mark.parametrize(
    ("section", "fact"),
    [
        ({"regoin": "x"}, "env.yaml: dataflow: unknown key 'regoin'; did you mean region?"),
        ({"max_workers": 0}, "env.yaml: dataflow.max_workers: 0 is out of range"),
        ({"public_ips": "no"}, "env.yaml: dataflow.public_ips: 'no' is of the wrong type"),
    ],
)
def test_a_wrong_key_of_dataflow_is_one_line_too(tmp_path, section, fact):
    path = write(tmp_path, environment=GOOD, dataflow=section)
    with pytest.raises(InputError) as caught:
        load_config(config=path)
    assert fact in str(caught.value)


def test_a_file_lies_over_an_environment_key_by_key(tmp_path):
    path = write(tmp_path, environment={"project": "other-123"}, parameters={"epochs": 2}, dataflow={"max_workers": 3})
    config = load_config("dev", path)
    assert config.need_environment().project == "other-123"
    assert config.need_environment().region == "europe-west4"
    assert config.parameters == {"seed": 0, "epochs": 2, "runner": "DataflowRunner"}
    assert config.dataflow["max_workers"] == 3
    assert config.dataflow["project"] == "other-123"


def test_the_file_that_holds_the_wrong_key_is_named(tmp_path):
    path = write(tmp_path, environment={"projct": "x"})
    with pytest.raises(InputError) as caught:
        load_config("dev", path)
    assert str(caught.value).startswith(path)


def test_a_custom_job_gets_the_environments_account_network_and_key(tmp_path):
    network = "projects/123456789012/global/networks/private"
    given = {**GOOD, "service_account": "a@p.iam.gserviceaccount.com", "network": network}
    asked = {"train": {"machine_type": "n1-standard-16", "network": "other"}, "tile": {"cpu": 4}}
    config = load_config(config=write(tmp_path, environment=given, resources=asked))
    assert config.resources["train"]["service_account"] == "a@p.iam.gserviceaccount.com"
    assert config.resources["train"]["network"] == "other"
    assert config.resources["tile"] == {"cpu": 4}


def test_caching_may_be_one_word(tmp_path):
    config = load_config(config=write(tmp_path, environment={**GOOD, "caching": False}))
    assert config.need_environment().caching.default is False


def test_check_holds_the_caching_steps_against_the_pipeline(tmp_path):
    write(tmp_path, environment={**GOOD, "caching": {"tasks": {"evalute": False}}})
    with pytest.raises(InputError, match=r"unknown step 'evalute' in environment.caching.tasks; did you mean evaluate"):
        check_all(str(tmp_path))


def test_a_run_on_this_machine_takes_a_file_with_an_environment(tmp_path, capsys):
    path = write(tmp_path, environment=GOOD, parameters={"sed": 1})
    assert main(["run", "m.csv", "--images-root", str(tmp_path), "--out", str(tmp_path / "o"), "--config", path]) == 2
    assert "m.csv" in capsys.readouterr().err
