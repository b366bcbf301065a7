"""What the tissue mask keeps and leaves out, on cohorts whose truth is known.

    python tests/benchmarks/bench_tissue.py            the cohorts that are reported: none was looked at while tuning
    python tests/benchmarks/bench_tissue.py --tuning   the cohorts on which the settings were chosen
    ... --sweep 0.003 0.01 0.02 0.05                   the same for several values of min_tissue

Cohorts are built with ../shared/tools/build_cohort.py out of real tissue, and kept in --work. A few lines of that
script are replaced on the way, for glass with a tint, ink of another colour, and a black scanner border. Prints for
each cohort: lesion tiles (every tile the mask touches) and the share of them that is kept; those on which anything is
to be seen, as the pictures of tissue have white places that fall onto corners of tiles; tiles on ink that are kept; the
share of the kept tiles that are nearly blank (less than 5% of the tile is visibly darker than the glass, looked at in
level-0 px, 8 × 8 at a time), and of those that lie outside the tissue; and the share of all other tiles that is kept.
Exit code 1 where a cohort keeps less than 99% of its lesion tiles or a tile on a pen stroke.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from components.readers.mask import survey_mask
from components.readers.open_slide import open_slide
from components.tile_images import grid
from components.tile_images.parameters import TilingParameters
from components.tile_images.plan import SlideTask, choose_downsample, examine_slide_picture
from components.tile_images.scale import choose_scale

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"
BOX = 8
VISIBLE, BLANK = 8, 0.05


@dataclasses.dataclass(frozen=True)
class Cohort:
    """What a cohort is made of; `options` go to the script as they are."""

    seed: int
    tissue: str
    options: str
    mpp: float = 0.5
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ink: tuple[int, int, int] = (40, 60, 190)
    border: int = 0


BONE = ("osteosarcoma/Non-Tumor___*.jpg", "osteosarcoma/Viable___*.jpg")
BONE_DEAD = ("osteosarcoma/Non-Tumor___*.jpg", "osteosarcoma/Non-Viable-Tumor___*.jpg")
COLON = ("nct_crc/[LMNS]*.jpg", "nct_crc/TUM*.jpg")
COLON_FAT = ("nct_crc/[AMNS]*.jpg", "nct_crc/TUM*.jpg")
FAT = ("nct_crc/TUM*.jpg", "nct_crc/ADI*.jpg")
SOURCES = {"bone": BONE, "dead bone": BONE_DEAD, "colon": COLON, "colon, fat": COLON_FAT, "lesions of fat": FAT}

GREEN = (0.7, 0.88, 0.72)
TUNING = (
    Cohort(41, "bone", "--levels 1 --width 5120 --height 5120 --lesion-fraction 0.05 0.3"),
    Cohort(42, "bone", "--levels 3 --width 3072 --height 3072 --pen 0.5 --lesion-fraction 0.1 0.4"),
    Cohort(43, "dead bone", "--levels 1 --width 4096 --height 3072 --block 128 --lesion-fraction 0.1 0.4"),
    Cohort(44, "colon, fat", "--levels 1 --width 4096 --height 4096 --pen 1 --lesion-fraction 0.05 0.3"),
    Cohort(45, "bone", "--levels 2 --width 6144 --height 4096 --mpp 0.25 --lesion-fraction 0.05 0.3", tint=GREEN),
    Cohort(46, "lesions of fat", "--levels 1 --width 4096 --height 4096"),
)  # fmt: skip
REPORTED = (
    Cohort(2001, "bone", "--levels 1 --width 7168 --height 6144 --pen 0.4"),
    Cohort(2002, "bone", "--levels 3 --width 2560 --height 2560 --pen 0.5 --quality 60"),
    Cohort(2003, "bone", "--levels 1 --width 5120 --height 5120 --block 128 --mpp 0 --lesion-fraction 0.01 0.06"),
    Cohort(2004, "dead bone", "--levels 2 --width 4608 --height 6144 --pen 1", ink=(30, 140, 60)),
    Cohort(2005, "dead bone", "--levels 1 --width 8192 --height 6144 --block 512 --mpp 0.25 --quality 92"),
    Cohort(2006, "colon", "--levels 1 --width 4096 --height 5120 --block 128 --pen 1", ink=(25, 25, 28)),
    Cohort(2007, "colon, fat", "--levels 3 --width 6144 --height 6144 --pen 0.5", ink=(210, 20, 30)),
    Cohort(2008, "colon", "--levels 1 --width 5120 --height 4096 --pen 0.5", tint=(0.66, 0.86, 0.70)),
    Cohort(2009, "bone", "--levels 3 --width 5120 --height 5120 --pen 0.5", tint=(0.97, 0.94, 0.84), border=192),
    Cohort(2010, "lesions of fat", "--levels 1 --width 5120 --height 4096 --lesion-fraction 0.02 0.1"),
)  # fmt: skip


def build(cohort: Cohort, patients: int, work: Path) -> Path:
    """Builds a cohort into its folder below `work`, unless it is there."""
    name = f"{cohort.seed}-{patients}"
    if (work / name / "truth.json").exists():
        return work / name
    source = (SHARED / "tools/build_cohort.py").read_text()
    source = _replace(source, "(40, 60, 190)", repr(cohort.ink))
    source = _replace(source, "    resolution = (1e4", "    spoil(level0, path, tissue)\n    resolution = (1e4")

    def spoil(level0: NDArray[np.uint8], path: str, tissue: NDArray[np.bool_]) -> None:
        np.save(f"{path}.tissue.npy", tissue)
        for channel, factor in enumerate(cohort.tint):
            if factor != 1:
                level0[..., channel] = (level0[..., channel] * factor).astype(np.uint8)
        if cohort.border:
            level0[:, -cohort.border :] = 4

    normal, lesion = SOURCES[cohort.tissue]
    folder = SHARED / "data/tissue"
    arguments = [
        *cohort.options.split(),
        "--slides",
        "1",
        "2",
        "--positive",
        "0.9",
        "--patients",
        str(patients),
        "--seed",
        str(cohort.seed),
    ]
    arguments += ["--normal", str(folder / normal), "--lesion", str(folder / lesion), "--out", str(work / name)]
    argv, sys.argv = sys.argv, ["build_cohort.py", *arguments]
    try:
        with contextlib.redirect_stdout(open(os.devnull, "w")):
            exec(compile(source, "build_cohort.py", "exec"), {"__name__": "__main__", "spoil": spoil})
    finally:
        sys.argv = argv
    return work / name


def _replace(source: str, old: str, new: str) -> str:
    if source.count(old) != 1:
        raise SystemExit(f"build_cohort.py changed: {old!r} is in it {source.count(old)} times")
    return source.replace(old, new)


def measure_slide(image: Path, mask: Path, cohort: Cohort, parameters: TilingParameters) -> grid.Tiles:
    """Every tile of a slide's grid: share of the mask, pen, lesion or not, share to be seen, ink, true tissue."""
    with contextlib.closing(open_slide(str(image), verify=False)) as reader:
        scale = choose_scale(reader.downsamples, reader.mpp or None, parameters)
        size = reader.width, reader.height
        downsample = choose_downsample(*size, scale.side)
        picture = reader.read_low_resolution(downsample)
    task = SlideTask("", "", "", 0, "", None, "", "", "")
    found = examine_slide_picture(picture, task, parameters, downsample, scale.side)
    everything = dataclasses.replace(parameters, min_tissue=0.0, max_pen=1.0)
    laid = grid.lay_grid(*size, scale, everything)
    pen = grid.measure_share(found.pen, downsample, laid, scale.side)
    share = grid.measure_share(found.tissue, downsample, laid, scale.side)
    corners = laid["x"].astype(np.int64), laid["y"].astype(np.int64)
    lesion = survey_mask(str(mask), size, *corners, scale.side, downsample).areas > 0
    level0 = tifffile.imread(image, key=0)
    height, width = (side // BOX for side in level0.shape[:2])
    boxes = level0[: height * BOX, : width * BOX].reshape(height, BOX, width, BOX, 3).mean((1, 3))
    glass = np.array([242.5, 242.5, 242.5]) * cohort.tint
    visible = ((glass - boxes).max(axis=2) > VISIBLE) & (boxes.max(axis=2) > 12)
    ink = (np.abs(boxes - np.array(cohort.ink) * cohort.tint) < 14).all(axis=2)
    true = np.load(f"{image}.tissue.npy")
    table = np.zeros(len(laid), [(name, "f4") for name in ("share", "pen", "lesion", "visible", "ink", "true")])
    table["true"] = grid.measure_share(true, reader.width / true.shape[1], laid, scale.side)
    table["share"], table["pen"], table["lesion"] = share, pen, lesion
    table["visible"] = grid.measure_share(visible & ~ink, BOX, laid, scale.side)
    table["ink"] = grid.measure_share(ink, BOX, laid, scale.side)
    return table


def measure_cohort(folder: Path, cohort: Cohort, parameters: TilingParameters) -> NDArray[np.void]:
    """The tiles of all its slides."""
    images = sorted((folder / "images").glob("*.tif"))
    tables = [measure_slide(image, folder / "masks" / f"{image.stem}_mask.tif", cohort, parameters) for image in images]
    return np.concatenate(tables)


def tell(tiles: Any, min_tissue: float, max_pen: float) -> dict[str, float]:
    """The counts of the table."""
    kept = (tiles["share"] > 0) & (tiles["share"] >= np.float32(min_tissue)) & (tiles["pen"] <= max_pen)
    # a lesion tile with ink on it is the pen's
    lesion = (tiles["lesion"] > 0) & (tiles["ink"] == 0)
    blank = (tiles["visible"] < BLANK) & kept
    seen = lesion & (tiles["visible"] > 0)
    worth = (tiles["visible"] >= BLANK) & (tiles["ink"] == 0)
    return {
        "tiles": int(kept.sum()),
        "lesion": int(lesion.sum()),
        "lesion_kept": _share(kept, lesion),
        "seen": int(seen.sum()),
        "seen_kept": _share(kept, seen),
        "ink": int((tiles["ink"] > 0.01).sum()),
        "ink_kept": int((kept & (tiles["ink"] > 0.01)).sum()),
        "blank": _share(blank, kept),
        "blank_outside": _share(blank & (tiles["true"] < BLANK), kept),
        "worth_kept": _share(kept, worth),
    }


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> float:
    return float((part & whole).sum() / max(whole.sum(), 1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("/tmp/bench_tissue"))
    parser.add_argument("--patients", type=int, default=6, help="of each cohort, one slide a patient or two")
    parser.add_argument("--tuning", action="store_true")
    parser.add_argument("--only", type=int, nargs="*", help="seeds")
    parser.add_argument("--sweep", type=float, nargs="*")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if not (SHARED / "tools/build_cohort.py").exists():
        raise SystemExit("../shared/tools/build_cohort.py is not here")
    args.work.mkdir(parents=True, exist_ok=True)
    failed, rows = False, []
    print(
        f"{'seed':>5} {'lesions':14} {'min_tissue':>10} {'tiles':>6} | {'lesion tiles kept':>18} {'of those seen':>16}"
        f" | {'ink kept':>9} | {'blank':>6} {'outside':>7} | {'others kept':>11}"
    )
    for cohort in TUNING if args.tuning else REPORTED:
        if args.only and cohort.seed not in args.only:
            continue
        folder = build(cohort, args.patients, args.work)
        parameters = TilingParameters(mpp=cohort.mpp)
        tiles = measure_cohort(folder, cohort, parameters)
        for min_tissue in args.sweep or [parameters.min_tissue]:
            row = tell(tiles, min_tissue, parameters.max_pen)
            rows.append({"seed": cohort.seed, "min_tissue": min_tissue, **row})
            print(
                f"{cohort.seed:5} {cohort.tissue:14} {min_tissue:10g} {row['tiles']:6} |"
                f" {row['lesion']:9} {row['lesion_kept']:8.2%} {row['seen']:7} {row['seen_kept']:8.2%} |"
                f" {row['ink_kept']:4}/{row['ink']:4} | {row['blank']:6.2%} {row['blank_outside']:7.2%} |"
                f" {row['worth_kept']:11.2%}",
                flush=True,
            )
            failed |= row["lesion_kept"] < 0.99 or row["ink_kept"] > 0
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
