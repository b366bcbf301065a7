"""Builds the sample cohort: `python -m components.sample_cohort.build --out FOLDER`.

<out>/images/<image_id>.tif    slides, flat and pyramidal, with blocks of 256 and of 128 px
<out>/masks/<image_id>.tif     where the lesion is
<out>/truth.json               tissue and lesion share of every slide
<out>/manifest.csv             written last: where it is, the cohort is whole
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.records import storage
from components.records.errors import BaglineError, InputError
from components.records.manifest import Row, write_manifest
from components.records.provenance import derive_seed
from components.sample_cohort.slide import CELL_PX, Stored, draw_slide, encode_mask, encode_slide
from components.sample_cohort.texture import Tissue, cut_tissue

LABELS = ("normal", "tumour")
CENTERS = 3
MPP = 0.5
MIN_SIZE = 512
MAX_SIZE = 16384
COLUMNS = ("image_id", "center_id", "patient_id", "image_num", "label", "image_path", "mask_path", "mpp")

_WITHOUT_MPP = 3  # the patient whose files carry no resolution: the manifest states it
_WITH_PEN = (2, 9)  # the slides, counted over the cohort, that carry a pen stroke

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Planned:
    row: Row
    lesion_share: float
    stored: Stored
    pen: bool


def _plan(patients: int, seed: int) -> list[_Planned]:
    """Every slide of the cohort; half of the patients have a lesion, in at least one of their slides."""
    rng = np.random.default_rng(derive_seed(seed, "cohort"))
    positive = rng.permutation(patients) < (patients + 1) // 2
    planned: list[_Planned] = []
    for patient in range(patients):
        patient_id = f"P{patient + 1:03d}"
        slides = int(rng.integers(1, 4))
        with_lesion = {int(n) for n in rng.permutation(slides)[: int(rng.integers(1, slides + 1))]}
        in_file = MPP if patient != _WITHOUT_MPP % patients else None
        for number in range(slides):
            place = len(planned)
            image_id = f"{patient_id}_{number}"
            share = float(rng.uniform(0.1, 0.4)) if positive[patient] and number in with_lesion else 0.0
            row = Row(
                image_id=image_id,
                patient_id=patient_id,
                label=LABELS[int(positive[patient])],
                line=place + 2,
                center_id=str(patient % CENTERS + 1),
                image_num=str(number),
                image_path=f"images/{image_id}.tif",
                mask_path=f"masks/{image_id}.tif",
                mpp=MPP if in_file is None else None,
            )
            stored = Stored(block=(256, 128)[place // 2 % 2], levels=(3, 1)[place % 2], mpp=in_file)
            planned.append(_Planned(row, share, stored, pen=place in _WITH_PEN))
    return planned


def _write_slide(out: str, tissue: Tissue, seed: int, size: int, plan: _Planned) -> dict[str, Any]:
    """Draws and stores one slide and its mask; returns its line of `truth.json`."""
    rng = np.random.default_rng(derive_seed(seed, plan.row.image_id))
    slide = draw_slide(rng, tissue, size, lesion_share=plan.lesion_share, pen=plan.pen)
    storage.write_bytes(storage.join(out, plan.row.image_path), encode_slide(slide, plan.stored))
    storage.write_bytes(storage.join(out, plan.row.mask_path), encode_mask(slide))
    return {
        "tissue_share": round(slide.tissue_share, 6),
        "lesion_share": round(slide.lesion_share, 6),
        "pen": plan.pen,
        "block": plan.stored.block,
        "levels": plan.stored.levels,
    }


def build_cohort(out: str, *, patients: int = 16, seed: int = 0, size: int = 4096) -> int:
    """Builds the cohort below `out` and returns its number of slides; the same arguments give the same bytes.

    Args:
        out: a folder; files of an earlier cohort are replaced.
        patients: at least 2, one for each label.
        seed: decides everything that is random.
        size: side of a slide, level-0 px, a multiple of `CELL_PX`.

    Raises:
        InputError: an argument is out of its range, or `out` may not be written.
        WorkError: no space is left.
    """
    if patients < len(LABELS):
        raise InputError(f"{patients} patients can't carry {len(LABELS)} labels", where="--patients", mend="give 2 up")
    if not MIN_SIZE <= size <= MAX_SIZE or size % CELL_PX:
        mend = f"give a multiple of {CELL_PX} from {MIN_SIZE} to {MAX_SIZE}"
        raise InputError(f"{size} px is no side for a slide", where="--size", mend=mend)
    planned = _plan(patients, seed)
    write = functools.partial(_write_slide, out, cut_tissue(), seed, size)
    truth = {}
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as threads:
        for plan, shares in zip(planned, threads.map(write, planned), strict=True):
            truth[plan.row.image_id] = shares
            logger.info("drew %s, slide %d of %d", plan.row.image_id, len(truth), len(planned))
    storage.write_json(storage.join(out, "truth.json"), truth)
    write_manifest(storage.join(out, "manifest.csv"), COLUMNS, [plan.row for plan in planned])
    return len(planned)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m components.sample_cohort.build", description="Builds a small cohort of slides."
    )
    parser.add_argument("--out", required=True, help="folder for the cohort")
    parser.add_argument("--patients", type=int, default=16, help="number of patients (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="decides everything random (default %(default)s)")
    parser.add_argument("--size", type=int, default=4096, help="side of a slide in px (default %(default)s)")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        slides = build_cohort(options.out, patients=options.patients, seed=options.seed, size=options.size)
    except BaglineError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stdout.write(f"{slides} slides of {options.patients} patients: {storage.join(options.out, 'manifest.csv')}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
