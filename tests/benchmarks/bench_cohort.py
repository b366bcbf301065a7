"""Lesions of 1–5% of the tissue, 60 patients: what attention, mean pooling and the tile classifier make of them.

    python tests/benchmarks/bench_cohort.py --builder build_cohort.py --tissue FOLDER --out /tmp/bench

Prints three figures, each against mean pooling:
  patient AUC         cross-validated by patient (5 folds), pooled, with its interval; the pipeline `cross-validate`
  attention vs mask   AUC of the heads' tile scores against the lesion masks, test slides of one split
  FROC                of the tile classifier on the same slides; the pipeline `tile-classifier`

A bag model's score of a tile is what it says of a bag of that tile alone, which mean pooling has as well. FOLDER holds
the pictures that the cohort is built of. What is there already is not made again. On 2 cores it takes hours: give
--patients 16 for a first look.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from components.mil.model import BagModel, load_bag_model

import tensorflow as tf  # isort: skip  (after components.mil, which silences its import)

from components.evaluate_tiles.evaluation import TileEvaluationParameters, evaluate_tiles
from components.evaluate_tiles.predict import SlidePrediction, make_prediction
from components.mil.tile_inference import score_tiles
from components.mil.tiles import LabelledSlide
from components.records.dataset import TiledDataset
from components.train_mil.parameters import TrainingParameters
from components.train_mil.train import train_mil

HEADS = ("gated_attention", "mean_pooling")
SHARES = {"val_share": "0.2", "test_share": "0.4"}


def build_cohort(arguments: argparse.Namespace) -> Path:
    """The cohort's folder, built where it isn't there."""
    folder = Path(arguments.out) / "cohort"
    if not (folder / "manifest.csv").exists():
        pictures = {
            name: f"{arguments.tissue}/{glob}"
            for name, glob in (("normal", arguments.normal), ("lesion", arguments.lesion))
        }
        words = [word for name, glob in pictures.items() for word in (f"--{name}", glob)]
        words += ["--patients", str(arguments.patients), "--slides", "1", "2", "--lesion-fraction", "0.01", "0.05"]
        words += ["--seed", str(arguments.seed)]
        subprocess.run([sys.executable, arguments.builder, *words, "--out", str(folder)], check=True)
    return folder


def bagline(command: str, cohort: Path, out: Path, *words: str, **settings: str) -> dict[str, Any]:
    """Runs a command unless its metrics are there, and gives them."""
    if not (out / "metrics.json").exists():
        given = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        places = [str(cohort / "manifest.csv"), "--images-root", str(cohort), "--out", str(out)]
        subprocess.run([sys.executable, "-m", "pipelines", command, *places, *words, *given], check=True)
    return dict(json.loads((out / "metrics.json").read_text()))


def by_single_tiles(
    model: BagModel,
) -> Callable[[str, TiledDataset, Sequence[LabelledSlide]], Iterator[SlidePrediction]]:
    """Predicts slides by what a bag model of two labels says of each tile alone."""

    def score(tiles: Any, training: bool = False) -> Any:
        mask = tf.ones((tf.shape(tiles)[0], 1), tf.bool)
        return model({"tiles": tiles[:, None], "mask": mask}, training=training)["probabilities"][:, 1]

    def predict(_: str, dataset: TiledDataset, slides: Sequence[LabelledSlide]) -> Iterator[SlidePrediction]:
        found = score_tiles(score, dataset.schema.tile_px, slides)
        return (make_prediction(slide, facts) for slide, facts in zip(slides, found, strict=True))

    return predict


def measure_head(head: str, records: Path, out: Path, seed: int, epochs: int) -> dict[str, Any]:
    """A bag model of the tile classifier's train patients, its tile scores held against the masks."""
    if not (out / "model").exists():
        parameters = TrainingParameters(head=head, seed=seed, epochs=epochs)
        train_mil(str(records), str(out / "model"), str(out / "training"), parameters)
    predictor = by_single_tiles(load_bag_model(str(out / "model")))
    done = evaluate_tiles(
        str(records), "", str(out), predictor=predictor, parameters=TileEvaluationParameters(seed=seed)
    )
    return done.metrics


def tell(name: str, value: float | None, interval: list[float] | None = None) -> str:
    """A figure with its interval."""
    told = "–" if value is None else f"{value:.3f}"
    return f"  {name:<34}{told:>7}" + (f"  ({interval[0]:.3f}–{interval[1]:.3f})" if interval else "")


def main() -> None:
    """Runs what isn't there and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--builder", required=True, help="build_cohort.py")
    parser.add_argument("--tissue", required=True, help="folder of the pictures")
    parser.add_argument("--normal", default="Non-Tumor___*.jpg")
    parser.add_argument("--lesion", default="Viable___*.jpg")
    parser.add_argument("--out", required=True)
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out = Path(arguments.out)
    cohort = build_cohort(arguments)
    common = {"seed": str(arguments.seed), "qc": "false"}
    tiles = bagline("run", cohort, out / "tiles", "--pipeline", "tile-classifier", **common, **SHARES)
    epochs = {"epochs": str(arguments.epochs)}
    patients = {
        head: bagline("cross-validate", cohort, out / f"cv_{head}", head=head, **common, **epochs) for head in HEADS
    }
    scores = {
        head: measure_head(head, out / "tiles", out / f"single_{head}", arguments.seed, arguments.epochs)
        for head in HEADS
    }
    lines = [
        f"{arguments.patients} patients, lesions 1–5% of tissue, seed {arguments.seed}",
        "",
        "patient AUC, cross-validated",
    ]
    lines += [tell(head, patients[head]["test"]["auc"], patients[head]["test"]["auc_ci95"]) for head in HEADS]
    lines.append("AUC of attention against the mask, pooled over a fold's test patients")
    for head in HEADS:
        folds = [fold["name"] for fold in patients[head]["folds"]]
        found = [json.loads((out / f"cv_{head}/folds/{fold}/evaluation/metrics.json").read_text()) for fold in folds]
        aucs = [auc for m in found if (auc := m["attention"].get("test", {}).get("auc_pooled")) is not None]
        lines.append(tell(f"{head}, mean of {len(aucs)} folds", sum(aucs) / len(aucs) if aucs else None))
    named = {"tile classifier": tiles, **{f"{head}, single tiles": scores[head] for head in HEADS}}
    for title, value, interval in (
        ("tile AUC against the mask, test", lambda m: m["tile_auc"], lambda m: m["tile_auc_ci95"]),
        ("slide AUC, test", lambda m: m["slide_auc"], lambda m: m["slide_auc_ci95"]),
        ("FROC, test", lambda m: m["froc"]["score"], lambda m: m["froc"]["ci95"]),
    ):
        lines.append(title)
        lines += [tell(name, value(metrics["test"]), interval(metrics["test"])) for name, metrics in named.items()]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
