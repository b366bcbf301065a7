"""Flink, Spark and Beam's job servers, by their jars from Maven Central.

The ready-made job-server jars of Beam are large and not on every mirror; the same classes with all they need are
resolved by Maven instead, pinned, and started through a jar that holds a class path and nothing else. The Java side of
Beam's job API is older than the Python side then, which speaks with it as well.
"""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

BEAM = "2.62.0"
COORDINATES = {
    "flink": [("org.apache.beam", "beam-runners-flink-1.19", BEAM), ("org.slf4j", "slf4j-simple", "1.7.30")],
    "spark": [
        ("org.apache.beam", "beam-runners-spark-3", BEAM),
        ("org.apache.spark", "spark-core_2.12", "3.5.0"),
        ("org.apache.spark", "spark-streaming_2.12", "3.5.0"),
    ],
}
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
_TIMEOUT = 900


def cache() -> Path:
    return Path(os.environ.get("BAGLINE_JARS") or Path.home() / ".cache" / "bagline" / "jars")


def fetch(kind: str) -> Path:
    """The folder with the jars of `flink` or `spark`; skips the test with a reason where they can't be had."""
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    home = cache() / f"{kind}-{'-'.join(version for _, _, version in COORDINATES[kind])}"
    if (home / "complete").exists():
        return home / "lib"
    home.mkdir(parents=True, exist_ok=True)
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        for group, artifact, version in COORDINATES[kind]
    )
    (home / "pom.xml").write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>bagline</groupId><artifactId>jars</artifactId>"
        f"<version>1</version><dependencies>{dependencies}</dependencies></project>"
    )
    command = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib", "-DincludeScope=runtime"]
    try:
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"the jars of {kind} did not come from Maven Central in {_TIMEOUT} s")
    if done.returncode:
        first = next((line for line in done.stdout.splitlines() if "ERROR" in line), done.stderr[-300:])
        pytest.skip(f"the jars of {kind} can't be had from Maven Central: {first[:300]}")
    (home / "complete").touch()
    return home / "lib"


def runnable(name: str, folder: Path) -> str:
    """A jar that `java -jar` runs one of `MAINS` with."""
    kind, main = MAINS[name]
    jars = sorted(fetch(kind).resolve().glob("*.jar"))
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
