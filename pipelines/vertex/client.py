"""The services of Google Cloud that a pipeline needs, and their refusals as errors with a mend.

An address can be replaced as gcloud does it, by `CLOUDSDK_API_ENDPOINT_OVERRIDES_<SERVICE>` (AIPLATFORM,
ARTIFACTREGISTRY, IAM, LOGGING): for a private endpoint, or for tests. One that starts with `http://` is asked without
credentials.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterator
from typing import Any

from components.records.errors import BaglineError, InputError, WorkError

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
TIMEOUT = 60.0
_LOGIN = "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS"


def endpoint(service: str, default: str) -> str:
    """The address of a service, without a slash at the end."""
    return os.environ.get(f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{service.upper()}", "").rstrip("/") or default


def credentials_for(address: str) -> Any:
    """The caller's credentials; none where the address is plain http."""
    from google.auth import default
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import DefaultCredentialsError

    if address.startswith("http://"):
        return AnonymousCredentials()  # type: ignore[no-untyped-call]
    try:
        return default(scopes=_SCOPES)[0]
    except DefaultCredentialsError:
        raise InputError("no credentials for Google Cloud are found", mend=_LOGIN) from None


class Clients:
    """The Vertex AI clients of one region, each made when it is first asked for; all speak REST."""

    def __init__(self, region: str) -> None:
        self._address = endpoint("aiplatform", f"https://{region}-aiplatform.googleapis.com")

    def _make(self, kind: Any) -> Any:
        from google.api_core.client_options import ClientOptions

        address = self._address if self._address.startswith("http://") else self._address.removeprefix("https://")
        return kind(
            credentials=credentials_for(self._address),
            transport="rest",
            client_options=ClientOptions(api_endpoint=address),
        )

    @functools.cached_property
    def pipelines(self) -> Any:
        """Pipeline jobs."""
        from google.cloud.aiplatform_v1.services.pipeline_service import PipelineServiceClient

        return self._make(PipelineServiceClient)

    @functools.cached_property
    def schedules(self) -> Any:
        """Schedules of pipeline jobs."""
        from google.cloud.aiplatform_v1.services.schedule_service import ScheduleServiceClient

        return self._make(ScheduleServiceClient)

    @functools.cached_property
    def metadata(self) -> Any:
        """Vertex ML Metadata."""
        from google.cloud.aiplatform_v1.services.metadata_service import MetadataServiceClient

        return self._make(MetadataServiceClient)


def patiently() -> Any:
    """Retries a question for five minutes while the service or the network is away; for reading only."""
    from google.api_core import exceptions, retry

    def away(error: Exception) -> bool:
        gateway = isinstance(error, exceptions.GatewayTimeout | exceptions.BadGateway)
        return gateway or bool(retry.if_transient_error(error))

    wait = float(os.environ.get("BAGLINE_RETRY_SECONDS", "300"))
    return retry.Retry(predicate=away, initial=0.5, maximum=20.0, timeout=wait)


@contextlib.contextmanager
def explain(what: str) -> Iterator[None]:
    """Turns a refusal into one line: `what` was asked, why not, and the mend."""
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except BaglineError:
        raise
    except exceptions.RetryError as error:
        raise WorkError(f"{what}: no answer ({_words(error.cause or error)})", mend="try again later") from None
    except exceptions.GoogleAPICallError as error:
        raise _explained(what, error) from None
    except GoogleAuthError as error:
        raise InputError(f"{what}: the credentials are refused ({_words(error)})", mend=_LOGIN) from None
    except OSError as error:  # what `requests` raises is one
        answer = getattr(error, "response", None)
        if answer is not None:
            raise _explained(what, exceptions.from_http_response(answer)) from None  # type: ignore[no-untyped-call]
        raise WorkError(f"{what}: no answer ({_words(error)})", mend="check the network, and try again") from None


def _explained(what: str, error: Any) -> BaglineError:
    text = f"{what}: {_words(error)}"
    if error.code in (401, 403):
        return InputError(text, mend="ask for the role that it names, or see docs/vertex.md, Roles")
    if error.code in (400, 404, 409, 412):
        return InputError(text, mend="correct it in the environment file or the call")
    if error.code == 429:
        return WorkError(text, mend="wait, or ask for more quota")
    return WorkError(text, mend="try again later")


def _words(error: Any) -> str:
    text = re.sub(r"^[A-Z]+ https?://\S+: ", "", str(getattr(error, "message", "") or error))
    return " ".join(text.split())[:400].rstrip(".")


def ask(service: str, default: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """The JSON answer of a REST service: GET, or POST where there is a `body`.

    Raises:
        google.api_core.exceptions.GoogleAPICallError: it is refused.
    """
    from google.api_core import exceptions
    from google.auth.transport.requests import AuthorizedSession

    address = endpoint(service, default)
    with AuthorizedSession(credentials_for(address)) as session:  # type: ignore[no-untyped-call]
        url = f"{address}/{path}"
        answer = session.get(url, timeout=TIMEOUT) if body is None else session.post(url, json=body, timeout=TIMEOUT)
        if answer.status_code >= 400:
            raise exceptions.from_http_response(answer)  # type: ignore[no-untyped-call]
        return answer.json()
