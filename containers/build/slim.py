"""Takes out of an image's environment what nothing there runs, and compiles the rest: `slim.py FOLDER`.

Out go the packages' own tests, C headers and sources, static libraries, and the libclang that TensorFlow names but
never loads. Type stubs stay: some packages read theirs to import lazily. Bytecode is checked against nothing later,
because files in an image don't change.
"""

import compileall
import os
import py_compile
import shutil
import sys
from pathlib import Path

# Relative to site-packages.
USELESS = ("tensorflow/include", "clang/native", "pyarrow/include", "numpy/_core/include", "numpy/_core/lib")
ENDINGS = (".a", ".pyx", ".pxd", ".h", ".hpp", ".c", ".cc", ".cpp")
# A package's `tests` that others import.
KEPT = ("numpy/_core/tests", "pyarrow/tests")
EPOCH = 1577836800  # 2020-01-01: equal contents give equal layers, and a cache that goes by time stays valid


def slim(packages: Path) -> int:
    """Removes what is useless below a site-packages folder; returns how many bytes that was."""
    gone = 0
    for name in USELESS:
        gone += _remove(packages / name)
    for folder in sorted(packages.rglob("tests"), reverse=True):
        if folder.is_dir() and folder.relative_to(packages).as_posix() not in KEPT and folder.parent != packages:
            gone += _remove(folder)
    for path in packages.rglob("*"):
        if path.suffix in ENDINGS and path.is_file():
            gone += path.stat().st_size
            path.unlink()
    return gone


def _remove(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    shutil.rmtree(folder)
    return size


def main(root: Path) -> int:
    """Slims and compiles what is installed below `root`."""
    (packages,) = root.glob("lib/python3.*/site-packages")
    gone = slim(packages)
    for path in root.rglob("*"):
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
    compileall.compile_dir(
        str(packages), quiet=2, workers=0, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    sys.stdout.write(f"{root}: {gone / 1e6:.0f} MB removed\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
