"""Files on disk and objects in `gs://`, read and written whole: a file that is there is complete."""

from __future__ import annotations

import base64
import contextlib
import errno
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import IO, Any, cast
from urllib.parse import urlsplit

from components.records.errors import InputError, WorkError


@dataclass(frozen=True)
class FileInfo:
    """A stored file: its size in bytes, and the store's own content digest (`md5:…`, `crc32c:…`) where it keeps one."""

    path: str
    size: int
    digest: str | None = None
    mtime_ns: int = 0


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is an object in a bucket (`gs://bucket/name`)."""
    return str(path).startswith("gs://")


def join(root: str | os.PathLike[str], *parts: str) -> str:
    """`root` and `parts` as one path, for disk and `gs://` alike."""
    if is_remote(root):
        return "/".join([str(root).rstrip("/"), *(part.strip("/") for part in parts)])
    return os.path.join(os.fspath(root), *parts)


def bucket(uri: str) -> Any:
    """The bucket of a `gs://` URI, through the client library's own credentials (or `STORAGE_EMULATOR_HOST`)."""
    return _client(os.environ.get("STORAGE_EMULATOR_HOST", ""), os.getpid()).bucket(urlsplit(uri).netloc)


@functools.lru_cache(maxsize=4)
def _client(emulator: str, process: int) -> Any:
    """One client a process: making one looks for credentials, and its connections are used again."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    if emulator:
        return storage.Client(project="emulator", credentials=AnonymousCredentials())  # type: ignore[no-untyped-call]
    return storage.Client()


def object_name(uri: str) -> str:
    """The object's name inside its bucket."""
    return urlsplit(uri).path.lstrip("/")


def blob_digest(blob: Any) -> str | None:
    """The store's own digest of an object, `md5:<hex>` or, where it keeps no md5, `crc32c:<hex>`."""
    for kind, value in (("md5", blob.md5_hash), ("crc32c", blob.crc32c)):
        if value:
            return f"{kind}:{base64.b64decode(value).hex()}"
    return None


def stat(path: str) -> FileInfo | None:
    """What is stored at `path`, or None where nothing is."""
    if is_remote(path):
        blob = bucket(path).get_blob(object_name(path))
        return None if blob is None else FileInfo(path, int(blob.size), blob_digest(blob))
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return FileInfo(path, found.st_size, None, found.st_mtime_ns)


def list_files(root: str) -> dict[str, FileInfo]:
    """Every file below `root`, keyed by its path relative to `root` with `/` between folders.

    Links to folders are followed, but no folder is listed inside itself.

    Raises:
        InputError: `root` is not a folder, or a folder in it may not be read.
    """
    if is_remote(root):
        prefix = object_name(root).rstrip("/")
        prefix = f"{prefix}/" if prefix else ""
        blobs = bucket(root).list_blobs(prefix=prefix)
        return {
            blob.name[len(prefix) :]: FileInfo(join(root, blob.name[len(prefix) :]), int(blob.size), blob_digest(blob))
            for blob in blobs
            if not blob.name.endswith("/")
        }
    if not os.path.isdir(root):
        raise InputError("no such folder", where=str(root), mend="check the path")
    found: dict[str, FileInfo] = {}
    pending: list[tuple[str, frozenset[str]]] = [("", frozenset())]
    while pending:
        folder, above = pending.pop()
        place = os.path.join(root, folder)
        real = os.path.realpath(place)
        if real in above:
            continue
        try:
            entries = list(os.scandir(place))
        except PermissionError:
            raise InputError("may not be read", where=place, mend="check its permissions") from None
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir():
                pending.append((name, above | {real}))
            elif entry.is_file():
                info = entry.stat()
                found[name] = FileInfo(entry.path, info.st_size, None, info.st_mtime_ns)
    return found


def find_files(root: str, names: Iterable[str]) -> dict[str, FileInfo]:
    """Those of `names` that are files below the folder `root` on disk, keyed as `list_files` keys them.

    Raises:
        InputError: `root` is not a folder, or a folder in it may not be read.
    """
    if not os.path.isdir(root):
        raise InputError("no such folder", where=str(root), mend="check the path")
    found: dict[str, FileInfo] = {}
    for name in names:
        path = os.path.join(root, name)
        try:
            info = os.stat(path)
        except PermissionError:
            raise InputError("may not be read", where=path, mend="check its permissions") from None
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
                continue
            raise
        if S_ISREG(info.st_mode):
            found[name] = FileInfo(path, info.st_size, None, info.st_mtime_ns)
    return found


def remove(path: str) -> None:
    """Removes a file or object; where none is there it does nothing."""
    if is_remote(path):
        from google.api_core.exceptions import NotFound

        with contextlib.suppress(NotFound):
            bucket(path).blob(object_name(path)).delete()
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a file or object.

    Raises:
        InputError: nothing is there, it is a folder, or it may not be read.
    """
    if is_remote(path):
        blob = bucket(str(path)).get_blob(object_name(str(path)))
        if blob is None:
            raise InputError("no such object", where=str(path), mend="check the path")
        return bytes(blob.download_as_bytes())
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError("no such file", where=str(path), mend="check the path") from None
    except IsADirectoryError:
        raise InputError("is a folder, not a file", where=str(path), mend="name the file itself") from None
    except PermissionError:
        raise InputError("may not be read", where=str(path), mend="check its permissions") from None


def open_stream(path: str | os.PathLike[str]) -> IO[bytes]:
    """A file or object, opened for reading with `read`, `seek` and `tell`; of an object 8 MiB are fetched at a time.

    Raises:
        FileNotFoundError: nothing is there.
    """
    if not is_remote(path):
        return open(path, "rb")
    blob = bucket(str(path)).get_blob(object_name(str(path)))
    if blob is None:
        raise FileNotFoundError(errno.ENOENT, "no such object", str(path))
    return cast(IO[bytes], blob.open("rb", chunk_size=8 << 20))


def has_file(root: str, suffix: str = "") -> bool:
    """Whether there is any file below `root` whose name ends so; looks no further than the first."""
    if not is_remote(root):
        return os.path.isdir(root) and any(name.endswith(suffix) for name in list_files(root))
    prefix = f"{object_name(root).rstrip('/')}/".lstrip("/")
    return any(blob.name.endswith(suffix) for blob in bucket(root).list_blobs(prefix=prefix))


def read_json(path: str | os.PathLike[str]) -> Any:
    """The JSON value stored at `path`; raises InputError where it is missing or malformed."""
    try:
        return json.loads(read_bytes(path))
    except ValueError as error:
        raise InputError(f"is not JSON ({error})", where=str(path), mend="remove the file and rerun its step") from None


@contextlib.contextmanager
def open_atomic(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    r"""A file that appears under its name only when the block ends without an error.

    Args:
        path: where the file will be; missing folders are made.
        mode: `wb` or `w` (UTF-8, `\\n` line ends).

    Raises:
        WorkError: no space is left. InputError: the place may not be written.
    """
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    if is_remote(path):
        with tempfile.TemporaryFile(mode + "+", **text) as buffer:  # type: ignore[call-overload]
            yield buffer
            buffer.flush()
            buffer.seek(0)
            raw = buffer if "b" in mode else buffer.buffer
            bucket(str(path)).blob(object_name(str(path))).upload_from_file(raw, rewind=True)
        return
    target = Path(path)
    with translate_os_errors(str(target)):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    try:
        with open(handle, mode, **text) as stream:  # type: ignore[call-overload]
            with _translate_stream_errors(str(target)):
                yield stream
            with translate_os_errors(str(target)):
                stream.flush()
                os.fsync(stream.fileno())
        with translate_os_errors(str(target)):
            os.chmod(temporary, 0o644)
            os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def _translate_stream_errors(where: str) -> Iterator[None]:
    """As `translate_os_errors`, for what the open stream refuses; an error that names a file is the caller's own."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        with translate_os_errors(where):
            raise


@contextlib.contextmanager
def translate_os_errors(where: str) -> Iterator[None]:
    """Turns what the disk refuses into errors with a mend."""
    try:
        yield
    except PermissionError:
        raise InputError("may not be written", where=where, mend="check permissions, or choose another --out") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WorkError("no space left", where=where, mend="free some space, or choose another --out") from None
        if error.errno == errno.EROFS:
            raise InputError("the file system is read-only", where=where, mend="choose another --out") from None
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise InputError("a file is in the way of a folder, or the reverse", where=where, mend="move it") from None
        if error.errno == errno.ENOENT:
            raise InputError("can't be made there", where=where, mend="choose another --out") from None
        raise


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a whole file or object in one step."""
    with open_atomic(path) as stream:
        stream.write(content)


def write_text(path: str | os.PathLike[str], content: str) -> None:
    """Writes UTF-8 text in one step."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes indented JSON with sorted keys, so that equal values give equal bytes; refuses NaN and infinity."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def write_json_lines(path: str | os.PathLike[str], values: Iterator[Any] | list[Any]) -> None:
    """Writes one JSON object a line."""
    with open_atomic(path, "w") as stream:
        for value in values:
            stream.write(json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json_lines(path: str | os.PathLike[str]) -> list[Any]:
    """The JSON objects of a `.jsonl` file; raises InputError that names the bad line.

    Only a line feed ends a line: `str.splitlines` would also cut at U+2028 and U+0085, which JSON text may hold.
    """
    values = []
    for number, line in enumerate(read_bytes(path).split(b"\n"), start=1):
        if line.strip():
            try:
                values.append(json.loads(line))
            except ValueError:
                raise InputError(
                    f"line {number} is not JSON", where=str(path), mend="remove the file and rerun its step"
                ) from None
    return values


@contextlib.contextmanager
def local_copy(path: str) -> Iterator[str]:
    """A path on disk with the content of `path`: itself, or a download that is removed afterwards."""
    if not is_remote(path):
        yield path
        return
    folder = tempfile.mkdtemp(prefix="bagline-")
    try:
        target = os.path.join(folder, os.path.basename(object_name(path)))
        blob = bucket(path).get_blob(object_name(path))
        if blob is None:
            raise InputError("no such object", where=path, mend="check the path")
        with translate_os_errors(target):
            blob.download_to_filename(target)
        yield target
    finally:
        shutil.rmtree(folder, ignore_errors=True)
