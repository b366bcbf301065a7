"""docs/cloud-setup.md: its commands are bash, each stands there once, and gives the accounts no more than is listed."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/cloud-setup.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
# gcloud's groups and flags as its reference has them; a typing error is none of these
FLAGS = {
    "config set": set(),
    "projects describe": {"format"},
    "projects add-iam-policy-binding": {"role", "member", "condition"},
    "services enable": set(),
    "storage buckets create": {"location", "uniform-bucket-level-access", "public-access-prevention"},
    "storage buckets update": {"versioning"},
    "storage buckets add-iam-policy-binding": {"role", "member"},
    "artifacts repositories create": {"repository-format", "location"},
    "artifacts repositories add-iam-policy-binding": {"location", "role", "member"},
    "iam service-accounts create": set(),
    "iam service-accounts add-iam-policy-binding": {"role", "member"},
    "builds triggers create github": {
        "name", "region", "repo-owner", "repo-name", "branch-pattern", "tag-pattern", "build-config", "service-account",
        "substitutions", "require-approval",
    },
    "run deploy": {
        "region", "service-account", "no-allow-unauthenticated", "image", "command", "args", "memory", "max-instances",
        "timeout", "set-env-vars",
    },
    "run services add-iam-policy-binding": {"region", "role", "member"},
    "eventarc triggers create": {
        "location", "service-account", "destination-run-service", "destination-run-region", "event-filters",
    },
    "eventarc triggers describe": {"location", "format"},
    "pubsub topics create": set(),
    "pubsub topics add-iam-policy-binding": {"role", "member"},
    "pubsub subscriptions create": {"topic"},
    "pubsub subscriptions add-iam-policy-binding": {"role", "member"},
    "pubsub subscriptions update": {"max-delivery-attempts", "min-retry-delay", "dead-letter-topic"},
}  # fmt: skip
TOO_MUCH = {"roles/owner", "roles/editor", "roles/storage.admin", "roles/aiplatform.admin", "roles/iam.securityAdmin"}


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """Every call of gcloud, the blocks being run one after the other with a stand-in for it."""
    folder = tmp_path_factory.mktemp("gcloud")
    stand_in = folder / "gcloud"
    stand_in.write_text('#!/bin/bash\nprintf "%s\\x1f" "$@" >>"$LOG"; printf "\\n" >>"$LOG"; echo 123456789012\n')
    stand_in.chmod(0o755)
    log = folder / "log"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(BLOCKS)],
        env={"PATH": f"{folder}:{os.environ['PATH']}", "LOG": str(log)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [line.split("\x1f")[:-1] for line in log.read_text().splitlines()]


def group_of(call):
    (found,) = [group for group in FLAGS if call[: len(group.split())] == group.split()] or [None]
    return found


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_is_bash(block):
    assert subprocess.run(["bash", "-n"], input=block, text=True).returncode == 0


def test_every_call_is_one_that_gcloud_knows(calls):
    assert len(calls) > 40
    for call in calls:
        group = group_of(call)
        assert group is not None, call
        flags = {word[2:].partition("=")[0] for word in call if word.startswith("--")}
        assert flags <= FLAGS[group], call


def test_no_call_stands_there_twice(calls):
    said = [tuple(call) for call in calls]
    assert len(said) == len(set(said))


def test_the_accounts_have_only_narrow_roles(calls):
    roles = {word.removeprefix("--role=") for call in calls for word in call if word.startswith("--role=")}
    assert {"roles/aiplatform.user", "roles/storage.objectUser", "roles/iam.serviceAccountUser"} <= roles
    assert not roles & TOO_MUCH
    assert not [role for role in roles if role.endswith((".admin", "Admin"))]


def test_no_service_is_open_to_everyone_and_no_bucket_public(calls):
    assert not [call for call in calls if "allUsers" in " ".join(call) or "--allow-unauthenticated" in call]
    made = [call for call in calls if group_of(call) == "storage buckets create"]
    assert len(made) == 2
    assert all({"--uniform-bucket-level-access", "--public-access-prevention"} <= set(call) for call in made)


def test_the_service_is_started_with_the_settings_that_it_reads(calls):
    from pipelines.arrival.start import read_settings

    (deploy,) = [call for call in calls if group_of(call) == "run deploy"]
    (given,) = [word.partition("=")[2] for word in deploy if word.startswith("--set-env-vars=")]
    settings = read_settings(dict(entry.split("=", 1) for entry in given.split(",")))
    assert settings.prefix == "gs://my-project-bagline-incoming/incoming"
    assert (ROOT / f"pipelines/configs/{settings.env}.yaml").exists()
