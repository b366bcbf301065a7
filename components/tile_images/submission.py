"""What Google's services say when they refuse a job, as errors with a mend."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from apache_beam.runners.dataflow.internal.apiclient import DataflowJobAlreadyExistsError
from google.api_core.exceptions import AlreadyExists, Forbidden, GoogleAPICallError, ResourceExhausted, Unauthenticated
from google.auth.exceptions import GoogleAuthError

from components.records.errors import InputError, WorkError
from components.tile_images.dataflow import DataflowOptions


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
    except (AlreadyExists, DataflowJobAlreadyExistsError):
        raise FileExistsError(options.project) from None
    except ResourceExhausted as error:
        mend = "ask for more quota, lower dataflow.max_workers, or run the step again later"
        raise WorkError(f"refuses the job: {error.message}", where=where, mend=mend) from None
    except (Forbidden, Unauthenticated) as error:
        mend = "grant roles/dataflow.developer to the account that runs this step"
        raise WorkError(f"refuses the job: {error.message}", where=where, mend=mend) from None
    except GoogleAPICallError as error:
        mend = "correct the option it names, or run the step again"
        raise WorkError(f"refuses the job: {error.message}", where=where, mend=mend) from None
    except GoogleAuthError as error:
        mend = "log in with `gcloud auth application-default login`, or run it as a service account"
        raise InputError(f"no credentials ({error})", where=where, mend=mend) from None
    except OSError as error:
        mend = "check the network, that the bucket is there, and that roles/storage.objectAdmin is granted on it"
        raise WorkError(f"the job can't be handed over ({error})", where=options.staging, mend=mend) from None
