"""MNIST-bags (Ilse et al. 2018, section 4.2): is there a 9 in the bag? AUC against number of training bags."""

import gzip
import json
from pathlib import Path

import numpy as np

from components.mil.encoders.small_cnn import build_small_cnn, scale_to_data
from components.mil.heads.registry import create_head
from components.mil.model import BagModel
from components.mil.optimizer import create_optimizer
from components.train_mil.measures import rank_auc
from components.train_mil.parameters import TrainingParameters

import keras  # isort: skip
import tensorflow as tf  # isort: skip

TARGET = 9
TEST_BAGS = 200
TRAIN_IMAGES = 6000
HEADS = ("gated_attention", "attention", "max_pooling", "mean_pooling")
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


def batch(images: np.ndarray, bags: list[np.ndarray], most: int) -> dict:
    tiles, mask = np.zeros((len(bags), most, 28, 28, 3), np.uint8), np.zeros((len(bags), most), bool)
    for number, bag in enumerate(bags):
        tiles[number, : len(bag)] = images[bag][..., None]
        mask[number, : len(bag)] = True
    return {"tiles": tf.constant(tiles), "mask": tf.constant(mask)}


def train_and_test(images, train, labels, test, head: str, seed: int, epochs: int) -> float:
    keras.utils.set_random_seed(seed)
    encoder = build_small_cnn(28, input_px=28, embedding_dim=64)
    scale_to_data(encoder, np.repeat(images[np.concatenate(train)[:512]][..., None], 3, axis=-1))
    model = BagModel(encoder, create_head(head, 2, attention_dim=64), ["no 9", "9"], {"tile_px": 28})
    parameters = TrainingParameters(head=head, epochs=epochs, bags_per_batch=4, learning_rate=1e-3)
    steps = -(-len(train) // parameters.bags_per_batch)
    optimizer = create_optimizer(parameters, steps * epochs)
    optimizer.build(model.trainable_variables)
    most = max(len(bag) for bag in train)

    @tf.function
    def step(inputs, wanted):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model.head.losses(model(inputs, training=True), wanted))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    generator = np.random.default_rng(seed)
    for _ in range(epochs):
        order = generator.permutation(len(train))
        for start in range(0, len(train), parameters.bags_per_batch):
            at = order[start : start + parameters.bags_per_batch]
            step(batch(images, [train[index] for index in at], most), tf.constant(labels[at]))
    predict = tf.function(lambda inputs: model(inputs, training=False)["probabilities"], reduce_retracing=True)
    most = max(len(bag) for bag in test)
    found = [predict(batch(images, test[at : at + 8], most)).numpy()[:, 1] for at in range(0, len(test), 8)]
    return rank_auc(np.concatenate(found).astype(np.float64), np.arange(len(test)) % 2 == 1)


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
            epochs = max(10, min(40, 3000 // count))
            row = {
                head: float(
                    np.mean([train_and_test(images, train, labels, test, head, seed, epochs) for seed in range(seeds)])
                )
                for head in heads
            }
            found.setdefault(str(size), {})[str(count)] = row
            print(size, count, {head: round(value, 3) for head, value in row.items()}, flush=True)
            (work / "mnist_bags.json").write_text(json.dumps(found, indent=1))
            draw_plot(found, work / "mnist_bags.svg")


def draw_plot(found: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "bagline"
    import matplotlib.pyplot as plt

    colours = {
        "gated_attention": "#2a6f97",
        "attention": "#5b8e7d",
        "max_pooling": "#c8553d",
        "mean_pooling": "#8d8d8d",
    }
    figure, axes = plt.subplots(1, len(found), figsize=(3.6 * len(found), 3.2), sharey=True, squeeze=False)
    for axis, (size, rows) in zip(axes[0], found.items(), strict=True):
        for head in next(iter(rows.values())):
            counts = [int(count) for count in rows]
            axis.plot(counts, [row[head] for row in rows.values()], marker="o", ms=3, color=colours[head], label=head)
        axis.set_title(f"mean bag size {size}", fontsize=10)
        axis.set_xlabel("training bags")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("test AUC")
    axes[0][0].legend(fontsize=7, frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
