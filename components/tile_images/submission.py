"""What Google's services say when they refuse a job, as errors with a mend."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from apache_beam.runners.dataflow.internal.apiclient import DataflowJobAlreadyExistsError
from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError

from components.records.errors import InputError, WorkError
from components.tile_images.dataflow import DataflowOptions

_REQUEST = re.compile(r"^[A-Z]+ https?://\S+: ")
_MENDS = {
    401: "grant roles/dataflow.developer to the account that runs this step",
    403: "grant roles/dataflow.developer to the account that runs this step",
    429: "ask for more quota, lower dataflow.max_workers, or run the step again later",
}
_CONFLICT = 409


@contextlib.contextmanager
def translate_refusals(options: DataflowOptions) -> Iterator[None]:
    """Turns a refusal into one line.

    Raises:
        WorkError: the service refuses the job, or can't be reached. InputError: no credentials.
        FileExistsError: a job of that name runs.
    """
    where = f"Dataflow, project {options.project}, {options.region}"
    try:
        yield
    except DataflowJobAlreadyExistsError:
        raise FileExistsError(options.project) from None
    except GoogleAPICallError as error:
        if error.code == _CONFLICT:
            raise FileExistsError(options.project) from None
        mend = _MENDS.get(error.code or 0, "correct the option it names, or run the step again")
        raise WorkError(f"refuses the job: {_REQUEST.sub('', error.message)}", where=where, mend=mend) from None
    except GoogleAuthError as error:
        mend = "log in with `gcloud auth application-default login`, or run it as a service account"
        raise InputError(f"no credentials ({error})", where=where, mend=mend) from None
    except OSError as error:
        mend = "check the network, that the bucket is there, and that roles/storage.objectAdmin is granted on it"
        raise WorkError(f"the job can't be handed over ({error})", where=options.staging, mend=mend) from None
