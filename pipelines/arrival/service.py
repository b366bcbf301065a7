"""The service that a bucket's events are pushed to: `create_app`.

It answers 2xx where an event is dealt with, whatever came of it; 4xx where it can't be understood; and 5xx where
trying again later can help, which Eventarc and Pub/Sub then do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from google.api_core.exceptions import GoogleAPIError

from components.records.errors import BaglineError, InputError, name_first
from pipelines.arrival.events import Arrived, BadEventError, read_event
from pipelines.arrival.start import Settings, start_run
from pipelines.arrival.upload import Upload, check_upload, find_manifest

MAX_BODY = 1 << 20
logger = logging.getLogger(__name__)

Start = Callable[[Upload, Settings], tuple[str, bool]]


def create_app(settings: Settings, start: Start = start_run) -> FastAPI:
    """The service.

    Args:
        settings: what is watched, and where its runs go.
        start: submits the run of a whole upload; its job's name, and whether it was started now.
    """
    app = FastAPI(title="bagline arrivals", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz")
    def tell_health() -> dict[str, str]:
        return {"watched": settings.prefix}

    @app.post("/")
    async def take_event(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                return _answer(413, "refused", "larger than any event")
        try:
            arrived = read_event(request.headers, body)
        except BadEventError as error:
            logger.warning("refused: %s", error)
            return _answer(400, "refused", str(error))
        if arrived is None:
            return _answer(200, "ignored", "an event of another kind")
        try:
            return await run_in_threadpool(_handle, arrived, settings, start)
        except BaglineError as error:
            logger.error("%s: %s", arrived.uri, error)
            return _answer(503, "failed", str(error))
        except GoogleAPIError as error:
            logger.error("%s: %s", arrived.uri, error)
            return _answer(503, "failed", "the bucket could not be asked")

    return app


def _handle(arrived: Arrived, settings: Settings, start: Start) -> Response:
    if not arrived.uri.startswith(f"{settings.prefix}/"):
        return _ignore(f"{arrived.uri} is not below {settings.prefix}")
    manifest = find_manifest(arrived.uri, settings.prefix)
    if not manifest:
        return _wait(f"{arrived.uri} is here, its manifest is not")
    try:
        upload = check_upload(manifest)
    except InputError as error:
        # Only another manifest can mend it, and that brings an event of its own.
        logger.error("%s", error)
        return _answer(200, "refused", str(error))
    if arrived.uri not in (manifest, *upload.listed):
        return _ignore(f"{arrived.uri} is not listed in {manifest}")
    if upload.broken:
        text = f"{manifest}: not whole: {name_first(upload.broken)}; upload these again"
        logger.error("%s", text)
        return _answer(200, "broken", text)
    if upload.missing:
        return _wait(f"{manifest}: {len(upload.missing)} to come: {name_first(upload.missing)}")
    job, now = start(upload, settings)
    logger.info("%s: %s %s", manifest, "started" if now else "was started before:", job)
    return _answer(200, "started" if now else "known", job)


def _ignore(text: str) -> Response:
    logger.info("ignored: %s", text)
    return _answer(200, "ignored", text)


def _wait(text: str) -> Response:
    logger.info("waiting: %s", text)
    return _answer(200, "waiting", text)


def _answer(code: int, outcome: str, text: str) -> JSONResponse:
    return JSONResponse({"outcome": outcome, "detail": text}, status_code=code)
