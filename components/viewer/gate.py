"""What every request passes: the token, the size of its body, the headers of the answer, the clock and the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any

from fastapi.datastructures import Headers
from fastapi.responses import JSONResponse, RedirectResponse

from components.viewer.access import HEADERS, Access
from components.viewer.observe import REQUESTS, Figures

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BODY = 4096
_ALWAYS = {**HEADERS, "Cache-Control": "no-store"}
_FREE = frozenset(("/healthz", "/readyz", "/login", "/static/look.css", "/static/icon.svg"))
_LOG = logging.getLogger(REQUESTS)


class Gate:
    """ASGI middleware around the whole service."""

    def __init__(self, app: ASGIApp, access: Access, figures: Figures) -> None:
        self._app, self._access, self._figures = app, access, figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name.lower() for name, _ in message["headers"]}
                more = [(name.lower().encode(), value.encode()) for name, value in _ALWAYS.items()]
                message["headers"] = [*message["headers"], *(pair for pair in more if pair[0] not in given)]
            await send(message)

        try:
            refusal = self._refuse(scope)
            await (refusal or self._app)(scope, receive, send_on)
        except Exception:
            self._figures.failures.inc()
            _LOG.exception("unexpected error")
            if status != 500:
                raise
            await JSONResponse({"detail": "unexpected error; the log has it"}, 500)(scope, receive, send_on)
        finally:
            self._tell(scope, status, time.perf_counter() - started)

    def _refuse(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(raw=scope["headers"])
        length = headers.get("content-length", "0")
        chunked = "transfer-encoding" in headers
        if chunked or not (length.isascii() and length.isdigit() and len(length) < 10 and int(length) <= MOST_BODY):
            return JSONResponse({"detail": "no request here has such a body"}, 413)
        if scope["path"] in _FREE or self._access.admits(headers, _cookies(headers)):
            return None
        if self._access.open:
            return JSONResponse({"detail": "this service answers to localhost only"}, 421)
        if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            return RedirectResponse("/login", 303)
        return JSONResponse({"detail": "a token is needed"}, 401, headers={"WWW-Authenticate": "Bearer"})

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        # The route's pattern, never the address itself: that may hold what somebody typed.
        route = getattr(scope.get("route"), "path", "other")
        self._figures.seconds.labels(route, str(status)).observe(seconds)
        level = logging.INFO if status < 500 else logging.ERROR
        fields = {"method": scope["method"], "route": route, "status": status, "ms": round(seconds * 1000, 1)}
        image_id = scope.get("state", {}).get("image_id")
        if image_id:
            fields["image_id"] = image_id
        _LOG.log(level, "answered", extra={"fields": fields})


def _cookies(headers: Headers) -> dict[str, str]:
    found: SimpleCookie = SimpleCookie()
    try:
        found.load(headers.get("cookie", ""))
    except CookieError:
        return {}
    return {name: morsel.value for name, morsel in found.items()}
