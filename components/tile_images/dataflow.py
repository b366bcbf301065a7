"""Where and how a Dataflow job runs: the parameter `dataflow`, and the section of that name in an environment file."""

from __future__ import annotations

import argparse
import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

from components.records.errors import InputError

_PATTERNS = {
    "project": (r"([a-z][-a-z0-9.]*:)?[a-z][-a-z0-9]*[a-z0-9]", "a project id, such as my-project"),
    "region": (r"[a-z]+-[a-z]+\d+", "a region, such as europe-west4"),
    "staging": (r"gs://[^/\s]+(/\S*)?", "a folder in a bucket, such as gs://bucket/dataflow"),
    "service_account": (r"[^@\s]+@[^@\s]+", "an account's address, such as NAME@PROJECT.iam.gserviceaccount.com"),
    "network": (r"\S+", "a network's name"),
    "subnetwork": (
        r"(https://\S+/)?(projects/[^/\s]+/)?regions/[^/\s]+/subnetworks/[^/\s]+",
        "regions/REGION/subnetworks/NAME, for a shared VPC with projects/HOST/ before it",
    ),
    "kms_key": (
        r"projects/[^/\s]+/locations/[^/\s]+/keyRings/[^/\s]+/cryptoKeys/[^/\s]+",
        "projects/P/locations/L/keyRings/R/cryptoKeys/K",
    ),
    "machine_type": (r"[a-z][-a-z0-9]*", "a machine type, such as n2-standard-4"),
    "image": (r"\S+", "an image's reference"),
    "endpoint": (r"https?://\S+", "an address, such as https://dataflow.googleapis.com"),
}
_LABEL_KEY = re.compile(r"[a-z][-_a-z0-9]{0,62}")
_LABEL_VALUE = re.compile(r"[-_a-z0-9]{0,63}")


@dataclass(frozen=True)
class DataflowOptions:
    """What a Dataflow job is given; a value that can't be right raises InputError with its name.

    Attributes:
        project: that the job runs and is paid in.
        region: of its workers; best the one of the slides' bucket.
        staging: `gs://` folder for the job's own files; temporary ones go below it.
        service_account: that workers act as; empty is the project's default one.
        network, subnetwork: of the workers; empty is the project's default. A subnetwork is enough.
        public_ips: whether workers have addresses on the internet; without, the subnetwork needs Private Google Access.
        kms_key: Cloud KMS key for what the job stores; empty is Google's own.
        machine_type: of a worker; one worker process a vCPU.
        disk_gb: of a worker.
        workers, max_workers: the job begins with the one and grows to the other as there is work.
        labels: on the job and its workers, as the bill shows them.
        max_hours: after which the service ends the job, whoever has forgotten it; up to 10 days.
        image: of the workers; empty is the image that starts the job (`BAGLINE_IMAGE`).
        endpoint: of the Dataflow service; empty is Google's.
    """

    project: str
    region: str
    staging: str
    service_account: str = ""
    network: str = ""
    subnetwork: str = ""
    public_ips: bool = False
    kms_key: str = ""
    machine_type: str = "n2-standard-4"
    disk_gb: int = 50
    workers: int = 1
    max_workers: int = 50
    labels: Mapping[str, str] = field(default_factory=dict)
    max_hours: float = 24.0
    image: str = ""
    endpoint: str = ""

    def __post_init__(self) -> None:
        for name, (pattern, mend) in _PATTERNS.items():
            value = getattr(self, name)
            needed = name in ("project", "region", "staging", "machine_type")
            if (value or needed) and not re.fullmatch(pattern, value):
                raise InputError(f"{value!r} can't be used", where=f"dataflow.{name}", mend=f"give {mend}")
        for name, low, high in (("disk_gb", 10, 65536), ("workers", 1, 4000), ("max_workers", 1, 4000)):
            _check_range(name, getattr(self, name), low, high)
        _check_range("max_hours", self.max_hours, 0.1, 240)
        if self.workers > self.max_workers:
            raise InputError(
                f"{self.workers} is more than max_workers, {self.max_workers}",
                where="dataflow.workers",
                mend="lower it, or raise max_workers",
            )
        for key, value in self.labels.items():
            if not (_LABEL_KEY.fullmatch(key) and _LABEL_VALUE.fullmatch(value)):
                raise InputError(
                    f"{key}: {value} can't be a label",
                    where="dataflow.labels",
                    mend="use lower-case letters, digits, _ and -, at most 63",
                )


def read_dataflow_options(given: Mapping[str, Any], where: str = "dataflow") -> DataflowOptions:
    """The options that a mapping holds, each of its right type.

    Whole numbers may come as floats: a pipeline parameter that is a mapping carries no integers.

    Raises:
        InputError: an unknown key (suggests the right one), one that is needed and missing, or a value of another
            type or out of range.
    """
    known = {each.name: each for each in fields(DataflowOptions)}
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
            mend = f"did you mean {near[0]}?" if near else f"keys are {', '.join(known)}"
            raise InputError(f"unknown key {key!r}", where=where, mend=mend)
    missing = [
        name
        for name, each in known.items()
        if each.default is MISSING and each.default_factory is MISSING and not given.get(name)
    ]
    if missing:
        raise InputError(f"lacks {', '.join(missing)}", where=where, mend="a Dataflow job needs them")
    return DataflowOptions(**{key: _read_value(key, value, str(known[key].type)) for key, value in given.items()})


def read_flags(flags: Sequence[str]) -> dict[str, Any]:
    """What Beam's own flags for Dataflow say of the options that every job needs."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("project", "region", "staging_location", "temp_location", "dataflow_endpoint", "sdk_container_image"):
        parser.add_argument(f"--{name}", default="")
    found, _ = parser.parse_known_args(list(flags))
    said = {
        "project": found.project,
        "region": found.region,
        "staging": found.staging_location or found.temp_location,
        "image": found.sdk_container_image,
        "endpoint": found.dataflow_endpoint,
    }
    return {name: value for name, value in said.items() if value}


def write_flags(options: DataflowOptions, job_name: str) -> list[str]:
    """The options as Beam's flags."""
    staging = options.staging.rstrip("/")
    flags = [
        f"--job_name={job_name}",
        f"--project={options.project}",
        f"--region={options.region}",
        f"--staging_location={staging}/staging",
        f"--temp_location={staging}/temp",
        f"--machine_type={options.machine_type}",
        f"--disk_size_gb={options.disk_gb}",
        f"--num_workers={options.workers}",
        f"--max_num_workers={options.max_workers}",
        "--autoscaling_algorithm=THROUGHPUT_BASED",
        f"--dataflow_service_options=max_workflow_runtime_walltime_seconds={round(options.max_hours * 3600)}",
        "--use_public_ips" if options.public_ips else "--no_use_public_ips",
        f"--sdk_container_image={options.image}",
        "--sdk_location=container",
        "--no_save_main_session",
        *(f"--labels={key}={value}" for key, value in sorted(options.labels.items())),
    ]
    optional = {
        "service_account_email": options.service_account,
        "network": options.network,
        "subnetwork": options.subnetwork,
        "dataflow_kms_key": options.kms_key,
        "dataflow_endpoint": options.endpoint,
    }
    flags += [f"--{name}={value}" for name, value in optional.items() if value]
    if options.endpoint.startswith("http://"):
        flags.append("--no_auth")  # credentials are not shown to what is not encrypted
    return flags


def with_image(options: DataflowOptions, image: str) -> DataflowOptions:
    """The options with `image` as the workers' where they name none."""
    return options if options.image else replace(options, image=image)


def _read_value(name: str, value: Any, kind: str) -> Any:
    good: Any = None
    if kind == "bool":
        good = value if isinstance(value, bool) else None
    elif kind in ("int", "float") and isinstance(value, int | float) and not isinstance(value, bool):
        good = float(value) if kind == "float" else int(value) if float(value).is_integer() else None
    elif kind == "str":
        good = value if isinstance(value, str) else None
    elif kind.startswith("Mapping") and isinstance(value, Mapping):
        good = {str(key): str(each) for key, each in value.items() if isinstance(each, str | int)}
        good = good if len(good) == len(value) else None
    if good is None:
        wanted = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}
        mend = f"give {wanted.get(kind, 'a mapping of text to text')}"
        raise InputError(f"{value!r} is of the wrong type", where=f"dataflow.{name}", mend=mend)
    return good


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not math.isfinite(value) or not low <= value <= high:
        raise InputError(f"{value!r} is out of range", where=f"dataflow.{name}", mend=f"give {low} to {high}")
