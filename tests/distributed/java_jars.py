"""Flink, Spark and Beam's job servers, by their jars from Maven Central.

The ready-made job-server jars of Beam are large and not on every mirror. `flink.lock` and `spark.lock` name jars with
the same classes and all they need, as Maven resolves them, with their digests; they are downloaded without Maven, and
started through a jar that holds a class path and nothing else. The Java side of Beam's job API is older than the Python
side then, which speaks with it as well.

The locks were made from beam-runners-flink-1.19 with slf4j-simple 1.7.30, and from beam-runners-spark-3 with spark-core
and spark-streaming 2.12:3.5.0; Beam 2.62.0 is the newest of which Central's mirrors have all parts.
"""

import hashlib
import os
import shutil
import threading
import urllib.error
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

CENTRAL = "https://repo.maven.apache.org/maven2"
MAINS = {
    "flink-job-server": ("flink", "org.apache.beam.runners.flink.FlinkJobServerDriver"),
    "flink-job-manager": ("flink", "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"),
    "flink-task-manager": ("flink", "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"),
    "spark-job-server": ("spark", "org.apache.beam.runners.spark.SparkJobServerDriver"),
}
_OPENS = ["io", "lang", "lang.invoke", "lang.reflect", "net", "nio", "text", "time", "util", "util.concurrent"]
_OTHER_OPENS = [
    "java.util.concurrent.atomic",
    "java.util.concurrent.locks",
    "sun.nio.ch",
    "sun.nio.cs",
    "sun.security.action",
    "sun.util.calendar",
]
_ATTEMPTS = 3
_LANES = 8


def cache() -> Path:
    return Path(os.environ.get("BAGLINE_JARS") or Path.home() / ".cache" / "bagline" / "jars")


def read_lock(kind: str) -> dict[str, str]:
    """Path in the repository → SHA-256, of the jars of `flink` or `spark`."""
    lines = (Path(__file__).parent / f"{kind}.lock").read_text().splitlines()
    return dict(line.split(" sha256:") for line in lines)


def fetch(kind: str) -> list[Path]:
    """The jars of `flink` or `spark`; skips the test with a reason where they can't be had."""
    if shutil.which("java") is None:
        pytest.skip("java is not installed")
    wanted = {cache() / name: (name, digest) for name, digest in read_lock(kind).items()}
    lacking = [(path, *entry) for path, entry in wanted.items() if not path.exists()]
    try:
        with ThreadPoolExecutor(_LANES) as pool:
            for _ in pool.map(lambda entry: _download(*entry), lacking):
                pass
    except OSError as error:
        pytest.skip(f"the jars of {kind} can't be had from Maven Central: {error}")
    return list(wanted)


def _download(path: Path, name: str, digest: str) -> None:
    """A jar is at its place when it is whole and the lock's."""
    url = f"{os.environ.get('BAGLINE_MAVEN') or CENTRAL}/{name}"
    for attempt in range(_ATTEMPTS):
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            raise OSError(f"{url}: {error}") from error
        except OSError as error:
            if attempt == _ATTEMPTS - 1:
                raise OSError(f"{url}: {error}") from error
            threading.Event().wait(2**attempt)
            continue
        break
    found = hashlib.sha256(content).hexdigest()
    assert found == digest, f"{url} is not the jar of the lock: sha256 {found}"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    part.write_bytes(content)
    part.replace(path)


def runnable(name: str, folder: Path) -> str:
    """A jar that `java -jar` runs one of `MAINS` with."""
    kind, main = MAINS[name]
    jars = [path.resolve() for path in fetch(kind)]
    opens = " ".join([*(f"java.base/java.{each}" for each in _OPENS), *(f"java.base/{each}" for each in _OTHER_OPENS)])
    lines = [
        "Manifest-Version: 1.0",
        f"Main-Class: {main}",
        f"Add-Opens: {opens}",
        f"Class-Path: {' '.join(jar.as_uri() for jar in jars)}",
    ]
    path = folder / f"{name}.jar"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "\r\n".join(map(_fold, lines)) + "\r\n\r\n")
    return str(path)


def _fold(line: str) -> str:
    """A manifest's lines have at most 72 bytes; what goes on in the next begins with a blank."""
    return line[:70] + "".join(f"\r\n {line[start : start + 69]}" for start in range(70, len(line), 69))
