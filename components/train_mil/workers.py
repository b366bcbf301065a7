"""Who trains along: the workers of a job as `TF_CONFIG` names them, and the accelerators of this machine."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from components.mil.bags import Bag
from components.records.errors import InputError

_MEND = "start it as Vertex AI does, with the tasks chief and worker only"


@dataclass(frozen=True)
class Workers:
    """This process among those that train one model together.

    Attributes:
        strategy: of `tf.distribute`; None where one process trains on one device.
        index: of this process, the chief is 0.
        count: processes.
    """

    strategy: Any = None
    index: int = 0
    count: int = 1

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what comes of the training."""
        return self.index == 0

    @property
    def replicas(self) -> int:
        """Devices of all processes."""
        return int(self.strategy.num_replicas_in_sync) if self.strategy else 1

    def scope(self) -> Any:
        """Variables made inside are held by every device alike."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()


def read_cluster(text: str) -> tuple[int, int]:
    """This process's index and the number of processes, of the text of `TF_CONFIG`; (0, 1) where it is empty.

    Raises:
        InputError: it is no cluster of a chief and workers, or this process is not in it.
    """
    if not text:
        return 0, 1
    try:
        found = json.loads(text)
        cluster, task = found.get("cluster") or {}, found.get("task") or {}
        chiefs = len(cluster.get("chief") or cluster.get("master") or [])
        total = chiefs + len(cluster.get("worker") or [])
        kind, number = str(task.get("type", "chief")), int(task.get("index", 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"is no cluster ({error})", where="TF_CONFIG", mend=_MEND) from None
    if total <= 1:
        return 0, 1
    if kind not in ("chief", "master", "worker"):
        raise InputError(f"makes this process a {kind}", where="TF_CONFIG", mend=_MEND)
    index = number + (chiefs if kind == "worker" else 0)
    if not 0 <= index < total:
        raise InputError(f"names {total} processes, and this is {kind} {number}", where="TF_CONFIG", mend=_MEND)
    return index, total


def join_workers() -> Workers:
    """Joins the other workers; to be called before TensorFlow computes anything.

    Several processes train under a `MultiWorkerMirroredStrategy`, one process with several GPUs under a
    `MirroredStrategy`, and one device without a strategy.

    Raises:
        InputError: `TF_CONFIG` can't be used.
    """
    index, count = read_cluster(os.environ.get("TF_CONFIG", ""))
    if count > 1:
        return Workers(tf.distribute.MultiWorkerMirroredStrategy(), index, count)
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return Workers(tf.distribute.MirroredStrategy())
    return Workers()


def deal_bags(bags: Sequence[Bag], count: int) -> list[list[Bag]]:
    """The bags dealt to `count` workers, label by label, so that each has its share of every label."""
    ordered = sorted(range(len(bags)), key=lambda number: (bags[number].label_index, number))
    return [[bags[number] for number in sorted(ordered[worker::count])] for worker in range(count)]
