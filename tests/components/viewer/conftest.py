from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from viewer_run import write_run

from components.viewer.catalog import read_catalog
from components.viewer.service import create_app


@pytest.fixture(scope="session")
def run_folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_run(tmp_path_factory.mktemp("viewer"))


@pytest.fixture(scope="session")
def client(run_folders: tuple[Path, Path]) -> Iterator[TestClient]:
    with TestClient(create_app(read_catalog([str(run_folders[0])])), base_url="http://localhost") as found:
        yield found


@pytest.fixture(scope="session")
def keys(client: TestClient) -> dict[str, str]:
    return {slide["image_id"]: slide["key"] for slide in client.get("/api/slides").json()}
