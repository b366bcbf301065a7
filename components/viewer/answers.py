"""Answers that browsers may keep: with an ETag, packed where that pays."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

_WORTH_PACKING = 4096
KEPT = "private, max-age=86400"


class UnknownError(LookupError):
    """What was asked for is not in the tables: 404."""


def answer_bytes(request: Request, content: bytes, media_type: str, etag: str, cache: str = KEPT) -> Response:
    """`content`, or 304 where the browser has it."""
    headers = {"ETag": etag, "Cache-Control": cache}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)


def encode_json(value: Any) -> bytes:
    """Compact JSON; NaN and infinities are refused."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def answer_json(request: Request, content: bytes) -> Response:
    """Encoded JSON, packed for browsers that take it; asked for again only when it changed."""
    etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    response = answer_bytes(request, content, "application/json", etag, "private, no-cache")
    if response.status_code == 200 and len(content) > _WORTH_PACKING:
        response.headers["Vary"] = "Accept-Encoding"
        if "gzip" in request.headers.get("accept-encoding", ""):
            response.body = gzip.compress(content, 4, mtime=0)
            response.headers["Content-Encoding"] = "gzip"
            response.headers["Content-Length"] = str(len(response.body))
    return response


def fail(status: int, what: str) -> Response:
    """An answer that says what is wrong."""
    return JSONResponse({"detail": " ".join(what.split())}, status)
