"""Picks the reader of a slide: stored JPEG blocks where they prove themselves, else OpenSlide, else strips."""

from __future__ import annotations

from components.readers.jpeg_blocks import JpegBlockReader, open_jpeg_slide
from components.readers.protocol import SlideReader
from components.records import storage
from components.records.errors import SlideError

_TIFF = (b"II", b"MM")


def open_slide(path: str, reader: str = "", *, verify: bool = True, digest: str = "") -> SlideReader:
    """Opens a slide on disk or in `gs://`.

    Args:
        path: the slide's file or object.
        reader: the name of the reader that `choose_reader` chose for this very file, which spares the choice.
        verify: decode every stored block before it is given away; without it only the cheap checks are made.
        digest: of an object, as the store told it then; another content is refused.

    Raises:
        SlideError: no reader can open it.
    """
    if reader and storage.is_remote(path):
        from components.readers.ranged_slide import open_ranged_slide

        return open_ranged_slide(path, reader, verify=verify, digest=digest)
    if reader == JpegBlockReader.name:
        return JpegBlockReader(path, verify=verify)
    if reader == "openslide":
        return _openslide(path)
    if reader == "tifffile":
        return _strips(path)
    return choose_reader(path, verify=verify)[0]


def choose_reader(path: str, *, verify: bool = True) -> tuple[SlideReader, str]:
    """The fastest reader that shows what OpenSlide shows (or tifffile, where OpenSlide refuses the file).

    Returns:
        The open reader, and why the stored blocks are not used, empty where they are.

    Raises:
        SlideError: no reader can open it.
    """
    if storage.is_remote(path):
        from components.readers.ranged_slide import choose_ranged_slide

        return choose_ranged_slide(path, verify=verify)
    try:
        reference, refusal = _openslide(path), None
    except SlideError as error:
        reference, refusal = _stand_in(path, error), error
    blocks = open_jpeg_slide(path, verify=verify)
    if isinstance(blocks, str):
        return reference, blocks
    from components.readers.jpeg_proof import prove

    reason = prove(blocks, reference, levels=None if refusal is None else 1)
    if reason is None:
        reference.close()
        return blocks, ""
    blocks.close()
    return reference, reason


def _stand_in(path: str, refusal: SlideError) -> SlideReader:
    """The reader of a TIFF that OpenSlide refuses; raises SlideError with both reasons where that fails too."""
    try:
        with open(path, "rb") as stream:
            magic = stream.read(2)
    except OSError:
        raise refusal from None
    if magic not in _TIFF:
        raise refusal
    try:
        return _strips(path)
    except SlideError as error:
        raise SlideError(f"{refusal.what}; as a TIFF: {error.what}", mend=refusal.mend) from None


def _openslide(path: str) -> SlideReader:
    # Imported where it is needed: slides that are read by their blocks need it for their proof only.
    from components.readers.openslide_reader import OpenSlideReader

    return OpenSlideReader(path)


def _strips(path: str) -> SlideReader:
    from components.readers.strip_reader import StripReader

    return StripReader(path)
