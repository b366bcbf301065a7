"""What FROC needs of a slide: its tiles as a map, and its lesions on the same grid."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from components.evaluate_tiles.predict import SlidePrediction
from components.records import storage
from components.records.dataset import Thumbnail, TiledDataset, truth_path
from components.statistics.froc import MatchedSlide, SlideDetections, match_detections
from components.statistics.lesions import find_detections, label_lesions
from components.statistics.metrics import Array

Mask = NDArray[np.bool_]


def load_truth(dataset: TiledDataset, image_id: str, thumbnail: Thumbnail | None) -> tuple[Mask, float] | None:
    """A slide's lesion mask at low resolution, bool [h, w], and its downsample; None where there is none."""
    path = dataset.path(*truth_path(image_id).split("/"))
    if thumbnail is None or storage.stat(path) is None:
        return None
    mask = np.asarray(Image.open(io.BytesIO(storage.read_bytes(path)))).astype(bool)
    return mask, float(2 ** round(np.log2(thumbnail.width / mask.shape[1])))


def map_tiles(slide: SlidePrediction) -> tuple[Array, float]:
    """The slide's probabilities as a map, one cell for each place a tile may have.

    Returns:
        float64 [rows, columns] from level-0 (0, 0), NaN where no tile is; level-0 px a cell.
    """
    steps = [np.diff(np.unique(values)) for values in (slide.x, slide.y)]
    gaps = np.concatenate(steps)
    # corners are rounded to whole px, so that the least gap may be one px short: the cell is the mean of such gaps
    step = float(gaps[gaps <= gaps.min() + 1].mean()) if len(gaps) else float(slide.width[0])
    rows, columns = (np.rint(values / step).astype(np.int64) for values in (slide.y, slide.x))
    cells = np.full((int(rows.max()) + 1, int(columns.max()) + 1), np.nan)
    cells[rows, columns] = slide.probabilities
    return cells, step


def label_cells(mask: Mask, downsample: float, mpp: float | None, step: float, side: float) -> NDArray[np.int32]:
    """The lesion that each cell's tile overlaps most, 0 where none; a row below holds lesions that no cell shows.

    Lesions are numbered as CAMELYON16 does (`label_lesions`); where the resolution is not known, marks are merged
    only where they touch.

    Args:
        mask: bool [h, w].
        downsample: of the mask.
        mpp: µm/px at level 0.
        step: level-0 px a cell.
        side: level-0 px of a tile.
    """
    labels, _ = label_lesions(mask, mpp * downsample) if mpp else label_lesions(mask, 1.0, merge_um=0)
    height, width = (int(np.ceil(length * downsample / step)) for length in mask.shape)
    cells = np.zeros((height, width), np.int32)
    marked = np.argwhere(labels > 0) * downsample
    if not len(marked):
        return cells
    (top, left), (bottom, right) = marked.min(axis=0) - side, marked.max(axis=0) + downsample
    for row in range(max(0, int(top // step)), min(height, int(bottom // step) + 1)):
        for column in range(max(0, int(left // step)), min(width, int(right // step) + 1)):
            y0, x0 = (int(at * step // downsample) for at in (row, column))
            y1, x1 = (int(np.ceil((at * step + side) / downsample)) for at in (row, column))
            found = np.bincount(labels[y0:y1, x0:x1].ravel())
            if len(found) > 1:
                cells[row, column] = 1 + int(found[1:].argmax())
    hidden = sorted(set(range(1, int(labels.max()) + 1)) - set(np.unique(cells).tolist()))
    rest = np.zeros((1 + max(0, len(hidden) - 1) // width, width), np.int32)
    rest.ravel()[: len(hidden)] = hidden
    return np.concatenate([cells, rest])


def match_slide(
    slide: SlidePrediction, truth: tuple[Mask, float] | None, mpp: float | None, radius_um: float
) -> MatchedSlide:
    """The slide's detections against its lesions.

    A detection is a tile whose probability is the highest within `radius_um`; it hits the lesion that it overlaps.

    Args:
        slide: its tiles.
        truth: as `load_truth`; None for a slide without lesions.
        mpp: µm/px at level 0; where it is not known the radius is one cell.
        radius_um: of the suppression.
    """
    cells, step = map_tiles(slide)
    radius = radius_um / (mpp * step) if mpp else 1.0
    x, y, scores = find_detections(cells, radius=radius, downsample=step)
    lesions = None
    if truth is not None and truth[0].any():
        lesions = label_cells(*truth, mpp, step, float(slide.width[0]))
    elif truth is None and (slide.tile_labels == 1).any():  # records of another maker: the tiles are all that is known
        marked = np.zeros(cells.shape, bool)
        chosen = slide.tile_labels == 1
        rows, columns = (np.rint(values[chosen] / step).astype(np.int64) for values in (slide.y, slide.x))
        marked[rows, columns] = True
        lesions = label_cells(marked, step, None, step, step)
    return match_detections(SlideDetections(slide.image_id, x, y, scores, lesions, step))
