"""Tiles of slides, each with its own label: where they lie and what they are, in a few bytes each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.mil.bags import read_spans
from components.records.dataset import RecordSpan, TiledDataset
from components.records.example import parse_example
from components.records.manifest import Row

UNKNOWN = -1


@dataclass(frozen=True)
class LabelledSlide:
    """A slide's tiles in file order.

    Attributes:
        label, split: of its patient, as in the manifest.
        paths: its record files.
        file: int32 [n], which of `paths` each tile is in. offset: int64 [n]. length: int32 [n], both bytes.
        tile_labels: int8 [n]: 1 marked, 0 not, -1 where there is no mask.
    """

    image_id: str
    patient_id: str
    label: str
    split: str
    paths: tuple[str, ...]
    file: NDArray[np.int32]
    offset: NDArray[np.int64]
    length: NDArray[np.int32]
    tile_labels: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.offset)

    @property
    def is_known(self) -> bool:
        """Whether its tiles are labelled."""
        return bool((self.tile_labels != UNKNOWN).all())

    @property
    def marked(self) -> int:
        """How many tiles the mask marks."""
        return int((self.tile_labels == 1).sum())

    def span(self, index: int) -> RecordSpan:
        """Where a tile's record lies."""
        return RecordSpan(self.paths[self.file[index]], int(self.offset[index]), int(self.length[index]))

    def spans(self) -> Iterator[RecordSpan]:
        """Where each tile's record lies."""
        return map(self.span, range(len(self)))


@dataclass(frozen=True)
class LeftOut:
    """A slide that takes no part, and why."""

    image_id: str
    patient_id: str
    split: str
    tiles: int
    reason: str


def index_slides(
    dataset: TiledDataset, splits: Sequence[str], *, min_tiles: int = 1, negative_label: str = "", labelled: bool = True
) -> tuple[list[LabelledSlide], list[LeftOut]]:
    """The slides of some splits, and those that are left out, both in manifest order: every slide is in one of them.

    Args:
        dataset: whose slides.
        splits: which of them.
        min_tiles: a slide with fewer has too little tissue.
        negative_label: a slide of this patient label that has no mask holds no lesion; empty for no such label.
        labelled: leaves out slides whose tiles have no label.

    Raises:
        WorkError: a part is missing or damaged.
    """
    tiled = {part.image_id for part in dataset.parts if part.tiles}
    slides, left_out = [], []
    for row in dataset.manifest.rows:
        if row.split not in splits:
            continue
        spans = dataset.spans(row.image_id) if row.image_id in tiled else []
        reason = _too_few(len(spans), min_tiles)
        slide = None if reason else _index(row, spans, negative_label)
        if slide is not None and labelled and not slide.is_known:
            reason = "has no lesion mask"
        if slide is None or reason:
            left_out.append(LeftOut(row.image_id, row.patient_id, row.split, len(spans), reason))
        else:
            slides.append(slide)
    return slides, left_out


def _too_few(tiles: int, min_tiles: int) -> str:
    if not tiles:
        return "has no tile"
    return f"has too little tissue: {tiles} tiles, fewer than {min_tiles}" if tiles < min_tiles else ""


def _index(row: Row, spans: list[RecordSpan], negative_label: str) -> LabelledSlide:
    paths = tuple(dict.fromkeys(span.path for span in spans))
    number = {path: at for at, path in enumerate(paths)}
    found = (parse_example(data).get("tile/label") for data in read_spans(spans))
    labels = np.array([value[0] if value else UNKNOWN for value in found], np.int8)
    if negative_label and row.label == negative_label:
        labels[labels == UNKNOWN] = 0
    return LabelledSlide(
        row.image_id,
        row.patient_id,
        row.label,
        row.split,
        paths,
        np.array([number[span.path] for span in spans], np.int32),
        np.array([span.offset for span in spans], np.int64),
        np.array([span.length for span in spans], np.int32),
        labels,
    )


class TileTable:
    """All tiles of several slides under one number each.

    Attributes:
        labels: int8 [n].
    """

    def __init__(self, slides: Sequence[LabelledSlide]) -> None:
        self.slides = list(slides)
        self._starts = np.cumsum([0, *(len(slide) for slide in slides)])
        self.labels = np.concatenate([np.zeros(0, np.int8), *(slide.tile_labels for slide in slides)])

    def __len__(self) -> int:
        return len(self.labels)

    def spans(self, numbers: NDArray[np.int64]) -> Callable[[], Iterator[RecordSpan]]:
        """What gives the spans of these tiles, in their order."""

        def walk() -> Iterator[RecordSpan]:
            at = np.searchsorted(self._starts, numbers, "right") - 1
            for slide, number in zip(at.tolist(), numbers.tolist(), strict=True):
                yield self.slides[slide].span(number - int(self._starts[slide]))

        return walk
