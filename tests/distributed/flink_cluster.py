"""A Flink session cluster of two task managers, and Beam's worker pool beside it, all processes of this machine."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from java_jars import runnable

TASK_MANAGERS = 2
SETTINGS = {
    "jobmanager.rpc.address": "localhost",
    "jobmanager.bind-host": "localhost",
    "jobmanager.memory.process.size": "768m",
    "rest.address": "localhost",
    "taskmanager.host": "localhost",
    "taskmanager.bind-host": "localhost",
    "taskmanager.numberOfTaskSlots": "2",
    "cluster.evenly-spread-out-slots": "true",
    "taskmanager.cpu.cores": "1",
    "taskmanager.memory.framework.heap.size": "128m",
    "taskmanager.memory.task.heap.size": "128m",
    "taskmanager.memory.task.off-heap.size": "0m",
    "taskmanager.memory.network.min": "32m",
    "taskmanager.memory.network.max": "32m",
    "taskmanager.memory.managed.size": "64m",
    "taskmanager.memory.framework.off-heap.size": "128m",
    "taskmanager.memory.jvm-metaspace.size": "256m",
    "taskmanager.memory.jvm-overhead.min": "192m",
    "taskmanager.memory.jvm-overhead.max": "192m",
    "classloader.resolve-order": "parent-first",
    # Without a restart strategy a batch job ends with its first lost worker.
    "restart-strategy.type": "fixed-delay",
    "restart-strategy.fixed-delay.attempts": "20",
    "restart-strategy.fixed-delay.delay": "1 s",
    "heartbeat.interval": "1000",
    "heartbeat.timeout": "10000",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class FlinkCluster:
    """See `start`; `mark` stands in the environment of every process that the cluster starts."""

    home: Path
    mark: str
    rest: int = 0
    pool: int = 0
    manager: subprocess.Popen | None = None
    workers: list[subprocess.Popen] = field(default_factory=list)
    python: subprocess.Popen | None = None

    def start(self) -> None:
        self.rest, self.pool, rpc = free_port(), free_port(), free_port()
        settings = {**SETTINGS, "rest.port": self.rest, "jobmanager.rpc.port": rpc, "io.tmp.dirs": self.home / "tmp"}
        (self.home / "conf").mkdir()
        (self.home / "tmp").mkdir()
        text = "".join(f"{key}: {value}\n" for key, value in settings.items())
        (self.home / "conf" / "flink-conf.yaml").write_text(text)
        self.jars = {name: runnable(f"flink-{name}", self.home) for name in ("job-manager", "task-manager")}
        self.manager = self._java("job-manager", "manager")
        for _ in range(TASK_MANAGERS):
            self.add_worker()
        environment = {**self._environment(), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        with open(self.home / "pool.log", "wb") as log:
            self.python = subprocess.Popen(
                [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={self.pool}"],
                env=environment, stdout=log, stderr=log,
            )  # fmt: skip
        self.await_workers(TASK_MANAGERS)

    def add_worker(self) -> None:
        self.workers.append(self._java("task-manager", f"worker{len(self.workers)}"))

    def await_workers(self, count: int, seconds: float = 240.0) -> None:
        end, pause = time.monotonic() + seconds, threading.Event()
        while self.count_workers() < count:
            assert time.monotonic() < end, (self.home / "manager.log").read_text()[-2000:]
            pause.wait(0.3)

    def count_workers(self) -> int:
        try:
            with urllib.request.urlopen(f"http://localhost:{self.rest}/taskmanagers", timeout=5) as answer:
                return len(json.load(answer)["taskmanagers"])
        except OSError:
            return 0

    def options(self, folder: Path) -> list[str]:
        """Beam options that point at the cluster."""
        return [
            f"--flink_job_server_jar={runnable('flink-job-server', folder)}",
            f"--flink_master=localhost:{self.rest}",
            "--environment_type=EXTERNAL",
            f"--environment_config=localhost:{self.pool}",
            f"--parallelism={TASK_MANAGERS}",
        ]

    def python_workers(self) -> list[int]:
        """The process ids of Beam's Python workers: children of the pool."""
        assert self.python is not None
        return [pid for pid, parent in parents(self.mark).items() if parent == self.python.pid]

    def stop(self) -> None:
        for process in (self.python, *self.workers, self.manager):
            if process is not None:
                process.terminate()
        for process in (self.python, *self.workers, self.manager):
            if process is not None:
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _java(self, name: str, log_name: str) -> subprocess.Popen:
        command = ["java", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-jar", self.jars[name]]
        with open(self.home / f"{log_name}.log", "wb") as log:
            return subprocess.Popen(
                [*command, "--configDir", str(self.home / "conf")], env=self._environment(), stdout=log, stderr=log
            )

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "BAGLINE_TEST_MARK": self.mark, "PYTHONPATH": os.pathsep.join(sys.path)}


def parents(mark: str) -> dict[int, int]:
    """Every living process that has the mark in its environment, and its parent."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                marked = f"BAGLINE_TEST_MARK={mark}".encode() in (entry / "environ").read_bytes()
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if marked and fields[0] != "Z":
                found[int(entry.name)] = int(fields[1])
    return found
