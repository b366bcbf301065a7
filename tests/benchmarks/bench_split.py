"""A million-row manifest through split_metadata: time and peak memory.

`python tests/benchmarks/bench_split.py [ROWS] [--on-disk] [--by-center]`

Without `--on-disk` the images' listing is a stand-in for a bucket's (a size and an md5 a file, looked up row by row
as any other); with it every image is a real, sparse file below a temporary folder, listed for real.
"""

import argparse
import hashlib
import os
import resource
import sys
import tempfile
import time

from components.records.manifest import scan_manifest
from components.records.storage import FileInfo
from components.split_metadata.split import split_metadata


def write_cohort(path: str, rows: int) -> None:
    with open(path, "w") as stream:
        stream.write("image_id,center_id,patient_id,image_num,label,scanner\n")
        for row in range(rows):
            patient = row // 3
            label = ("CE", "LAA", "CE", "Other", "CE")[patient % 5]
            stream.write(f"{patient:06x}_{row % 3},{patient * 7919 % 113},{patient:06x},{row % 3},{label},AT2 400\n")


def list_images(folder: str, rows: int, on_disk: bool) -> dict[str, FileInfo] | None:
    names = (f"batch{row // 10_000:03d}/{row // 3:06x}_{row % 3}.tif" for row in range(rows))
    if not on_disk:
        return {
            name: FileInfo(f"gs://bucket/{name}", 1000 + row % 5000, f"md5:{hashlib.md5(name.encode()).hexdigest()}")
            for row, name in enumerate(names)
        }
    for row, name in enumerate(names):
        path = os.path.join(folder, name)
        if row % 10_000 == 0:
            os.makedirs(os.path.dirname(path))
        with open(path, "wb") as stream:
            stream.truncate(1000 + row)
    return None


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--on-disk", action="store_true")
    parser.add_argument("--by-center", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        manifest, images = os.path.join(folder, "manifest.csv"), os.path.join(folder, "images")
        os.makedirs(images)
        write_cohort(manifest, arguments.rows)
        files = list_images(images, arguments.rows, arguments.on_disk)
        print(f"{arguments.rows:,} rows; {peak_mb():.0f} MB before the split (the listing itself)")
        started = time.perf_counter()
        scan_manifest(manifest)
        print(f"reading the manifest alone: {time.perf_counter() - started:.1f} s")
        started, cpu = time.perf_counter(), time.process_time()
        summary = split_metadata(
            manifest,
            images,
            os.path.join(folder, "split.csv"),
            os.path.join(folder, "split.html"),
            split_by="center" if arguments.by_center else "patient",
            files=files,
        )
        seconds = time.perf_counter() - started
        print(
            f"split: {seconds:.1f} s ({time.process_time() - cpu:.1f} s of CPU), peak {peak_mb():.0f} MB, patients {summary.split_patients}"
        )
        if arguments.rows <= 1_000_000 and seconds > 60:
            sys.exit("slower than a minute")


if __name__ == "__main__":
    main()
