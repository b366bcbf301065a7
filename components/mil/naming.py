"""Refuses an unknown name and suggests the nearest."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from components.records.errors import InputError


def check_name(kind: str, name: str, known: Iterable[str]) -> None:
    """Raises InputError where `name` is none of `known`, with the nearest of them."""
    names = sorted(known)
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    mend = f"did you mean {near[0]!r}? There are {', '.join(names)}" if near else f"choose one of {', '.join(names)}"
    raise InputError(f"unknown {kind} {name!r}", mend=mend)
