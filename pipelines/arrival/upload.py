"""Whether an upload is whole: a folder with `manifest.csv`, and every object that it lists, at its size and crc32c.

The manifest is the pipeline's own, with two columns more: `bytes`, and `crc32c` as `gcloud storage hash` prints it
(base64) or as eight hex digits.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from components.records import storage
from components.records.errors import InputError
from components.records.manifest import Manifest, Row, find_images, read_manifest

MANIFEST = "manifest.csv"
SIZE, CHECKSUM = "bytes", "crc32c"
_HEX = re.compile(r"^[0-9a-fA-F]{8}$")


@dataclass(frozen=True)
class Upload:
    """What became of an upload so far.

    Attributes:
        manifest: its URI.
        root: the folder of it, which `image_path` and `mask_path` are relative to.
        key: digest over the manifest and what it lists, as it is stored: equal for equal uploads.
        listed: URIs of the objects found that the manifest lists.
        missing: what has not arrived.
        broken: what has, with another size or checksum than listed.
    """

    manifest: str
    root: str
    key: str
    listed: frozenset[str]
    missing: tuple[str, ...]
    broken: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing is missing or broken."""
        return not self.missing and not self.broken


def find_manifest(uri: str, prefix: str) -> str:
    """URI of the manifest of the upload that an object belongs to, empty where it has not arrived.

    Args:
        uri: of the object; the manifest lies in its folder, or in one above it.
        prefix: the `gs://` folder that is watched; nothing above it is looked at.
    """
    top = prefix.rstrip("/")
    folder = uri.rpartition("/")[0]
    while folder == top or folder.startswith(f"{top}/"):
        if storage.stat(f"{folder}/{MANIFEST}") is not None:
            return f"{folder}/{MANIFEST}"
        folder = folder.rpartition("/")[0]
    return ""


def check_upload(manifest_uri: str) -> Upload:
    """Holds what is stored against what the manifest lists; nothing is downloaded but the manifest.

    Raises:
        InputError: the manifest can't be read, or lacks a size or checksum.
    """
    manifest = read_manifest(manifest_uri)
    expected = _expectations(manifest)
    root = manifest_uri.rpartition("/")[0]
    blobs = _list_blobs(root)
    files = {name: storage.FileInfo(storage.join(root, name), int(blob.size)) for name, blob in blobs.items()}
    others = {name: info for name, info in files.items() if name != MANIFEST}
    found, problems = find_images(manifest.rows, root, others)
    missing = [problem.text for problem in problems]
    broken, listed = [], {}
    for row in manifest.rows:
        if row.image_id in found:
            name = found[row.image_id].path[len(root) + 1 :]
            listed[name] = blobs[name]
            problem = _compare(blobs[name], *expected[row.image_id])
            if problem:
                broken.append(f"{row.image_id}: {name} {problem}")
        if row.mask_path:
            name = str(PurePosixPath(row.mask_path))
            if name in blobs:
                listed[name] = blobs[name]
            else:
                missing.append(f"{row.image_id}: no mask {name}")
    return Upload(
        manifest_uri,
        root,
        _digest(manifest, listed),
        frozenset(storage.join(root, name) for name in listed),
        tuple(missing),
        tuple(broken),
    )


def _expectations(manifest: Manifest) -> dict[str, tuple[int, bytes]]:
    for column in (SIZE, CHECKSUM):
        if column not in manifest.columns:
            raise InputError(
                f"has no column {column!r}, so that an upload can't be checked",
                where=manifest.path,
                mend="list each image's size and checksum: gcloud storage hash",
            )
    return {row.image_id: _expectation(row, manifest.path) for row in manifest.rows}


def _expectation(row: Row, where: str) -> tuple[int, bytes]:
    size, checksum = row.extra[SIZE].strip(), row.extra[CHECKSUM].strip()
    try:
        crc = bytes.fromhex(checksum) if _HEX.match(checksum) else base64.b64decode(checksum, validate=True)
    except binascii.Error:
        crc = b""
    if not size.isdigit() or len(crc) != 4:
        raise InputError(
            f"line {row.line}: bytes {size!r} or crc32c {checksum!r} is none",
            where=where,
            mend="write the size in bytes, and the checksum as gcloud storage hash prints it",
        )
    return int(size), crc


def _list_blobs(root: str) -> dict[str, Any]:
    prefix = f"{storage.object_name(root)}/".lstrip("/")
    blobs = storage.bucket(root).list_blobs(prefix=prefix)
    return {blob.name[len(prefix) :]: blob for blob in blobs if not blob.name.endswith("/")}


def _compare(blob: Any, size: int, crc: bytes) -> str:
    if int(blob.size) != size:
        return f"has {blob.size} bytes, not {size}"
    return "" if base64.b64decode(blob.crc32c or "") == crc else "has another crc32c than listed"


def _digest(manifest: Manifest, listed: dict[str, Any]) -> str:
    lines = [f"{name}\0{blob.size}\0{blob.crc32c}" for name, blob in sorted(listed.items())]
    return hashlib.sha256("\n".join([manifest.path, manifest.digest, *lines]).encode()).hexdigest()
