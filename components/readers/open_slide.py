"""Picks the reader of a slide."""

from __future__ import annotations

from components.readers.openslide_reader import OpenSlideReader
from components.readers.protocol import SlideReader


def open_slide(path: str, reader: str = "") -> SlideReader:
    """Opens a slide on disk.

    Args:
        path: the slide's file.
        reader: the name of the reader that an earlier call chose for this very file, which spares the choice.

    Raises:
        SlideError: no reader can open it.
    """
    return OpenSlideReader(path)
