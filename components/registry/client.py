"""Versions of models in Vertex AI's Model Registry."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from components.records.errors import InputError, WorkError

BLESSED, CANDIDATE = "blessed", "candidate"
METRICS_SCHEMA = "gs://google-cloud-aiplatform/schema/modelevaluation/classification_metrics_1.0.0.yaml"
UPLOAD_SECONDS = 1800.0

_RESOURCE = re.compile(r"^projects/([^/]+)/locations/([^/]+)/models/([^/@]+)(?:@([^/@]+))?$")


@dataclass(frozen=True)
class ModelName:
    """`projects/…/locations/…/models/…[@version or alias]`, taken apart."""

    project: str
    location: str
    model_id: str
    version: str = ""

    @property
    def parent(self) -> str:
        """The location it lies in."""
        return f"projects/{self.project}/locations/{self.location}"

    @property
    def model(self) -> str:
        """The model without a version."""
        return f"{self.parent}/models/{self.model_id}"

    def at(self, version: str) -> str:
        """The resource name of a version or alias."""
        return f"{self.model}@{version}"

    def __str__(self) -> str:
        return self.at(self.version) if self.version else self.model


@dataclass(frozen=True)
class Version:
    """One version of a registered model."""

    name: ModelName
    display_name: str
    artifact_uri: str
    aliases: tuple[str, ...]
    description: str = ""
    labels: dict[str, str] = field(default_factory=dict)


def is_resource(text: str) -> bool:
    """Whether `text` names a model in the registry, and not a folder."""
    return text.startswith("projects/")


def parse_model_name(text: str) -> ModelName:
    """Raises InputError where `text` is no resource name of a model."""
    match = _RESOURCE.match(text)
    if not match:
        raise InputError(
            f"{text!r} names no model", where="model", mend="write projects/P/locations/L/models/ID@version-or-alias"
        )
    return ModelName(match[1], match[2], match[3], match[4] or "")


def make_model_id(text: str) -> str:
    """A model's id out of its display name: lower case, `a-z0-9_-`, at most 63 characters.

    Raises:
        InputError: nothing of the name is left.
    """
    name = re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-")
    if name[:1].isdigit():
        name = f"m-{name}"
    if not name:
        raise InputError(f"{text!r} gives no model id", where="register_as", mend="name it with letters")
    return name[:63]


class Registry:
    """The Model Registry of one project and location.

    Args:
        project, location: where it is.
        endpoint: `http://host:port` of a stand-in, asked by REST and without credentials; Vertex AI where empty, by
            gRPC, since the library's REST transport looks for operations below `/ui`.
    """

    def __init__(self, project: str, location: str, endpoint: str = "") -> None:
        from google.api_core.client_options import ClientOptions
        from google.cloud.aiplatform_v1 import ModelServiceClient

        self.project, self.location = project, location
        options: dict[str, Any] = {}
        if endpoint:
            from google.auth.credentials import AnonymousCredentials

            options["credentials"] = AnonymousCredentials()  # type: ignore[no-untyped-call]
        self._client = ModelServiceClient(
            transport="rest" if endpoint else "grpc",
            client_options=ClientOptions(api_endpoint=endpoint or f"{location}-aiplatform.googleapis.com"),
            **options,
        )

    def name(self, model_id: str) -> ModelName:
        """The resource name of a model here."""
        return ModelName(self.project, self.location, model_id)

    def find(self, name: str) -> Version | None:
        """The version (the default one where none is named), or None where it is not there."""
        from google.api_core.exceptions import NotFound

        with _translated(name):
            try:
                found = self._client.get_model(name=name)
            except NotFound:
                return None
        return _read(found)

    def upload(
        self,
        model_id: str,
        *,
        display_name: str,
        artifact_uri: str,
        description: str,
        labels: dict[str, str],
        aliases: tuple[str, ...],
        image: str = "",
    ) -> Version:
        """A new version of the model, or the model's first; waits until it is there."""
        from google.cloud import aiplatform_v1 as v1

        name = self.name(model_id)
        model = v1.Model(
            display_name=display_name,
            artifact_uri=artifact_uri,
            version_description=description,
            version_aliases=list(aliases),
            labels=labels,
        )
        if image:
            model.container_spec = v1.ModelContainerSpec(image_uri=image)
        known = self.find(name.model) is not None
        request = v1.UploadModelRequest(parent=name.parent, model=model)
        if known:
            request.parent_model = name.model
        else:
            request.model_id = model_id
        with _translated(name.model):
            done = self._client.upload_model(request=request).result(timeout=UPLOAD_SECONDS)
        version = self.find(name.at(done.model_version_id))
        if version is None:
            raise WorkError(f"version {done.model_version_id} is gone", where=name.model, mend="register again")
        return version

    def move_alias(self, version: Version, alias: str) -> None:
        """Gives a version an alias, and takes it from the one that had it."""
        before = self.find(version.name.at(alias))
        with _translated(str(version.name)):
            self._client.merge_version_aliases(name=str(version.name), version_aliases=[alias])
        if before is None or before.name.version == version.name.version:
            return
        still = self.find(str(before.name))
        if still is not None and alias in still.aliases:
            with _translated(str(before.name)):
                self._client.merge_version_aliases(name=str(before.name), version_aliases=[f"-{alias}"])

    def import_evaluation(
        self, version: Version, display_name: str, metrics: dict[str, Any], facts: dict[str, Any]
    ) -> str:
        """Imports an evaluation; `metrics` follow `METRICS_SCHEMA`, `facts` are what else is known of it."""
        from google.cloud import aiplatform_v1 as v1

        evaluation = v1.ModelEvaluation(
            {
                "display_name": display_name,
                "metrics_schema_uri": METRICS_SCHEMA,
                "metrics": metrics,
                "metadata": facts,
            }
        )
        with _translated(str(version.name)):
            made = self._client.import_model_evaluation(parent=str(version.name), model_evaluation=evaluation)
        return str(made.name)

    def import_slices(self, evaluation: str, slices: list[tuple[dict[str, Any], dict[str, Any]]]) -> int:
        """Imports an evaluation's slices, each as (what it is of, its metrics); returns how many are new."""
        from google.cloud import aiplatform_v1 as v1

        if not slices:
            return 0
        request = v1.BatchImportModelEvaluationSlicesRequest(
            parent=evaluation,
            model_evaluation_slices=[
                v1.ModelEvaluationSlice({"slice_": of, "metrics_schema_uri": METRICS_SCHEMA, "metrics": metrics})
                for of, metrics in slices
            ],
        )
        with _translated(evaluation):
            answer = self._client.batch_import_model_evaluation_slices(request=request)
        return len(answer.imported_model_evaluation_slices)

    def evaluation_facts(self, version: Version) -> list[dict[str, Any]]:
        """The facts of every evaluation of a version, the newest first."""
        from google.protobuf.json_format import MessageToDict

        with _translated(str(version.name)):
            found = [type(one).pb(one) for one in self._client.list_model_evaluations(parent=str(version.name))]
        found.sort(key=lambda one: (one.create_time.seconds, one.create_time.nanos), reverse=True)
        return [dict(MessageToDict(one.metadata) or {}) for one in found]


def _read(model: Any) -> Version:
    name = parse_model_name(str(model.name).partition("@")[0])
    return Version(
        ModelName(name.project, name.location, name.model_id, str(model.version_id)),
        str(model.display_name),
        str(model.artifact_uri),
        tuple(model.version_aliases),
        str(model.version_description),
        dict(model.labels),
    )


@contextlib.contextmanager
def _translated(where: str) -> Iterator[None]:
    """What the registry refuses, as one line with a mend."""
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except (exceptions.Forbidden, exceptions.Unauthorized, GoogleAuthError) as error:
        raise WorkError(
            f"may not be used ({_first_line(error)})", where=where, mend="give the service account aiplatform.user"
        ) from None
    except (exceptions.InvalidArgument, exceptions.BadRequest) as error:
        raise InputError(f"is refused ({_first_line(error)})", where=where, mend="correct the parameter") from None
    except exceptions.GoogleAPICallError as error:
        raise WorkError(f"the registry failed ({_first_line(error)})", where=where, mend="run the step again") from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
