"""Finds images that are the same file content under several ids."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping

from components.records.manifest import Row
from components.records.provenance import file_digest
from components.records.storage import FileInfo, is_remote

_PROBES = 16
_PROBE_BYTES = 4096

log = logging.getLogger(__name__)


def find_same_content(rows: Iterable[Row], files: Mapping[str, FileInfo]) -> tuple[list[list[Row]], list[str]]:
    """Groups of rows (two or more, in row order) whose image files hold the same bytes.

    Two rows that name one file are such a group. Objects are compared by size and the store's own digest; one with
    an md5 and one with only a crc32c are not comparable. Files on disk are compared by size first, those of equal
    size by sixteen probes of 4 KiB, and what is left by the sha256 of all bytes. Empty files hold no content.

    Args:
        rows: of the manifest.
        files: the file of each image id; rows without one are left out.

    Returns:
        The groups, and the ids of images that could not be read to compare them.
    """
    by_path: dict[str, list[Row]] = {}
    infos: dict[str, FileInfo] = {}
    for row in rows:
        info = files.get(row.image_id)
        if info is not None and info.size > 0:
            by_path.setdefault(info.path, []).append(row)
            infos[info.path] = info
    unreadable: set[str] = set()

    def read(digest: Callable[[str], str]) -> Callable[[str], Hashable]:
        def key(path: str) -> Hashable:
            try:
                return digest(path)
            except OSError as error:
                log.warning("%s can't be compared with other images: %s", by_path[path][0].image_id, error.strerror)
                unreadable.add(path)
                return path

        return key

    paths = list(infos)
    stored = _equal([path for path in paths if infos[path].digest], lambda p: (infos[p].size, infos[p].digest))
    disk = [path for path in paths if infos[path].digest is None and not is_remote(path)]
    groups = [disk]
    keys: list[Callable[[str], Hashable]] = [lambda path: infos[path].size, read(_probe), read(file_digest)]
    for key in keys:
        groups = [members for group in groups for members in _equal(group, key)]
    same = stored + groups
    joined = {members[0]: [row for path in members for row in by_path[path]] for members in same}
    inside = {path for members in same for path in members}
    for path, sharing in by_path.items():
        if len(sharing) > 1 and path not in inside:
            joined[path] = sharing
    found = [_each_image_once(group) for group in joined.values()]
    found = sorted((group for group in found if len(group) > 1), key=lambda group: group[0].line)
    return found, sorted(row.image_id for path in unreadable for row in by_path[path])


def _each_image_once(rows: list[Row]) -> list[Row]:
    """In line order; of a doubled image id (which the manifest's own check reports) the first."""
    first: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row.line):
        first.setdefault(row.image_id, row)
    return list(first.values())


def _equal(paths: list[str], key: Callable[[str], Hashable]) -> list[list[str]]:
    """The paths that share their key with another one, grouped."""
    keys = [key(path) for path in paths]
    counts = Counter(keys)
    groups: dict[Hashable, list[str]] = {}
    for path, value in zip(paths, keys, strict=True):
        if counts[value] > 1:
            groups.setdefault(value, []).append(path)
    return list(groups.values())


def _probe(path: str) -> str:
    """sha256 of a few places spread over a file: it tells most files of equal size apart without reading them whole."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:  # noqa: PTH123
        size = stream.seek(0, 2)
        for number in range(_PROBES):
            stream.seek(max(0, (size - _PROBE_BYTES) * number // (_PROBES - 1)))
            digest.update(stream.read(_PROBE_BYTES))
    return digest.hexdigest()
