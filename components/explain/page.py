"""The look that reports share."""

from __future__ import annotations

from pathlib import Path


def read_style() -> str:
    """The style sheet, to be put into a page as it is."""
    return Path(__file__).with_name("report.css").read_text(encoding="utf-8")
