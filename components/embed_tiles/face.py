"""What the step does for its KFP face: nothing where it isn't asked for, else embed where a killed task can go on."""

from __future__ import annotations

import os
import shutil
from typing import Any

from components.embed_tiles.embed import EmbeddingSummary, embed_tiles
from components.embed_tiles.finish import PROGRESS
from components.embed_tiles.parameters import EmbeddingParameters
from components.records import storage

NOTE = "not_asked_for.json"


def embed_into(
    root: str, out: str, parameters: EmbeddingParameters, *, asked: bool, work_dir: str = ""
) -> EmbeddingSummary | None:
    """Embeds into `out`, or leaves a note there that embeddings were not asked for.

    Args:
        root: a tiled dataset.
        out: the folder of the artifact.
        parameters: how to embed.
        asked: whether to.
        work_dir: the parts are kept here while the work goes on, and linked or copied to `out` in the end.

    Raises:
        InputError, WorkError: see `embed_tiles`.
    """
    if not asked:
        storage.write_json(storage.join(out, NOTE), {"embeddings": False})
        return None
    if not work_dir:
        return embed_tiles(root, out, parameters)
    place = storage.join(work_dir, "embeddings")
    summary = embed_tiles(root, place, parameters)
    for name, info in sorted(storage.list_files(place).items()):
        if not name.startswith(PROGRESS):
            _bring(info.path, os.path.join(out, *name.split("/")))
    return summary


def _bring(source: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if not storage.is_remote(source):
        try:
            os.link(source, target)
            return
        except OSError:  # another file system, or one without links
            pass
    with storage.open_stream(source) as given, storage.open_atomic(target) as copy:
        shutil.copyfileobj(given, copy, 8 << 20)


def describe(summary: EmbeddingSummary | None) -> dict[str, Any]:
    """The artifact's metadata."""
    from components.records.provenance import artifact_metadata

    if summary is None:
        return artifact_metadata(manifest_hash="", embeddings=False)
    return artifact_metadata(embeddings=True, **summary.facts())
