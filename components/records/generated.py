"""Functions whose number of arguments is known only when a pipeline is built."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Mapping
from typing import Any


def define_function(source: str, name: str, namespace: Mapping[str, Any]) -> Callable[..., Any]:
    """The function `name` of a piece of Python, whose source `inspect` finds, as KFP needs it to.

    KFP has no way to hand a list of artifacts from tasks to one task without control flow. A component of as many
    inputs as there are folds does, and it looks the same locally and on Vertex AI.

    Args:
        source: one function definition; made by this project, never from input.
        name: of the function.
        namespace: what the source refers to.
    """
    filename = f"<{name} of {len(source)} characters>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    found: dict[str, Any] = dict(namespace)
    exec(compile(source, filename, "exec", dont_inherit=True), found)  # noqa: S102 - the source is this package's own
    function: Callable[..., Any] = found[name]
    function.__module__ = __name__
    return function
