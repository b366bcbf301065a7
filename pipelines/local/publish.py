"""Lays the artifacts of finished tasks out in OUT as hard links: no second copy, and each file appears whole."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

from components.records import storage


def publish(artifact: str, out: str, target: str) -> None:
    """Makes `OUT/<target>` the content of an artifact's file or folder; what was there and isn't now goes.

    Args:
        artifact: file or folder that a task wrote.
        out: the run's folder.
        target: name in `out`, or `.` to spread a folder's content over `out`.
    """
    with storage.translate_os_errors(out):
        if target == ".":
            for entry in sorted(os.listdir(artifact)):
                if not entry.startswith("."):
                    _place(os.path.join(artifact, entry), os.path.join(out, entry))
        else:
            _place(artifact, os.path.join(out, target))


def _place(source: str, target: str) -> None:
    if not os.path.isdir(source):
        _link(source, target)
        return
    wanted = set()
    for folder, folders, names in os.walk(source):
        folders[:] = [name for name in folders if not name.startswith(".")]
        relative = os.path.relpath(folder, source)
        Path(target, relative).mkdir(parents=True, exist_ok=True)
        for name in names:
            _link(os.path.join(folder, name), os.path.join(target, relative, name))
            wanted.add(os.path.normpath(os.path.join(relative, name)))
    _remove_others(target, wanted)


def _remove_others(target: str, wanted: set[str]) -> None:
    for folder, _, names in os.walk(target, topdown=False):
        relative = os.path.relpath(folder, target)
        for name in names:
            if os.path.normpath(os.path.join(relative, name)) not in wanted:
                os.unlink(os.path.join(folder, name))
        if folder != target and not os.listdir(folder):
            os.rmdir(folder)


def _link(source: str, target: str) -> None:
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    if os.path.exists(target) and os.path.samefile(source, target):
        return
    temporary = f"{target}.{os.getpid()}.tmp"
    try:
        try:
            os.link(source, temporary)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK):
                raise
            shutil.copy2(source, temporary)
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
