"""What is looked at before a job is sent: a job that can't run should not start."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from components.records import storage
from components.records.errors import BaglineError, InputError
from pipelines.vertex.client import ask, explain
from pipelines.vertex.environment import Environment
from pipelines.vertex.request import images_of

_REFERENCE = re.compile(r"^([a-z0-9-]+)-docker\.pkg\.dev/([^/]+)/([^/]+)/([^@]+)@(sha256:[0-9a-f]{64})$")
_BUCKET_NEEDS = ("storage.objects.create", "storage.objects.get", "storage.objects.list")
_ACT_AS = "iam.serviceAccounts.actAs"
_LOG = logging.getLogger(__name__)


def check_readiness(environment: Environment, spec: Mapping[str, Any]) -> None:
    """Looks at the bucket, the service account and every image.

    Raises:
        InputError: names all that is missing, in one line.
    """
    checks: list[Callable[[], None]] = [
        lambda: _check_bucket(environment.pipeline_root),
        lambda: _check_account(environment),
        *(functools.partial(_check_image, image) for image in images_of(spec)),
    ]
    problems = []
    for check in checks:
        try:
            check()
        except BaglineError as error:
            problems.append(str(error))
    if problems:
        raise InputError(" | ".join(problems))


def _check_bucket(root: str) -> None:
    from google.api_core.exceptions import Forbidden, NotFound

    name, where = urlsplit(root).netloc, "environment.pipeline_root"
    with explain(f"{where} gs://{name}"):
        bucket = storage.bucket(root)
        try:
            granted = set(bucket.test_iam_permissions(list(_BUCKET_NEEDS)))
        except NotFound:
            raise InputError(
                f"there is no bucket gs://{name}",
                where=where,
                mend=f"make it: gcloud storage buckets create gs://{name} --uniform-bucket-level-access",
            ) from None
        except Forbidden:
            granted = set()
    missing = [permission for permission in _BUCKET_NEEDS if permission not in granted]
    if missing:
        raise InputError(
            f"you lack {', '.join(missing)} on gs://{name}", where=where, mend="ask for roles/storage.objectUser on it"
        )


def _check_account(environment: Environment) -> None:
    from google.api_core.exceptions import Forbidden, NotFound

    account, where = environment.service_account, "environment.service_account"
    if not account:
        _LOG.warning("no service_account is named: the project's default one runs the job, with all its rights")
        return
    path = f"v1/projects/-/serviceAccounts/{account}"
    with explain(f"{where} {account}"):
        try:
            found = ask("iam", "https://iam.googleapis.com", path)
        except NotFound:
            name = account.partition("@")[0]
            raise InputError(
                f"there is no service account {account}",
                where=where,
                mend=f"make it: gcloud iam service-accounts create {name} --project {environment.project}",
            ) from None
        except Forbidden:
            _LOG.warning("%s can't be looked at: you lack iam.serviceAccounts.get", account)
            return
        if found.get("disabled"):
            mend = f"enable it: gcloud iam service-accounts enable {account}"
            raise InputError(f"{account} is disabled", where=where, mend=mend)
        body = {"permissions": [_ACT_AS]}
        granted = ask("iam", "https://iam.googleapis.com", f"{path}:testIamPermissions", body)
    if _ACT_AS not in granted.get("permissions", []):
        raise InputError(
            f"you may not act as {account}", where=where, mend="ask for roles/iam.serviceAccountUser on it"
        )


def _check_image(image: str) -> None:
    from google.api_core.exceptions import NotFound

    match = _REFERENCE.match(image)
    if match is None:
        why = "it is not in Artifact Registry" if "@sha256:" in image else "it has no digest"
        _LOG.warning("image %s is not looked for: %s", image, why)
        return
    region, project, repository, name, digest = match.groups()
    path = (
        f"v1/projects/{project}/locations/{region}/repositories/{repository}"
        f"/dockerImages/{quote(name, safe='')}@{digest}"
    )
    with explain(f"image {image}"):
        try:
            ask("artifactregistry", "https://artifactregistry.googleapis.com", path)
        except NotFound:
            raise InputError(
                f"is not in {region}-docker.pkg.dev/{project}/{repository}",
                where=f"image {name}@{digest[:19]}…",
                mend="push it, and take images.json from that build",
            ) from None
