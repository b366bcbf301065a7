"""Bags/s in training against a plain PyTorch loop, and peak memory of a huge bag in inference."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from components.mil.encoders.dense import build_dense
from components.mil.heads.registry import create_head
from components.mil.model import BagModel
from components.train_mil.members import EmbeddedBags, Member, MemberTrainer
from components.train_mil.parameters import TrainingParameters

WIDTH, ATTENTION, EPOCHS = 256, 64, 2
SHAPES = ((256, 100, 512), (32, 1_000, 512), (8, 4_000, 1024))  # bags, instances, values
HUGE = (200_000, 1024)


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def find_torch(work: Path, given: str) -> str:
    """A Python that imports torch; its environment is made where there is none (PyPI's build, several GB)."""
    if given:
        return given
    python = work / "torch" / "bin" / "python"
    if not python.exists():
        print("installing torch into", python.parent.parent, flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(work / "torch")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "torch", "numpy"], check=True)
    return str(python)


def train_ours(bags: EmbeddedBags, instances: int) -> tuple[float, float]:
    """Best wall and CPU seconds of an epoch with `instances` drawn of each bag."""

    def build() -> BagModel:
        encoder = build_dense(bags.instances.shape[1], embedding_dim=WIDTH)
        return BagModel(encoder, create_head("gated_attention", 2, attention_dim=ATTENTION), ["0", "1"])

    parameters = TrainingParameters(epochs=EPOCHS, tiles_per_bag=instances, bags_per_batch=4)
    trainer = MemberTrainer(build, parameters, bags, [Member(range(len(bags.labels)), 0)])
    seconds, cpu = [], []
    for epoch in range(EPOCHS + 1):
        started, used = time.perf_counter(), cpu_seconds()
        for given in trainer._draw_epoch(epoch):
            trainer._step(*given).numpy()
        if epoch:  # the first one traces
            seconds.append(time.perf_counter() - started)
            cpu.append(cpu_seconds() - used)
    return min(seconds), min(cpu)


def compare_speed(work: Path, given: str) -> None:
    python = find_torch(work, given)
    generator = np.random.default_rng(0)
    print(f"{'bags':24}{'loop':34}{'bags/s':>9}{'bags/CPU s':>12}", flush=True)
    for count, size, values in SHAPES:
        instances = generator.normal(size=(count * size, values)).astype(np.float32)
        starts, labels = np.arange(count + 1) * size, np.arange(count) % 2
        path = work / "bags.npz"
        np.savez(path, instances=instances, starts=starts, labels=labels)
        arguments = [str(value) for value in (path, WIDTH, ATTENTION, EPOCHS, 2)]
        script = str(Path(__file__).with_name("abmil_torch.py"))
        said = json.loads(subprocess.run([python, script, *arguments], check=True, capture_output=True).stdout)
        path.unlink()
        bags = EmbeddedBags(instances, starts, labels)
        rows = [(f"PyTorch {said['torch']}, a bag a step", said["seconds"], said["cpu"])]
        for taken in dict.fromkeys((size, min(size, 128))):
            label = "bagline, all instances" if taken == size else f"bagline, {taken} drawn a bag"
            rows.append((label, *train_ours(bags, taken)))
        for label, seconds, cpu in rows:
            print(
                f"{f'{count} × {size:,} × {values}':24}{label:34}{count / seconds:9.1f}{count / cpu:12.1f}", flush=True
            )


def measure_memory(head: str, kind: str = "float32") -> str:
    """One bag of HUGE through `stream`, in this process, held as `kind`: what it says and the process's peak."""
    made = create_head(head, 2)
    made.build((None, None, HUGE[1]))
    instances = np.empty(HUGE, kind)
    generator = np.random.default_rng(0)
    for start in range(0, HUGE[0], 10_000):
        instances[start : start + 10_000] = generator.standard_normal((10_000, HUGE[1]), np.float32)
    started = cpu_seconds()
    logits, attention = made.stream(instances)
    assert np.isfinite(logits).all()
    assert abs(float(attention.sum(dtype=np.float64)) - 1) < 1e-3
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"{head:22}{kind:9} peak {peak:6.0f} MB, {cpu_seconds() - started:5.1f} CPU s"


def compare_memory(heads: list[str]) -> None:
    print(f"a bag of {HUGE[0]:,} × {HUGE[1]} in inference, each in a fresh process (most MB)", flush=True)
    script = str(Path(__file__).with_name("bench_mil.py"))
    for head, kind in ((head, kind) for head in heads for kind in ("float32", "float16")):
        given = f"{head}:{kind}"
        said = subprocess.run([sys.executable, script, "--one-head-memory", given], check=True, capture_output=True)
        print(said.stdout.decode().strip().splitlines()[-1], flush=True)
