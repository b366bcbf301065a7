"""What made an artifact: code version, environment, content hashes, and the metadata every artifact carries."""

from __future__ import annotations

import functools
import hashlib
import os
import random
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from components.records import storage
from components.records.schema import SCHEMA_VERSION

_BLOCK = 1 << 20
_SOURCES = (".py", ".j2", ".css", ".js", ".html")


def file_digest(path: str | os.PathLike[str]) -> str:
    """`sha256:<hex>` of a file's bytes, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:
        buffer = bytearray(_BLOCK)
        view = memoryview(buffer)
        while count := stream.readinto(buffer):
            digest.update(view[:count])
    return f"sha256:{digest.hexdigest()}"


def tree_digest(root: str | os.PathLike[str]) -> str:
    """`sha256:<hex>` of a file, or of a folder: over the sorted (relative path, file digest) of its files."""
    if not os.path.isdir(root):
        return file_digest(root)
    digest = hashlib.sha256()
    for name, info in sorted(storage.list_files(str(root)).items()):
        digest.update(f"{name}\0{file_digest(info.path)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


@functools.cache
def code_version() -> str:
    """`<version>+<12 hex digits>` of the sha256 of the package's own sources: equal for equal code, wherever it is."""
    import components

    digest = hashlib.sha256()
    home = Path(components.__file__).parent.parent
    sources = [
        path
        for package in ("components", "pipelines")
        for path in sorted((home / package).rglob("*"))
        if path.is_file() and path.suffix in _SOURCES
    ]
    for source in sources:
        digest.update(f"{source.relative_to(home).as_posix()}\0".encode())
        digest.update(source.read_bytes())
    try:
        version = metadata.version("bagline")
    except metadata.PackageNotFoundError:
        version = "0.0.0"
    return f"{version}+{digest.hexdigest()[:12]}"


@functools.cache
def environment_digest() -> str:
    """`sha256:<hex>` over the sorted name==version of every installed distribution: the lock that really ran."""
    pins = sorted(
        {f"{d.metadata['Name'].lower()}=={d.version}" for d in metadata.distributions() if d.metadata["Name"]}
    )
    return f"sha256:{hashlib.sha256(chr(10).join(pins).encode()).hexdigest()}"


def artifact_metadata(
    *,
    manifest_hash: str,
    split: str = "",
    patients: int = 0,
    slides: int = 0,
    tiles: int = 0,
    mpp: float | None = None,
    tile_px: int = 0,
    **more: Any,
) -> dict[str, Any]:
    """The metadata keys that every artifact carries, as KFP takes them.

    `image_digest` is what the container was started from (`BAGLINE_IMAGE`, empty outside containers);
    an unknown mpp is 0.0, because Vertex has no null.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "code_version": code_version(),
        "image_digest": os.environ.get("BAGLINE_IMAGE", ""),
        "manifest_hash": manifest_hash,
        "split": split,
        "patients": patients,
        "slides": slides,
        "tiles": tiles,
        "mpp": float(mpp or 0.0),
        "tile_px": tile_px,
        **more,
    }


def derive_seed(seed: int, *keys: object) -> int:
    """A 63-bit seed for one purpose: sha256 over the run's seed and the purpose's keys, the same on every machine."""
    text = "\0".join(str(key) for key in (seed, *keys))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def shuffled(items: Iterable[Any], seed: int, *keys: object) -> list[Any]:
    """`items` in an order that depends on the seed and keys alone."""
    ordered = list(items)
    random.Random(derive_seed(seed, *keys)).shuffle(ordered)
    return ordered
