"""MNIST-bags (Ilse et al. 2018, section 4.2): is there a 9 in the bag? AUC against number of training bags."""

import gzip
import json
from pathlib import Path

import numpy as np

from components.mil.encoders.dense import build_dense
from components.mil.heads.registry import create_head
from components.mil.model import BagModel
from components.train_mil.measures import rank_auc
from components.train_mil.members import EmbeddedBags, Member, MemberTrainer
from components.train_mil.parameters import TrainingParameters

TARGET = 9
TEST_BAGS = 200
TRAIN_IMAGES = 6000
HEADS = ("attention", "max_pooling", "mean_pooling")
SPREADS = {10: 2, 50: 10, 100: 20}


def load_digits(data: Path) -> tuple[np.ndarray, np.ndarray]:
    with gzip.open(data / "t10k-images-idx3-ubyte.gz") as stream:
        images = np.frombuffer(stream.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(data / "t10k-labels-idx1-ubyte.gz") as stream:
        labels = np.frombuffer(stream.read(), np.uint8, offset=8)
    return images, labels


def draw_bags(digits: np.ndarray, pool: np.ndarray, count: int, size: int, generator) -> list[np.ndarray]:
    """`count` bags of images out of `pool`, half with a 9 and half without, sizes normal about `size`."""
    others = pool[digits[pool] != TARGET]
    bags = []
    for number in range(count):
        length = max(1, round(generator.normal(size, SPREADS.get(size, size / 5))))
        while True:
            bag = generator.choice(pool if number % 2 else others, length, replace=True)
            if (digits[bag] == TARGET).any() == bool(number % 2):
                break
        bags.append(bag)
    return bags


def train_and_test(images, train, labels, test, head: str, seed: int, epochs: int) -> float:
    """AUC on the test bags after training on the others; pixels go through two dense layers, not a LeNet."""
    both = [*train, *test]
    instances = images[np.concatenate(both)].reshape(-1, images.shape[1] * images.shape[2])
    starts = np.concatenate([[0], np.cumsum([len(bag) for bag in both])])
    bags = EmbeddedBags(instances.astype(np.float32) / 255, starts, np.concatenate([labels, np.arange(len(test)) % 2]))

    def build() -> BagModel:
        encoder = build_dense(instances.shape[1], embedding_dim=96, dense_layers=2)
        return BagModel(encoder, create_head(head, 2, attention_dim=64), ["no 9", "9"])

    parameters = TrainingParameters(
        head=head, epochs=epochs, tiles_per_bag=1000, bags_per_batch=4, learning_rate=1e-3, weight_decay=0.1
    )
    trainer = MemberTrainer(build, parameters, bags, [Member(range(len(train)), seed)])
    trainer.fit()
    found = trainer.predict(range(len(train), len(both)))[0, :, 1]
    return rank_auc(found, np.arange(len(test)) % 2 == 1)


def run_mnist(data: Path, work: Path, train_bags: list[int], sizes: list[int], heads=HEADS, seeds=1) -> None:
    images, digits = load_digits(data)
    order = np.random.default_rng(0).permutation(len(images))
    train_pool, test_pool = order[:TRAIN_IMAGES], order[TRAIN_IMAGES:]  # no image is in both
    found: dict[str, dict[str, dict[str, float]]] = {}
    print("MNIST-bags, AUC of", TEST_BAGS, "test bags; images of training and test bags are disjoint", flush=True)
    for size in sizes:
        test = draw_bags(digits, test_pool, TEST_BAGS, size, np.random.default_rng(size))
        for count in train_bags:
            train = draw_bags(digits, train_pool, count, size, np.random.default_rng([size, count]))
            labels = np.arange(count) % 2
            epochs = max(10, min(40, 100_000 // (count * size)))
            row = {
                head: float(
                    np.mean([train_and_test(images, train, labels, test, head, seed, epochs) for seed in range(seeds)])
                )
                for head in heads
            }
            found.setdefault(str(size), {})[str(count)] = row
            print(size, count, {head: round(value, 3) for head, value in row.items()}, flush=True)
            (work / "mnist_bags.json").write_text(json.dumps(found, indent=1))
            draw_plot(found, work / "mnist-bags.png")


def draw_plot(found: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    looks = {
        "attention": ("attention", "#2a6f97"),
        "max_pooling": ("max pooling", "#c8553d"),
        "mean_pooling": ("mean pooling", "#5b8e7d"),
    }
    figure, axes = plt.subplots(
        1, len(found), figsize=(4.2 * len(found) + 1, 3.4), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, (size, rows) in zip(axes[0], found.items(), strict=True):
        counts = [int(count) for count in rows]
        for head in next(iter(rows.values())):
            label, colour = looks.get(head, (head, "#777777"))
            values = [row[head] for row in rows.values()]
            axis.plot(counts, values, marker="o", ms=5, lw=2, color=colour, label=label)
        axis.set_xscale("log")
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.minorticks_off()
        axis.axhline(0.5, color="#999999", lw=0.8, ls=":")
        axis.set_title(f"{size} images a bag", loc="left", fontsize=11)
        axis.set_xlabel("training bags")
        axis.grid(axis="y", alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("test AUC")
    axes[0][0].set_ylim(0.4, 1.01)
    axes[0][0].legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
