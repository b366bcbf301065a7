"""The ledger: one line for every row of the manifest, so that no slide and no tile is lost unseen."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from components.records import storage
from components.records.errors import InputError

STATUSES = ("tiled", "empty", "partial", "failed")
MPP_SOURCES = ("manifest", "file", "default", "unknown")


@dataclass(frozen=True)
class LedgerEntry:
    """What became of one image.

    Attributes:
        status: `tiled`; `empty`, no tissue; `partial`, some tiles lost; `failed`, no tile could be made.
        reason: why it is not `tiled`, else empty.
        tiles, tiles_failed: tiles written and tiles lost.
        seconds: reading and writing time, all workers added up.
        path: relative to the images root.
        digest: of the image file, as in the records' `slide/digest`; empty where it could not be read.
        reader: which reader served it; empty where none did.
        mpp: µm/px at level 0, None where unknown; `mpp_source` tells where it came from.
        details: further counts (tissue share, tiles left out by a filter, …), by name.
    """

    image_id: str
    status: str
    reason: str
    tiles: int
    tiles_failed: int
    seconds: float
    path: str
    digest: str
    reader: str
    mpp: float | None
    mpp_source: str
    details: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The ledger line: the interface's keys, then what `details` adds."""
        line = asdict(self)
        return {**line.pop("details"), **line}

    @classmethod
    def from_json(cls, line: dict[str, Any]) -> LedgerEntry:
        """The entry of a ledger line."""
        keys = set(cls.__dataclass_fields__) - {"details"}
        return cls(**{key: line[key] for key in keys}, details={k: v for k, v in line.items() if k not in keys})


def write_ledger(path: str, entries: list[LedgerEntry]) -> None:
    """Writes the ledger in the order given (the manifest's)."""
    storage.write_json_lines(path, [entry.to_json() for entry in entries])


def read_ledger(path: str) -> list[LedgerEntry]:
    """Reads a ledger; raises InputError where a line lacks a key."""
    try:
        return [LedgerEntry.from_json(line) for line in storage.read_json_lines(path)]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"a line lacks {error}", where=path, mend="run the tiling step again") from None
