"""What the cache must see of the inputs: the manifest's bytes, and a fingerprint of the files it names."""

from __future__ import annotations

import hashlib
import os

from components.records import storage
from components.records.errors import InputError
from components.records.manifest import Manifest, read_manifest, resolve_images


def fingerprint(manifest: Manifest, images_root: str) -> str:
    """sha256 (hex) over path, size and modification time (or store digest) of every image and mask of the manifest.

    Files that are missing take part as missing: the split step names them all.
    """
    images, _ = resolve_images(manifest, images_root)
    digest = hashlib.sha256()
    for row in manifest.rows:
        info = images.get(row.image_id)
        mask = storage.stat(storage.join(images_root, row.mask_path)) if row.mask_path else None
        for found in (info, mask):
            text = "-" if found is None else f"{found.path}\0{found.size}\0{found.digest or found.mtime_ns}"
            digest.update(f"{row.image_id}\0{text}\n".encode())
    return digest.hexdigest()


def absolute(path: str) -> str:
    """`path` as tasks can use it from any folder."""
    return path if storage.is_remote(path) else os.path.abspath(path)


def look_at_inputs(manifest_path: str, images_root: str, *, labelled: bool = True) -> tuple[Manifest, str]:
    """The manifest, and the fingerprint of its files; `labelled` says whether every row needs a label.

    Raises:
        InputError: the manifest or the folder is missing or unusable.
    """
    if not storage.is_remote(images_root) and not os.path.isdir(images_root):
        raise InputError("no such folder", where=f"--images-root {images_root}", mend="check the path")
    manifest = read_manifest(manifest_path, labelled=labelled)
    return manifest, fingerprint(manifest, images_root)
