"""The service: pages, slides and runs over HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated

from fastapi import FastAPI, Form, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse

from components.records.errors import BaglineError
from components.viewer.access import COOKIE, Access
from components.viewer.answers import UnknownError, answer_bytes, fail
from components.viewer.catalog import Catalog
from components.viewer.gate import Gate
from components.viewer.observe import Figures
from components.viewer.pages import StaticFile, read_static
from components.viewer.run_routes import add_run_routes
from components.viewer.slide_routes import Desk, add_overlay_routes, add_slide_routes
from components.viewer.tiles import NoTileError, SlideGoneError, TileMaker

_PAGES = {"/": "index.html", "/slide": "slide.html", "/run": "run.html"}


def create_app(catalog: Catalog, access: Access | None = None, tiles: TileMaker | None = None) -> FastAPI:
    """The service.

    Args:
        catalog: what there is to see.
        access: who may look; None for whoever is on this machine.
        tiles: makes the tiles; None for a maker of its own.
    """
    access, maker = access or Access(), tiles or TileMaker()
    figures = Figures(maker.state)
    draining = {"now": False}

    @contextlib.asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        yield
        draining["now"] = True
        maker.close()

    app = FastAPI(
        title="bagline viewer",
        description="Slides, runs and what a model made of them. For research use, not for diagnosis.",
        version="1",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=live,
    )

    _add_pages(app, access)
    _add_service(app, catalog, figures, draining)
    desk = Desk(catalog, maker, figures)
    add_slide_routes(app, desk)
    add_overlay_routes(app, desk)
    add_run_routes(app, catalog)
    _add_refusals(app)
    app.add_middleware(Gate, access=access, figures=figures)
    return app


def _add_pages(app: FastAPI, access: Access) -> None:
    static = read_static()
    for address, name in _PAGES.items():
        app.get(address, include_in_schema=False)(_page_handler(static[name]))

    @app.get("/static/{name:path}", include_in_schema=False)
    async def send_static(request: Request, name: str) -> Response:
        found = static.get(name)
        if found is None:
            return fail(404, "there is no such file")
        return answer_bytes(request, found.content, found.media_type, found.etag, "no-cache")

    @app.get("/login", include_in_schema=False)
    async def ask_token(request: Request, token: str = "") -> Response:
        if token:
            return _answer_token(request, token, access)
        return Response(static["login.html"].content, media_type=static["login.html"].media_type)

    @app.post("/login", include_in_schema=False)
    async def take_token(request: Request, token: Annotated[str, Form()] = "") -> Response:
        return _answer_token(request, token, access)


def _add_service(app: FastAPI, catalog: Catalog, figures: Figures, draining: dict[str, bool]) -> None:
    @app.get("/healthz", tags=["service"])
    async def tell_health() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["service"])
    async def tell_readiness() -> Response:
        """Whether requests may be sent here: 503 while it shuts down."""
        if draining["now"]:
            return fail(503, "shutting down")
        return JSONResponse({"status": "ready", "slides": len(catalog.slides), "runs": len(catalog.runs)})

    @app.get("/metrics", tags=["service"])
    async def tell_figures() -> Response:
        """Figures for Prometheus."""
        return Response(figures.render(), media_type=figures.content_type)


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(UnknownError)
    async def tell_unknown(_: Request, error: UnknownError) -> Response:
        return fail(404, str(error))

    @app.exception_handler(NoTileError)
    async def refuse_tile(_: Request, error: NoTileError) -> Response:
        return fail(404, f"there is no such tile: {error}")

    @app.exception_handler(SlideGoneError)
    async def tell_gone(_: Request, error: SlideGoneError) -> Response:
        return fail(410, error.what)

    @app.exception_handler(BaglineError)
    async def tell_failure(_: Request, error: BaglineError) -> Response:
        return fail(422, error.what)

    @app.exception_handler(RequestValidationError)
    async def refuse_request(_: Request, error: RequestValidationError) -> Response:
        places = ", ".join(sorted({str(one["loc"][-1]) for one in error.errors()}))
        return fail(422, f"not understood: {places}")


def _page_handler(page: StaticFile) -> Callable[[Request], Awaitable[Response]]:
    async def show_page(request: Request) -> Response:
        return Response(page.content, media_type=page.media_type, headers={"Cache-Control": "no-cache"})

    return show_page


def _answer_token(request: Request, token: str, access: Access) -> Response:
    if not access.knows(token.strip()):
        return RedirectResponse("/login?again", 303)
    response = RedirectResponse("/", 303)
    secure = request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
    response.set_cookie(COOKIE, access.cookie, max_age=12 * 3600, httponly=True, samesite="lax", secure=secure)
    return response
