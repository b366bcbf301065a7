"""Tiles a second that training is fed, beside plain tf.data parsing and decoding of the same records, in one run.

    python tests/benchmarks/bench_input.py --tiles 4000

Both read the same TFRecord files from a warm page cache. `plain` is TFRecordDataset → map(parse, decode_jpeg) → batch;
`training` is what the trainer iterates over: bags of 128 tiles chosen anew, decoded, shrunk to 64 px, padded, batched.
By CPU time too: a machine that others use tells little by the clock.
"""

import argparse
import io
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from components.mil.bags import Bag, Feature, TileSource, sample_spans
from components.records.dataset import RecordSpan
from components.records.example import encode_example, encode_features
from components.records.tfrecord import frame, index_tfrecord

import tensorflow as tf  # isort: skip

TILE = 256


def make_records(folder, tiles, bags):
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 12, (TILE + 64, TILE + 64, 3))
    for number in range(bags):
        content = []
        for at in range(tiles // bags):
            y, x = rng.integers(0, 64, 2)
            texture = (
                160 + 40 * np.sin(np.arange(TILE) / (7 + at % 9))[:, None, None] + noise[y : y + TILE, x : x + TILE]
            )
            buffer = io.BytesIO()
            Image.fromarray(texture.clip(0, 255).astype(np.uint8)).save(buffer, "jpeg", quality=90)
            facts = {"image/encoded": buffer.getvalue(), "image/format": "jpeg", "tile/x": at, "tile/y": number}
            content.append(frame(encode_example(encode_features(facts))))
        Path(folder, f"{number}.tfrecord").write_bytes(b"".join(content))
    return sorted(str(path) for path in Path(folder).glob("*.tfrecord"))


def plain(files):
    def decode(data):
        found = tf.io.parse_single_example(data, {"image/encoded": Feature([], tf.string)})
        return tf.io.decode_jpeg(found["image/encoded"], channels=3)

    data = tf.data.TFRecordDataset(files).map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    for _ in data.batch(64).prefetch(2):
        pass


def training(files, side):
    bags = []
    for number, path in enumerate(files):
        spans = tuple(RecordSpan(path, offset, length) for offset, length in index_tfrecord(path))
        bags.append(Bag(str(number), "a", 0, "train", ("s",) * len(spans), spans))
    source = TileSource(bags, tile_px=TILE, side=side, cache_bytes=0)
    pieces = [
        Bag(f"{bag.patient_id}-{at}", "a", 0, "train", (), bag.spans[at : at + 128])
        for bag in bags
        for at in range(0, len(bag.spans), 128)
    ]
    seen = 0
    for inputs, _ in source.batches(pieces, lambda bag: sample_spans(bag, 128, 0, 1), instances=128, bags_per_batch=4):
        seen += int(inputs["mask"].numpy().sum())
    assert seen == sum(len(bag.spans) for bag in bags)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tiles", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = make_records(folder, arguments.tiles, 8)
        tiles = arguments.tiles // 8 * 8
        plain(files)
        training(files, arguments.side)
        rates, work = ({"plain": [], "training": []} for _ in range(2))
        for _ in range(arguments.rounds):
            for name, run in (("plain", plain), ("training", lambda files: training(files, arguments.side))):
                started, worked = time.perf_counter(), time.process_time()
                run(files)
                rates[name].append(tiles / (time.perf_counter() - started))
                work[name].append(tiles / (time.process_time() - worked))
    for name in rates:
        print(
            f"{name:<9} {statistics.median(rates[name]):>7.0f} tiles/s"
            f" {statistics.median(work[name]):>7.0f} a CPU second"
        )
    for kind, found in (("by the clock", rates), ("by CPU time", work)):
        ratios = [one / other for one, other in zip(found["training"], found["plain"], strict=True)]
        rounds = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"training / plain {kind}: {statistics.median(ratios):.2f} (rounds {rounds})")


if __name__ == "__main__":
    main()
