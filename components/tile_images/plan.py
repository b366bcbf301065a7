"""The plan of a slide: what is read, which tiles are cut, and what is known before any of them is read."""

from __future__ import annotations

import contextlib
import io
import json
import math
import time
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from components.readers.open_slide import choose_reader, open_slide
from components.readers.protocol import Picture
from components.records import storage
from components.records.dataset import truth_path
from components.records.errors import BaglineError, SlideError
from components.records.provenance import file_digest
from components.tile_images import grid
from components.tile_images.morphology import Mask, reduce_picture
from components.tile_images.parameters import TilingParameters
from components.tile_images.qc_sheet import save_sheet
from components.tile_images.scale import Scale, check_mpp, choose_scale, resolve_mpp
from components.tile_images.tissue import Findings, examine_picture

PLAN_VERSION = "5"
THUMBNAIL_PX = 1024
_MASK_PX, _MOST_MASK_PX = 1024, 4096


@dataclass(frozen=True)
class SlideTask:
    """A row of the manifest as work: its constants, and where its files are.

    Attributes:
        image, mask: paths or URIs; `mask` is empty where the row has none.
        path: of the image, relative to the images root.
        problem: why there is no image to open, else empty.
        tissue_method, tissue_threshold: as `tissue.examine_picture` takes them.
    """

    image_id: str
    patient_id: str
    label: str
    label_index: int
    split: str
    mpp: float | None
    path: str
    image: str
    mask: str
    problem: str = ""
    tissue_method: str = "auto"
    tissue_threshold: float = 0.0


@dataclass(frozen=True)
class SlidePlan:
    """What was decided for a slide, stored as `plan.json`; its tiles beside it as `tiles.npy`.

    Attributes:
        key: digest of all that decides the slide's records: its row, its content, the parameters.
        stamps: size and modification time of the image and the mask, by which an unchanged file is known again.
        status: `tiled`, `empty` or `failed`, so far; `reason` why it is not `tiled`.
        verified: every stored block of the tiles' level was decoded for the low-resolution picture, none was damaged.
        tiles: how many are to be cut, in `regions` regions.
    """

    key: str
    image_id: str
    stamps: dict[str, list[int | str]]
    status: str
    reason: str = ""
    digest: str = ""
    mask_digest: str = ""
    reader: str = ""
    mpp: float | None = None
    mpp_source: str = "unknown"
    scale: Scale | None = None
    verified: bool = False
    tiles: int = 0
    regions: int = 0
    thumbnail: dict[str, Any] | None = None
    seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> SlidePlan:
        """The plan of a `plan.json`."""
        scale = value.pop("scale")
        return cls(**value, scale=None if scale is None else Scale(**scale))


def plan_folder(out: str, image_id: str) -> str:
    """Where the plan and the region results of a slide are kept."""
    return storage.join(out, ".tiling", image_id)


def load_plan(out: str, image_id: str) -> SlidePlan | None:
    """The stored plan of a slide, or None where there is none."""
    path = storage.join(plan_folder(out, image_id), "plan.json")
    return None if storage.stat(path) is None else SlidePlan.from_json(storage.read_json(path))


def load_tiles(out: str, image_id: str) -> grid.Tiles:
    """The stored tiles of a slide's plan, records of `grid.TILE`."""
    content = storage.read_bytes(storage.join(plan_folder(out, image_id), "tiles.npy"))
    tiles: grid.Tiles = np.load(io.BytesIO(content), allow_pickle=False)
    return tiles


def save_plan(out: str, plan: SlidePlan, tiles: grid.Tiles | None = None) -> None:
    """Stores a plan; the tiles first, so that a plan that is there is whole."""
    folder = plan_folder(out, plan.image_id)
    if tiles is not None:
        content = io.BytesIO()
        np.save(content, tiles, allow_pickle=False)
        storage.write_bytes(storage.join(folder, "tiles.npy"), content.getvalue())
    storage.write_json(storage.join(folder, "plan.json"), asdict(plan))


def stamp_files(task: SlideTask) -> dict[str, list[int | str]]:
    """Size and modification time (or the store's digest) of the task's files, -1 where one is missing."""
    stamps: dict[str, list[int | str]] = {}
    for name, path in (("image", task.image), ("mask", task.mask)):
        if path:
            info = storage.stat(path)
            stamps[name] = [-1, -1] if info is None else [info.size, info.digest or info.mtime_ns]
    return stamps


def plan_key(task: SlideTask, digest: str, mask_digest: str, reader: str, parameters: TilingParameters) -> str:
    """Digest of all that decides a slide's records."""
    row = {name: value for name, value in asdict(task).items() if name not in ("image", "mask", "problem")}
    decides = [PLAN_VERSION, row, digest, mask_digest, reader, parameters.record_parameters()]
    return sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


@dataclass
class SlideFacts:
    """What is known of a slide, filled in as it is looked at, so that a slide that fails keeps it."""

    digest: str = ""
    mask_digest: str = ""
    reader: str = ""
    mpp: float | None = None
    mpp_source: str = "unknown"


def fail_plan(
    task: SlideTask, parameters: TilingParameters, reason: str, facts: SlideFacts | None = None, seconds: float = 0.0
) -> SlidePlan:
    """The plan of a slide that can't be tiled."""
    facts = facts or SlideFacts()
    return SlidePlan(
        key=plan_key(task, facts.digest, facts.mask_digest, facts.reader, parameters),
        image_id=task.image_id,
        stamps=stamp_files(task),
        status="failed",
        reason=reason,
        seconds=round(seconds, 3),
        **asdict(facts),
    )


def plan_slide(task: SlideTask, parameters: TilingParameters, out: str) -> SlidePlan:
    """Looks at a slide at low resolution and decides its tiles; stores the plan and the thumbnail.

    A slide that can't be tiled has a plan of status `failed` with the reason.

    Raises:
        BaglineError: the output can't be written.
    """
    start = time.perf_counter()
    facts = SlideFacts()
    tiles = None
    try:
        plan, tiles = _plan(task, parameters, out, facts)
        plan = replace(plan, seconds=round(time.perf_counter() - start, 3))
    except SlideError as error:
        plan = fail_plan(task, parameters, str(error), facts, time.perf_counter() - start)
    except BaglineError:
        raise
    except Exception as error:  # noqa: BLE001 - one slide must not end the run; the ledger tells what it was
        reason = f"{type(error).__name__}: {error}"
        plan = fail_plan(task, parameters, reason, facts, time.perf_counter() - start)
    save_plan(out, plan, tiles)
    return plan


def _plan(task: SlideTask, parameters: TilingParameters, out: str, facts: SlideFacts) -> tuple[SlidePlan, grid.Tiles]:
    if task.problem:
        raise SlideError(task.problem)
    stamps = stamp_files(task)
    info = storage.stat(task.image)
    if info is None:
        raise SlideError("there is no such file", mend="check image_path")
    facts.digest = info.digest or file_digest(task.image)
    chosen, reader_reason = choose_reader(task.image, verify=False)
    with contextlib.closing(chosen) as reader:
        facts.digest = getattr(reader, "digest", "") or facts.digest
        facts.reader = reader.name
        facts.mpp, facts.mpp_source = resolve_mpp(task.mpp, reader.mpp, parameters)
        check_mpp(facts.mpp, facts.mpp_source, parameters)
        scale = choose_scale(reader.downsamples, facts.mpp, parameters)
        downsample = choose_downsample(reader.width, reader.height, scale.side)
        picture = reader.read_low_resolution(downsample)
        unreadable = list(getattr(reader, "unreadable", ()))
        decoded_level = getattr(reader, "decoded_level", -1)
    found = examine_slide_picture(picture, task, parameters, downsample, scale.side)
    mark_unreadable(found.tissue, unreadable, downsample)
    size = reader.width, reader.height
    tiles, details = choose_tiles(task, parameters, scale, size, found, downsample)
    if reader_reason:
        details["reader_reason"] = reader_reason
    if hasattr(reader, "bytes_read"):
        details |= {"bytes_read": reader.bytes_read, "glass_unread": getattr(reader, "glass_unread", 0)}
    if task.mask:
        tiles["label"], facts.mask_digest = label_tiles(task, size, tiles, scale.side, downsample, parameters, out)
    if parameters.qc:
        save_sheet(out, task.image_id, picture, found, tiles, downsample, scale.side)
    reason = explain_empty(size, scale, details, bool(found.tissue.any()), parameters)
    plan = SlidePlan(
        key=plan_key(task, facts.digest, facts.mask_digest, facts.reader, parameters),
        image_id=task.image_id,
        stamps=stamps,
        status="empty" if reason else "tiled",
        reason=reason,
        scale=scale,
        verified=decoded_level == scale.level and not unreadable,
        tiles=len(tiles),
        regions=grid.count_regions(len(tiles), parameters),
        thumbnail=save_thumbnail(out, task.image_id, picture, downsample, size),
        details=details,
        **asdict(facts),
    )
    return plan, tiles


def draw_sheet_again(task: SlideTask, plan: SlidePlan, parameters: TilingParameters, out: str) -> None:
    """Draws the QC sheet of a planned slide; its tiles are those of the plan.

    Raises:
        SlideError: the slide can't be read.
    """
    if plan.scale is None:
        return
    with contextlib.closing(open_slide(task.image, plan.reader, verify=False, digest=plan.digest)) as reader:
        downsample = choose_downsample(reader.width, reader.height, plan.scale.side)
        picture = reader.read_low_resolution(downsample)
        unreadable = list(getattr(reader, "unreadable", ()))
    found = examine_slide_picture(picture, task, parameters, downsample, plan.scale.side)
    mark_unreadable(found.tissue, unreadable, downsample)
    save_sheet(out, task.image_id, picture, found, load_tiles(out, task.image_id), downsample, plan.scale.side)


def examine_slide_picture(
    picture: Picture, task: SlideTask, parameters: TilingParameters, downsample: float, side: int
) -> Findings:
    """Tissue, whose gaps up to a tile's width are closed, pen and folds of a slide's picture.

    Args:
        picture: uint8, shape [height, width, 3], `downsample` level-0 px a px.
        task: its row, which may say how tissue is found.
        parameters: of the run.
        downsample: of the picture.
        side: level-0 px of a tile.
    """
    gap = round(side / downsample)
    return examine_picture(picture, task.tissue_method, task.tissue_threshold, parameters.max_fold < 1, gap)


def mark_unreadable(tissue: Mask, unreadable: list[tuple[float, float, float, float]], downsample: float) -> None:
    """Counts what could not be looked at as tissue, so that its tiles are tried, and recorded where they are lost."""
    for left, top, right, bottom in unreadable:
        rows = slice(math.floor(top / downsample), math.ceil(bottom / downsample))
        tissue[rows, math.floor(left / downsample) : math.ceil(right / downsample)] = True


def choose_tiles(
    task: SlideTask,
    parameters: TilingParameters,
    scale: Scale,
    size: tuple[int, int],
    found: Findings,
    downsample: float,
) -> tuple[grid.Tiles, dict[str, Any]]:
    """The tiles of a slide that are to be cut, and the counts that tell where the others went."""
    tiles = grid.lay_grid(*size, scale, parameters)
    whole = len(tiles)
    tiles["tissue"] = grid.measure_share(found.tissue, downsample, tiles, scale.side)
    tiles = tiles[(tiles["tissue"] > 0) & (tiles["tissue"] >= np.float32(parameters.min_tissue))]
    with_tissue = len(tiles)
    if found.pen.any():
        tiles = tiles[grid.measure_share(found.pen, downsample, tiles, scale.side) <= parameters.max_pen]
    without_pen = len(tiles)
    if found.fold.any():
        tiles = tiles[grid.measure_share(found.fold, downsample, tiles, scale.side) <= parameters.max_fold]
    without_folds = len(tiles)
    tiles = grid.sample_tiles(tiles, parameters, task.image_id)
    details = {
        "width": size[0],
        "height": size[1],
        "level": scale.level,
        "tile_mpp": scale.mpp,
        "resampled": not scale.native,
        "tissue_share": round(float(found.tissue.mean()), 6),
        "tiles_grid": whole,
        "tiles_without_tissue": whole - with_tissue,
        "tiles_on_pen": with_tissue - without_pen,
        "tiles_folded": without_pen - without_folds,
        "tiles_not_sampled": without_folds - len(tiles),
    }
    return tiles, details


def label_tiles(
    task: SlideTask,
    size: tuple[int, int],
    tiles: grid.Tiles,
    side: int,
    downsample: float,
    parameters: TilingParameters,
    out: str,
) -> tuple[NDArray[np.int8], str]:
    """The label of each tile by the slide's lesion mask, and the mask's digest.

    The mask at low resolution is written beside the thumbnail, for those who later hold something against it.

    Raises:
        SlideError: the mask is missing, can't be read, or is not of this slide.
    """
    from components.readers.mask import survey_mask

    x, y = tiles["x"].astype(np.int64), tiles["y"].astype(np.int64)
    classes = parameters.lesion_classes.split(",")
    name = task.mask.rpartition("/")[2]
    with storage.local_copy(task.mask) as path:
        found = survey_mask(path, size, x, y, side, downsample, classes=classes, name=name)
        digest = file_digest(path)
    content = io.BytesIO()
    Image.fromarray(found.drawn).save(content, "PNG", optimize=True)
    storage.write_bytes(storage.join(out, *truth_path(task.image_id).split("/")), content.getvalue())
    return grid.mark_labels(found.areas, side, parameters.min_lesion), digest


def explain_empty(
    size: tuple[int, int], scale: Scale, details: dict[str, Any], tissue: bool, parameters: TilingParameters
) -> str:
    """Why a slide has no tile, or nothing where it has."""
    if not details["tiles_grid"]:
        return f"{size[0]} × {size[1]} px is smaller than one tile of {scale.side} px"
    pen, folded = details["tiles_on_pen"], details["tiles_folded"]
    if details["tiles_without_tissue"] + pen + folded < details["tiles_grid"]:
        return ""
    if pen and folded:
        return f"every tile with tissue is on a pen stroke ({pen}) or in a fold ({folded})"
    if pen:
        return f"every tile with tissue ({pen}) is on a pen stroke"
    if folded:
        return f"every tile with tissue ({folded}) is in a fold"
    return f"no tile holds {parameters.min_tissue:g} of tissue" if tissue else "no tissue"


def choose_downsample(width: int, height: int, side: int) -> float:
    """Level-0 px a px of the low-resolution picture, a power of two.

    Its longer side has at most 1024 px, unless a tile would then be less than 4 px; and 4096 px at the most, so that
    memory is bounded whatever the slide's size.
    """
    longest = max(width, height)
    wanted = min(math.ceil(math.log2(max(longest / _MASK_PX, 1))), max(int(math.log2(max(side / 4, 1))), 0))
    bound = math.ceil(math.log2(max(longest / _MOST_MASK_PX, 1)))
    return float(2 ** max(wanted, bound))


def save_thumbnail(
    out: str, image_id: str, picture: Picture, downsample: float, size: tuple[int, int]
) -> dict[str, Any]:
    """Writes `thumbnails/<image_id>.jpg`, at most 1024 px long, and tells its entry of `thumbnails.json`."""
    factor = math.ceil(max(picture.shape[:2]) / THUMBNAIL_PX)
    path = f"thumbnails/{image_id}.jpg"
    content = io.BytesIO()
    Image.fromarray(reduce_picture(picture, factor)).save(content, "JPEG", quality=85)
    storage.write_bytes(storage.join(out, path), content.getvalue())
    return {"path": path, "downsample": downsample * factor, "width": size[0], "height": size[1]}
