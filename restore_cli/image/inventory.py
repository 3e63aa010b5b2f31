"""Inventories of everything that a file contains besides its pixels, by parsing its container.

The difference of the inventories of input and output is what was lost, whatever the cause.
"""

from __future__ import annotations

from collections.abc import Iterable

from restore_cli.formatting import format_list
from restore_cli.image.containers import tiff_directories
from restore_cli.image.exif import GEO_TAGS, is_private_tag, tag_names
from restore_cli.image.format_spec import Item
from restore_cli.image.formats import KINDS
from restore_cli.image.iptc import iptc_datasets
from restore_cli.image.provenance import NAMESPACE
from restore_cli.image.raw_metadata import RawMetadata
from restore_cli.image.xmp import (
    CONTENT,
    Packet,
    describes_other_content,
    is_preview_property,
    is_private_property,
)

_DEFAULT_DPI = 72  # dots per inch, which viewers assume by default
_MAX_NAMES = 6  # most names of one kind that a note lists


def read_raw(data: bytes, key: str) -> RawMetadata:
    """Read the metadata of a file; HEIC and BMP have to be converted to PNG first."""
    parts = RawMetadata()
    KINDS[key].read_metadata(parts, data, data)
    return parts


def take_inventory(data: bytes, key: str, parts: RawMetadata | None = None) -> frozenset[Item]:
    """Return the inventory of a file; its metadata are read unless they are given."""
    parts = parts or read_raw(data, key)
    found = {*_described(parts), *KINDS[key].inventory(data, parts)}
    # JPEGs often have more behind the picture; see their own inventory.
    if rest := data[KINDS[key].end(data) :].strip(b"\0"):
        found.add(("beside it", f"{len(rest)} bytes after its end"))
    return frozenset(found)


def _described(parts: RawMetadata) -> Iterable[Item]:
    yield from _of_exif(parts.exif)
    yield from _of_xmp(parts.xmp)
    for name, value in iptc_datasets(parts.iptc or b"").items():
        if name not in ("1:000", "1:090", "2:000"):
            yield "IPTC", f"{name} ({len(value)} bytes)"
    yield from (("Photoshop", f"resource {number}") for number, *_ in parts.photoshop)
    yield from (("text", key) for key, _, _ in parts.text)
    yield from (("text", f"{key} (unreadable)") for key in parts.unreadable)
    yield from (("GeoTIFF", GEO_TAGS[tag]) for tag in parts.geo)
    if parts.comment is not None:
        yield "comment", ""
    if parts.dots and abs(parts.dots - _DEFAULT_DPI) > 0.5:
        yield "resolution", ""
    if parts.aspect is not None:
        # Whether wide or high: it is swapped if the picture is turned.
        yield "shape of pixels", f"{max(parts.aspect) / min(parts.aspect):.3g}:1"


def _of_exif(block: bytes | None) -> Iterable[Item]:
    directories = tiff_directories(block or b"")
    yield from (("EXIF", name) for name in tag_names(directories))
    if block is not None and not directories:
        yield "EXIF", "(broken)"
    if any(n and not one.parent_tag for n, one in enumerate(directories)):
        yield "preview", ""


def _of_xmp(raw: bytes | None) -> Iterable[Item]:
    packet = None if raw is None else Packet.parse(raw)
    if raw is not None and packet is None:
        yield "XMP", "(broken)"
    for name in packet.names() if packet else ():
        if is_preview_property(name):
            yield "preview", ""
        elif name in CONTENT:
            yield "beside it", CONTENT[name]
        elif not describes_other_content(name) and not name.startswith(f"{{{NAMESPACE}}}"):
            yield "XMP", name.rpartition("}")[2]


def loss_notes(before: Iterable[Item], after: Iterable[Item], *, level: str) -> tuple[str, ...]:
    """Return one note on what was lost unintentionally between two inventories, or none.

    `level` is "all", "standard", "private" or "none"; see `writing.Encoding`.
    """
    gone: dict[str, list[str]] = {}
    there = set(after)
    for kind, name in sorted(set(before) - there):
        if _wanted(kind, name, level):
            gone.setdefault(kind, []).append(name)
    if not gone:
        return ()
    items = []
    for kind, names in gone.items():
        shown = [name for name in names if name]
        text = format_list(shown, _MAX_NAMES)
        items.append(text if kind == "beside it" else f"{kind} {text}".strip())
    return (f"left out: {'; '.join(items)}",)


def _wanted(kind: str, name: str, level: str) -> bool:
    if kind == "beside it":
        return True
    if level == "none" or (kind == "preview" and level != "all"):
        return False
    private = is_private_tag(name) or is_private_property(name)
    return not (level == "private" and kind in ("EXIF", "XMP", "text") and private)
