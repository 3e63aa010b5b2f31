"""XMP packets in all serialisations (ISO 16684-1); extended XMP by XMP Specification Part 3."""

from __future__ import annotations

import codecs
import hashlib
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import isfinite
from typing import Any
from xml.etree import ElementTree

from restore_cli.image.geometry import GeometryChange

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
XMP_KEYWORD = "XML:com.adobe.xmp"  # keyword of the text chunk in a PNG
XMP_HEADER, XMP_EXTENSION = (
    b"http://ns.adobe.com/xap/1.0/\0",
    b"http://ns.adobe.com/xmp/extension/\0",
)
_TIFF, _EXIF = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/"
_XAP, _NOTE = "http://ns.adobe.com/xap/1.0/", "http://ns.adobe.com/xmp/note/"
_EXTENDED = f"{{{_NOTE}}}HasExtendedXMP"
_SYNTAX = (f"{{{RDF}}}", "{http://www.w3.org/XML/1998/namespace}")  # no properties
# They describe a video or a gain map beside the picture, which the output does not have.
_OTHER_CONTENT = (
    "http://ns.adobe.com/hdr-gain-map/1.0/",
    "http://ns.apple.com/HDRGainMap/1.0/",
    "http://ns.apple.com/pixeldatainfo/1.0/",
    "http://ns.google.com/photos/1.0/",
    "http://ns.google.com/photos/dd/1.0/",
)
CONTENT = {  # whole files as properties, of Google's camera
    f"{{http://ns.google.com/photos/1.0/{word}/}}Data": what
    for word, what in (
        ("audio", "sound in XMP"),
        ("depthmap", "a depth map in XMP"),
        ("image", "a picture in XMP"),
    )
}
_PANORAMA = "http://ns.google.com/photos/1.0/panorama/"  # of the picture itself
_SCALED = re.compile(r"(Width|Left)(Pixels)?$|(Height|Top)(Pixels)?$")  # pixels in a panorama
_REGIONS = "{http://www.metadataworkinggroup.com/schemas/regions/}"
_SIDE, _AREA = (
    "{http://ns.adobe.com/xap/1.0/sType/Dimensions#}",
    "{http://ns.adobe.com/xmp/sType/Area#}",
)
_IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
_UNIT, _RADIUS = f"{_IPTC}rbUnit", f"{_IPTC}rbRx"
_RECTANGLE = "{http://ns.microsoft.com/photo/1.2/t/Region#}Rectangle"
_PRIVATE = re.compile(r"gps|latitude|longitude|altitude|serialnumber|ownername", re.IGNORECASE)
# UTF-32 first: its little-endian mark begins with that of UTF-16.
WIDE_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WIDE = (
    *WIDE_MARKS,
    (b"<\0\0\0", "utf-32-le"),
    (b"\0\0\0<", "utf-32-be"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
)
_MAX_DEPTH = 60  # nested elements: serialising is recursive
_ROOM = 65_533 - len(XMP_HEADER)
_PIECE = 65_000
_BEGIN = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
_END = '<?xpacket end="w"?>'


class Packet:
    """A parsed packet."""

    def __init__(self, root: ElementTree.Element) -> None:
        self.root = root  # `x:xmpmeta`, or `rdf:RDF` itself

    @classmethod
    def parse(cls, raw: bytes) -> Packet | None:
        """Parse a packet in UTF-8, UTF-16 or UTF-32; None if it is broken."""
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
                    if depth > _MAX_DEPTH:
                        return None
            parser.close()
        except (ElementTree.ParseError, ValueError, LookupError):
            return None
        if root is None or next(root.iter(f"{{{RDF}}}RDF"), None) is None:
            return None
        return cls(root)

    @classmethod
    def empty(cls) -> Packet:
        """Return an empty packet."""
        root = ElementTree.Element("{adobe:ns:meta/}xmpmeta")
        ElementTree.SubElement(root, f"{{{RDF}}}RDF")
        return cls(root)

    @property
    def rdf(self) -> ElementTree.Element:
        """The element that contains all descriptions."""
        return next(self.root.iter(f"{{{RDF}}}RDF"))

    def descriptions(self) -> Iterator[ElementTree.Element]:
        """Yield the elements whose attributes and children are the properties."""
        for element in self.rdf:
            if element.tag == f"{{{RDF}}}Description":
                yield element

    def names(self) -> set[str]:
        """Return the names of all properties, as {namespace}name.

        Properties inside a removable one are not listed, since they are removed along with it.
        """
        removable = (describes_other_content, is_private_property, is_preview_property)
        found: set[str] = set()
        waiting = list(self.descriptions())
        while waiting:
            one = waiting.pop()
            found.update(one.attrib, (child.tag for child in one))
            waiting += [child for child in one if not any(test(child.tag) for test in removable)]
        return {name for name in found if not name.startswith(_SYNTAX)}

    def value(self, name: str) -> str:
        """Return the text of a property; "" if there is none."""
        for one in self.descriptions():
            if found := one.get(name) or one.findtext(name):
                return found.strip()
        return ""

    def remove(self, unwanted: Callable[[str], bool]) -> None:
        """Remove properties at any depth, whether they are attributes or elements."""
        for one in list(self.root.iter()):
            for name in [name for name in one.attrib if unwanted(name)]:
                del one.attrib[name]
            one[:] = [child for child in one if not unwanted(child.tag)]

    def set(self, name: str, value: str) -> None:
        """Change the value of an existing property."""
        for one in self.descriptions():
            if name in one.attrib:
                one.set(name, value)
            for child in one:
                if child.tag == name:
                    child.text = value

    def merge(self, other: Packet) -> None:
        """Add the properties of an extended packet."""
        self.rdf.extend(list(other.descriptions()))
        self.remove(lambda name: name == _EXTENDED)

    def text(self) -> str:
        """Return the packet as XML, without the wrapper."""
        return ElementTree.tostring(self.root, "unicode")

    def packet(self) -> bytes:
        """Return the packet with its wrapper as it is stored in a file, in UTF-8."""
        return f"{_BEGIN}{self.text()}{_END}".encode("utf-8", "replace")


def _register(prefix: str, uri: str) -> None:
    """Keep a namespace prefix, unless ElementTree reserves it for itself."""
    if (
        prefix
        and re.fullmatch(r"[A-Za-z][\w.-]*", prefix)
        and not re.fullmatch(r"ns\d+|xml", prefix)
    ):
        ElementTree.register_namespace(prefix, uri)


_register("x", "adobe:ns:meta/")
_register("rdf", RDF)
_register("xmpNote", _NOTE)


def describes_other_content(name: str) -> bool:
    """Whether a property describes other content of the file, such as a video or a gain map."""
    uri = name.removeprefix("{")
    return (uri.startswith(_OTHER_CONTENT) and not uri.startswith(_PANORAMA)) or name == _EXTENDED


def is_private_property(name: str) -> bool:
    """Whether a property reveals the place, the owner or the serial number of the camera."""
    return bool(_PRIVATE.search(name.rpartition("}")[2]))


def is_preview_property(name: str) -> bool:
    """Whether a property is an embedded preview."""
    return name == f"{{{_XAP}}}Thumbnails"


def edited_packet(packet: Packet, *, level: str, change: GeometryChange) -> Packet:
    """Change a packet for a restored picture, and return it.

    `level` is "all", "standard" or "private"; see `writing.Encoding`.
    """
    # The panorama properties of a picture that is stored rotated cannot be converted.
    told = change.before is not None and change.orientation == 1

    def unwanted(name: str) -> bool:
        stale = describes_other_content(name) or (is_preview_property(name) and level != "all")
        stale = stale or (name.startswith(f"{{{_PANORAMA}") and not told)
        return stale or (level == "private" and is_private_property(name))

    packet.remove(unwanted)
    width, height = change.after
    if change.before is not None:
        _scale_panorama(packet, width / change.before[0], height / change.before[1])
    for regions in list(packet.root.iter(f"{_REGIONS}Regions")):
        _move_regions(regions, change)
    for boundary in list(packet.root.iter(f"{_IPTC}RegionBoundary")):
        _move_boundary(boundary, change)
    _move_rectangles(packet, change)
    sizes = {"ImageWidth": width, "ImageLength": height}
    if change.orientation != 1:  # else none was applied: without EXIF, only readers of XMP rotate
        packet.set(f"{{{_TIFF}}}Orientation", "1")
    for key, value in sizes.items():
        packet.set(f"{{{_TIFF}}}{key}", str(value))
    packet.set(f"{{{_EXIF}}}PixelXDimension", str(width))
    packet.set(f"{{{_EXIF}}}PixelYDimension", str(height))
    return packet


def _scale_panorama(packet: Packet, across: float, down: float) -> None:
    """Multiply the pixels that GPano states."""
    for name in [one for one in packet.names() if one.startswith(f"{{{_PANORAMA}")]:
        found = _SCALED.search(name)
        with suppress(ValueError, OverflowError):
            if found:
                factor = across if found[1] else down
                packet.set(name, str(round(float(packet.value(name)) * factor)))


def _move_regions(regions: ElementTree.Element, change: GeometryChange) -> None:
    """Move the regions of faces (MWG 2.0, 5.9), fractions of the stored picture, and their size.

    Some programs state them for the upright picture; then the stated sides have its shape, and the
    regions stay where they are.
    """
    size = next(regions.iter(f"{_REGIONS}AppliedToDimensions"), None)
    stated = size is not None and _numbers(size, f"{_SIDE}w", f"{_SIDE}h")
    width, height = stated or change.before or change.after
    stored = change.before or change.after
    upright = change.transposed and (width > height) != (stored[0] > stored[1])
    for area in regions.iter(f"{_REGIONS}Area") if not upright else ():
        if place := _numbers(area, f"{_AREA}x", f"{_AREA}y"):
            _put(area, f"{_AREA}x", f"{_AREA}y", change.map_point(*place))
        if change.transposed and (sides := _numbers(area, f"{_AREA}w", f"{_AREA}h")):
            _put(area, f"{_AREA}w", f"{_AREA}h", sides[::-1])
    if size is not None and stated:
        _put(size, f"{_SIDE}w", f"{_SIDE}h", change.after)


def _move_boundary(boundary: ElementTree.Element, change: GeometryChange) -> None:
    """Move an Image Region (IPTC Photo Metadata Standard): a rectangle, circle or polygon."""
    units = (one.get(_UNIT) or one.findtext(_UNIT) for one in boundary.iter())
    unit = next(filter(None, units), None)
    stored = change.before or change.after
    before, after = (stored, change.after) if unit == "pixel" else ((1, 1), (1, 1))
    digits = 0 if unit == "pixel" else 6
    if circle := _numbers(boundary, _RADIUS, _RADIUS):  # a fraction of the width, or pixels
        side = stored[1] if change.transposed else stored[0]  # which became the width
        factor = change.after[0] / side if unit == "pixel" else stored[0] / side
        _put(boundary, _RADIUS, _RADIUS, (round(circle[0] * factor, digits),) * 2)
    sides = _numbers(boundary, f"{_IPTC}rbW", f"{_IPTC}rbH")
    width, height = sides or (0.0, 0.0)
    for one in boundary.iter():
        texts = [one.get(name) or one.findtext(name) for name in (f"{_IPTC}rbX", f"{_IPTC}rbY")]
        if None not in texts and (place := _numbers(one, f"{_IPTC}rbX", f"{_IPTC}rbY")):
            left, top, *extent = change.box(*place, width, height, before, after)
            _put(one, f"{_IPTC}rbX", f"{_IPTC}rbY", (round(left, digits), round(top, digits)))
            if sides:
                across, down = (round(side, digits) for side in extent)
                _put(boundary, f"{_IPTC}rbW", f"{_IPTC}rbH", (across, down))


def _move_rectangles(packet: Packet, change: GeometryChange) -> None:
    """Move Microsoft's regions of people: "left, top, width, height", fractions of the picture."""
    for one in packet.root.iter():
        text = one.get(_RECTANGLE) or (one.text if one.tag == _RECTANGLE else "") or ""
        with suppress(ValueError):
            left, top, width, height = map(float, text.split(","))
            box = change.box(left, top, width, height, (1, 1), (1, 1))
            moved = ", ".join(f"{value:.6g}" for value in box)
            if one.tag == _RECTANGLE:
                one.text = moved
            else:
                one.set(_RECTANGLE, moved)


def _numbers(element: ElementTree.Element, *names: str) -> tuple[float, float] | None:
    """Return the values of two fields of a structure; None if they are not numbers."""
    for one in element.iter():
        texts = [one.get(name) or one.findtext(name) or "" for name in names]
        with suppress(ValueError):
            x, y = map(float, texts)
            if isfinite(x + y):
                return x, y
    return None


def _put(
    element: ElementTree.Element, first: str, second: str, values: tuple[float, float]
) -> None:
    """Change the values of two fields of a structure."""
    for name, value in zip((first, second), values, strict=True):
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        for one in element.iter():
            if name in one.attrib:
                one.set(name, text)
            elif one.tag == name:
                one.text = text


def packet_segments(packet: Packet, first: Packet) -> list[bytes]:
    """Return the contents of a JPEG's segments: one packet, or a main and an extended packet.

    If an extended packet is needed, `first` becomes the main packet, and is changed.
    """
    whole = packet.packet()
    if len(whole) <= _ROOM:
        return [XMP_HEADER + whole]
    body = packet.text().encode("utf-8", "replace")
    digest = hashlib.md5(body, usedforsecurity=False).hexdigest().upper()
    note = ElementTree.SubElement(first.rdf, f"{{{RDF}}}Description", {f"{{{RDF}}}about": ""})
    note.set(_EXTENDED, digest)
    parts = [XMP_HEADER + first.packet()]
    for start in range(0, len(body), _PIECE):
        numbers = struct.pack(">II", len(body), start)
        parts.append(XMP_EXTENSION + digest.encode() + numbers + body[start : start + _PIECE])
    return parts


def packet_of_jpeg(bodies: list[bytes]) -> bytes | None:
    """Return the packet in a JPEG's APP1 segments; its extended packet is merged into it."""
    main = next((body[len(XMP_HEADER) :] for body in bodies if body.startswith(XMP_HEADER)), None)
    pieces: dict[str, dict[int, bytes]] = {}  # by the digest of the packet, then by offset
    for body in bodies:
        if body.startswith(XMP_EXTENSION):
            head, content = body[len(XMP_EXTENSION) :][:40], body[len(XMP_EXTENSION) + 40 :]
            digest = head[:32].decode("latin-1").upper()
            pieces.setdefault(digest, {})[int.from_bytes(head[36:], "big")] = content
    packet = Packet.parse(main) if main is not None and pieces else None
    if packet is None:
        return main
    named = packet.value(_EXTENDED).upper()
    if not named and len(pieces) == 1:
        (named,) = pieces
    whole = bytearray()
    for offset, content in sorted(pieces.get(named, {}).items()):
        if offset == len(whole):  # else a piece is missing, and the rest cannot be parsed
            whole += content
    if (other := Packet.parse(bytes(whole))) is None:
        return main
    packet.merge(other)
    return packet.packet()
