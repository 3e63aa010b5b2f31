"""XMP packets, however they are spelled: ISO 16684-1; extended ones by XMP Specification Part 3."""

from __future__ import annotations

import codecs
import hashlib
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree import ElementTree

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
XMP_KEYWORD = "XML:com.adobe.xmp"  # of the text of a PNG
XMP_HEAD, XMP_MORE = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
_TIFF, _EXIF = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/"
_XAP, _NOTE = "http://ns.adobe.com/xap/1.0/", "http://ns.adobe.com/xmp/note/"
# They describe a video, or a map of brightness, beside the picture, which the output has not.
_PROMISES = (
    "http://ns.adobe.com/hdr-gain-map/1.0/",
    "http://ns.apple.com/HDRGainMap/1.0/",
    "http://ns.apple.com/pixeldatainfo/1.0/",
    "http://ns.google.com/photos/1.0/",
    "http://ns.google.com/photos/dd/1.0/",
)
_PRIVATE = re.compile(r"gps|latitude|longitude|altitude|serialnumber|ownername", re.IGNORECASE)
_WIDE = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"<\0\0\0", "utf-32-le"),
    (b"\0\0\0<", "utf-32-be"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
)
_DEEPEST = 60  # elements in elements: Python's own stack is what serialising takes
_ROOM = 65_533 - len(XMP_HEAD)
_PIECE = 65_000
_BEGIN = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
_END = '<?xpacket end="w"?>'


class Packet:
    """A packet that was parsed.

    Attributes:
        root: `x:xmpmeta`, or `rdf:RDF` itself.
    """

    def __init__(self, root: ElementTree.Element) -> None:
        self.root = root

    @classmethod
    def parse(cls, raw: bytes) -> Packet | None:
        """A packet in UTF-8, 16 or 32; None where it is not understood."""
        for start, encoding in _WIDE:
            if raw.startswith(start):
                text = raw.decode(encoding, "replace").lstrip("\ufeff")
                raw = re.sub(r"^<\?xml[^>]*\?>", "", text).encode("utf-8", "replace")
        raw = raw.strip(b"\0 \r\n\t")
        parser: Any = ElementTree.XMLPullParser(("start", "end", "start-ns"))
        depth = 0
        root: ElementTree.Element | None = None
        try:
            for place in range(0, len(raw), 1 << 16):
                parser.feed(raw[place : place + (1 << 16)])
                for event, value in parser.read_events():
                    if event == "start-ns":
                        _register(*value)
                        continue
                    root = value if root is None else root
                    depth += 1 if event == "start" else -1
                    if depth > _DEEPEST:
                        return None
            parser.close()
        except (ElementTree.ParseError, ValueError, LookupError):
            return None
        if root is None or next(root.iter(f"{{{RDF}}}RDF"), None) is None:
            return None
        return cls(root)

    @classmethod
    def empty(cls) -> Packet:
        """A packet that says nothing."""
        root = ElementTree.Element("{adobe:ns:meta/}xmpmeta")
        ElementTree.SubElement(root, f"{{{RDF}}}RDF")
        return cls(root)

    @property
    def rdf(self) -> ElementTree.Element:
        """The element that holds all descriptions."""
        return next(self.root.iter(f"{{{RDF}}}RDF"))

    def descriptions(self) -> Iterator[ElementTree.Element]:
        """Elements whose attributes and children are the properties."""
        for element in self.rdf:
            if element.tag == f"{{{RDF}}}Description":
                yield element

    def names(self) -> set[str]:
        """Names of the properties, as {namespace}name."""
        found: set[str] = set()
        for one in self.descriptions():
            found |= {name for name in one.attrib if not name.startswith(f"{{{RDF}}}")}
            found |= {child.tag for child in one}
        return found

    def remove(self, unwanted: Callable[[str], bool]) -> None:
        """Remove properties, however they are spelled, in one pass over the packet."""
        for one in self.descriptions():
            for name in [name for name in one.attrib if unwanted(name)]:
                del one.attrib[name]
            one[:] = [child for child in one if not unwanted(child.tag)]

    def set(self, name: str, value: str) -> None:
        """Set a property that is there to another value."""
        for one in self.descriptions():
            if name in one.attrib:
                one.set(name, value)
            for child in one:
                if child.tag == name:
                    child.text = value

    def merge(self, other: Packet) -> None:
        """Take in what an extended packet says."""
        self.rdf.extend(list(other.descriptions()))
        self.remove(lambda name: name == f"{{{_NOTE}}}HasExtendedXMP")

    def text(self) -> str:
        """The packet as XML, without the wrapper."""
        return ElementTree.tostring(self.root, "unicode")

    def packet(self) -> bytes:
        """The packet as it stands in a file, in UTF-8."""
        return f"{_BEGIN}{self.text()}{_END}".encode("utf-8", "replace")


def _register(prefix: str, uri: str) -> None:
    """Keep a prefix as it was, unless it is one that ElementTree makes by itself."""
    if (
        prefix
        and re.fullmatch(r"[A-Za-z][\w.-]*", prefix)
        and not re.fullmatch(r"ns\d+|xml", prefix)
    ):
        ElementTree.register_namespace(prefix, uri)


_register("x", "adobe:ns:meta/")
_register("rdf", RDF)
_register("xmpNote", _NOTE)


def is_promise(name: str) -> bool:
    """Whether a property describes what lies beside the picture in its file."""
    return name.removeprefix("{").startswith(_PROMISES) or name == f"{{{_NOTE}}}HasExtendedXMP"


def is_private_property(name: str) -> bool:
    """Whether a property tells where, by whom or with which very camera."""
    return bool(_PRIVATE.search(name.rpartition("}")[2]))


def is_preview_property(name: str) -> bool:
    """Whether a property is an embedded preview."""
    return name == f"{{{_XAP}}}Thumbnails"


def edited_packet(packet: Packet, *, level: str, width: int, height: int) -> Packet:
    """The packet, saying what is true of a restored picture of that size.

    Args:
        packet: changed.
        level: "all", "standard" or "private"; see `writing.Encoding`.
        width: pixels.
        height: pixels.
    """

    def unwanted(name: str) -> bool:
        stale = is_promise(name) or (is_preview_property(name) and level != "all")
        return stale or (level == "private" and is_private_property(name))

    packet.remove(unwanted)
    sizes = {"ImageWidth": width, "ImageLength": height}
    packet.set(f"{{{_TIFF}}}Orientation", "1")
    for key, value in sizes.items():
        packet.set(f"{{{_TIFF}}}{key}", str(value))
    packet.set(f"{{{_EXIF}}}PixelXDimension", str(width))
    packet.set(f"{{{_EXIF}}}PixelYDimension", str(height))
    return packet


def packet_segments(packet: Packet, first: Packet) -> list[bytes]:
    """Contents of the segments of a JPEG: one, or a first one and the pieces of an extended one.

    Args:
        packet: all that is to be said.
        first: what of it is to be in the first one where there are several; changed.
    """
    whole = packet.packet()
    if len(whole) <= _ROOM:
        return [XMP_HEAD + whole]
    body = packet.text().encode("utf-8", "replace")
    digest = hashlib.md5(body, usedforsecurity=False).hexdigest().upper()
    note = ElementTree.SubElement(first.rdf, f"{{{RDF}}}Description", {f"{{{RDF}}}about": ""})
    note.set(f"{{{_NOTE}}}HasExtendedXMP", digest)
    parts = [XMP_HEAD + first.packet()]
    for start in range(0, len(body), _PIECE):
        numbers = struct.pack(">II", len(body), start)
        parts.append(XMP_MORE + digest.encode() + numbers + body[start : start + _PIECE])
    return parts


def packet_of_jpeg(bodies: list[bytes]) -> bytes | None:
    """The packet that a JPEG's APP1 segments hold, the extended one merged into it."""
    main = next((body[len(XMP_HEAD) :] for body in bodies if body.startswith(XMP_HEAD)), None)
    pieces = sorted(
        (
            int.from_bytes(body[len(XMP_MORE) + 36 : len(XMP_MORE) + 40], "big"),
            body[len(XMP_MORE) + 40 :],
        )
        for body in bodies
        if body.startswith(XMP_MORE)
    )
    if main is None or not pieces:
        return main
    packet, other = Packet.parse(main), Packet.parse(b"".join(piece for _, piece in pieces))
    if packet is None or other is None:
        return main
    packet.merge(other)
    return packet.packet()
