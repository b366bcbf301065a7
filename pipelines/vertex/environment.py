"""Where a pipeline runs on Google Cloud: the sections `environment:` and `dataflow:` of a config file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from components.records.errors import InputError
from pipelines.parameters import read_config, suggest

CONFIGS = Path(__file__).parents[1] / "configs"
SECTIONS = ("parameters", "resources", "environment", "dataflow")

# key → how its value is written; the patterns below refuse anything else
EXAMPLES = {
    "project": "my-project-123",
    "region": "europe-west4",
    "pipeline_root": "gs://my-bucket/runs",
    "service_account": "bagline@my-project-123.iam.gserviceaccount.com",
    "network": "projects/123456789012/global/networks/my-network",
    "kms_key": "projects/my-project-123/locations/europe-west4/keyRings/my-ring/cryptoKeys/my-key",
    "experiment": "bagline-dev",
    "template_repository": "https://europe-west4-kfp.pkg.dev/my-project-123/my-repository",
    "manifest": "gs://my-bucket/cohort/manifest.csv",
    "images_root": "gs://my-bucket/cohort",
    "images": "images.json",
    "caching": "{default: true, tasks: {tile: false}}",
    "failure_policy": "fast",
    "labels": "{team: pathology}",
}
_LABEL_KEY = re.compile(r"^[a-z][a-z0-9_-]{0,62}$")
_LABEL_VALUE = re.compile(r"^[a-z0-9_-]{0,63}$")
_GS = r"^gs://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](/.*)?$"


class Caching(BaseModel):
    """Whether a task's outputs may come from an earlier run: `default`, and step by step where it differs."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    default: bool = True
    tasks: dict[str, bool] = {}


def _as_caching(value: Any) -> Any:
    return {"default": value} if isinstance(value, bool) else value


class Environment(BaseModel):
    """One place to run: project, region and what goes with them; empty means not given.

    `images` is the path of an images.json or its content; `manifest` and `images_root` stand in where the command
    line names none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    project: str = Field(pattern=r"^([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$")
    region: str = Field(pattern=r"^[a-z]+-[a-z]+\d+$")
    pipeline_root: str = Field(pattern=_GS)
    service_account: str = Field(default="", pattern=r"^([a-z0-9-]+@[a-z0-9.-]+\.gserviceaccount\.com)?$")
    network: str = Field(default="", pattern=r"^(projects/\d+/global/networks/[a-z0-9-]+)?$")
    kms_key: str = Field(default="", pattern=r"^(projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+)?$")
    labels: dict[str, str] = {}
    experiment: str = Field(default="", pattern=r"^([a-z0-9][a-z0-9-]{0,127})?$")
    caching: Annotated[Caching, BeforeValidator(_as_caching)] = Caching()
    template_repository: str = Field(default="", pattern=r"^(https://[a-z0-9-]+-kfp\.pkg\.dev/[^/]+/[^/]+)?/?$")
    images: str | dict[str, str] = ""
    manifest: str = Field(default="", pattern=f"({_GS})|^$")
    images_root: str = Field(default="", pattern=f"({_GS})|^$")
    failure_policy: Literal["slow", "fast"] = "slow"

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        for key, value in labels.items():
            if not _LABEL_KEY.match(key) or not _LABEL_VALUE.match(value):
                raise ValueError(f"label {key}: {value} has other signs than a-z, 0-9, _ and -, or more than 63")
        return labels

    @model_validator(mode="after")
    def _check_key_region(self) -> Environment:
        if self.kms_key and self.kms_key.split("/")[3] != self.region:
            raise ValueError(f"kms_key is in {self.kms_key.split('/')[3]}, the region is {self.region}")
        return self

    @property
    def parent(self) -> str:
        """`projects/…/locations/…`."""
        return f"projects/{self.project}/locations/{self.region}"


class Config(BaseModel):
    """A config file, or an environment's file with another laid over it, read and checked."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)
    where: str
    pipeline: str
    parameters: dict[str, Any]
    resources: dict[str, Any]
    environment: Environment | None
    dataflow: dict[str, Any]

    def need_environment(self) -> Environment:
        """The environment; raises InputError where the file has none."""
        if self.environment is None:
            raise InputError("has no section environment:", where=self.where, mend="name --env dev, or add the section")
        return self.environment


def config_path(name: str) -> str:
    """The file of an environment, `pipelines/configs/<name>.yaml`.

    Raises:
        InputError: there is none of that name (suggests the nearest).
    """
    known = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    if name not in known:
        mend = suggest(name, known) or f"there is {', '.join(known)}; another file is given with --config FILE"
        raise InputError(f"unknown environment {name!r}", where="--env", mend=mend)
    return str(CONFIGS / f"{name}.yaml")


def load_config(env: str = "", config: str = "") -> Config:
    """The environment `env` with the file `config` over it, key by key within each section.

    Raises:
        InputError: neither is given, or a file, key or value is wrong; names the file and the key.
    """
    paths = [path for path in (config_path(env) if env else "", config) if path]
    if not paths:
        raise InputError("no environment is named", where="--env", mend="pass --env dev, or --config FILE")
    contents = [read_config(path) for path in paths]
    merged: dict[str, Any] = {"pipeline": contents[-1]["pipeline"]}
    for section in SECTIONS:
        merged[section] = {key: value for content in contents for key, value in content[section].items()}

    def where(section: str, key: str) -> str:
        holders = [path for path, content in zip(paths, contents, strict=True) if key in content[section]]
        return holders[-1] if holders else paths[-1]

    environment = None
    if merged["environment"]:
        environment = read_environment(merged["environment"], lambda key: where("environment", key))
    return Config(
        where=" + ".join(paths),
        pipeline=merged["pipeline"],
        parameters=merged["parameters"],
        resources=_lend_identity(merged["resources"], environment),
        environment=environment,
        dataflow=read_dataflow(merged["dataflow"], environment, where("dataflow", next(iter(merged["dataflow"]), ""))),
    )


def _lend_identity(resources: dict[str, Any], environment: Environment | None) -> dict[str, Any]:
    """The resources with the environment's service account, network and key where a step is a custom job.

    A custom job takes none of them from the pipeline that starts it.
    """
    if environment is None:
        return resources
    identity = {name: getattr(environment, name) for name in ("service_account", "network", "kms_key")}
    return {
        step: {**identity, **asked} if isinstance(asked, dict) and asked.get("machine_type") else asked
        for step, asked in resources.items()
    }


def read_environment(given: Mapping[str, Any], where: Any) -> Environment:
    """The section `environment:`; `where(key)` is the file that a key stands in.

    Raises:
        InputError: an unknown key (suggests the right one), a missing one, or a value of another form.
    """
    try:
        return Environment.model_validate(dict(given))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        rest = error.error_count() - 1
    path = [str(part) for part in problem["loc"] if part not in ("str", "dict[str,str]")]
    key, kind = path[0] if path else "", problem["type"]
    name = ".".join(["environment", *path])
    more = f" (and {rest} more)" if rest else ""
    if kind == "extra_forbidden":
        known = list(Environment.model_fields if len(path) == 1 else Caching.model_fields)
        mend = suggest(path[-1], known) or f"keys are {', '.join(known)}"
        raise InputError(f"unknown key {name}{more}", where=where(key), mend=mend)
    example = EXAMPLES.get(key, "")
    if kind == "missing":
        raise InputError(f"{name} is missing{more}", where=where(key), mend=f"write {key}: {example}")
    if kind == "value_error":
        what = str(problem["ctx"]["error"]).strip()
        raise InputError(f"{name}: {what}{more}", where=where(key or "kms_key"), mend="change the one or the other")
    raise InputError(f"{name} is {problem['input']!r}{more}", where=where(key), mend=f"write it like {example}")


def read_dataflow(given: Mapping[str, Any], environment: Environment | None, where: str) -> dict[str, Any]:
    """The section `dataflow:` as the pipeline's parameter; what it leaves out comes from the environment.

    Raises:
        InputError: an unknown key (suggests the right one), or a value that Dataflow doesn't take.
    """
    if not given:
        return {}
    from components.tile_images.dataflow import DataflowOptions, read_dataflow_options

    inherited: dict[str, Any] = {}
    if environment is not None:
        inherited = {
            "project": environment.project,
            "region": environment.region,
            "staging": f"{environment.pipeline_root.rstrip('/')}/dataflow",
            "service_account": environment.service_account,
            "kms_key": environment.kms_key,
            "labels": environment.labels,
        }
    full = {key: value for key, value in inherited.items() if value} | dict(given)
    try:
        read_dataflow_options(full)
    except InputError as error:
        raise InputError(error.what, where=f"{where}: {error.where}", mend=error.mend) from None
    return {field.name: full[field.name] for field in fields(DataflowOptions) if field.name in full}
