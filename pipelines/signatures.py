"""The whole pipeline's parameters, for commands that run one step of it."""

from __future__ import annotations

import functools

from pipelines.catalog import load_pipeline
from pipelines.compile import build_spec, signature_of
from pipelines.parameters import Signature


@functools.cache
def whole_signature() -> Signature:
    """The parameters of the whole-slide pipeline, by its compiled form."""
    return signature_of(build_spec(load_pipeline("whole-slide").build()))
