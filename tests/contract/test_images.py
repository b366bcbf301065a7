"""Dockerfiles, locks, Python and Beam fit each other; what a component imports is in its image, and is declared."""

import ast
import re
import sys
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
HOUSE = ("components", "pipelines")
# Distributions that share the `google` package: the longest prefix decides.
GOOGLE = {
    "google.auth": "google-auth",
    "google.cloud.aiplatform": "google-cloud-aiplatform",
    "google.cloud.storage": "google-cloud-storage",
    "google.protobuf": "protobuf",
}


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())


def _files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def _module_file(name: str) -> Path | None:
    path = ROOT.joinpath(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.exists():
            return candidate
    return None


@cache
def _imports(path: Path) -> frozenset[str]:
    """Every absolute dotted name that a file imports, lazily or not; type-checking blocks are left out."""
    names: set[str] = set()
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        pending += ast.iter_child_nodes(node)
    return frozenset(names)


def _reached(start: Path) -> set[Path]:
    """The house's files that a file imports, directly or not, itself included."""
    reached: set[Path] = set()
    pending = [start]
    while pending:
        path = pending.pop()
        if path in reached:
            continue
        reached.add(path)
        for name in _imports(path):
            if name.split(".")[0] in HOUSE and (found := _module_file(name)):
                pending.append(found)
    return reached


def _distribution_of(name: str) -> str | None:
    """The distribution that an imported name comes from; None for the standard library and the house's own."""
    top = name.split(".")[0]
    if top in HOUSE or top in sys.stdlib_module_names:
        return None
    if top == "google":
        found = [value for prefix, value in GOOGLE.items() if name == prefix or name.startswith(prefix + ".")]
        return found[0] if found else None
    return canonicalize_name(_distributions().get(top, [top])[0])


def _needed(paths: set[Path]) -> dict[str, Path]:
    return {owner: path for path in sorted(paths) for name in _imports(path) if (owner := _distribution_of(name))}


def test_every_import_is_a_declared_dependency():
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    declared = {canonicalize_name(Requirement(text).name) for text in dependencies}
    declared.add("keras")  # comes with tensorflow, which pins what it works with
    needed = _needed(set(_files(*HOUSE)))
    assert {owner: str(path) for owner, path in needed.items() if owner not in declared} == {}


def test_the_walk_sees_what_a_file_imports():
    needed = _needed(_reached(ROOT / "components/sample_cohort/build.py"))
    assert {"numpy", "pillow", "scikit-image", "scipy", "tifffile", "google-cloud-storage"} <= set(needed)
    assert "tensorflow" not in needed


@pytest.mark.parametrize("component", sorted((ROOT / "components").glob("*/component.py")), ids=lambda p: p.parent.name)
def test_a_components_image_holds_what_it_imports(component):
    images = set(re.findall(r'base_image="bagline-([a-z]+):', component.read_text()))
    assert len(images) == 1, f"{component} names {sorted(images)}"
    (image,) = images
    lock = (ROOT / f"containers/{image}/requirements.lock").read_text()
    locked = {canonicalize_name(name) for name in re.findall(r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==", lock, re.MULTILINE)}
    locked |= {"tensorflow"} if "tensorflow-cpu" in locked else set()
    needed = _needed(_reached(component))
    assert {owner: str(path) for owner, path in needed.items() if owner not in locked} == {}


NAMED_BY_PIPELINES = ("pipeline", "tiling", "training")
IMAGES = (*NAMED_BY_PIPELINES, "viewer")


def _instructions(image: str) -> list[str]:
    """The Dockerfile's instructions, each on one line."""
    text = (ROOT / f"containers/{image}/Dockerfile").read_text().replace("\\\n", " ")
    return [" ".join(line.split()) for line in text.splitlines() if line and not line.startswith("#")]


def _pin(lock: str, name: str) -> str:
    (version,) = re.findall(rf"^{name}(?:\[[^]]*\])?==([^ ;\\]+)", (ROOT / lock).read_text(), re.MULTILINE)
    return str(version)


@pytest.mark.parametrize("image", NAMED_BY_PIPELINES)
def test_an_image_has_the_python_that_the_placeholders_name(image):
    assert _instructions(image)[0] == "ARG BASE_IMAGE=python:3.11-slim"
    placeholders = {
        tag
        for path in _files("components")
        for tag in re.findall(rf'base_image="bagline-{image}:python([0-9.]+)"', path.read_text())
    }
    assert placeholders == {"3.11"}


def test_the_worker_is_of_the_launchers_beam_and_python():
    (sdk,) = [line for line in _instructions("tiling") if line.startswith("ARG BEAM_SDK=")]
    version = _pin("containers/tiling/requirements.lock", "apache-beam")
    assert sdk == f"ARG BEAM_SDK=apache/beam_python3.11_sdk:{version}"
    assert version == _pin("requirements.lock", "apache-beam") == metadata.version("apache-beam")
    lines = _instructions("tiling")
    assert "COPY --from=beam-sdk /opt/apache/beam /opt/apache/beam" in lines
    assert lines[-1] == 'ENTRYPOINT ["/opt/bagline/entrypoint"]'
    # Beam's boot would make an environment that doesn't see this one's packages.
    assert any("RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1" in line for line in lines)


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_locked_layered_non_root_and_tests_itself(image):
    lines = _instructions(image)
    final = len(lines) - 1 - next(at for at, line in enumerate(reversed(lines)) if line.startswith("FROM"))
    installs = [line for line in lines if re.search(r"pip (install|sync)", line)]
    assert all("--require-hashes" in line or ("--no-index" in line and "--no-deps" in line) for line in installs)
    assert len(installs) == 3
    packages = lines.index("COPY --from=packages /opt/bagline /opt/bagline", final)
    code = lines.index("COPY --from=code /opt/code /opt/bagline", packages)
    user = lines.index("USER bagline", code)
    assert next(line for line in lines[user:] if line.startswith("RUN")).startswith("RUN python /opt/bagline/health.py")
    stage = lines.index("FROM tools AS packages")
    until_installed = lines[stage : next(at for at in range(stage, final) if "pip sync" in lines[at])]
    assert not [line for line in until_installed if "components" in line or "pyproject" in line]
    assert not [line for line in lines[user:] if line.startswith("USER ") and line != "USER bagline"]


def test_the_images_stages_read_the_same():
    """Else they would not share their layers."""

    def shared(image: str) -> list[str]:
        lines = _instructions(image)
        stages = lines[lines.index("FROM ${BASE_IMAGE} AS tools") : lines.index("COPY pipelines pipelines") + 2]
        own = re.compile(rf"^ARG LOCK=|^COPY containers/{image}/")
        return [line for line in stages if not own.match(line)]

    assert shared("pipeline") == shared("tiling") == shared("training") == shared("viewer")


def test_every_image_that_pipelines_name_is_built():
    from pipelines.compile import IMAGES as NAMED

    assert NAMED == NAMED_BY_PIPELINES
    makefile = (ROOT / "Makefile").read_text()
    assert f"IMAGES := {' '.join(IMAGES)}\n" in makefile


def test_what_the_launchers_import_is_in_the_pipeline_image():
    lock = (ROOT / "containers/pipeline/requirements.lock").read_text()
    locked = {canonicalize_name(name) for name in re.findall(r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==", lock, re.MULTILINE)}
    needed = {
        owner: path.name
        for folder in ("pipelines/arrival", "pipelines/vertex")
        for owner, path in _needed(set(_files(folder))).items()
    }
    assert {owner: path for owner, path in needed.items() if owner not in locked} == {}


def test_the_viewers_image_holds_what_the_viewer_imports_and_no_tensorflow():
    lock = (ROOT / "containers/viewer/requirements.lock").read_text()
    locked = {canonicalize_name(name) for name in re.findall(r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==", lock, re.MULTILINE)}
    reached = {path for file in _files("components/viewer") for path in _reached(file)}
    needed = _needed(reached | _reached(ROOT / "pipelines/commands/view.py"))
    assert {"fastapi", "uvicorn", "prometheus-client", "openslide-python", "simplejpeg"} <= set(needed)
    assert {owner: str(path) for owner, path in needed.items() if owner not in locked} == {}
    assert not {"tensorflow", "tensorflow-cpu", "kfp", "apache-beam"} & locked
    assert _instructions("viewer")[-1] == 'CMD ["bagline", "view", "/data", "--host", "0.0.0.0"]'
