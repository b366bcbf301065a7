"""Who may look: a token compared in constant time, a cookie made of it, and the headers every answer carries."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

COOKIE = "bagline-viewer"
SHORTEST_TOKEN = 16
LOOPBACK = frozenset(("127.0.0.1", "localhost", "::1"))
HEADERS = {
    "Content-Security-Policy": (
        # The hash is of the one rule that OpenSeadragon writes into a page.
        "default-src 'self'; style-src 'self' 'sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE='; "
        "img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Access:
    """Decides on requests.

    Args:
        token: what a request must bring; empty lets every request from this machine's own names in.
    """

    def __init__(self, token: str = "") -> None:
        self._token = token.encode()
        self.cookie = hmac.new(self._token, b"bagline viewer session", hashlib.sha256).hexdigest() if token else ""

    @property
    def open(self) -> bool:
        """Whether no token is asked for."""
        return not self._token

    def knows(self, token: str) -> bool:
        """Whether this is the token."""
        return bool(self._token) and hmac.compare_digest(token.encode(), self._token)

    def admits(self, headers: Mapping[str, str], cookies: Mapping[str, str]) -> bool:
        """Whether a request may pass: without a token by its host's name, else by bearer token or cookie.

        The host's name is looked at so that no page elsewhere can make a browser ask in its stead (DNS rebinding).
        """
        if self.open:
            return _host(headers.get("host", "")) in LOOPBACK
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self.knows(given.strip())
        return hmac.compare_digest(cookies.get(COOKIE, "").encode(), self.cookie.encode())


def _host(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()
