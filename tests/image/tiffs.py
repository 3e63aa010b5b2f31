"""TIFFs made by hand: directories with any tags, chained and nested."""

from __future__ import annotations

import struct

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 10: 8, 11: 4, 12: 8}


def tiff(directories, *, order="<", pixels=b""):
    """A file; directories are [{tag: (type, bytes)}], a list of them as a value nests them."""
    out = bytearray(b"II*\0" if order == "<" else b"MM\0*") + bytes(4)
    pixel_place = len(out)
    out += pixels + bytes(len(pixels) % 2)

    def put(tags):
        values = {}
        for tag, value in tags.items():
            if isinstance(value, list):
                places = [put(inner)[0] for inner in value]
                values[tag] = (4, struct.pack(f"{order}{len(places)}I", *places))
            elif value == "pixels":
                values[tag] = (4, struct.pack(f"{order}I", pixel_place))
            else:
                values[tag] = value
        entries = b""
        for tag, (kind, value) in sorted(values.items()):
            count = len(value) // SIZES[kind]
            if len(value) > 4:
                entries += struct.pack(f"{order}HHII", tag, kind, count, len(out))
                out.extend(value + bytes(len(value) % 2))
            else:
                entries += struct.pack(f"{order}HHI", tag, kind, count) + value.ljust(4, b"\0")
        place = len(out)
        out.extend(struct.pack(f"{order}H", len(values)) + entries + bytes(4))
        return place, len(out) - 4

    link = 4
    for tags in directories:
        place, following = put(tags)
        out[link : link + 4] = struct.pack(f"{order}I", place)
        link = following
    return bytes(out)


def short(*values, order="<"):
    return 3, struct.pack(f"{order}{len(values)}H", *values)


def long(*values, order="<"):
    return 4, struct.pack(f"{order}{len(values)}I", *values)


def text(value):
    return 2, value.encode() + b"\0"


def grey(width, height, order="<", **others):
    """Tags of a plain grey picture whose pixels come first in the file."""
    tags = {
        254: long(0, order=order),
        256: short(width, order=order),
        257: short(height, order=order),
        258: short(8, order=order),
        259: short(1, order=order),
        262: short(1, order=order),
        273: "pixels",
        277: short(1, order=order),
        278: short(height, order=order),
        279: long(width * height, order=order),
    }
    return tags | {int(tag[1:]): value for tag, value in others.items()}
