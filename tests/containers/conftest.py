"""An engine and the images that `make images` made; without them the tests are skipped and say why."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def engine() -> str:
    """The command of the engine that answers."""
    for name in ("docker", "podman"):
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0:
            return name
    pytest.skip("neither docker nor podman answers here")


@pytest.fixture(scope="session")
def images_file() -> Path:
    """`images.json`; BAGLINE_IMAGES names another."""
    path = Path(os.environ.get("BAGLINE_IMAGES", ROOT / "images.json"))
    if not path.exists():
        pytest.skip(f"there is no {path}: run make images")
    return path


@pytest.fixture(scope="session")
def images(images_file: Path) -> dict[str, str]:
    """Image name → reference."""
    return json.loads(images_file.read_text())


@pytest.fixture(scope="session")
def engine_socket(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where Docker's API is spoken: DOCKER_HOST, Docker's own socket, or one that podman serves for the tests."""
    if os.environ.get("DOCKER_HOST") or engine == "docker":
        yield
        return
    path = tmp_path_factory.mktemp("engine") / "podman.sock"
    service = subprocess.Popen(
        ["podman", "system", "service", "--time=0", f"unix://{path}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.environ["DOCKER_HOST"] = f"unix://{path}"
    deadline = time.monotonic() + 20
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    yield
    del os.environ["DOCKER_HOST"]
    service.terminate()
    service.wait(20)
