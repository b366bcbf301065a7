"""Several workers train one model: two true processes with TF_CONFIG, and two devices in one process."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from components.mil.inference import load_bag_model
from components.records.errors import InputError
from components.train_mil.parameters import TrainingParameters
from components.train_mil.train import train_mil
from components.train_mil.workers import deal_bags, read_cluster

ROOT = Path(__file__).parents[3]

PARAMETERS = TrainingParameters(
    input_px=16,
    embedding_dim=8,
    attention_dim=4,
    epochs=3,
    tiles_per_bag=8,
    bags_per_batch=6,
    learning_rate=3e-3,
    augment=False,
)
# Every bag in every step and no augmentation: the steps of many devices are then those of one.
SCRIPT = """
import json, sys
from components.train_mil.parameters import TrainingParameters
import components.mil
import tensorflow as tf
out, root, devices, work = sys.argv[1:5]
from components.train_mil import train
if int(devices) > 1:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(devices))
    from components.train_mil.workers import Workers
    names = [f"CPU:{number}" for number in range(int(devices))]
    train.join_workers = lambda: Workers(tf.distribute.MirroredStrategy(names))
parameters = TrainingParameters(**json.loads(sys.argv[5]))
summary = train.train_mil(root, f"{out}/model", f"{out}/training", parameters, work)
print(json.dumps({"val_loss": summary.val_loss, "patients": summary.patients, "epochs": summary.epochs}))
"""


def start(out, root, config=None, devices=1, work=""):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("TF_CONFIG", None)
    for name in [name for name in environment if name.lower().endswith("_proxy")]:
        environment.pop(name)
    if config:
        environment["TF_CONFIG"] = json.dumps(config)
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(out), root, str(devices), str(work), json.dumps(PARAMETERS.to_json())],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*processes):
    summaries = []
    try:
        for process in processes:
            said, problems = process.communicate(timeout=600)
            assert process.returncode == 0, problems[-3000:]
            summaries.append(json.loads(said.splitlines()[-1]))
    finally:
        for process in processes:
            process.kill()
    return summaries


def free_addresses(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return addresses


def start_pair(tmp_path, root, **options):
    chief, worker = free_addresses(2)
    cluster = {"chief": [chief], "worker": [worker]}
    return [
        start(tmp_path / kind, root, {"cluster": cluster, "task": {"type": kind, "index": 0}}, **options)
        for kind in ("chief", "worker")
    ]


@pytest.fixture(scope="module")
def alone(tiled, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    return out, train_mil(tiled, str(out / "model"), str(out / "training"), PARAMETERS)


def assert_alike(one, other):
    history = [json.loads((out / "training" / "history.json").read_text())["epochs"] for out in (one, other)]
    for mine, theirs in zip(*history, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=2e-3)
        assert mine["val_loss"] == pytest.approx(theirs["val_loss"], rel=2e-3)
        assert mine["accuracy"] == pytest.approx(theirs["accuracy"])
    weights = [load_bag_model(str(out / "model")).get_weights() for out in (one, other)]
    for mine, theirs in zip(*weights, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=5e-3)


def test_two_workers_train_as_one_and_the_chief_alone_writes(tiled, tmp_path, alone):
    work = tmp_path / "checkpoints"
    chief, worker = finish(*start_pair(tmp_path, tiled, work=work))
    assert chief == worker
    assert chief["val_loss"] == pytest.approx(alone[1].val_loss, rel=2e-3)
    assert not (tmp_path / "worker").exists()
    assert [path.name for path in work.iterdir()] == ["checkpoint.npz"]
    assert_alike(tmp_path / "chief", alone[0])


def test_four_devices_of_one_process_train_as_one_and_fillers_have_no_weight(tiled, tmp_path, alone):
    """Six bags on four devices: two each, of which two are there only to fill the step."""
    finish(start(tmp_path, tiled, devices=4))
    assert_alike(tmp_path, alone[0])


def test_more_workers_than_patients_are_refused(tiled, tmp_path):
    from components.train_mil.shared_loop import SharedBagTrainer
    from components.train_mil.workers import Workers

    with pytest.raises(InputError, match="3 workers for 2 train patients"):
        SharedBagTrainer(None, None, [None, None], [], Workers(None, 0, 3))


CLUSTER = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("", (0, 1)),
        ({}, (0, 1)),
        ({"cluster": {"chief": ["a:1"]}, "task": {"type": "chief", "index": 0}}, (0, 1)),
        ({"cluster": CLUSTER, "task": {"type": "chief", "index": 0}}, (0, 3)),
        ({"cluster": CLUSTER, "task": {"type": "worker", "index": 1}}, (2, 3)),
        ({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}, (0, 2)),
    ],
)
def test_a_process_finds_its_place_in_the_cluster(config, expected):
    assert read_cluster(json.dumps(config) if config != "" else "") == expected


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("{", "is no cluster"),
        ("[]", "is no cluster"),
        (json.dumps({"cluster": CLUSTER, "task": {"type": "ps", "index": 0}}), "makes this process a ps"),
        (json.dumps({"cluster": CLUSTER, "task": {"type": "worker", "index": 2}}), "names 3 processes"),
    ],
)
def test_a_cluster_that_makes_no_sense_is_refused(text, fact):
    with pytest.raises(InputError, match=fact):
        read_cluster(text)


def test_bags_are_dealt_once_each_and_evenly_by_label():
    bags = [SimpleNamespace(number=number, label_index=int(number % 5 == 0)) for number in range(20)]
    shards = deal_bags(bags, 3)
    assert sorted(bag.number for shard in shards for bag in shard) == list(range(20))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    rare = [sum(bag.label_index for bag in shard) for shard in shards]
    assert max(rare) - min(rare) <= 1
