"""What a cohort costs on Dataflow, on paper: from CPU seconds measured here, and list prices.

    python tests/benchmarks/estimate_costs.py --work FOLDER [--tissue 'FOLDER/*.jpg'] [--side 32768]

Measures planning and tiling of a flat slide with 128-px JPEG blocks, as STRIP AI's are, in CPU seconds a GB of slide,
and works out vCPU hours, the time on so many workers, and dollars. Everything that is assumed is a name below.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from bench_slides import SlideMaker
from bench_tiling import ENGINE, run_script, write_manifest

# Dataflow batch, us-central1, dollars of November 2026's list as far as known: look them up before you rely on them.
DOLLARS_VCPU_HOUR, DOLLARS_GB_HOUR, DOLLARS_DISK_GB_HOUR = 0.056, 0.003557, 0.000054
DOLLARS_STORED_GB_MONTH = 0.020
# An n2-standard-4: vCPUs, GB of memory, GB of disk. Memory is four times what is needed; n2-highcpu-4 would do.
VCPUS, MEMORY_GB, DISK_GB = 4, 16, 50
# A vCPU is a hyperthread; TLS, Beam, retries and waiting for the store come on top of the CPU seconds measured here.
OVERHEAD = 2.0
START_MINUTES = 5.0
LARGEST_GB = 11.0
COHORTS = (("STRIP AI", 754, 395.0), ("100,000 slides", 100_000, 395.0 / 754 * 100_000))


@dataclass(frozen=True)
class Rates:
    """CPU seconds a GB of slide, and GB of records a GB of slide."""

    plan: float
    tile: float
    records: float


def measure(folder: Path, side: int, tissue: str | None) -> Rates:
    """The rates of a flat slide with 128-px blocks."""
    slide = SlideMaker(folder, side, tissue).flat(128)
    told = run_script(ENGINE, write_manifest(folder, [slide]), folder, folder / "engine", 0, "verify")
    size = slide.stat().st_size / 1e9
    written = sum(path.stat().st_size for path in (folder / "engine" / "records").rglob("*.tfrecord")) / 1e9
    return Rates(told["plan_cpu_seconds"] / size, told["cpu_seconds"] / size, written / size)


def estimate(gigabytes: float, rates: Rates, workers: int) -> tuple[float, float, float]:
    """vCPU hours of work, hours by the clock, and dollars, on `workers` machines."""
    work = gigabytes * (rates.plan + rates.tile) * OVERHEAD / 3600
    chain = LARGEST_GB * rates.plan * OVERHEAD / 3600  # one slide is planned by one process
    hours = max(work / (workers * VCPUS), chain) + START_MINUTES / 60
    price = VCPUS * DOLLARS_VCPU_HOUR + MEMORY_GB * DOLLARS_GB_HOUR + DISK_GB * DOLLARS_DISK_GB_HOUR
    return work, hours, hours * workers * price


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the slide and outputs")
    parser.add_argument("--side", type=int, default=32768, help="px, a multiple of 4096")
    parser.add_argument("--tissue", help="pattern of tissue pictures of at least 1024² px")
    options = parser.parse_args()
    rates = measure(options.work, options.side, options.tissue)
    print(f"CPU s a GB: planning {rates.plan:.1f}, tiling {rates.tile:.1f}; records {rates.records:.2f} GB a GB")
    chain = LARGEST_GB * rates.plan * OVERHEAD / 60
    print(f"planning the largest slide ({LARGEST_GB:.0f} GB): {chain:.0f} min, which more workers don't shorten")
    for name, slides, gigabytes in COHORTS:
        stored = gigabytes * rates.records * DOLLARS_STORED_GB_MONTH
        useful = gigabytes * (rates.plan + rates.tile) * OVERHEAD / 60 / chain / VCPUS
        print(f"\n{name}: {slides} slides, {gigabytes:,.0f} GB; records cost ${stored:,.2f} a month to store;")
        print(f"workers that still help: {useful:,.0f}\nworkers | vCPU hours of work | hours | dollars")
        for workers in (1, 4, 16, 64, 256, 1000):
            work, hours, dollars = estimate(gigabytes, rates, workers)
            print(f"{workers} | {work:,.1f} | {hours:,.2f} | {dollars:,.2f}")


if __name__ == "__main__":
    main()
