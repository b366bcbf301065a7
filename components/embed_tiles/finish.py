"""What is noted of each finished part, and the files that close an embedding."""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from components.records import storage
from components.records.dataset import Part, TiledDataset
from components.records.embedded import EmbeddedPart, EmbeddedSchema
from components.records.errors import InputError, WorkError

if TYPE_CHECKING:  # importing it for real would import TensorFlow
    import keras

PROGRESS = ".progress"


def note_path(out: str, part: Part) -> str:
    """Where a finished part is noted."""
    return storage.join(out, PROGRESS, *f"{part.path}.json".split("/"))


def part_note(out: str, part: Part, key: str) -> EmbeddedPart | None:
    """The note of a part that is there, made from these records by the encoder of `key`; else None."""
    path = note_path(out, part)
    if storage.stat(path) is None:
        return None
    try:
        found = EmbeddedPart.from_json(storage.read_json(path))
    except (InputError, TypeError, KeyError, ValueError):
        return None  # a note that can't be read is none: the part is made again
    made = storage.stat(storage.join(out, *part.path.split("/")))
    same = (found.source, found.key, found.tiles) == (part.sha256, key, part.tiles)
    return found if same and made is not None and made.size == found.bytes else None


def finish(out: str, dataset: TiledDataset, schema: EmbeddedSchema, encoder: keras.Model) -> int:
    """Writes the encoder, the ledger, the list of parts and, last, the schema, once every part is there.

    Returns:
        How many parts are not there yet; then nothing is written.
    """
    notes = [part_note(out, part, schema.key) for part in dataset.parts]
    missing = sum(note is None for note in notes)
    if missing:
        return missing
    parts = [note for note in notes if note is not None]
    _remove_others(out, {part.path for part in parts})
    _save_encoder(out, schema, encoder)
    ledger = _make_ledger(dataset, parts)
    storage.write_json_lines(storage.join(out, "ledger.jsonl"), ledger)
    tiles = sum(line["tiles"] for line in ledger)
    if tiles != sum(part.tiles for part in dataset.parts):
        raise WorkError("the ledger does not add up", where=out, mend="run `bagline embed` again")
    storage.write_json(
        storage.join(out, "summary.json"),
        {
            "slides": len(ledger),
            "embedded": sum(line["status"] == "embedded" for line in ledger),
            "without_tiles": sum(line["status"] == "empty" for line in ledger),
            "tiles": tiles,
            "dim": schema.dim,
            "dtype": schema.dtype,
        },
    )
    storage.write_json(storage.join(out, "parts.json"), [asdict(part) for part in parts])
    schema.save(storage.join(out, "schema.json"))
    return 0


def _make_ledger(dataset: TiledDataset, parts: list[EmbeddedPart]) -> list[dict[str, Any]]:
    """One line for every row of the manifest, in its order."""
    counted: dict[str, list[EmbeddedPart]] = {}
    for part in parts:
        counted.setdefault(part.image_id, []).append(part)
    lines = []
    for row in dataset.manifest.rows:
        mine = counted.get(row.image_id, [])
        tiles = sum(part.tiles for part in mine)
        lines.append(
            {
                "image_id": row.image_id,
                "status": "embedded" if tiles else "empty",
                "reason": "" if tiles else "no tile in the records",
                "tiles": tiles,
                "parts": len(mine),
            }
        )
    return lines


def _remove_others(out: str, wanted: set[str]) -> None:
    """Parts of slides that the records no longer hold, and their notes."""
    for folder, ending in (("records", ""), (PROGRESS, ".json")):
        place = storage.join(out, folder)
        if not storage.is_remote(place) and not os.path.isdir(place):
            continue
        for name, info in storage.list_files(place).items():
            path = f"records/{name}" if folder == "records" else name.removesuffix(ending)
            if path not in wanted and not os.path.basename(name).startswith("."):
                storage.remove(info.path)


def _save_encoder(out: str, schema: EmbeddedSchema, encoder: keras.Model) -> None:
    from components.mil.model import save_model

    with tempfile.TemporaryDirectory() as scratch:
        folder = os.path.join(scratch, "encoder")
        save_model(encoder, folder, {"encoder": schema.encoder})
        for name, info in sorted(storage.list_files(folder).items()):
            with (
                storage.open_stream(info.path) as source,
                storage.open_atomic(storage.join(out, "encoder", name)) as copy,
            ):
                while block := source.read(8 << 20):
                    copy.write(block)
