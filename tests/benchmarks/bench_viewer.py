"""What the viewer takes: tiles with several clients, the first picture of a flat slide, memory while panning.

    python tests/benchmarks/bench_viewer.py --work FOLDER [--side 8192] [--clients 4] [--tiles 400]

The service is a process of its own, asked over HTTP; every client pans over tiles of its own at full resolution, and
every fourth tile is of the level above. Tiles are asked for once only, so that none comes from the cache.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from bench_slides import SlideMaker

KINDS = {"flat": "flat", "pyramid": "pyramid", "openslide": "jpeg2000"}


class Viewer:
    """`bagline view` on a folder, and its memory."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "pipelines", "view", str(folder), "--port", "0", "--no-browser"]
        self._log = (folder / "viewer.log").open("w")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, text=True)
        self.host = urlsplit(self.process.stdout.readline().strip()).netloc

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, timeout=120)

    def memory(self, what: str) -> float:
        """MB of `VmRSS` or `VmHWM`, of this process alone."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(what)).split()[1]) / 1024

    def cpu(self) -> float:
        """CPU seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(15)
        self._log.close()


def ask(connection: http.client.HTTPConnection, address: str) -> bytes:
    connection.request("GET", address)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{address}: {answer.status} {content[:200]!r}")
    return content


def measure_first(viewer: Viewer, slide: dict) -> tuple[float, float]:
    """Seconds from the click to the picture of the whole slide: its description, and the first level's one tile."""
    connection, started = viewer.connect(), time.perf_counter()
    shape = json.loads(ask(connection, f"/api/slides/{slide['key']}"))
    described = time.perf_counter() - started
    level = shape["max_level"]
    while max(shape["width"] >> (shape["max_level"] - level), 1) > shape["tile_width"]:
        level -= 1
    ask(connection, f"/api/slides/{slide['key']}/tiles/{level}/0_0.jpg")
    return described, time.perf_counter() - started


def measure_tiles(viewer: Viewer, slide: dict, clients: int, count: int) -> np.ndarray:
    """Seconds of each tile, `clients` asking at once."""
    shape = json.loads(ask(viewer.connect(), f"/api/slides/{slide['key']}"))
    top = shape["max_level"]
    places = []
    for level, share in ((top, 0.75), (top - 1, 0.25)):
        columns = (shape["width"] >> (top - level)) // shape["tile_width"]
        rows = (shape["height"] >> (top - level)) // shape["tile_height"]
        every = [(level, column, row) for row in range(rows) for column in range(columns)]
        places += random.Random(level).sample(every, min(len(every), int(count * share)))
    random.Random(0).shuffle(places)
    seconds: list[float] = []

    def pan(mine: list[tuple[int, int, int]]) -> None:
        connection = viewer.connect()
        for level, column, row in mine:
            started = time.perf_counter()
            ask(connection, f"/api/slides/{slide['key']}/tiles/{level}/{column}_{row}.jpg")
            seconds.append(time.perf_counter() - started)

    threads = [threading.Thread(target=pan, args=(places[number::clients],)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return np.array(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--tissue", help="pictures of tissue; made up without them")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--tiles", type=int, default=400)
    parser.add_argument("--slides", nargs="+", choices=KINDS, default=list(KINDS), help="which; all of them")
    options = parser.parse_args()
    folder = options.work / f"viewer-{options.side}"
    maker = SlideMaker(folder, options.side, options.tissue)
    slides = {kind: getattr(maker, KINDS[kind])(256) for kind in options.slides}
    viewer = Viewer(folder)
    try:
        listed = {slide["image_id"]: slide for slide in json.loads(ask(viewer.connect(), "/api/slides"))}
        print(f"{'':14}  description  first picture    p50    p95   max ms   CPU ms/tile   RSS MB")
        for name, path in slides.items():
            slide = listed[path.name]
            described, first = measure_first(viewer, slide)
            before = viewer.cpu()
            seconds = measure_tiles(viewer, slide, options.clients, options.tiles) * 1000
            cpu = (viewer.cpu() - before) * 1000 / len(seconds)
            p50, p95 = np.percentile(seconds, [50, 95])
            print(
                f"{name:14}  {described:9.2f} s  {first:11.2f} s {p50:6.1f} {p95:6.1f} {seconds.max():8.1f} "
                f"{cpu:13.1f} {viewer.memory('VmRSS'):8.0f}",
                flush=True,
            )
        print(f"peak memory of the service: {viewer.memory('VmHWM'):.0f} MB")
    finally:
        viewer.close()


if __name__ == "__main__":
    main()
