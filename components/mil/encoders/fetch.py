"""Saved models in a bucket, fetched once to this machine's disk."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from components.records import storage
from components.records.errors import InputError


def cache_folder() -> Path:
    """Where fetched models are kept: `BAGLINE_CACHE`, or `bagline` in the user's cache folder."""
    given = os.environ.get("BAGLINE_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(given or os.path.join(home, "bagline"))


def fetch_model(path: str, mend: str) -> str:
    """A path on disk with the file or folder at `path`; what lies in a bucket is fetched once, until it changes.

    Args:
        path: a path, or `gs://` object or folder.
        mend: what to say where nothing is there.

    Raises:
        InputError: nothing is there.
    """
    if not storage.is_remote(path):
        if not os.path.exists(path):
            raise InputError("no such file", where=path, mend=mend)
        return path
    path = path.rstrip("/")
    single = storage.stat(path)
    found = {path.rpartition("/")[2]: single} if single else storage.list_files(path)
    if not found:
        raise InputError("no such object", where=path, mend=mend)
    content = "\n".join(f"{name}\0{info.size}\0{info.digest}" for name, info in sorted(found.items()))
    key = hashlib.sha256(f"{path}\n{content}".encode()).hexdigest()[:24]
    target = cache_folder() / "models" / key
    if not target.is_dir():
        with storage.translate_os_errors(str(target)):
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=target.parent))
        try:
            for name, info in found.items():
                with storage.open_stream(info.path) as source, storage.open_atomic(fresh / name) as copy:
                    shutil.copyfileobj(source, copy, 8 << 20)
            _keep(fresh, target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return str(target / next(iter(found))) if single else str(target)


def _keep(fresh: Path, target: Path) -> None:
    try:
        os.replace(fresh, target)
    except OSError:
        if not target.is_dir():  # another process that fetched the same was faster
            raise
