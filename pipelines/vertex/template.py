"""Compiled pipelines as templates in a KFP repository of Artifact Registry: pushed with tags, fetched by one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from components.records.errors import InputError
from components.records.provenance import code_version
from pipelines.vertex.client import credentials_for, endpoint, explain
from pipelines.vertex.environment import Environment

_TAG = re.compile(r"^[a-z0-9][a-z0-9-]{0,127}$")
_REPOSITORY = re.compile(r"^https://[a-z0-9-]+-kfp\.pkg\.dev/[^/]+/[^/]+$")
_GOOGLE = "https://artifactregistry.googleapis.com"


def push_template(spec: Mapping[str, Any], repository: str, tags: Sequence[str] = ()) -> tuple[str, list[str]]:
    """Uploads a compiled spec as a new version; the same content is the same version.

    Args:
        spec: with every image by digest.
        repository: `https://REGION-kfp.pkg.dev/PROJECT/REPOSITORY`.
        tags: beside `latest` and `code-<hash of the sources>`; a branch's `/` becomes `-`.

    Returns:
        The version's address (`…/PACKAGE/sha256:…`), and its tags.

    Raises:
        InputError: the repository, a tag or an image's reference doesn't fit, or the repository refuses.
    """
    from pipelines.vertex.request import images_of

    unpinned = [image for image in images_of(spec) if "@sha256:" not in image]
    if unpinned:
        raise InputError(
            f"image {unpinned[0]} has no digest", where="template", mend="compile with --images images.json"
        )
    given = [_tidy(tag) for tag in tags]
    wanted = sorted({"latest", f"code-{code_version().rpartition('+')[2]}", *given})
    repository = check_repository(repository)
    with explain(f"pushing to {repository}"), _client(repository) as client, tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "template.yaml")
        with open(path, "w", encoding="utf-8") as stream:  # noqa: PTH123
            json.dump(spec, stream, indent=1, sort_keys=True)  # JSON is YAML
        package, version = client.upload_pipeline(path, tags=wanted)
    return f"{repository}/{package}/{version}", wanted


def fetch_template(environment: Environment, package: str, wanted: str) -> tuple[dict[str, Any], str]:
    """The spec of a template, and its address by digest.

    Args:
        environment: names the repository.
        package: the pipeline's name.
        wanted: a tag, or a version `sha256:…`.

    Raises:
        InputError: no repository is named, or it holds no such template.
    """
    import yaml

    if not environment.template_repository:
        raise InputError("no template_repository is named", where="environment", mend="add it, or leave --template out")
    repository = check_repository(environment.template_repository)
    what = f"template {package}:{wanted} in {repository}"
    with explain(what), _client(repository) as client, tempfile.TemporaryDirectory() as folder:
        version = wanted
        if not wanted.startswith("sha256:"):
            version = str(client.get_tag(package, _tidy(wanted))["version"]).rpartition("/")[2]
        path = os.path.join(folder, "template.yaml")
        client.download_pipeline(package, version=version, file_name=path)
        with open(path, encoding="utf-8") as stream:  # noqa: PTH123
            spec = yaml.load(stream, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - a safe one
    if not isinstance(spec, dict) or "root" not in spec:
        raise InputError("is no compiled pipeline", where=what, mend="push it again: bagline compile --push")
    return spec, f"{repository}/{package}/{version}"


def check_repository(text: str) -> str:
    """The address without a slash at its end; raises InputError where it is none of a KFP repository."""
    address = text.rstrip("/")
    if not _REPOSITORY.match(address):
        mend = "write it like https://europe-west4-kfp.pkg.dev/my-project-123/my-repository"
        raise InputError(f"{text!r} is no KFP repository", where="template repository", mend=mend)
    return address


def _tidy(tag: str) -> str:
    tidy = re.sub(r"[^a-z0-9-]+", "-", tag.lower()).strip("-")
    if not _TAG.match(tidy):
        raise InputError(f"{tag!r} can't be a tag", where="--tag", mend="use letters, digits and -")
    return tidy


@contextlib.contextmanager
def _client(repository: str) -> Iterator[Any]:
    """KFP's registry client.

    `BAGLINE_KFP_HOST` takes the place of `https://REGION-kfp.pkg.dev`, as the endpoint override of Artifact Registry
    that of its API.
    """
    from kfp.registry import ApiAuth, RegistryClient

    host = os.environ.get("BAGLINE_KFP_HOST", "").rstrip("/")
    api = endpoint("artifactregistry", _GOOGLE)
    if not host and api == _GOOGLE:
        yield RegistryClient(host=repository, auth=credentials_for(repository))
        return
    import kfp.registry.registry_client as module

    with open(module._KNOWN_HOSTS_REGEX["kfp_pkg_dev"][1], encoding="utf-8") as stream:  # noqa: PTH123
        addresses = {key: value.replace(_GOOGLE, api) for key, value in json.load(stream).items()}
    if host:
        upload = f"{host}{urlsplit(repository).path}"
        addresses = {key: value.replace("{host}", upload) for key, value in addresses.items()}
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as config:
        json.dump(addresses, config)
        config.flush()
        plain = (host or api).startswith("http://")
        auth = ApiAuth("none") if plain else credentials_for(repository)
        yield RegistryClient(host=repository, auth=auth, config_file=config.name)
