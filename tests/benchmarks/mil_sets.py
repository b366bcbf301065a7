"""Cross-validated accuracy on the classic sets (MUSK1, Elephant, Fox, …), all folds of a repetition side by side."""

import time
from pathlib import Path

import numpy as np

from components.mil.encoders.dense import build_dense
from components.mil.heads.registry import create_head
from components.mil.model import BagModel
from components.train_mil.members import EmbeddedBags, Member, MemberTrainer
from components.train_mil.parameters import TrainingParameters

from sklearn.linear_model import LogisticRegression  # isort: skip
from sklearn.pipeline import make_pipeline  # isort: skip
from sklearn.preprocessing import StandardScaler  # isort: skip

# One configuration for all sets and heads. docs/mil-benchmarks.md says how it was come by.
SEEDS = 2  # a fold's probabilities are the mean over this many trainings
OPTIONS = {"embedding_dim": 64, "dense_layers": 1, "instance_dropout": 0.3, "attention_dim": 64, "dropout": 0.5}
OPTIONS |= {"width": 64, "landmarks": 16}  # TransMIL's
PARAMETERS = {
    "epochs": 30,
    "tiles_per_bag": 64,
    "bags_per_batch": 32,
    "learning_rate": 1e-3,
    "weight_decay": 1.0,
    "class_weights": "none",
}
# This head takes the values themselves, not a layer's, and more epochs.
HEAD_OPTIONS = {"attention_statistics": {"dense_layers": 0, "squash": True, "random_features": 512}}
HEAD_PARAMETERS = {"attention_statistics": {"epochs": 60, "weight_decay": 0.1}}

# Ilse et al. 2018, table 1; Li et al. 2021 (DSMIL)
PAPERS = {
    "musk1": {"attention": 0.892, "gated_attention": 0.900, "dsmil": 0.932},
    "musk2": {"attention": 0.858, "gated_attention": 0.863, "dsmil": 0.930},
    "fox": {"attention": 0.615, "gated_attention": 0.603, "dsmil": 0.729},
    "tiger": {"attention": 0.839, "gated_attention": 0.845, "dsmil": 0.869},
    "elephant": {"attention": 0.868, "gated_attention": 0.857, "dsmil": 0.925},
}


def load_set(path: Path) -> tuple[EmbeddedBags, np.ndarray]:
    found = np.load(path)
    order = np.argsort(found["bag"], kind="stable")
    sizes = np.bincount(found["bag"], minlength=len(found["bag_label"]))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    labels = found["bag_label"].astype(np.int64)
    return EmbeddedBags(found["X"][order].astype(np.float32), starts, labels), found["folds_5x10"]


def cross_validate(bags: EmbeddedBags, folds: np.ndarray, head: str) -> np.ndarray:
    """Accuracy of each fold of one repetition, [10]; folds int [bags]."""
    numbers = np.unique(folds)
    members = [Member(np.flatnonzero(folds != fold).tolist(), seed) for fold in numbers for seed in range(SEEDS)]
    values = bags.instances.shape[1]
    options = OPTIONS | HEAD_OPTIONS.get(head, {})
    parameters = TrainingParameters(**{"head": head, **PARAMETERS, **HEAD_PARAMETERS.get(head, {})})

    def build() -> BagModel:
        return BagModel(build_dense(values, **options), create_head(head, 2, **options), ["0", "1"])

    trainer = MemberTrainer(build, parameters, bags, members)
    trainer.fit()
    found = trainer.predict().reshape(len(numbers), SEEDS, len(bags.labels), 2).mean(axis=1)
    right = found.argmax(axis=-1) == bags.labels
    return np.array([right[number, folds == fold].mean() for number, fold in enumerate(numbers)])


def cross_validate_regression(bags: EmbeddedBags, folds: np.ndarray) -> np.ndarray:
    """The same of a logistic regression on each bag's mean, maximum and minimum, standardised."""
    pieces = [bags.instances[bags.rows(bag)].astype(np.float64) for bag in range(len(bags.labels))]
    given = np.stack([np.concatenate([x.mean(axis=0), x.max(axis=0), x.min(axis=0)]) for x in pieces])
    found = []
    for fold in np.unique(folds):
        test = folds == fold
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=5000))
        model.fit(given[~test], bags.labels[~test])
        found.append((model.predict(given[test]) == bags.labels[test]).mean())
    return np.array(found)


def run_sets(data: Path, sets: list[str], heads: list[str], repeats: int) -> None:
    loaded = {name: load_set(data / f"{name}_folds.npz") for name in sets}
    print(f"{'accuracy ± deviation over folds':32}" + "".join(f"{name:>16}" for name in sets) + f"{'s':>8}", flush=True)

    def show(label: str, measure) -> None:
        started, cells = time.monotonic(), []
        for bags, folds in loaded.values():
            found = np.concatenate([measure(bags, row) for row in folds[:repeats]])
            cells.append(f"{found.mean():.3f} ± {found.std():.3f}")
        seconds = time.monotonic() - started
        print(f"{label:32}" + "".join(f"{cell:>16}" for cell in cells) + f"{seconds:8.0f}", flush=True)

    show("logistic regression", cross_validate_regression)
    for head in heads:
        show(head, lambda bags, folds, head=head: cross_validate(bags, folds, head))
        known = [PAPERS.get(name, {}).get(head) for name in sets]
        if any(known):
            print(f"{'  paper':32}" + "".join(f"{value:>16.3f}" if value else f"{'–':>16}" for value in known))
