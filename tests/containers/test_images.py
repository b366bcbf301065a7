"""What an image is to those who start it: a task, a person, a Beam runner."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.containers

ROOT = Path(__file__).parents[2]
NAMES = ("pipeline", "tiling", "training")
BOOT = "/opt/apache/beam/boot"


def start(engine, *words, check=True):
    done = subprocess.run([engine, "run", "--rm", *map(str, words)], capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_not_root_and_answers_quickly(engine, images, name):
    text = start(engine, images[name], "sh", "-c", "id -u && bagline --help && pwd").stdout.splitlines()
    assert text[0] == "1000"
    assert text[-1] == "/home/bagline"
    assert any("run" in line for line in text)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_installed_is_compiled_and_read_only(engine, images, name):
    program = (
        "import os, pathlib, sysconfig, components\n"
        "site = pathlib.Path(sysconfig.get_path('purelib'))\n"
        "sources = [p for top in ('components', 'pipelines', 'kfp') for p in (site / top).rglob('*.py')]\n"
        "print(len(sources), [str(p) for p in sources\n"
        "      if not (p.parent / '__pycache__' / f'{p.stem}.cpython-311.pyc').exists()], os.access(site, os.W_OK))\n"
    )
    count, rest = start(engine, images[name], "python", "-c", program).stdout.strip().split(" ", 1)
    assert int(count) > 100
    assert rest == "[] False"


@pytest.mark.parametrize("user", ["1000", "4711:4711"])
def test_the_join_kernels_come_compiled_for_every_user(engine, images, user):
    program = (
        "from components.readers import join_kernels as kernels\n"
        "cache = kernels.join_blocks._cache\n"
        "print(len(cache._cache_file._load_index()), cache.cache_path)\n"
    )
    text = start(engine, "--user", user, images["tiling"], "python", "-c", program).stdout
    count, folder = text.split()
    assert folder.startswith("/var/cache/bagline/numba/")
    assert int(count) > 0


def test_a_task_needs_no_entrypoint_of_its_own(engine, images):
    """KFP's runner, and Vertex AI, give a command: the image runs it as it is."""
    assert start(engine, images["tiling"], "sh", "-ec", 'printf "%s|" "$0" "$@"', "a b", "c").stdout == "a b|c|"


def test_flags_alone_go_to_beams_boot(engine, images, tmp_path):
    """Dataflow gives only flags; its folder for staged files is root's, and the last flag counts."""
    boot = tmp_path / "boot"
    boot.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nfor last; do :; done; test -w "${last#*=}"\n')
    boot.chmod(0o755)
    roots = tmp_path / "google"
    roots.mkdir(mode=0o700)
    flags = ["--id=1-1", "--provision_endpoint=localhost:1", "--semi_persist_dir=/var/opt/google"]
    text = start(
        engine, "-v", f"{boot}:{BOOT}:ro", "-v", f"{roots}:/var/opt/google:ro", images["tiling"], *flags
    ).stdout.splitlines()
    assert text[:3] == flags
    assert text[3].startswith("--semi_persist_dir=/tmp/")
    text = start(engine, "-v", f"{boot}:{BOOT}:ro", images["tiling"], *flags[:2], "--semi_persist_dir=/tmp").stdout
    assert text.splitlines() == [*flags[:2], "--semi_persist_dir=/tmp"]


def test_an_image_without_boot_says_so(engine, images):
    if start(engine, images["tiling"], "test", "-x", BOOT, check=False).returncode == 0:
        pytest.skip("the image has Beam's boot")
    done = start(engine, images["tiling"], "--id=1-1", check=False)
    assert done.returncode == 2
    assert "without Beam's boot" in done.stderr


def test_the_image_works_as_a_beam_worker(engine, images, tmp_path):
    """A worker pool in the tiling image does the work of a pipeline launched here; the records are the same bytes."""
    if start(engine, images["tiling"], "test", "-x", BOOT, check=False).returncode:
        pytest.skip("the image was built without Beam's boot")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    cohort = tmp_path / "cohort"
    build = [
        sys.executable,
        "-m",
        "components.sample_cohort.build",
        "--out",
        cohort,
        "--patients",
        "2",
        "--size",
        "512",
    ]
    subprocess.run([*map(str, build)], env=environment, check=True, capture_output=True)
    tile = [sys.executable, "-m", "pipelines", "tile", cohort / "manifest.csv", "--images-root", cohort]
    subprocess.run([*map(str, tile), "--out", str(tmp_path / "here")], env=environment, check=True, capture_output=True)
    pool = subprocess.Popen(
        [engine, "run", "--rm", "--name", f"bagline-pool-{os.getpid()}", "--network", "host", "--user",
         f"{os.getuid()}:{os.getgid()}", "-e", "HOME=/tmp", "-w", "/tmp", "-v", f"{tmp_path}:{tmp_path}",
         images["tiling"], "--worker_pool"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and pool.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", 50000)) == 0:
                    break
            time.sleep(0.3)
        options = ["--job_endpoint=embed", "--environment_type=EXTERNAL", "--environment_config=localhost:50000"]
        done = subprocess.run(
            [*map(str, tile), "--out", str(tmp_path / "there"), "--runner", "PortableRunner", "--", *options],
            env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    finally:
        subprocess.run([engine, "rm", "-f", f"bagline-pool-{os.getpid()}"], capture_output=True)
        pool.wait(30)
    here, there = (
        {str(p.relative_to(tmp_path / out)): hashlib.sha256(p.read_bytes()).hexdigest()
         for p in sorted((tmp_path / out / "records").rglob("*.tfrecord"))}
        for out in ("here", "there")
    )  # fmt: skip
    assert here
    assert there == here


@pytest.mark.parametrize("name", NAMES)
def test_the_versions_are_the_locks(engine, images, name):
    program = "import json, importlib.metadata as m; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    installed = json.loads(start(engine, images[name], "python", "-c", program).stdout)
    lock = (ROOT / f"containers/{name}/requirements.lock").read_text()
    assert f"kfp=={installed['kfp']} " in lock
    if name == "tiling":
        assert f"apache-beam=={installed['apache-beam']} " in lock


@pytest.mark.parametrize("name", NAMES)
def test_an_image_works_on_a_read_only_root_as_any_user(engine, images, name):
    """All that is written is /tmp; nothing that the image compiled or listed is made again."""
    start(
        engine, "--read-only", "--tmpfs", "/tmp", "--user", "4711:4711",
        images[name], "python", "/opt/bagline/health.py",
    )  # fmt: skip
