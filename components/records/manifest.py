"""The manifest: one row an image, checked as far as one file can be checked without opening a slide."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, NamedTuple

from components.records import storage
from components.records.errors import InputError, name_first
from components.records.schema import SPLITS

REQUIRED_COLUMNS = ("image_id", "patient_id", "label")
OPTIONAL_COLUMNS = ("center_id", "image_num", "image_path", "mask_path", "mpp", "split")

UNKNOWN_LABEL = "unknown"
# An image id becomes part of file names: `<id>-00000.tfrecord` is the longest, written as `.<name>.xxxxxxxx.tmp` first.
LONGEST_ID_BYTES = 220

_KNOWN_COLUMNS = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
_SPLIT_CELLS = frozenset(("", *SPLITS))
_LISTED_PROBLEMS = 10_000
_MEND_IMAGE = "put the images below --images-root or correct the rows"
_MEND_PATH = "tell them apart with a column image_path"


class RowProblem(NamedTuple):
    """What is wrong with a row, and the mend; `line` is its line in the file, 0 where no single row is to blame."""

    line: int
    text: str
    mend: str = "correct these rows"


@dataclass(frozen=True, slots=True)
class Row:
    """One image of the manifest; `extra` holds the columns that bagline only carries along."""

    image_id: str
    patient_id: str
    label: str
    line: int
    center_id: str = ""
    image_num: str = ""
    image_path: str = ""
    mask_path: str = ""
    mpp: float | None = None
    split: str = ""
    extra: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """Every row in file order, the column names in file order, and the sha256 of the file's bytes."""

    path: str
    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    digest: str

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label once, sorted: its place is the record's `image/class/label`."""
        return tuple(sorted({row.label for row in self.rows}))


def _parse_mpp(text: str) -> float | None:
    if not text:
        return None
    value = float(text)
    if not math.isfinite(value) or value <= 0:
        raise ValueError(text)
    return value


def scan_manifest(path: str, *, labelled: bool = True) -> tuple[Manifest, list[RowProblem]]:
    """Reads a manifest and returns what is wrong with its rows instead of raising it.

    For callers that add checks of their own and report everything together. Faulty rows are among
    the manifest's (unless their number of cells is wrong), so that such checks see every patient;
    an unusable mpp is None there.

    Raises:
        InputError: the file as a whole is unusable: it is missing, no UTF-8 CSV, lacks a column or has one twice,
            or has no rows.
    """
    content = storage.read_bytes(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 (byte {error.start})", where=path, mend="save it as UTF-8 CSV") from None
    if "\0" in text:
        raise InputError("holds a NUL byte", where=path, mend="save it as UTF-8 CSV")
    reader = csv.reader(io.StringIO(text, newline=""))
    del text
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header, labelled)
        rows, problems = _read_rows(reader, header, labelled)
    except csv.Error as error:
        raise InputError(f"line {reader.line_num} is not CSV ({error})", where=path, mend="correct the line") from None
    if not rows and not problems:
        raise InputError("has no rows", where=path, mend="add one row an image")
    return Manifest(str(path), tuple(rows), tuple(header), hashlib.sha256(content).hexdigest()), problems


def read_manifest(path: str, *, labelled: bool = True) -> Manifest:
    r"""Reads a manifest (CSV, UTF-8 with or without BOM).

    Cells are stripped of blanks around them, those of columns that are only carried along are not.
    Image ids become file names, so `/`, `\\`, control characters, a leading dot and more than 220 bytes are refused in
    them.

    Args:
        path: the file.
        labelled: every row needs a label; else a row without one is `UNKNOWN_LABEL`, and so is every row of a file
            without that column.

    Raises:
        InputError: names every offending line at once: missing or doubled columns, rows of another
            length, empty or unusable ids, duplicate image ids, an mpp that is no positive number,
            a split that is none of train, val, test.
    """
    manifest, problems = scan_manifest(path, labelled=labelled)
    refuse_rows(path, problems)
    return manifest


def refuse_rows(path: str, problems: list[RowProblem]) -> None:
    """Raises one InputError that lists every problem in line order, and each mend once; nothing where there is none."""
    if not problems:
        return
    ordered = sorted(problems, key=lambda problem: (problem.line or math.inf, problem.text))
    lines = [f"line {problem.line}: {problem.text}" if problem.line else problem.text for problem in ordered]
    rest = len(lines) - _LISTED_PROBLEMS
    shown = "; ".join(lines[:_LISTED_PROBLEMS]) + (f" and {rest} more" if rest > 0 else "")
    mends = dict.fromkeys(problem.mend for problem in ordered)
    raise InputError(shown, where=str(path), mend=", ".join(mends))


def _check_header(path: str, header: list[str], labelled: bool) -> None:
    missing = [name for name in REQUIRED_COLUMNS if name not in header and (labelled or name != "label")]
    if missing:
        seen = f" (it has {', '.join(header)})" if header else ""
        raise InputError(f"lacks the column {', '.join(missing)}{seen}", where=path, mend="add it")
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise InputError(f"has the column {', '.join(doubled)} twice", where=path, mend="remove one of the two")


def _read_rows(
    reader: csv._reader,  # type: ignore[name-defined]
    header: list[str],
    labelled: bool,
) -> tuple[list[Row], list[RowProblem]]:
    rows: list[Row] = []
    problems: list[RowProblem] = []
    first_line: dict[str, int] = {}
    known = _KNOWN_COLUMNS
    places = [header.index(name) if name in header else len(header) for name in known]
    others = [(name, place) for place, name in enumerate(header) if name not in known]
    for cells in reader:
        line = reader.line_num
        if len(cells) != len(header):
            if any(cell.strip() for cell in cells):
                problems.append(RowProblem(line, f"{len(cells)} cells where the header has {len(header)}"))
            continue
        cells.append("")  # what a column that is absent holds
        values = [cells[place].strip() for place in places]
        if not labelled and values[0] and not values[2]:
            values[2] = UNKNOWN_LABEL
        found: list[RowProblem] = []
        if not _is_plain(values):
            if not any(cell.strip() for cell in cells):
                continue
            found = [RowProblem(line, text) for text in _row_problems(dict(zip(known, values, strict=True)))]
        image_id, patient_id, label, center_id, image_num, image_path, mask_path, mpp, split = values
        before = first_line.setdefault(image_id, line)
        if image_id and before != line:
            found.append(RowProblem(line, f"image_id {image_id} is already on line {before}"))
        if found:
            problems += found
        rows.append(
            Row(
                image_id,
                patient_id,
                sys.intern(label),
                line,
                sys.intern(center_id),
                image_num,
                image_path,
                mask_path,
                _parse_mpp(mpp) if mpp and not found else None,
                sys.intern(split),
                {name: cells[place] for name, place in others},
            )
        )
    return rows, problems


def _is_plain(values: list[str]) -> bool:
    """Whether a row is so plain that nothing can be wrong with it: a quick pass over long manifests."""
    image_id, patient_id, label, center_id, _, image_path, mask_path, mpp, split = values
    paths = image_path + mask_path
    return bool(
        image_id
        and patient_id
        and label
        and not mpp
        and split in _SPLIT_CELLS
        and len(image_id) <= LONGEST_ID_BYTES // 4
        and image_id[0] != "."
        and "/" not in image_id
        and "\\" not in image_id
        and (not paths or (".." not in paths and image_path[:1] != "/" and mask_path[:1] != "/"))
        and (image_id + patient_id + label + center_id).isprintable()
    )


def _row_problems(values: dict[str, str]) -> list[str]:
    problems = [f"empty {name}" for name in REQUIRED_COLUMNS if not values[name]]
    image_id = values["image_id"]
    if image_id.startswith(".") or "/" in image_id or "\\" in image_id or not image_id.isprintable():
        problems.append(f"image_id {image_id!r} can't be a file name")
    if (length := len(image_id.encode())) > LONGEST_ID_BYTES:
        problems.append(
            f"image_id {image_id[:32]!r}… is {length} bytes long, {LONGEST_ID_BYTES} is the most that fits a file name"
        )
    for name in ("patient_id", "label", "center_id"):
        if not values[name].isprintable():
            problems.append(f"{name} holds a control character")
    for name in ("image_path", "mask_path"):
        path = values[name]
        if path.startswith("/") or (".." in path and ".." in path.split("/")):
            problems.append(f"{name} {path!r} leaves --images-root")
    if values["mpp"]:
        try:
            _parse_mpp(values["mpp"])
        except ValueError:
            problems.append(f"mpp {values['mpp']!r} is not a positive number")
    if values["split"] not in _SPLIT_CELLS:
        problems.append(f"split {values['split']!r} is none of {', '.join(SPLITS)}")
    return problems


class _LineFeeds:
    """Ends rows with a line feed; asked for that, csv.writer would leave a carriage return in a cell unquoted."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, row: str) -> int:
        return self._stream.write(row[:-2] + "\n")


def write_manifest(path: str, columns: tuple[str, ...], rows: Iterable[Row]) -> None:
    r"""Writes rows as a manifest with the given columns in order, `\\n` line ends."""
    with storage.open_atomic(path, "w") as stream:
        writer = csv.writer(_LineFeeds(stream), lineterminator="\r\n")
        writer.writerow(columns)
        cells = [(name, name in _KNOWN_COLUMNS) for name in columns]
        for row in rows:
            extra = row.extra
            writer.writerow([getattr(row, name) if own else extra[name] for name, own in cells])


def resolve_images(
    manifest: Manifest, images_root: str, files: Mapping[str, storage.FileInfo] | None = None
) -> tuple[dict[str, storage.FileInfo], list[str]]:
    """Finds every row's image file below `images_root`.

    A row with `image_path` names it; without one it is the single file whose stem is the image id.

    Args:
        manifest: whose rows to look up.
        images_root: the folder; it is listed unless `files` is given.
        files: its listing, as `storage.list_files` returns it.

    Returns:
        The file of each image id that was found, and a problem line for each that was not.

    Raises:
        InputError: `images_root` is no folder, or is empty.
    """
    found, problems = find_images(manifest.rows, images_root, files)
    return found, [f"line {problem.line}: {problem.text}" for problem in problems]


def find_images(
    rows: Iterable[Row], images_root: str, files: Mapping[str, storage.FileInfo] | None = None
) -> tuple[dict[str, storage.FileInfo], list[RowProblem]]:
    """As `resolve_images`, with the problems as RowProblem."""
    if files is None:
        rows = list(rows)
        files = _list_images(rows, str(images_root))
    if not files and (storage.is_remote(images_root) or not os.listdir(images_root)):
        raise InputError("is an empty folder", where=str(images_root), mend="point --images-root at the images")
    by_stem: dict[str, list[str]] = {}
    found: dict[str, storage.FileInfo] = {}
    problems: list[RowProblem] = []
    for row in rows:
        if row.image_path:
            name = str(PurePosixPath(row.image_path))
            if name in files:
                found.setdefault(row.image_id, files[name])
            else:
                problems.append(RowProblem(row.line, f"{row.image_id}: no file {row.image_path}", _MEND_IMAGE))
            continue
        if not by_stem:
            for name in files:
                by_stem.setdefault(_stem(name), []).append(name)
        names = by_stem.get(row.image_id, [])
        if len(names) == 1:
            found.setdefault(row.image_id, files[names[0]])
        elif names:
            fits = name_first(sorted(names), 3)
            problems.append(RowProblem(row.line, f"{row.image_id}: several files fit ({fits})", _MEND_PATH))
        else:
            problems.append(RowProblem(row.line, f"{row.image_id}: no file of that stem", _MEND_IMAGE))
    return found, problems


def _list_images(rows: Iterable[Row], images_root: str) -> dict[str, storage.FileInfo]:
    """The files that rows may mean: a folder with much else in it is walked only for rows without an `image_path`."""
    named = {str(PurePosixPath(row.image_path)) for row in rows}
    if storage.is_remote(images_root) or str(PurePosixPath("")) in named:
        return storage.list_files(images_root)
    return storage.find_files(images_root, named)


def _stem(name: str) -> str:
    """As PurePosixPath(name).stem, ten times as fast."""
    base = name.rpartition("/")[2]
    dot = base.rfind(".")
    return base[:dot] if 0 < dot < len(base) - 1 else base
