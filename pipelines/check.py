"""Holds every config file against the signature of the pipeline it names, before anything is sent."""

from __future__ import annotations

from pathlib import Path

from components.records import storage
from components.records.errors import InputError
from pipelines.catalog import PIPELINES, load_pipeline
from pipelines.compile import build_spec, render, signature_of, steps_of
from pipelines.parameters import Signature, check_parameters, check_steps, read_config
from pipelines.resources import read_resources


def check_all(configs: str = "") -> list[str]:
    """Compiles every pipeline and checks every `*.yaml` in `configs` (default: the package's own).

    Returns:
        One line for each pipeline and file.

    Raises:
        InputError: names every file and key that doesn't fit, in one line.
    """
    lines: list[str] = []
    signatures: dict[str, Signature] = {}
    steps: dict[str, set[str]] = {}
    for name in PIPELINES:
        spec = build_spec(load_pipeline(name).build())
        if render(spec) != render(build_spec(load_pipeline(name).build())):
            raise InputError(f"pipeline {name} compiles to other bytes each time", mend="make it deterministic")
        signatures[name] = signature_of(spec)
        steps[name] = set(steps_of(spec).values())
        lines.append(f"pipeline {name}: {len(signatures[name])} parameters, {len(spec['root']['dag']['tasks'])} tasks")
    folder = configs or str(Path(__file__).with_name("configs"))
    files = sorted(info.path for name, info in storage.list_files(folder).items() if name.endswith((".yaml", ".yml")))
    if not files:
        raise InputError("holds no .yaml file", where=folder, mend="name the folder of the config files")
    problems = []
    for path in files:
        try:
            lines.append(f"config {Path(path).name}: {_check_file(path, signatures, steps)}")
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError(" | ".join(problems))
    return lines


def _check_file(path: str, signatures: dict[str, Signature], steps: dict[str, set[str]]) -> str:
    config = read_config(path)
    if config["pipeline"] not in signatures:
        raise InputError(
            f"unknown pipeline {config['pipeline']!r}", where=path, mend=f"there is {', '.join(signatures)}"
        )
    read_resources(config["resources"], path)
    fit = check_parameters(config["parameters"], signatures[config["pipeline"]], path)
    if not config["environment"] and not config["dataflow"]:
        return f"{len(fit)} parameters fit"
    from pipelines.vertex.environment import load_config

    checked = load_config(config=path)
    if checked.environment is None:
        return f"{len(fit)} parameters and dataflow fit"
    check_steps(checked.environment.caching.tasks, steps[config["pipeline"]], path)
    return f"environment {checked.environment.project} and {len(fit)} parameters fit"
