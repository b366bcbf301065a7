"""The tiling step against what peers do, on one machine and in one run: prints every figure beside its target.

    python tests/benchmarks/bench_tiling.py --work FOLDER [--tissue 'FOLDER/*.jpg'] [--baseline] [--vips PYTHON]

Makes the slides of `bench_slides.py` under FOLDER. Rates are per CPU second of one process, as ratios to the loop of
`openslide_baseline.py` over the same tiles, the two taking turns, so that a busy machine disturbs them little; commands
are also given by the clock. --baseline runs the whole baseline on the flat slide (9 GB at 32768²), the pyramid and the
JPEG 2000 slide, and keeps what it took; --vips is the Python of an environment with pyvips and pyvips-binary.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from bench_slides import CELL, SlideMaker

HOME = Path(__file__).resolve().parent
ROOT = HOME.parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{HOME}"}

# In a process of its own: the regions of a slide, written as the step writes them; JSON of tiles and CPU seconds.
ENGINE = """
import json, sys, time, shutil
from dataclasses import replace
from components.records.manifest import read_manifest
from components.tile_images.parameters import TilingParameters
from components.tile_images.region import tile_region
from components.tile_images.run import list_tasks
from components.tile_images.work import plan_or_record
manifest, root, out, mpp, verify = sys.argv[1:]
parameters = TilingParameters(mpp=float(mpp))
shutil.rmtree(out, ignore_errors=True)
(task,) = list_tasks(read_manifest(manifest), root)
began = time.process_time()
regions = plan_or_record(task, parameters, out)
planned = time.process_time() - began
regions = [replace(region, verify=verify == "verify") for region in regions]
tile_region(regions[0], parameters, out, {})
began = time.process_time()
results = [tile_region(region, parameters, out, {}) for region in regions]
print(json.dumps({
    "tiles": sum(r.tiles for r in results), "lossless": sum(r.lossless for r in results),
    "joined": sum(r.joined for r in results),
    "cpu_seconds": time.process_time() - began, "plan_cpu_seconds": planned,
    "corners": [(int(t["x"]), int(t["y"])) for region in regions for t in region.positions()],
}))
"""
# The step after imports: the lanes are up before the clock starts.
STEP = """
import json, os, sys, time
from pathlib import Path
from components.tile_images import lanes
from components.tile_images.parameters import TilingParameters
from components.tile_images.run import run_tiling
manifest, root, out, workers = sys.argv[1:]
pool = lanes.share_pool(int(workers), lanes.TIMEOUT)
for future in [pool.submit(pool.call, time.sleep, 0.5) for _ in range(int(workers))]:
    future.result()
close_pools, spent = lanes.close_pools, {}
def close_and_count():
    count("after")
    close_pools()
def count(when):
    tasks = Path("/proc/self/task")
    children = [pid for task in tasks.iterdir() for pid in (task / "children").read_text().split()]
    threads = [thread for pid in children for thread in Path(f"/proc/{pid}/task").iterdir()]
    lanes_did = sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
    spent[when] = time.process_time() + lanes_did
lanes.close_pools = close_and_count
count("before")
began = time.perf_counter()
summary = run_tiling(manifest, root, out, TilingParameters(mpp=0), workers=int(workers))
print(json.dumps({"tiles": summary["tiles"], "seconds": time.perf_counter() - began,
                  "cpu_seconds": spent["after"] - spent["before"]}))
"""
VIPS = """
import json, struct, sys, time
import pyvips
began, cpu = time.perf_counter(), time.process_time()
pyvips.cache_set_max(0)
thumbnail = pyvips.Image.new_from_file(sys.argv[1], access="sequential").shrink(32, 32).write_to_memory()
slide = pyvips.Image.new_from_file(sys.argv[1], access="random")
corners = json.load(open(sys.argv[2]))
with open(sys.argv[3], "wb") as out:
    for x, y in corners:
        jpeg = slide.crop(x, y, 256, 256).jpegsave_buffer(Q=90)
        out.write(struct.pack("<Q", len(jpeg)) + jpeg)
print(json.dumps({"tiles": len(corners), "seconds": time.perf_counter() - began,
                  "cpu_seconds": time.process_time() - cpu}))
"""


def write_manifest(folder: Path, slides: list[Path]) -> Path:
    """A manifest of the slides, each a patient of its own."""
    path = folder / f"{slides[0].stem}-{len(slides)}.csv"
    rows = [f"{slide.stem},{slide.stem},x,{slide.name}" for slide in slides]
    path.write_text("\n".join(["image_id,patient_id,label,image_path", *rows]) + "\n")
    return path


def run_script(code: str, *arguments: object, python: str = sys.executable) -> dict[str, float]:
    """Runs Python code in a process of its own; its last line is JSON."""
    ran = subprocess.run(
        [python, "-c", code, *map(str, arguments)], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    if ran.returncode:
        raise RuntimeError(ran.stderr[-2000:])
    return json.loads(ran.stdout.splitlines()[-1])


def run_loop(slide: Path, folder: Path, corners: list[tuple[int, int]] | None, side: int) -> dict[str, float]:
    """The baseline over these tiles, or as it is."""
    call = [sys.executable, HOME / "openslide_baseline.py", slide, folder / "baseline.tfrecord", "--side", str(side)]
    if corners is not None:
        listed = folder / "corners.csv"
        listed.write_text("".join(f"{x},{y}\n" for x, y in corners))
        call += ["--corners", listed]
    ran = subprocess.run(list(map(str, call)), capture_output=True, text=True, check=True)
    return json.loads(ran.stdout)


def compare_engine(name: str, slide: Path, folder: Path, mpp: float, side: int, verify: str, goal: str) -> list:
    """One row: tiles a CPU second of the loop and of the engine; the loop runs before and after."""
    manifest = write_manifest(folder, [slide])
    first = run_script(ENGINE, manifest, folder, folder / "engine", mpp, verify)
    some = first["corners"][:: max(1, len(first["corners"]) // 400)]
    rates, ours = [], []
    for _ in range(2):
        loop = run_loop(slide, folder, some, side)
        rates.append(loop["tiles"] / loop["loop_cpu_seconds"])
        mine = run_script(ENGINE, manifest, folder, folder / "engine", mpp, verify)
        ours.append(mine["tiles"] / mine["cpu_seconds"])
    theirs, mine_rate = float(np.mean(rates)), float(np.mean(ours))
    share = f"{first['lossless']}/{first['tiles']} lossless"
    share += f", {first['joined']} joined and not coded again" if first["joined"] else ""
    return [name, f"{theirs:,.0f} tiles/s", f"{mine_rate:,.0f} tiles/s ({share})", f"{mine_rate / theirs:.1f}×", goal]


def measure_command(slide: Path, folder: Path) -> dict[str, float]:
    """`bagline tile` on one slide: clock, CPU of the whole tree, and its memory.

    `peak_mb` is the most that its processes held at once, `largest_mb` the most that one of them held.
    """
    manifest, out = write_manifest(folder, [slide]), folder / "command"
    subprocess.run(["rm", "-rf", str(out)], check=True)
    call = [sys.executable, "-m", "pipelines", "tile", manifest, "--images-root", folder, "--out", out, "--level", "0"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began, most, largest = time.perf_counter(), 0, 0
    process = subprocess.Popen(list(map(str, call)), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def watch() -> None:
        nonlocal most, largest
        while process.poll() is None:
            together, one = tree_memory(process.pid)
            most, largest = max(most, together), max(largest, one)
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, said = process.communicate()
    seconds = time.perf_counter() - began
    watcher.join()
    if process.returncode:
        raise RuntimeError(said.decode()[-2000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_mb": most >> 20, "largest_mb": largest >> 20}


def tree_memory(pid: int) -> tuple[int, int]:
    """Bytes that a process and its children hold, what they share counted once; and the most that one has held."""
    total, largest, pending = 0, 0, [pid]
    while pending:
        one = pending.pop()
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
            lines = Path(f"/proc/{one}/status").read_text().splitlines()
            largest = max(largest, *(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), 0)
            for task in Path(f"/proc/{one}/task").iterdir():
                pending += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return total, largest


def measure_step(slides: list[Path], folder: Path, workers: int) -> dict[str, float]:
    """The step after imports."""
    out = folder / f"step-{workers}"
    subprocess.run(["rm", "-rf", str(out)], check=True)
    return run_script(STEP, write_manifest(folder, slides), folder, out, workers)


def baseline_of(slide: Path, folder: Path, anew: bool) -> dict[str, float] | None:
    """What the baseline took on a slide: run now, or as kept by an earlier run."""
    kept = folder / f"{slide.stem}.baseline.json"
    if anew:
        kept.write_text(json.dumps(run_loop(slide, folder, None, 256)))
    return json.loads(kept.read_text()) if kept.exists() else None


def compare_step(name: str, slide: Path, folder: Path, anew: bool, goal: str) -> list:
    """One row: the step after imports against the baseline after imports; both tile what they take for tissue."""
    theirs, ours = baseline_of(slide, folder, anew), measure_step([slide], folder, 1)
    told = [f"{ours['seconds']:.2f} s, {ours['cpu_seconds']:.2f} CPU s, {ours['tiles']} tiles"]
    if not theirs or not theirs["tiles"]:
        return [name, "not run", *told, "", goal]
    clock, cpu = (theirs[unit] / ours[unit] for unit in ("seconds", "cpu_seconds"))
    told.append(f"{clock:.1f}× by the clock, {cpu:.1f}× CPU, {cpu * ours['tiles'] / theirs['tiles']:.1f}× CPU a tile")
    return [name, f"{theirs['seconds']:.1f} s, {theirs['cpu_seconds']:.1f} CPU s, {theirs['tiles']} tiles", *told, goal]


def main() -> None:
    """Makes the slides and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for slides and outputs")
    parser.add_argument("--side", type=int, default=32768, help="px, a multiple of 4096")
    parser.add_argument("--tissue", help="pattern of tissue pictures of at least 1024² px")
    parser.add_argument("--baseline", action="store_true", help="run the whole baseline too (9 GB)")
    parser.add_argument("--vips", help="Python of an environment with pyvips")
    parser.add_argument("--skip", default="", help="cases to leave out, by letter")
    options = parser.parse_args()
    folder = options.work
    maker = SlideMaker(folder, options.side, options.tissue)
    flat, small, pyramid = maker.flat(256), maker.flat(128), maker.pyramid(256)
    large = SlideMaker(folder, 2 * options.side, options.tissue).flat(256)
    jpeg2000 = SlideMaker(folder, options.side // 2, options.tissue).jpeg2000(256)
    rows = []

    def add(row: list) -> None:
        rows.append(row)
        print(" | ".join(row), flush=True)

    print("case | baseline | bagline | ratio | target")
    if "e" not in options.skip:
        add(compare_engine("engine, 256 on 256-px blocks", flat, folder, 0, 256, "trust", "15×, aim 25×"))
        add(compare_engine("the same, every block decoded first", flat, folder, 0, 256, "verify", "-"))
        add(compare_engine("engine, 256 on 128-px blocks", small, folder, 0, 256, "trust", "3×, aim 8×"))
        add(compare_engine("engine, 0.25 → 0.5 µm/px, flat", flat, folder, 0.5, 512, "trust", "4×"))
    if "c" not in options.skip:
        command, big = measure_command(flat, folder), measure_command(large, folder)
        base = baseline_of(flat, folder, options.baseline)
        if base:
            clock, cpu = base["seconds"] + base["import_seconds"], base["cpu_seconds"]
            ratios = f"{clock / command['seconds']:.1f}× by the clock, {cpu / command['cpu_seconds']:.1f}× CPU"
            theirs = f"{clock:.1f} s, {cpu:.1f} CPU s, {base['peak_mb'] / 1000:.1f} GB"
        else:
            theirs = ratios = "not run"
        ours = f"{command['seconds']:.1f} s, {command['cpu_seconds']:.1f} CPU s"
        add(["whole command, flat", theirs, ours, ratios, "10×"])
        told = [f"{run['peak_mb']} MB, {run['largest_mb']} MB of it the largest process" for run in (command, big)]
        add(["its peak memory", "", told[0], "", "1 GB"])
        more = ", ".join(f"{big[name] / command[name] - 1:+.0%}" for name in ("peak_mb", "largest_mb"))
        add(["the same, slide four times as large", "", told[1], more, "+10%"])
    if "p" not in options.skip:
        add(compare_step("pyramid, the step after imports", pyramid, folder, options.baseline, "4×"))
    if "j" not in options.skip:
        name = f"JPEG 2000 of {options.side // 2}², flat, the step after imports"
        add(compare_step(name, jpeg2000, folder, options.baseline, "-"))
    if options.vips:
        (folder / "corners.json").write_text(
            json.dumps(
                run_script(ENGINE, write_manifest(folder, [flat]), folder, folder / "engine", 0, "trust")["corners"]
            )
        )
        theirs = run_script(VIPS, flat, folder / "corners.json", folder / "vips.bin", python=options.vips)
        step = measure_step([flat], folder, 1)
        clock, cpu = (theirs[unit] / step[unit] for unit in ("seconds", "cpu_seconds"))
        told = [f"{side['seconds']:.2f} s, {side['cpu_seconds']:.2f} CPU s" for side in (theirs, step)]
        add(["libvips, flat, the step after imports", *told, f"{clock:.1f}× by the clock, {cpu:.1f}× CPU", "3×"])
    if "w" not in options.skip:
        ten = []
        for number in range(10):
            link = folder / f"ten-{number}.tiff"
            if not link.exists():
                os.link(flat, link)
            ten.append(link)
        one, two = measure_step(ten, folder, 1), measure_step(ten, folder, 2)
        told = [f"{run['seconds']:.1f} s, {run['cpu_seconds']:.1f} CPU s" for run in (one, two)]
        ratio = f"{one['seconds'] / two['seconds']:.2f}×"
        add(["ten slides, two workers against one", *told, ratio, "1.8×"])
    print(f"tissue {np.mean(maker.cells >= 0):.1%} of {options.side}², cells of {CELL} px")


if __name__ == "__main__":
    main()
