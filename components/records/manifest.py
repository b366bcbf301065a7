"""The manifest: one row an image, checked as far as one file can be checked without opening a slide."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from components.records import storage
from components.records.errors import InputError, name_first
from components.records.schema import SPLITS

REQUIRED_COLUMNS = ("image_id", "patient_id", "label")
OPTIONAL_COLUMNS = ("center_id", "image_num", "image_path", "mask_path", "mpp", "split")


@dataclass(frozen=True)
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


def read_manifest(path: str) -> Manifest:
    r"""Reads a manifest (CSV, UTF-8 with or without BOM).

    Cells are stripped of blanks around them. Image ids become file names, so `/`, `\\`, control
    characters and a leading dot are refused in them.

    Raises:
        InputError: names every offending line at once: missing or doubled columns, rows of another
            length, empty or unusable ids, duplicate image ids, an mpp that is no positive number,
            a split that is none of train, val, test.
    """
    content = storage.read_bytes(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 (byte {error.start})", where=path, mend="save it as UTF-8 CSV") from None
    if "\0" in text:
        raise InputError("holds a NUL byte", where=path, mend="save it as UTF-8 CSV")
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header)
        rows, problems = _read_rows(reader, header)
    except csv.Error as error:
        raise InputError(f"line {reader.line_num} is not CSV ({error})", where=path, mend="correct the line") from None
    if problems:
        raise InputError(name_first(problems, limit=len(problems)), where=path, mend="correct these rows")
    if not rows:
        raise InputError("has no rows", where=path, mend="add one row an image")
    return Manifest(str(path), tuple(rows), tuple(header), hashlib.sha256(content).hexdigest())


def _check_header(path: str, header: list[str]) -> None:
    missing = [name for name in REQUIRED_COLUMNS if name not in header]
    if missing:
        seen = f" (it has {', '.join(header)})" if header else ""
        raise InputError(f"lacks the column {', '.join(missing)}{seen}", where=path, mend="add it")
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise InputError(f"has the column {', '.join(doubled)} twice", where=path, mend="remove one of the two")


def _read_rows(reader: csv._reader, header: list[str]) -> tuple[list[Row], list[str]]:  # type: ignore[name-defined]
    rows: list[Row] = []
    problems: list[str] = []
    first_line: dict[str, int] = {}
    known = set(REQUIRED_COLUMNS) | set(OPTIONAL_COLUMNS)
    others = [name for name in header if name not in known]
    for cells in reader:
        line = reader.line_num
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            problems.append(f"line {line}: {len(cells)} cells where the header has {len(header)}")
            continue
        values = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        found = _row_problems(values, line)
        image_id = values["image_id"]
        if image_id and image_id in first_line:
            found.append(f"line {line}: image_id {image_id} is already on line {first_line[image_id]}")
        first_line.setdefault(image_id, line)
        problems += found
        if found:
            continue
        rows.append(
            Row(
                image_id=image_id,
                patient_id=values["patient_id"],
                label=values["label"],
                line=line,
                center_id=values.get("center_id", ""),
                image_num=values.get("image_num", ""),
                image_path=values.get("image_path", ""),
                mask_path=values.get("mask_path", ""),
                mpp=_parse_mpp(values.get("mpp", "")),
                split=values.get("split", ""),
                extra={name: values[name] for name in others},
            )
        )
    return rows, problems


def _row_problems(values: dict[str, str], line: int) -> list[str]:
    problems = [f"line {line}: empty {name}" for name in REQUIRED_COLUMNS if not values[name]]
    image_id = values["image_id"]
    if image_id.startswith(".") or any(c in "/\\" or not c.isprintable() for c in image_id):
        problems.append(f"line {line}: image_id {image_id!r} can't be a file name")
    for name in ("patient_id", "label", "center_id"):
        if not values.get(name, "").isprintable():
            problems.append(f"line {line}: {name} holds a control character")
    for name in ("image_path", "mask_path"):
        relative = PurePosixPath(values.get(name, ""))
        if relative.is_absolute() or ".." in relative.parts:
            problems.append(f"line {line}: {name} {str(relative)!r} leaves --images-root")
    try:
        _parse_mpp(values.get("mpp", ""))
    except ValueError:
        problems.append(f"line {line}: mpp {values['mpp']!r} is not a positive number")
    if values.get("split", "") not in ("", *SPLITS):
        problems.append(f"line {line}: split {values['split']!r} is none of {', '.join(SPLITS)}")
    return problems


def write_manifest(path: str, columns: tuple[str, ...], rows: list[Row]) -> None:
    r"""Writes rows as a manifest with the given columns in order, `\\n` line ends."""
    with storage.open_atomic(path, "w") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow(_cell(row, name) for name in columns)


def _cell(row: Row, name: str) -> str:
    if name in row.extra:
        return row.extra[name]
    value = getattr(row, name)
    return "" if value is None else str(value)


def resolve_images(manifest: Manifest, images_root: str) -> tuple[dict[str, storage.FileInfo], list[str]]:
    """Finds every row's image file below `images_root`.

    A row with `image_path` names it; without one it is the single file whose stem is the image id.

    Returns:
        The file of each image id that was found, and a problem line for each that was not.

    Raises:
        InputError: `images_root` is no folder, or is empty.
    """
    files = storage.list_files(images_root)
    if not files:
        raise InputError("is an empty folder", where=str(images_root), mend="point --images-root at the images")
    by_stem: dict[str, list[str]] = {}
    for name in files:
        by_stem.setdefault(PurePosixPath(name).stem, []).append(name)
    found: dict[str, storage.FileInfo] = {}
    problems: list[str] = []
    for row in manifest.rows:
        if row.image_path:
            name = str(PurePosixPath(row.image_path))
            if name in files:
                found[row.image_id] = files[name]
            else:
                problems.append(f"line {row.line}: {row.image_id}: no file {row.image_path}")
            continue
        names = by_stem.get(row.image_id, [])
        if len(names) == 1:
            found[row.image_id] = files[names[0]]
        elif names:
            problems.append(f"line {row.line}: {row.image_id}: several files fit ({name_first(sorted(names), 3)})")
        else:
            problems.append(f"line {row.line}: {row.image_id}: no file of that stem")
    return found, problems
