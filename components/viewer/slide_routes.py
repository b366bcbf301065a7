"""Slides over HTTP: the list, one slide, its tiles, and what is laid over it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response

from components.records.errors import BaglineError
from components.viewer.answers import UnknownError, answer_bytes, answer_json, encode_json
from components.viewer.bounded import ByteCache, OneAtATime
from components.viewer.catalog import Catalog, Slide
from components.viewer.observe import Figures
from components.viewer.overlays import draw_mask, read_annotations
from components.viewer.pixels import encode_jpeg
from components.viewer.places import read_places, read_record
from components.viewer.run import Run
from components.viewer.tiles import JPEG, TileMaker, tell_version

_MADE_BYTES = 48 << 20
_THUMBNAIL_SIDE = 320


class Desk:
    """What the routes of slides share: the table, the maker of tiles, and what was made before."""

    def __init__(self, catalog: Catalog, maker: TileMaker, figures: Figures) -> None:
        self.catalog, self.maker, self.figures = catalog, maker, figures
        self._made: ByteCache[tuple[str, str, str], bytes] = ByteCache(_MADE_BYTES)
        self._making: OneAtATime[tuple[str, str, str]] = OneAtATime()
        self._thumbnailing = threading.BoundedSemaphore(1)

    def find(self, request: Request, key: str) -> Slide:
        """The slide of a key; its id goes into the log.

        Raises:
            UnknownError: there is none.
        """
        slide = self.catalog.slides.get(key)
        if slide is None:
            raise UnknownError("there is no such slide")
        request.state.image_id = slide.image_id
        return slide

    def find_run(self, slide: Slide) -> Run:
        """The run that has a slide.

        Raises:
            UnknownError: it is a slide of a folder.
        """
        run = self.catalog.runs.get(slide.run)
        if run is None:
            raise UnknownError("no run has tiles of this slide")
        return run

    def keep(self, slide: Slide, kind: str, version: str, make: Callable[[], bytes]) -> bytes:
        """What `make` makes, made once while it is kept."""
        place = slide.key, kind, version
        with self._making.hold(place):
            content = self._made.get(place)
            if content is None:
                content = make()
                self._made.put(place, content, len(content) + 200)
        return content

    def make_thumbnail(self, slide: Slide) -> bytes:
        """JPEG of the slide, one at a time: thumbnails must not take the place of what somebody looks at."""
        with self._thumbnailing:
            return encode_jpeg(self.maker.overview(slide.path, _THUMBNAIL_SIDE, slide.stand_in))


def add_slide_routes(app: FastAPI, desk: Desk) -> None:
    """Adds `/api/slides`, one slide, its thumbnail and its tiles."""

    @app.get("/api/slides", tags=["slides"])
    def list_slides(request: Request) -> Response:
        """Every slide, with what the run says of it."""
        lines = [describe_slide(desk.catalog, slide) for slide in desk.catalog.slides.values()]
        return answer_json(request, encode_json(lines))

    @app.get("/api/slides/{key}", tags=["slides"])
    def show_slide(request: Request, key: str) -> Response:
        """One slide: its size, scale, tiles, and what can be laid over it."""
        return answer_json(request, encode_json(_describe_shape(desk, desk.find(request, key))))

    @app.get("/api/slides/{key}/tiles/{level}/{column}_{row}.jpg", tags=["slides"])
    def send_tile(request: Request, key: str, level: int, column: int, row: int) -> Response:
        """A tile of the deep-zoom pyramid, level 0 being a single px; hatched where the slide can't be read."""
        slide = desk.find(request, key)
        if not slide.path:
            raise UnknownError("the slide's file was not found")
        tile = desk.maker.tile(slide.path, level, column, row, slide.stand_in)
        desk.figures.tiles.labels(tile.made).inc()
        if not tile.unreadable:
            return answer_bytes(request, tile.content, JPEG, tile.etag)
        desk.figures.unreadable.inc()
        return Response(tile.content, media_type=JPEG, headers={"X-Bagline-Unreadable": "1"})

    @app.get("/api/slides/{key}/thumbnail.jpg", tags=["slides"])
    def send_thumbnail(request: Request, key: str) -> Response:
        """The slide, at most 320 px wide and high."""
        slide = desk.find(request, key)
        if not (slide.path or slide.stand_in):
            raise UnknownError("there is no such picture")
        version = tell_version(slide.path) if slide.path else "gone"
        content = desk.keep(slide, "thumbnail", version, lambda: desk.make_thumbnail(slide))
        return answer_bytes(request, content, JPEG, f'"{version}-thumbnail"')


def add_overlay_routes(app: FastAPI, desk: Desk) -> None:
    """Adds what is laid over a slide, and its tiles' records."""

    @app.get("/api/slides/{key}/places", tags=["overlays"])
    def list_places(request: Request, key: str) -> Response:
        """Where the run cut tiles out of the slide, and what attention each got: columns of numbers."""
        slide = desk.find(request, key)
        run = desk.find_run(slide)
        heatmap = run.heatmaps.get(slide.image_id, "")
        content = desk.keep(slide, "places", "", lambda: encode_json(read_places(run.dataset, slide.image_id, heatmap)))
        return answer_json(request, content)

    @app.get("/api/slides/{key}/records/{index}", tags=["overlays"])
    def send_record(request: Request, key: str, index: int) -> Response:
        """The picture of a tile as it is in the records: the bytes that the model was given."""
        slide = desk.find(request, key)
        found = read_record(desk.find_run(slide).dataset, slide.image_id, index)
        if found is None:
            raise UnknownError("there is no such tile")
        return answer_bytes(request, *found, _digest(found[0]))

    @app.get("/api/slides/{key}/mask.png", tags=["overlays"])
    def send_mask(request: Request, key: str) -> Response:
        """The ground truth, to be stretched over the slide."""
        slide = desk.find(request, key)
        if not slide.mask:
            raise UnknownError("there is no mask")
        if not slide.path:
            raise UnknownError("the slide's file was not found")
        pyramid = desk.maker.shape(slide.path).pyramid
        size = pyramid.width, pyramid.height
        content = desk.keep(slide, "mask", tell_version(slide.mask), lambda: draw_mask(slide.mask, size))
        return answer_bytes(request, content, "image/png", _digest(content), "private, no-cache")

    @app.get("/api/slides/{key}/annotations", tags=["overlays"])
    def list_annotations(request: Request, key: str) -> Response:
        """What was drawn on the slide: shapes from the GeoJSON file beside it."""
        slide = desk.find(request, key)
        if not slide.annotations:
            raise UnknownError("there are no annotations")
        return answer_json(request, encode_json(read_annotations(slide.annotations)))


def describe_slide(catalog: Catalog, slide: Slide) -> dict[str, Any]:
    """A slide's line in the list."""
    line: dict[str, Any] = {"key": slide.key, "image_id": slide.image_id, "run": slide.run, "found": bool(slide.path)}
    run, row = catalog.runs.get(slide.run), slide.row
    if run is None or row is None:
        return line
    line |= {"patient_id": row.patient_id, "label": row.label, "split": row.split, "center": row.center_id}
    entry = run.ledger.get(slide.image_id)
    if entry is not None:
        line |= {"status": entry.status, "reason": entry.reason, "tiles": entry.tiles}
    prediction = run.predictions.get(row.patient_id)
    if prediction is not None:
        line |= {
            "predicted": prediction.predicted,
            "probability": prediction.probabilities[prediction.predicted],
            "probabilities": prediction.probabilities,
            "right": prediction.predicted == row.label,
        }
    return line | {"attention": slide.image_id in run.heatmaps}


def _describe_shape(desk: Desk, slide: Slide) -> dict[str, Any]:
    line = describe_slide(desk.catalog, slide)
    run = desk.catalog.runs.get(slide.run)
    entry = run.ledger.get(slide.image_id) if run is not None else None
    line["overlays"] = {
        "places": run is not None and entry is not None and entry.tiles > 0,
        "attention": bool(line.get("attention")),
        "mask": bool(slide.mask),
        "annotations": bool(slide.annotations),
    }
    line["thumbnail"] = bool(slide.path or slide.stand_in)
    if not slide.path:
        return line | {
            "problem": "The slide's file was not found where the run had it. Start with --images-root FOLDER."
        }
    try:
        shape = desk.maker.shape(slide.path)
    except BaglineError as error:
        return line | {"problem": f"The slide can't be shown: {error.what}."}
    mpp, source = shape.mpp, "file"
    if entry is not None and entry.mpp:
        mpp, source = entry.mpp, entry.mpp_source
    pyramid = shape.pyramid
    return line | {
        "width": pyramid.width,
        "height": pyramid.height,
        "tile_width": pyramid.tile_width,
        "tile_height": pyramid.tile_height,
        "max_level": pyramid.max_level,
        "mpp": mpp,
        "mpp_source": source if mpp else "unknown",
        "reader": shape.reader,
        "levels": shape.levels,
        "version": shape.version,
    }


def _digest(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'
