"""What a component imports is in the image it runs in, and every import is a declared dependency."""

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
    owners = _distributions().get(top)
    assert owners, f"{name} is imported but not installed"
    return canonicalize_name(owners[0])


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
    needed = _needed(_reached(component))
    assert {owner: str(path) for owner, path in needed.items() if owner not in locked} == {}
