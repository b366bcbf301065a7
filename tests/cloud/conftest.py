"""A bucket store for each test, with a temporary folder of its own, so that leftovers are seen; and Vertex AI."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fake_gcs import FakeStore
from fake_vertex import FakeVertex

from components.readers import spool
from pipelines.compile import compile_for_cloud


@pytest.fixture
def worker_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The temporary folder of this process and those it starts."""
    spool.release_spool()
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    spool.release_spool()


@pytest.fixture
def store(worker_disk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeStore]:
    fake = FakeStore()
    server = fake.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    yield fake
    server.shutdown()
    server.server_close()


PROJECT, REGION, BUCKET = "proj-123", "europe-west4", "runs-bucket"
ACCOUNT = f"pipe@{PROJECT}.iam.gserviceaccount.com"
IMAGES = {
    name: f"{REGION}-docker.pkg.dev/{PROJECT}/bagline/{name}@sha256:{digit * 64}"
    for name, digit in (("pipeline", "1"), ("tiling", "2"), ("training", "3"), ("viewer", "4"))
}
MANIFEST = b"image_id,patient_id,label\n" + b"".join(
    b"s%d,p%d,%s\n" % (i, i, b"ab"[i % 2 : i % 2 + 1]) for i in range(6)
)


_compiled: dict[str, str] = {}


def _compile_once(*arguments, real=compile_for_cloud):
    """Compiling takes longer than all else in a test; the same call gives the same bytes (another test holds that)."""
    key = json.dumps(arguments, sort_keys=True)
    if key not in _compiled:
        _compiled[key] = json.dumps(real(*arguments))
    return json.loads(_compiled[key])


@pytest.fixture
def vertex(store: FakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeVertex]:
    """All of Google Cloud that a job needs: buckets with a cohort, an account, images by digest."""
    fake = FakeVertex()
    server = fake.start()
    for service in ("AIPLATFORM", "ARTIFACTREGISTRY", "IAM", "LOGGING"):
        monkeypatch.setenv(f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{service}", fake.url)
    monkeypatch.setenv("BAGLINE_KFP_HOST", fake.url)
    monkeypatch.setenv("BAGLINE_RETRY_SECONDS", "5")
    monkeypatch.setattr("pipelines.vertex.request.compile_for_cloud", _compile_once)
    store.buckets[BUCKET] = {}
    store.put("cohort", "manifest.csv", MANIFEST)
    for index in range(6):
        store.put("cohort", f"s{index}.svs", b"slide %d" % index)
    fake.add_account(ACCOUNT)
    fake.images |= set(IMAGES.values())
    yield fake
    server.shutdown()
    server.server_close()


@pytest.fixture
def config(vertex: FakeVertex, tmp_path: Path):
    """Writes an environment file; `config(network="…")` sets or (None) leaves out a key of `environment:`."""

    def write(sections=None, **changes) -> str:
        environment = {
            "project": PROJECT,
            "region": REGION,
            "pipeline_root": f"gs://{BUCKET}/runs",
            "service_account": ACCOUNT,
            "labels": {"team": "pathology"},
            "template_repository": f"https://{REGION}-kfp.pkg.dev/{PROJECT}/templates",
            "images": IMAGES,
            "manifest": "gs://cohort/manifest.csv",
            "images_root": "gs://cohort",
            **changes,
        }
        environment = {key: value for key, value in environment.items() if value is not None}
        path = tmp_path / "env.yaml"
        path.write_text(yaml.safe_dump({"environment": environment, **(sections or {})}))
        return str(path)

    return write


@pytest.fixture
def images_file(tmp_path: Path) -> str:
    path = tmp_path / "images.json"
    path.write_text(json.dumps(IMAGES))
    return str(path)
