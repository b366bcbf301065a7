"""Runs the service until it is told to stop."""

from __future__ import annotations

import signal
import socket
import webbrowser
from collections.abc import Callable

import uvicorn

from components.records.errors import InputError
from components.viewer.access import LOOPBACK, SHORTEST_TOKEN, Access
from components.viewer.catalog import Catalog
from components.viewer.observe import configure_json_logs
from components.viewer.service import create_app

_SECONDS_TO_FINISH = 8


def check_access(host: str, token: str) -> Access:
    """Who may look, for a service on `host`.

    Raises:
        InputError: others can reach it and there is no token, or the token is too short to be one.
    """
    if token and len(token) < SHORTEST_TOKEN:
        raise InputError(
            f"has {len(token)} characters", where="the token", mend=f"take {SHORTEST_TOKEN} or more, by chance"
        )
    if not token and host not in LOOPBACK:
        raise InputError(
            f"{host} is more than this machine, and there is no token",
            where="--host",
            mend="give --token-file FILE or BAGLINE_VIEWER_TOKEN, or leave --host out",
        )
    return Access(token)


def serve(
    catalog: Catalog,
    access: Access,
    host: str,
    port: int,
    *,
    browser: bool = False,
    tell: Callable[[str], object] = lambda line: None,
) -> None:
    """Serves until SIGINT or SIGTERM; requests that are under way are finished, for up to eight seconds.

    Args:
        catalog: what there is to see.
        access: who may look.
        host: address to listen on.
        port: where; 0 takes a free one.
        browser: open the page.
        tell: is given the address once it can be asked.

    Raises:
        InputError: the port can't be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without the protocol's number asyncio leaves Nagle's delay on: 40 ms a tile.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        raise InputError(
            f"can't listen on {host}:{port} ({getattr(error, 'strerror', None) or error})",
            where="--port",
            mend="take another port; 0 takes a free one",
        ) from None
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listener.getsockname()[1]}/"
    configure_json_logs()
    config = uvicorn.Config(
        create_app(catalog, access),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SECONDS_TO_FINISH,
        timeout_keep_alive=30,
        limit_concurrency=512,
    )
    tell(address)
    if browser:
        webbrowser.open(address)
    # uvicorn raises the signal that ended it once more after its work is done; that is the ordinary end here.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    uvicorn.Server(config).run(sockets=[listener])
