"""Errors a user can act on: what is wrong, where, and the mend, in one line."""

from __future__ import annotations

from collections.abc import Iterable


class BaglineError(Exception):
    """An expected failure.

    Args:
        what: what is wrong, with the id of the patient, slide or tile where there is one.
        where: file, option or step it was found in.
        mend: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", mend: str = "") -> None:
        self.what, self.where, self.mend = what, where, mend
        super().__init__(what, where, mend)

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        if self.mend:
            line = f"{line}; {self.mend}"
        return " ".join(line.split())

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.mend)


def _rebuild(kind: type[BaglineError], what: str, where: str, mend: str) -> BaglineError:
    return kind(what, where=where, mend=mend)


class InputError(BaglineError):
    """The call or its input is wrong: exit code 2."""

    exit_code = 2


class WorkError(BaglineError):
    """The work, or a gate, failed: exit code 1."""

    exit_code = 1


class SlideError(WorkError):
    """A slide can't be opened or read; its ledger line carries the reason."""


def name_first(items: Iterable[object], limit: int = 5) -> str:
    """`a, b, c and 7 more`: the first `limit` of `items`, and how many are left."""
    everything = [str(item) for item in items]
    shown = ", ".join(everything[:limit])
    rest = len(everything) - limit
    return f"{shown} and {rest} more" if rest > 0 else shown
