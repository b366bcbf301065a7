"""`bagline run`: compile, run with `kfp.local`, publish, record the lineage, sum up."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from components.records import storage
from components.records.errors import InputError, WorkError
from components.records.provenance import code_version
from pipelines.catalog import Step, choose_steps, fold_steps, load_pipeline, local_steps
from pipelines.compile import build_spec, read_images, render, signature_of
from pipelines.lineage.artifacts import Traced, trace_artifact, trace_manifest, trace_model, trace_slides
from pipelines.lineage.events import TaskRecord, write_events
from pipelines.local.cache import RunCache
from pipelines.local.containers import own_containers
from pipelines.local.flow import FLOW, MADE_BESIDE, TAKES_MANIFEST, flow_of
from pipelines.local.inputs import absolute, look_at_inputs
from pipelines.local.lock import hold
from pipelines.local.publish import publish
from pipelines.local.stream import CacheHits, TaskState, TaskStream
from pipelines.parameters import check_parameters, parse_assignments, read_config


@dataclass(frozen=True)
class RunOptions:
    """What `bagline run`, `predict` or `cross-validate` was asked for; paths are absolute.

    `pipeline` is its name, `model` the model's place, where the pipeline takes one; `values` are parameters that the
    command has options for, and `folds` and `repeats` shape a cross-validation.
    """

    manifest: str
    images_root: str
    out: str
    config: str = ""
    assignments: tuple[str, ...] = ()
    first: str = ""
    last: str = ""
    engine: str = "subprocess"
    images: str = ""
    beam_options: tuple[str, ...] = ()
    debug: bool = False
    pipeline: str = "whole-slide"
    model: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    folds: int = 0
    repeats: int = 1

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps that run."""
        if self.pipeline == "cross-validate":
            return fold_steps(self.folds, self.repeats)
        return choose_steps(self.first, self.last, self.pipeline)

    @property
    def is_whole(self) -> bool:
        """Whether no step of the pipeline is left out."""
        return self.pipeline == "cross-validate" or self.steps == local_steps(self.pipeline)


@dataclass
class RunResult:
    """How a run went: seconds of each step (None: taken from the cache), and the failed step's error."""

    out: str
    seconds: dict[str, float | None] = field(default_factory=dict)
    total_seconds: float = 0.0
    peak_bytes: int = 0
    error: str = ""
    exit_code: int = 0


def run_locally(options: RunOptions, show: Callable[[str, str, bool], None]) -> RunResult:
    """Runs a pipeline on this machine.

    Args:
        options: what to run.
        show: called with (step, line, moving) as the run goes on, see `TaskStream`.

    Raises:
        InputError: manifest, folder, config or parameters are wrong; nothing was run.
    """
    steps = options.steps
    with hold(options.out):
        manifest, images_fingerprint = look_at_inputs(options.manifest, options.images_root, labelled=not options.model)
        cache = RunCache(options.out)
        spec, arguments = _prepare(options, steps, manifest.digest, images_fingerprint)
        storage.write_text(os.path.join(options.out, "pipeline.json"), render(spec))
        dropped = cache.drop_changed()
        if dropped:
            logging.getLogger(__name__).info(
                "%d cached outputs were changed or removed: their steps run again", dropped
            )
        began = time.monotonic()
        names = {step.task: step.name for step in steps}
        stream = TaskStream(lambda task, line, moving: show(names.get(task, task), line, moving), debug=options.debug)
        ok = _execute(options, spec, arguments, cache, stream)
        result = RunResult(options.out, total_seconds=time.monotonic() - began)
        result.peak_bytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        _settle(options, steps, stream, cache, _parameters_of_tasks(spec, arguments), result, manifest.digest)
        if not ok and not result.error:
            raise WorkError("the run ended without a failed step", where=options.out, mend="run again with --debug")
        return result


def _prepare(
    options: RunOptions, steps: tuple[Step, ...], manifest_hash: str, images_fingerprint: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    pipeline = load_pipeline(options.pipeline)
    names = tuple(step.name for step in steps if step.name != "embed")
    shape = {"folds": options.folds, "repeats": options.repeats} if options.folds else {}
    images = read_images(options.images, allow_tags=True) if options.images else None

    def build(names: tuple[str, ...], embeddings: bool) -> dict[str, Any]:
        earlier = _earlier(options.out, names, embeddings)
        return build_spec(
            pipeline.build(steps=names, earlier=earlier, local_code_version=code_version(), **shape), images
        )

    spec = build(names, False) if names else build(("embed",), False)
    values = _arguments(options, spec, manifest_hash, images_fingerprint)
    if values.get("embeddings"):
        spec = build(tuple(step.name for step in steps), True)
    elif not names:
        raise InputError("embed has nothing to do", where="--from-step embed", mend="pass --set embeddings=true")
    return spec, values


def _arguments(
    options: RunOptions, spec: dict[str, Any], manifest_hash: str, images_fingerprint: str
) -> dict[str, Any]:
    signature = signature_of(spec)
    fixed = {
        "manifest": options.manifest,
        "images_root": options.images_root,
        "manifest_hash": manifest_hash,
        "images_fingerprint": images_fingerprint,
        "checkpoint_dir": os.path.join(options.out, ".bagline", "checkpoints"),
        "model": options.model,
        "model_digest": trace_model(options.model).digest if _is_folder(options.model) else "",
    }
    free = {name: parameter for name, parameter in signature.items() if name not in fixed}
    values: dict[str, Any] = {}
    if options.config:
        values = check_parameters(read_config(options.config)["parameters"], free, options.config)
    values |= parse_assignments(options.assignments, free)
    if options.beam_options:
        values["beam_options"] = list(options.beam_options)
    values = _with_paths({**values, **options.values})
    return values | {name: value for name, value in fixed.items() if name in signature}


def _is_folder(model: str) -> bool:
    """Whether a model is given by its place, not by its name in a registry."""
    return bool(model) and not model.startswith("projects/")


def _with_paths(values: dict[str, Any]) -> dict[str, Any]:
    """Paths as tasks can use them from any folder."""
    paths = ("previous_split", "previous_metrics", "encoder_path")
    return {name: absolute(value) if name in paths and value else value for name, value in values.items()}


def _earlier(out: str, names: tuple[str, ...], embeddings: bool) -> dict[str, tuple[str, str]]:
    """URI and digest of each artifact that the first step needs and no step of this run makes."""
    first = names[0]
    earlier: dict[str, tuple[str, str]] = {}
    needed = FLOW[first][0]
    if embeddings and first in ("train", "evaluate"):
        needed = (*needed, "embeddings")
    for name in needed:
        traced = trace_artifact(out, name)
        if traced is None:
            maker = next(step for step, (_, made) in FLOW.items() if made == name)
            raise InputError(
                f"--from-step {first} needs what {maker} makes", where=out, mend="run the earlier steps first"
            )
        place = {
            "split": "split.csv",
            "validation": "validation.json",
            "embeddings": "embeddings",
            "model": "model",
        }.get(name, "")
        earlier[name] = (os.path.join(out, place) if place else out, traced.digest)
        for beside in MADE_BESIDE.get(name, ()):
            found = trace_artifact(out, beside)
            earlier[beside] = (os.path.join(out, beside), found.digest if found else "")
    return earlier


def _execute(
    options: RunOptions, spec: dict[str, Any], arguments: dict[str, Any], cache: RunCache, stream: TaskStream
) -> bool:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from kfp import components, local

    runner = local.SubprocessRunner(use_venv=False)
    if options.engine == "docker":
        runner = _docker_runner(options)
    with storage.translate_os_errors(options.out):
        os.makedirs(cache.runs, exist_ok=True)
        os.makedirs(cache.cache, exist_ok=True)
    local.init(
        runner=runner,
        pipeline_root=cache.runs,
        raise_on_error=True,
        enable_caching=True,
        cache_root=cache.cache,
    )
    hits = CacheHits(stream)
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    root.handlers[:] = [hits]
    root.setLevel(logging.INFO)
    try:
        containers = own_containers() if options.engine == "docker" else contextlib.nullcontext()
        with containers, contextlib.redirect_stdout(stream), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipeline = components.load_component_from_text(render(spec))
            pipeline(**arguments)
    except RuntimeError as error:
        if not any(not state.succeeded for state in stream.tasks.values()):
            raise WorkError(str(error), where="kfp.local", mend="run again with --debug") from error
        return False
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    return True


def _docker_runner(options: RunOptions) -> Any:
    import docker
    from kfp import local

    folders = {options.images_root, os.path.dirname(options.manifest)} | ({options.model} if options.model else set())
    mounts = [docker.types.Mount(target=path, source=path, type="bind", read_only=True) for path in sorted(folders)]
    mounts.append(docker.types.Mount(target=options.out, source=options.out, type="bind"))
    return local.DockerRunner(
        mounts=mounts,
        user=f"{os.getuid()}:{os.getgid()}",
        environment={"HOME": "/tmp", "TF_CPP_MIN_LOG_LEVEL": "3"},  # noqa: S108 - the container's own
        network_mode="host",
    )


def _parameters_of_tasks(spec: dict[str, Any], arguments: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Task → the parameters it was given, defaults included."""
    defaults = {name: parameter.default for name, parameter in signature_of(spec).items()}
    found: dict[str, dict[str, Any]] = {}
    for task, definition in spec["root"]["dag"]["tasks"].items():
        inputs = definition.get("inputs", {}).get("parameters", {})
        names = {key: value["componentInputParameter"] for key, value in inputs.items()
                 if "componentInputParameter" in value}  # fmt: skip
        found[task] = {key: arguments.get(name, defaults.get(name)) for key, name in names.items()}
    return found


def _settle(
    options: RunOptions,
    steps: tuple[Step, ...],
    stream: TaskStream,
    cache: RunCache,
    parameters: dict[str, dict[str, Any]],
    result: RunResult,
    manifest_hash: str,
) -> None:
    run_id, used = str(uuid.uuid4()), set()
    for step in steps:
        state = stream.tasks.get(step.task)
        if state is None:
            continue
        for name, uri in _outputs(state, cache).items():
            if not os.path.exists(uri):
                continue
            if state.succeeded:
                used.add(uri)
                cache.seal(uri)
            if name in step.outputs:
                publish(uri, options.out, step.outputs[name])
        if state.cached:
            result.seconds[step.name] = None
            continue
        result.seconds[step.name] = state.seconds
        error, code = ("", 0) if state.succeeded else state.error()
        _record(options, step, state, parameters.get(step.task, {}), run_id, manifest_hash, error)
        if not state.succeeded:
            result.error, result.exit_code = f"{step.name}: {error}", code
    if not result.error and options.is_whole:
        cache.forget_all_but(used)
        shutil.rmtree(os.path.join(cache.home, "checkpoints"), ignore_errors=True)


def _outputs(state: TaskState, cache: RunCache) -> dict[str, str]:
    if state.cached:
        return {name: str(artifact["uri"]) for name, artifact in cache.outputs(state.cached).items()}
    runs = sorted(os.listdir(cache.runs))
    folder = os.path.join(cache.runs, runs[-1], state.task) if runs else ""
    if not os.path.isdir(folder):
        return {}
    found = {name: os.path.join(folder, name) for name in os.listdir(folder) if name != "executor_output.json"}
    told = os.path.join(folder, "executor_output.json")
    artifacts = storage.read_json(told).get("artifacts", {}) if os.path.exists(told) else {}
    return found | {name: str(entry["artifacts"][0]["uri"]) for name, entry in artifacts.items() if entry["artifacts"]}


def _record(
    options: RunOptions,
    step: Step,
    state: TaskState,
    parameters: dict[str, Any],
    run_id: str,
    manifest_hash: str,
    error: str,
) -> None:
    reads, makes = flow_of(step.name)
    folds = [flow_of(other.name) for other in options.steps if other.name.startswith("evaluate ")]
    if step.name == "summarise":
        reads = tuple(made for _, made in folds)
    inputs: list[Traced | None] = [trace_artifact(options.out, name) for name in reads]
    if step.name == "prepare" and _is_folder(options.model):
        inputs.append(trace_model(options.model))
    if step.name in TAKES_MANIFEST:
        inputs.append(trace_manifest(options.manifest, manifest_hash))
    if step.name == "tile":
        inputs.append(trace_slides(options.out, options.images_root))
    schema = os.path.join(options.out, "schema.json")
    if step.name == "tile" and os.path.exists(schema):  # where the model said how, the call alone does not
        parameters = {**storage.read_json(schema)["parameters"], **parameters}
    outputs = [trace_artifact(options.out, name) for name in (makes, *MADE_BESIDE.get(makes, ()))]
    if step.name == "split":
        outputs += [trace_artifact(options.out, name) for needs, _ in folds for name in needs if name.endswith(".csv")]
    if step.name == "prepare":
        outputs.append(trace_artifact(options.out, "model"))
    write_events(
        options.out,
        TaskRecord(
            job=f"{options.pipeline}.{step.name}",
            parameters=parameters,
            inputs=[artifact for artifact in inputs if artifact],
            outputs=[artifact for artifact in outputs if artifact] if not error else [],
            started=state.started,
            ended=state.ended,
            error=error,
            parent=run_id,
        ),
    )
