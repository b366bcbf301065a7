"""What a person sees while work goes on: progress on standard error, a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys

_QUIET = (
    "absl",
    "apache_beam",
    "google",
    "h5py",
    "matplotlib",
    "openlineage",
    "PIL",
    "tensorflow",
    "tifffile",
    "urllib3",
)


class ProgressHandler(logging.Handler):
    """Writes log records to standard error.

    A record with `extra={"progress": True}` is a moving line: on a terminal it overwrites the one before.
    """

    def __init__(self, prefix: str = "") -> None:
        super().__init__()
        self.prefix = prefix
        self._moving = False

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record."""
        try:
            text = self.format(record)
        except (TypeError, ValueError):
            self.handleError(record)
            return
        self.write(text, moving=bool(getattr(record, "progress", False)))

    def write(self, text: str, *, moving: bool = False) -> None:
        """Writes one line; a moving line is overwritten by the next on a terminal."""
        terminal = sys.stderr.isatty()
        start = "\r\x1b[2K" if self._moving and terminal else ""
        end = "" if moving and terminal else "\n"
        self._moving = moving and terminal
        sys.stderr.write(f"{start}{self.prefix}{text}{end}")
        sys.stderr.flush()


class _Format(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"{record.levelname.lower()}: {text}" if record.levelno >= logging.WARNING else text


def configure_logging(*, debug: bool = False) -> ProgressHandler:
    """Sends the packages' own progress to standard error and keeps the libraries quiet below WARNING."""
    handler = ProgressHandler()
    handler.setFormatter(_Format("%(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("components", "pipelines"):
        logging.getLogger(name).setLevel(logging.DEBUG if debug else logging.INFO)
    if not debug:
        for name in _QUIET:
            logging.getLogger(name).setLevel(logging.ERROR)
    return handler
