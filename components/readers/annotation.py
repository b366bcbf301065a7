"""Annotations drawn by people: ASAP's XML, as CAMELYON has it, and QuPath's GeoJSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from components.readers.polygon import Polygon
from components.records.errors import SlideError

XML, GEOJSON = (".xml",), (".geojson", ".json")
EXCLUSIONS = frozenset(
    {"_2", "exclusion", "exclude", "excluded", "ignore", "ignore*", "normal", "non-tumor", "non-tumour"}
)
_AREAS, _NO_AREAS = ("polygon", "spline", "rectangle"), ("dot", "pointset", "measurement", "none")
_WITHOUT_AREA = ("Point", "MultiPoint", "LineString", "MultiLineString")
_MOST_BYTES = 1 << 28
_MEND = "export the annotations again"


def is_annotation(path: str) -> bool:
    """Whether a mask's name says that it is drawn, not painted."""
    return path.lower().endswith(XML + GEOJSON)


def read_annotation(path: str, classes: Sequence[str] = (), name: str = "") -> list[Polygon]:
    """The polygons of an annotation file, in level-0 px.

    Args:
        path: `.xml` of ASAP, `.geojson` or `.json` of QuPath.
        classes: groups (ASAP) or classifications (QuPath) that are lesions, in any case; empty for every one that is
            no exclusion (`EXCLUSIONS`: `_2` of CAMELYON16, `normal` of CAMELYON17, `Ignore*` of QuPath …). Exclusions
            are taken away from lesions; where `classes` are given, all others count for nothing.
        name: what errors call the file.

    Raises:
        SlideError: there is no such file, or it can't be read; says the place in it.
    """
    name = name or os.path.basename(path)
    if not os.path.isfile(path):
        raise SlideError("the mask is missing", mend="check mask_path")
    if os.path.getsize(path) > _MOST_BYTES:
        raise SlideError(f"the annotation {name} is larger than {_MOST_BYTES >> 20} MiB", mend="give a TIFF mask")
    with open(path, "rb") as stream:
        content = stream.read()
    wanted = frozenset(each.strip().lower() for each in classes if each.strip())
    reader = _AsapReader if path.lower().endswith(XML) else _read_geojson
    polygons = []
    for group, outer, holes in reader(content, name):
        is_wanted, excluded = group.lower() in wanted, group.lower() in EXCLUSIONS
        if is_wanted or excluded or not wanted:
            polygons.append(Polygon(outer, tuple(holes), excluded and not is_wanted))
    return polygons


_Found = Iterator[tuple[str, NDArray[np.float64], list[NDArray[np.float64]]]]


def _refuse(name: str, where: str, what: str) -> SlideError:
    return SlideError(f"the annotation {name}, {where}: {what}", mend=_MEND)


class _AsapReader:
    """Group, ring and no holes of each annotation with an area."""

    def __init__(self, content: bytes, name: str) -> None:
        self._name = name
        self._found: list[tuple[str, NDArray[np.float64], list[NDArray[np.float64]]]] = []
        self._points: list[tuple[float, float, float]] = []
        self._open: tuple[str, int] | None = None
        self._is_asap = False
        self._parser = expat.ParserCreate()
        self._parser.StartDoctypeDeclHandler = self._refuse_doctype
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        try:
            self._parser.Parse(content, True)
        except expat.ExpatError as error:
            what = f"is no whole XML ({expat.ErrorString(error.code)})"
            raise _refuse(name, f"line {error.lineno}", what) from None
        if not self._is_asap:
            raise _refuse(name, "line 1", "holds no ASAP_Annotations")

    def __iter__(self) -> _Found:
        return iter(self._found)

    def _fail(self, what: str) -> SlideError:
        return _refuse(self._name, f"line {self._parser.CurrentLineNumber}", what)

    def _refuse_doctype(self, *_: Any) -> None:
        raise self._fail("a document type is not allowed")

    def _start(self, tag: str, facts: dict[str, str]) -> None:
        if tag in ("ASAP_Annotations", "Annotations"):
            self._is_asap = True
        elif tag == "Annotation":
            kind = facts.get("Type", "Polygon").lower()
            if kind not in _AREAS + _NO_AREAS:
                raise self._fail(f"unknown type {facts['Type']!r} of an annotation")
            self._points = []
            group = facts.get("PartOfGroup", "None")
            self._open = (group, self._parser.CurrentLineNumber) if kind in _AREAS else None
        elif tag == "Coordinate" and self._open:
            try:
                order = float(facts.get("Order", len(self._points)))
                point = order, _number(facts["X"]), _number(facts["Y"])
            except (KeyError, ValueError):
                raise self._fail("a Coordinate without a number for X and Y") from None
            self._points.append(point)

    def _end(self, tag: str) -> None:
        if tag != "Annotation" or self._open is None:
            return
        group, line = self._open
        if len(self._points) < 3:
            raise _refuse(self._name, f"line {line}", f"an area of {len(self._points)} points")
        ring = np.array(sorted(self._points, key=lambda point: point[0]), np.float64)[:, 1:]
        self._found.append((group, ring, []))
        self._open = None


def _number(text: Any) -> float:
    # ASAP writes a decimal comma where the system does
    value = float(text.replace(",", ".")) if isinstance(text, str) else float(text)
    if not np.isfinite(value):
        raise ValueError(text)
    return value


def _read_geojson(content: bytes, name: str) -> _Found:
    try:
        found = json.loads(content)
    except json.JSONDecodeError as error:
        raise _refuse(name, f"line {error.lineno}", f"is no JSON ({error.msg})") from None
    except (UnicodeDecodeError, RecursionError):
        raise _refuse(name, "line 1", "is no JSON") from None
    features = found.get("features") if isinstance(found, dict) and found.get("type") == "FeatureCollection" else found
    features = [features] if isinstance(features, dict) else features
    if not isinstance(features, list):
        raise _refuse(name, "line 1", "holds no features")
    for number, feature in enumerate(features, start=1):
        where = f"feature {number}"
        if not isinstance(feature, dict) or not isinstance(feature.get("geometry"), dict):
            raise _refuse(name, where, "has no geometry")
        group = _classification(feature.get("properties"))
        yield from ((group, outer, holes) for outer, holes in _geometry(feature["geometry"], name, where))


def _classification(properties: Any) -> str:
    """QuPath's class of an object: `classification: {name}`, its newer `{names: […]}`, or a plain string."""
    found = properties.get("classification") if isinstance(properties, dict) else None
    if isinstance(found, dict):
        names = found.get("names")
        found = found.get("name") or (": ".join(map(str, names)) if isinstance(names, list) else "")
    return found if isinstance(found, str) else ""


def _geometry(
    geometry: dict[str, Any], name: str, where: str
) -> Iterator[tuple[NDArray[np.float64], list[NDArray[np.float64]]]]:
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind == "GeometryCollection":
        parts = geometry.get("geometries")
        for part in parts if isinstance(parts, list) else []:
            if not isinstance(part, dict):
                raise _refuse(name, where, "a geometry that is none")
            yield from _geometry(part, name, where)
        return
    if kind in _WITHOUT_AREA:
        return
    if kind not in ("Polygon", "MultiPolygon"):
        raise _refuse(name, where, f"unknown geometry {kind!r}")
    for rings in [coordinates] if kind == "Polygon" else coordinates if isinstance(coordinates, list) else [None]:
        if not isinstance(rings, list) or not rings:
            raise _refuse(name, where, f"a {kind} without rings")
        outer, *holes = [_ring(ring, name, where) for ring in rings]
        yield outer, holes


def _ring(ring: Any, name: str, where: str) -> NDArray[np.float64]:
    try:
        points = np.array([[_number(point[0]), _number(point[1])] for point in ring], np.float64)
    except (TypeError, ValueError, IndexError, KeyError):
        raise _refuse(name, where, "a ring with a point that is no x and y") from None
    if len(points) < 3:
        raise _refuse(name, where, f"a ring of {len(points)} points")
    return points
