"""What there is to see: every run and every slide in a table, so that nothing a browser sends becomes a path."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from components.records import storage
from components.records.errors import InputError
from components.records.manifest import Row
from components.viewer.run import Run, is_run, open_run
from components.viewer.tiles import StandIn

logger = logging.getLogger(__name__)

_SUFFIXES = frozenset(
    (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".qptiff", ".btf", ".dcm")
)
_MASK_STEM = "_mask"


@dataclass(frozen=True)
class Slide:
    """One slide that can be asked for.

    Attributes:
        key: its id in every address; the same after a restart.
        image_id: from the manifest, or in a folder of slides its path below the folder.
        run: key of its run, empty for a slide of a folder.
        path: its file; empty where it was not found.
        mask, annotations: its ground truth and its GeoJSON, empty where there is none.
        row: of the manifest, None for a slide of a folder.
        stand_in: its thumbnail in the run.
    """

    key: str
    image_id: str
    run: str = ""
    path: str = ""
    mask: str = ""
    annotations: str = ""
    row: Row | None = None
    stand_in: StandIn | None = None


@dataclass(frozen=True)
class Catalog:
    """Every slide by its key, in the order shown, and every run by its key."""

    slides: dict[str, Slide]
    runs: dict[str, Run]


def read_catalog(places: Sequence[str], images_root: str = "") -> Catalog:
    """Looks through runs and folders of slides.

    Args:
        places: each a finished or unfinished run, or a folder of slides; runs right below a folder are taken, too.
        images_root: where the slides of the runs are; empty for where the runs found them.

    Raises:
        InputError: a place is no folder, or holds neither a run nor a slide; no slide is below `images_root`.
    """
    slides: dict[str, Slide] = {}
    runs: dict[str, Run] = {}
    for place in places:
        before = len(slides)
        folders = [place] if is_run(place) else _runs_below(place)
        for folder in folders:
            run = open_run(folder, _free_name(folder, runs))
            runs[run.key] = run
            for slide in _slides_of_run(run, images_root):
                slides[slide.key] = slide
        if folders != [place]:
            for slide in _slides_of_folder(place, [os.path.basename(folder) for folder in folders]):
                slides[slide.key] = slide
        if len(slides) == before:
            raise InputError(
                "holds neither a run nor a slide", where=place, mend="name a run's OUT or a folder of slides"
            )
    return Catalog(slides, runs)


def _runs_below(place: str) -> list[str]:
    if storage.is_remote(place):
        return []
    if not os.path.isdir(place):
        raise InputError("no such folder", where=place, mend="check the path")
    below = (os.path.join(place, name) for name in sorted(os.listdir(place)))
    return [folder for folder in below if os.path.isdir(folder) and is_run(folder)]


def _free_name(folder: str, runs: Iterable[str]) -> str:
    name = os.path.basename(os.path.abspath(folder).rstrip("/")) or "run"
    taken, number, free = set(runs), 1, name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free


def _slides_of_run(run: Run, images_root: str) -> list[Slide]:
    root = images_root or run.images_root
    files = _list(root, asked=bool(images_root))
    by_stem: dict[str, list[str]] = {}
    for name in files:
        by_stem.setdefault(PurePosixPath(name).stem, []).append(name)
    found = []
    for row in run.rows:
        name = str(PurePosixPath(row.image_path)) if row.image_path else ""
        if not name:
            fitting = [one for one in by_stem.get(row.image_id, []) if _is_slide(one)]
            name = fitting[0] if len(fitting) == 1 else ""
        thumbnail = run.thumbnails.get(row.image_id)
        found.append(
            Slide(
                _key(run.key, row.image_id),
                row.image_id,
                run.key,
                files[name].path if name in files else "",
                _path_of(files, row.mask_path),
                _path_of(files, str(PurePosixPath(name).with_suffix(".geojson")) if name else ""),
                row,
                StandIn(
                    storage.join(run.root, *thumbnail.path.split("/")),
                    thumbnail.downsample,
                    thumbnail.width,
                    thumbnail.height,
                )
                if thumbnail is not None
                else None,
            )
        )
    missing = sum(not slide.path for slide in found)
    if missing and images_root and missing == len(found):
        raise InputError(f"holds no slide of the run {run.key}", where=images_root, mend="check --images-root")
    if missing:
        logger.warning("run %s: %d of %d slides not found; give --images-root", run.key, missing, len(found))
    return found


def _list(root: str, *, asked: bool) -> dict[str, storage.FileInfo]:
    if not root:
        return {}
    try:
        return storage.list_files(root)
    except InputError:
        if asked:
            raise
        return {}


def _path_of(files: dict[str, storage.FileInfo], name: str) -> str:
    found = files.get(str(PurePosixPath(name))) if name else None
    return found.path if found is not None else ""


def _slides_of_folder(place: str, runs: list[str]) -> list[Slide]:
    files = storage.list_files(place)
    outside = {name: info for name, info in files.items() if name.split("/", 1)[0] not in runs}
    found = []
    for name in sorted(outside):
        path = PurePosixPath(name)
        if not _is_slide(name) or path.stem.endswith(_MASK_STEM):
            continue
        found.append(
            Slide(
                _key(os.path.basename(os.path.abspath(place)), name),
                name,
                "",
                outside[name].path,
                _first(outside, (path.with_name(f"{path.stem}{_MASK_STEM}{end}") for end in (".tif", ".tiff", ".png"))),
                _path_of(outside, str(path.with_suffix(".geojson"))),
            )
        )
    return found


def _first(files: dict[str, storage.FileInfo], names: Iterable[PurePosixPath]) -> str:
    return next((files[str(name)].path for name in names if str(name) in files), "")


def _is_slide(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in _SUFFIXES and not PurePosixPath(name).name.startswith(".")


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
