"""The tiling step of bagline beside its peers', each in an environment of its own: prints a table of one run.

    python tests/benchmarks/bench_peers.py --work FOLDER [--side 32768] [--tissue 'FOLDER/*.jpg'] [--peers a,b]

Makes the environments of `peers/*.txt` (several GB) and the slides of `bench_slides.py` under FOLDER. Each script of
`peers/` tiles a slide as its package's documentation does, one process and one thread; the time is after imports.
bagline runs before and after its peers, and the mean of the two runs counts; its memory is that of the whole command.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench_slides import SlideMaker
from bench_tiling import measure_command, measure_step, run_loop

HERE = Path(__file__).resolve().parent / "peers"
PEERS = ("pyvips", "tiatoolbox", "slideflow", "histolab")


def make_environment(peer: str, folder: Path) -> Path:
    """The Python of a peer's environment, made where it is missing."""
    home = folder / "environments" / peer
    python, stamp = home / "bin" / "python", home / "installed"
    if not stamp.exists():
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        wanted = ["-r", str(HERE / f"{peer}.txt")]
        if peer in ("histolab", "slideflow"):  # what they ask for can't be had as wheels: the list says all they need
            pip = [python, "-m", "pip", "install", "--quiet", "--no-deps"]
            lines = [line for line in (HERE / f"{peer}.txt").read_text().splitlines() if not line.startswith("#")]
            subprocess.run([*pip, *(line for line in lines if line.startswith(peer))], check=True)
            rest = home / "rest.txt"
            rest.write_text("\n".join(line for line in lines if not line.startswith(peer)))
            wanted = ["-r", str(rest)]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
        stamp.touch()
    return python


def run_peer(peer: str, python: Path, slide: Path, folder: Path) -> dict[str, float]:
    """What a peer's script says of a slide."""
    out = folder / f"out-{peer}"
    shutil.rmtree(out, ignore_errors=True)
    call = [python, HERE / f"tile_{peer}.py", slide, out]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(call, capture_output=True, text=True, check=False, env=environment)
    shutil.rmtree(out, ignore_errors=True)
    if ran.returncode:
        raise RuntimeError(f"{peer}: {ran.stderr[-2000:]}")
    return json.loads(ran.stdout.splitlines()[-1])


def compare(slide: Path, folder: Path, peers: dict[str, Path]) -> list[dict[str, object]]:
    """A row for each tool."""
    ours = [measure_step([slide], folder, 1)]
    rows = [{"tool": "OpenSlide, Pillow", **run_loop(slide, folder, None, 256)}]
    rows += [{"tool": peer, **run_peer(peer, python, slide, folder)} for peer, python in peers.items()]
    ours.append(measure_step([slide], folder, 1))
    mean = {key: sum(run[key] for run in ours) / len(ours) for key in ("tiles", "seconds", "cpu_seconds")}
    return [{"tool": "bagline", **mean, "peak_mb": measure_command(slide, folder)["peak_mb"]}, *rows]


def main() -> None:
    """Prints a table a slide."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for environments, slides and outputs")
    parser.add_argument("--side", type=int, default=32768, help="px, a multiple of 4096")
    parser.add_argument("--tissue", help="pattern of tissue pictures of at least 1024² px")
    parser.add_argument("--peers", default=",".join(PEERS), help="which of them")
    options = parser.parse_args()
    maker = SlideMaker(options.work, options.side, options.tissue)
    peers = {peer: make_environment(peer, options.work) for peer in options.peers.split(",")}
    for name, slide in (("flat", maker.flat(256)), ("pyramid", maker.pyramid(256))):
        print(f"\n{name}, {options.side}²\ntool | tiles | seconds | CPU seconds | peak MB | bagline is faster")
        rows = compare(slide, options.work, peers)
        for row in rows:
            ratio = row["seconds"] / rows[0]["seconds"]
            print(f"{row['tool']} | {row['tiles']:.0f} | {row['seconds']:.1f} | {row['cpu_seconds']:.1f} | "
                  f"{row['peak_mb']:.0f} | {ratio:.1f}×", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
