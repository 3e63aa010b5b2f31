"""Helpers that insert metadata into files."""

from __future__ import annotations

from io import BytesIO

from restore_cli.image.exif import build_exif, tags_of

DEFAULT_DPI = (72.0, 72.0)  # dots per inch, written by default since viewers assume it
EXIF_ROOM = 65_527  # most bytes of EXIF in a segment of a JPEG
LARGE_VALUE = 4096  # values of more bytes are dropped if a block is too large


def insert(file: BytesIO, place: int, added: bytes, instead_of: int = 0) -> None:
    """Insert bytes at a place of a file instead of some, without a second copy of the file."""
    size, more = len(file.getbuffer()), len(added) - instead_of
    file.seek(size)
    file.write(bytes(max(0, more)))
    with file.getbuffer() as view:
        view[place + len(added) : size + more] = view[place + instead_of : size]
        view[place : place + len(added)] = added
    file.truncate(size + more)


def fitting_exif(block: bytes) -> bytes:
    """Return an EXIF block without its large values if it does not fit a segment of a JPEG."""
    if len(block) <= EXIF_ROOM:
        return block
    return build_exif(tags_of(block), largest=LARGE_VALUE)


def whole_ratio(aspect: tuple[float, float], most: int) -> tuple[int, int]:
    """Return a ratio as two integers."""
    across, down = aspect
    if across == int(across) and down == int(down) and max(aspect) <= most:
        return int(across), int(down)
    factor = min(most, 10_000) / max(aspect)
    return max(1, round(across * factor)), max(1, round(down * factor))
