"""The pages and what they are made of: read once at the start, so that an address never becomes a path."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True)
class StaticFile:
    """One file of the pages."""

    content: bytes
    media_type: str
    etag: str


def read_static() -> dict[str, StaticFile]:
    """Every file of the pages by its name below `static/`."""
    root = Path(__file__).with_name("static")
    found = {}
    for path in sorted(root.rglob("*")):
        if path.suffix in _TYPES and path.is_file():
            content = path.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            found[path.relative_to(root).as_posix()] = StaticFile(content, _TYPES[path.suffix], etag)
    return found
