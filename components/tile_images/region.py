"""A region: a run of a slide's tiles that one worker reads and writes as one TFRecord part."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from components.readers.open_slide import open_slide
from components.readers.protocol import SlideReader
from components.records import storage
from components.records.errors import SlideError
from components.records.example import encode_example, encode_feature, encode_features
from components.records.tfrecord import frame
from components.tile_images import grid, lanes
from components.tile_images.encode import TileEncoder
from components.tile_images.parameters import TilingParameters
from components.tile_images.plan import SlidePlan, SlideTask, plan_folder
from components.tile_images.scale import Scale
from components.tile_images.sharpness import measure_sharpness


@dataclass(frozen=True)
class RegionTask:
    """A region as work; it carries its tiles (13 bytes each), never their pixels.

    Attributes:
        verify: stored blocks have to be decoded before they are trusted; the plan has not done it.
    """

    slide: SlideTask
    key: str
    digest: str
    reader: str
    verify: bool
    scale: Scale
    index: int
    tiles: bytes

    def positions(self) -> grid.Tiles:
        """Its tiles, records of `grid.TILE`."""
        return np.frombuffer(self.tiles, grid.TILE)


@dataclass(frozen=True)
class RegionResult:
    """What became of a region, stored beside the plan as `region-<index>.json`.

    Attributes:
        part: of the TFRecord file, relative to OUT; empty where no tile could be made.
        lossless: tiles of the stored pixels.
        joined: tiles of several stored blocks, lossless or not.
        blurred: tiles left out for want of sharpness.
        failed: x, y and reason of each lost tile.
        bytes_read: fetched from object storage.
    """

    key: str
    index: int
    part: str
    tiles: int
    bytes: int
    sha256: str
    seconds: float
    lossless: int = 0
    blurred: int = 0
    failed: list[list[Any]] = field(default_factory=list)
    bytes_read: int = 0
    joined: int = 0


def make_regions(task: SlideTask, plan: SlidePlan, tiles: grid.Tiles, parameters: TilingParameters) -> list[RegionTask]:
    """The work items of a planned slide, in order."""
    if plan.scale is None:
        return []
    return [
        RegionTask(
            task,
            plan.key,
            plan.digest,
            plan.reader,
            not plan.verified,
            plan.scale,
            index,
            grid.cut_region(tiles, index, parameters).tobytes(),
        )
        for index in range(plan.regions)
    ]


def part_path(split: str, image_id: str, index: int) -> str:
    """Where a part lies, relative to OUT."""
    name = f"{image_id}-{index:05d}.tfrecord"
    return f"records/{split}/{name}" if split else f"records/{name}"


def result_path(out: str, image_id: str, index: int) -> str:
    """Where a region's result is stored."""
    return storage.join(plan_folder(out, image_id), f"region-{index:05d}.json")


def load_result(out: str, image_id: str, index: int, key: str) -> RegionResult | None:
    """A region's stored result, or None where there is none of this key or its part is not what it says."""
    path = result_path(out, image_id, index)
    if storage.stat(path) is None:
        return None
    result = RegionResult(**storage.read_json(path))
    if result.key != key:
        return None
    if result.part:
        part = storage.stat(storage.join(out, *result.part.split("/")))
        if part is None or part.size != result.bytes:
            return None
    return result


def save_result(out: str, image_id: str, result: RegionResult) -> None:
    """Stores a region's result, after its part."""
    storage.write_json(result_path(out, image_id, result.index), asdict(result))


def lose_region(task: RegionTask, out: str, reason: str, seconds: float = 0.0) -> RegionResult:
    """Records every tile of a region as lost."""
    failed = [[int(tile["x"]), int(tile["y"]), reason] for tile in task.positions()]
    result = RegionResult(task.key, task.index, "", 0, 0, "", round(seconds, 3), failed=failed)
    save_result(out, task.slide.image_id, result)
    return result


def tile_region(task: RegionTask, parameters: TilingParameters, out: str, lost: Mapping[int, str]) -> RegionResult:
    """Reads, encodes and writes the tiles of a region but the `lost` ones; the part appears whole, then its result.

    Raises:
        SlideError: the slide can't be opened at all. A tile that can't be read is counted in the result instead.
    """
    start = time.perf_counter()
    part = part_path(task.slide.split, task.slide.image_id, task.index)
    target = storage.join(out, *part.split("/"))
    opened = open_slide(task.slide.image, task.reader, verify=task.verify, digest=task.digest)
    with contextlib.closing(opened) as reader:
        if hasattr(reader, "expect_tiles"):
            corners = [(int(tile["x"]), int(tile["y"])) for tile in task.positions()]
            reader.expect_tiles(corners, task.scale.level, task.scale.side)
        records = _RegionRecords(task, parameters, reader, lost)
        first = next(records, None)
        if first is None:
            return lose_result(task, out, records, time.perf_counter() - start)
        digest = hashlib.sha256()
        written = count = 0
        with storage.open_atomic(target) as stream:
            record: bytes | None = first
            while record is not None:
                framed = frame(record)
                stream.write(framed)
                digest.update(framed)
                written += len(framed)
                count += 1
                record = next(records, None)
    result = RegionResult(
        task.key,
        task.index,
        part,
        count,
        written,
        digest.hexdigest(),
        round(time.perf_counter() - start, 3),
        records.lossless,
        records.blurred,
        records.failed,
        getattr(reader, "bytes_read", 0),
        records.joined,
    )
    save_result(out, task.slide.image_id, result)
    return result


def lose_result(task: RegionTask, out: str, records: _RegionRecords, seconds: float) -> RegionResult:
    """Stores the result of a region that was opened but of which no tile could be read, or none was sharp."""
    result = RegionResult(
        task.key, task.index, "", 0, 0, "", round(seconds, 3), blurred=records.blurred, failed=records.failed
    )
    save_result(out, task.slide.image_id, result)
    return result


class _RegionRecords(Iterator[bytes]):
    """Serialised Examples of a region's tiles that can be read; the others are in `failed`."""

    def __init__(
        self, task: RegionTask, parameters: TilingParameters, reader: SlideReader, lost: Mapping[int, str]
    ) -> None:
        self.failed: list[list[Any]] = []
        self.lossless = self.joined = self.blurred = 0
        self._min_sharpness = parameters.min_sharpness
        self._encoder = TileEncoder(reader, task.scale, parameters)
        self._constants = encode_constants(task, parameters)
        self._known: dict[tuple[str, int, int], bytes] = {}
        self._lost = lost
        # Plain numbers: a record of a NumPy array costs more to look at than a tile to write.
        self._tiles = iter(enumerate(task.positions().tolist()))

    def __next__(self) -> bytes:
        for number, (x, y, tissue, label) in self._tiles:
            if number in self._lost:
                self.failed.append([x, y, self._lost[number]])
                continue
            lanes.mark(number)
            try:
                encoded = self._encoder.encode(x, y)
            except SlideError as error:
                self.failed.append([x, y, str(error)])
                continue
            if self._min_sharpness and measure_sharpness(encoded.content) < self._min_sharpness:
                self.blurred += 1
                continue
            self.lossless += encoded.lossless
            self.joined += encoded.joined
            return encode_example(
                self._seldom(encoded.format, encoded.lossless, label),
                encode_feature("tile/x", x),
                encode_feature("tile/y", y),
                encode_feature("tile/tissue", tissue),
                encode_feature("image/encoded", encoded.content),
            )
        lanes.mark(lanes.NOWHERE)
        raise StopIteration

    def _seldom(self, form: str, lossless: int, label: int) -> bytes:
        """The slide's constants, and the features that are mostly the same from tile to tile."""
        key = form, lossless, label
        if key not in self._known:
            features: dict[str, int | float | bytes | str] = {"image/format": form, "tile/lossless": lossless}
            if label != grid.NO_LABEL:
                features["tile/label"] = label
            self._known[key] = self._constants + encode_features(features)
        return self._known[key]


def encode_constants(task: RegionTask, parameters: TilingParameters) -> bytes:
    """The features that are the same for every tile of a slide, serialised once."""
    features: dict[str, int | float | bytes | str] = {
        "image/height": parameters.tile_px,
        "image/width": parameters.tile_px,
        "image/class/text": task.slide.label,
        "image/class/label": task.slide.label_index,
        "slide/id": task.slide.image_id,
        "patient/id": task.slide.patient_id,
        "slide/digest": task.digest,
        "tile/level0_width": task.scale.side,
        "tile/level0_height": task.scale.side,
    }
    if task.scale.mpp is not None:
        features["tile/mpp"] = float(task.scale.mpp)
    return encode_features(features)
