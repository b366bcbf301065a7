"""The parameter `dataflow`: read strictly, with a mend for each mistake."""

import dataclasses

import pytest

from components.records.errors import InputError
from components.tile_images.dataflow import DataflowOptions, read_dataflow_options, with_image

GIVEN = {"project": "my-project", "region": "europe-west4", "staging": "gs://bucket/dataflow"}


def test_what_is_given_is_taken_and_the_rest_has_defaults():
    options = read_dataflow_options({**GIVEN, "labels": {"team": "pathology", "cost": 7}, "public_ips": True})
    assert options == DataflowOptions(**GIVEN, labels={"team": "pathology", "cost": "7"}, public_ips=True)
    assert (options.machine_type, options.disk_gb, options.max_workers, options.max_hours) == (
        "n2-standard-4", 50, 50, 24.0
    )  # fmt: skip
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.project = "other"


def test_whole_numbers_may_come_as_floats_as_pipeline_parameters_bring_them():
    options = read_dataflow_options({**GIVEN, "disk_gb": 80.0, "max_workers": 8.0, "max_hours": 3})
    assert (options.disk_gb, options.max_workers, options.max_hours) == (80, 8, 3.0)
    assert [type(value) for value in (options.disk_gb, options.max_workers, options.max_hours)] == [int, int, float]


@pytest.mark.parametrize(
    ("given", "facts"),
    [
        ({"regoin": "x"}, ["dataflow: unknown key 'regoin'", "did you mean region?"]),
        ({"zzz": 1}, ["unknown key 'zzz'", "keys are project, region"]),
        ({"project": "", "staging": ""}, ["lacks project, staging"]),
        ({"staging": "/tmp/x"}, ["dataflow.staging: '/tmp/x'", "gs://bucket/dataflow"]),
        ({"region": "europe"}, ["dataflow.region", "europe-west4"]),
        ({"service_account": "me"}, ["dataflow.service_account", "gserviceaccount"]),
        ({"subnetwork": "mine"}, ["dataflow.subnetwork", "regions/REGION/subnetworks/NAME"]),
        ({"kms_key": "key"}, ["dataflow.kms_key", "cryptoKeys/K"]),
        ({"machine_type": ""}, ["dataflow.machine_type"]),
        ({"disk_gb": 1}, ["dataflow.disk_gb: 1 is out of range"]),
        ({"disk_gb": 50.5}, ["50.5 is of the wrong type", "a whole number"]),
        ({"workers": True}, ["dataflow.workers", "a whole number"]),
        ({"public_ips": "no"}, ["dataflow.public_ips", "true or false"]),
        ({"labels": ["a"]}, ["dataflow.labels", "a mapping of text to text"]),
        ({"labels": {"Team": "x"}}, ["Team: x can't be a label"]),
        ({"labels": {"team": {}}}, ["dataflow.labels"]),
        ({"max_hours": 1e9}, ["dataflow.max_hours"]),
        ({"workers": 60}, ["60 is more than max_workers, 50"]),
        ({"endpoint": "dataflow"}, ["dataflow.endpoint"]),
        ({"image": 3}, ["dataflow.image: 3 is of the wrong type", "give text"]),
    ],
)
def test_what_does_not_fit_is_refused(given, facts):
    with pytest.raises(InputError) as caught:
        read_dataflow_options({**GIVEN, **given})
    assert all(fact in str(caught.value) for fact in facts), str(caught.value)


def test_the_launcher_s_image_is_the_workers_unless_told_otherwise():
    options = read_dataflow_options(GIVEN)
    assert with_image(options, "repo/tiling@sha256:1").image == "repo/tiling@sha256:1"
    assert with_image(read_dataflow_options({**GIVEN, "image": "mine"}), "repo/tiling").image == "mine"
