"""The MIL literature on this project's heads: classic sets, MNIST-bags, speed and memory.

`make bench-mil`, or
`python tests/benchmarks/bench_mil.py [--data DIR] [--sets musk1 …] [--heads attention …] [--repeats 1]
  [--mnist] [--speed] [--memory]`

Without `--mnist`, `--speed` or `--memory` it runs the classic sets. A set is `DIR/<set>_folds.npz`: X [instances, d],
bag [instances], bag_label [bags], folds_5x10 [5, bags].
"""

import argparse
import os
from pathlib import Path

from components.mil.heads.registry import HEADS


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("../shared/data/mil"))
    parser.add_argument("--work", type=Path, default=Path("out/bench"))
    parser.add_argument("--sets", nargs="+", default=["musk1", "elephant", "fox"])
    parser.add_argument("--heads", nargs="+", default=list(HEADS), choices=list(HEADS))
    parser.add_argument("--repeats", type=int, default=1, help="of the 5 × 10 folds; 5 for all")
    parser.add_argument("--mnist", action="store_true", help="MNIST-bags: AUC against number of training bags")
    parser.add_argument("--train-bags", type=int, nargs="+", default=[50, 100, 200, 400])
    parser.add_argument("--bag-sizes", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--speed", action="store_true", help="bags/s against a plain PyTorch loop")
    parser.add_argument(
        "--torch-python", default="", help="a Python that has torch; else one is made in the work folder"
    )
    parser.add_argument("--memory", action="store_true", help="peak memory of a bag of 200,000 × 1024 in inference")
    parser.add_argument("--one-head-memory", default="", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    os.makedirs(chosen.work, exist_ok=True)
    if chosen.one_head_memory:
        from mil_speed import measure_memory

        print(measure_memory(*chosen.one_head_memory.split(":")))
        return
    if chosen.mnist:
        from mil_mnist import run_mnist

        run_mnist(chosen.data, chosen.work, chosen.train_bags, chosen.bag_sizes)
    if chosen.speed:
        from mil_speed import compare_speed

        compare_speed(chosen.work, chosen.torch_python)
    if chosen.memory:
        from mil_speed import compare_memory

        compare_memory(chosen.heads)
    if not (chosen.mnist or chosen.speed or chosen.memory):
        from mil_sets import run_sets

        run_sets(chosen.data, chosen.sets, chosen.heads, chosen.repeats)


if __name__ == "__main__":
    main()
