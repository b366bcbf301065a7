"""`bagline view`: runs and slides in the browser."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from components.records.errors import InputError

TOKEN_VARIABLE = "BAGLINE_VIEWER_TOKEN"  # noqa: S105 - the variable's name
_PORT = 8080


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("places", metavar="OUT_OR_FOLDER", nargs="+", help="a run, several to compare, or slides")
    parser.add_argument("--images-root", default="", metavar="DIR", help="where the runs' slides are (default: as run)")
    parser.add_argument("--port", type=int, default=None, help=f"default: the variable PORT, or {_PORT}; 0: a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; all but this machine's want a token")
    parser.add_argument("--token", default="", help="token to ask for; others on this machine can see it here")
    parser.add_argument("--token-file", default="", metavar="FILE", help=f"file with the token; else {TOKEN_VARIABLE}")
    parser.add_argument("--no-browser", action="store_true", help="don't open the page")


def execute(arguments: argparse.Namespace) -> int:
    """Serves until interrupted."""
    from components.viewer.catalog import read_catalog
    from components.viewer.serve import check_access, serve

    port = _read_port() if arguments.port is None else arguments.port
    access = check_access(arguments.host, _read_token(arguments))
    catalog = read_catalog(arguments.places, arguments.images_root)
    local = access.open and sys.stdout.isatty()
    serve(catalog, access, arguments.host, port, browser=local and not arguments.no_browser, tell=_print_address)
    return 0


def _print_address(address: str) -> None:
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()


def _read_port() -> int:
    value = os.environ.get("PORT", str(_PORT))
    if not (value.isascii() and value.isdigit()):
        raise InputError(f"{value!r} is no port", where="PORT", mend="set it to a number, or give --port")
    return int(value)


def _read_token(arguments: argparse.Namespace) -> str:
    if arguments.token:
        return str(arguments.token)
    if not arguments.token_file:
        return os.environ.get(TOKEN_VARIABLE, "").strip()
    try:
        return Path(arguments.token_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not text"
        raise InputError(f"can't be read ({reason})", where="--token-file", mend="check the path") from None
