"""The whole pipeline, each task in its own image: byte for byte what the tasks make as processes here."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.containers

ROOT = Path(__file__).parents[2]
SETTINGS = [
    "val_share=0.25", "test_share=0.25", "epochs=2", "tiles_per_bag=8", "input_px=32", "embedding_dim=16",
    "attention_dim=8", "validation_tiles=8", "bootstrap_samples=50", "workers=2",
]  # fmt: skip


def bagline(*words, check=True):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *map(str, words)], env=environment, capture_output=True, text=True
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def run(cohort, out, *words, check=True):
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    return bagline(
        "run", cohort / "manifest.csv", "--images-root", cohort, "--out", out, *settings, *words, check=check
    )


def digests(folder, *names):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in names
        for path in sorted([folder / name, *(folder / name).rglob("*")])
        if path.is_file()
    }


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    build = [sys.executable, "-m", "components.sample_cohort.build", "--out", str(folder)]
    subprocess.run(
        [*build, "--patients", "8", "--size", "1024"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def in_processes(cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("processes") / "run"
    return out, json.loads(run(cohort, out, "--json").stdout)


@pytest.fixture(scope="session")
def in_containers(cohort, images_file, engine_socket, tmp_path_factory):
    out = tmp_path_factory.mktemp("containers") / "run"
    return out, json.loads(run(cohort, out, "--engine", "docker", "--images", images_file, "--json").stdout)


def test_the_records_are_the_same_bytes(in_processes, in_containers):
    names = ("records", "schema.json", "split.csv", "parts.json", "failed_tiles.jsonl", "thumbnails", "thumbnails.json")
    here, there = (digests(out, *names) for out, _ in (in_processes, in_containers))
    assert any(name.endswith(".tfrecord") for name in here)
    assert there == here


def test_the_ledgers_differ_in_their_seconds_alone(in_processes, in_containers):
    here, there = (
        [{**json.loads(line), "seconds": 0} for line in (out / "ledger.jsonl").read_text().splitlines()]
        for out, _ in (in_processes, in_containers)
    )
    assert there == here


def test_every_task_ran_in_its_own_image(in_containers, images):
    out, _ = in_containers
    spec = json.loads((out / "pipeline.json").read_text())
    ran = {executor["container"]["image"] for executor in spec["deploymentSpec"]["executors"].values()}
    assert ran == {images[name] for name in ("pipeline", "tiling", "training")}


def test_a_run_in_containers_ends_with_metrics_and_a_report(in_processes, in_containers):
    for out, summary in (in_processes, in_containers):
        assert (out / "report/index.html").is_file()
        assert summary["metrics"]["test"]["n_patients"] == 2
    seconds = [summary["total_seconds"] for _, summary in (in_processes, in_containers)]
    sys.stderr.write(f"\nin processes {seconds[0]:.1f} s, in containers {seconds[1]:.1f} s\n")


def test_a_task_that_fails_says_why_and_with_the_right_code(cohort, images_file, engine_socket, tmp_path):
    broken = tmp_path / "cohort"
    broken.mkdir()
    lines = (cohort / "manifest.csv").read_text().splitlines()
    (broken / "manifest.csv").write_text("\n".join([*lines, lines[-1]]) + "\n")
    os.symlink(cohort / "images", broken / "images")
    done = run(broken, tmp_path / "out", "--engine", "docker", "--images", images_file, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_an_image_that_is_nowhere_is_said(cohort, engine_socket, images, tmp_path):
    wrong = {**images, "pipeline": f"localhost/bagline-nowhere@sha256:{'0' * 64}"}
    (tmp_path / "images.json").write_text(json.dumps(wrong))
    done = run(cohort, tmp_path / "out", "--engine", "docker", "--images", tmp_path / "images.json", check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()[-1]) < 1000
