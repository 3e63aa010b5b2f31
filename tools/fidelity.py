"""Write docs/reference/fidelity.md: what is kept of everything that a file can carry.

`python tools/fidelity.py` writes the page; `tests/image/test_fidelity.py` fails when the page is
stale, or when anything is dropped silently.
"""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from restore_cli.errors import PictureError
from restore_cli.image import FORMATS, Encoding, Picture, encode
from restore_cli.image.containers import jpeg_segment, png_chunk
from restore_cli.image.exif import build_exif
from restore_cli.image.inventory import take_inventory
from restore_cli.image.iptc import PHOTOSHOP, Resource, join_photoshop
from restore_cli.image.matrix_profile import make_profile
from restore_cli.image.reading import decode
from restore_cli.image.xmp import XMP_HEADER, Packet
from restore_cli.rounding import to_float

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "fidelity.md"
_HEAD = """# What is kept

Written by `tools/fidelity.py`, which runs every case of the first table. Nothing is lost without a
note. *kept*: the output contains it; sizes, the orientation, and places in the picture (faces,
subject, panorama) are updated. *converted*: the output says the same in another form.
*announced*: a note on stderr and in the manifest names what is missing. *refused*: an error with
the remedy, before any work.

"""
Carrier = Callable[[], bytes]


def _png(*chunks: tuple[bytes, bytes], mode: str = "RGB", late: bool = False) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((24, 16)).convert(mode).save(buffer, "PNG")
    data = buffer.getvalue()
    place = len(data) - 12 if late else 33
    return data[:place] + b"".join(png_chunk(*one) for one in chunks) + data[place:]


def _jpeg(*segments: tuple[int, bytes], behind: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((24, 16)).convert("RGB").save(buffer, "JPEG", quality=95)
    data = buffer.getvalue()
    return data[:2] + b"".join(jpeg_segment(*one) for one in segments) + data[2:] + behind


def _tiff(tags: dict[int, object]) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((24, 16)).save(buffer, "TIFF", tiffinfo=tags)
    return buffer.getvalue()


def _exif(tags: dict[int, tuple[int, bytes]], below: dict[int, Any]) -> bytes:
    nested: dict[int, object] = {34665: below} if below else {}
    if 271 in tags:
        nested[34853] = {1: (2, b"N\0"), 2: (5, struct.pack("<6I", 50, 1, 5, 1, 30, 1))}
    return _jpeg((0xE1, b"Exif\0\0" + build_exif(tags | nested)))


def _packet(name: str, value: str) -> bytes:
    packet = Packet.empty()
    packet.rdf.append(
        packet.rdf.makeelement(
            "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description", {name: value}
        )
    )
    return packet.packet()


def _png16() -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((24, 16)).convert("I;16").save(buffer, "PNG")
    return buffer.getvalue()


def _grey() -> bytes:
    buffer = io.BytesIO()
    white, *primaries = (0.3127, 0.329), (0.64, 0.33), (0.3, 0.6), (0.15, 0.06)
    linear = make_profile("linear", (white, *primaries), (1.0,), grey=True)
    Image.linear_gradient("L").resize((24, 16)).save(buffer, "PNG", icc_profile=linear)
    return buffer.getvalue()


def _clear() -> bytes:
    buffer = io.BytesIO()
    grey = Image.linear_gradient("L").resize((24, 16))
    Image.merge("LA", (grey, grey)).save(buffer, "PNG")
    return buffer.getvalue()


_GPANO = "{http://ns.google.com/photos/1.0/panorama/}"
_VIDEO = struct.pack(">I", 24) + b"ftypmp42" + bytes(12)
_ADOBE_RGB: dict[int, Any] = {40961: (3, b"\xff\xff"), 40965: {1: (2, b"R03\0")}}
_RECORDS = b"\x1c\2\x78\0\5hello"
CARRIERS: dict[str, tuple[str, Carrier]] = {
    "EXIF, GPS": ("EXIF", lambda: _exif({271: (2, b"Maker\0")}, {36867: (2, b"2024\0")})),
    "unknown EXIF tags": ("EXIF", lambda: _exif({60001: (7, b"unknown")}, {})),
    "EXIF larger than 64 kB": (
        "EXIF",
        lambda: _png((b"eXIf", build_exif({60000: (7, bytes(70_000))}))),
    ),
    "maker notes": ("EXIF", lambda: _exif({}, {37500: (7, b"notes of a maker")})),
    "XMP": (
        "XMP",
        lambda: _jpeg((0xE1, XMP_HEADER + _packet("{http://purl.org/dc/elements/1.1/}title", "t"))),
    ),
    "panoramas (GPano, scaled)": (
        "XMP",
        lambda: _jpeg((0xE1, XMP_HEADER + _packet(f"{_GPANO}FullPanoWidthPixels", "24"))),
    ),
    "IPTC": ("IPTC", lambda: _jpeg((0xED, PHOTOSHOP + join_photoshop(_RECORDS, [])))),
    "Photoshop paths": (
        "Photoshop",
        lambda: _jpeg((0xED, PHOTOSHOP + join_photoshop(None, [Resource(2000, b"path")]))),
    ),
    "PNG text": ("text", lambda: _png((b"tEXt", b"Author\0somebody"))),
    "PNG text after the pixels": ("text", lambda: _png((b"tEXt", b"Author\0somebody"), late=True)),
    "JPEG comment": ("comment", lambda: _jpeg((0xFE, b"hello"))),
    "resolution": ("resolution", lambda: _png((b"pHYs", struct.pack(">IIB", 11811, 11811, 1)))),
    "pixel aspect ratio": (
        "shape of pixels",
        lambda: _png((b"pHYs", struct.pack(">IIB", 2, 1, 0))),
    ),
    "gAMA and cHRM": ("colour", lambda: _png((b"gAMA", struct.pack(">I", 100_000)))),
    "wide-gamut cICP": ("colour", lambda: _png((b"cICP", bytes([12, 13, 0, 1])))),
    "profile of a grey picture": ("colours", _grey),
    "Adobe RGB of a camera (EXIF)": ("colours", lambda: _exif({}, _ADOBE_RGB)),
    "HDR (PQ, HLG)": ("colour", lambda: _png((b"cICP", bytes([9, 16, 0, 1])))),
    "GeoTIFF": ("GeoTIFF", lambda: _tiff({33550: (0.5, 0.5, 0.0)})),
    "16 bits": ("depth", _png16),
    "transparency": ("alpha", _clear),
    "video of a motion photo": ("beside it", lambda: _jpeg(behind=_VIDEO)),
    "gain map": ("beside it", lambda: _jpeg((0xE2, b"urn:iso:std:iso:ts:21496:-1\0" + bytes(4)))),
    "pictures behind a JPEG": ("beside it", lambda: _jpeg(behind=_jpeg())),
    "unknown chunks and segments": ("chunks", lambda: _png((b"vpAg", bytes(9)))),
}


def _looks(one: Picture, other: Picture) -> bool:
    """Whether two pictures show nearly the same, and the second is not sRGB."""
    difference = (to_float(one.pixels) - to_float(other.pixels)).abs().mean()
    return other.colours == "profile" and bool(difference < 0.02)


def fate(data: bytes, kind: str, key: str) -> str:
    """Return kept, converted, announced, refused, or SILENT for what a file carries."""
    picture = decode(data, "in")
    try:
        made, notes = encode(picture, Encoding(key), "out")
    except PictureError:
        return "refused"
    if kind in ("depth", "alpha", "colour", "colours"):
        again = decode(made, "out")
        same = {
            "depth": again.depth == picture.depth,
            "alpha": (again.alpha is None) == (picture.alpha is None),
            "colour": again.metadata.colour == picture.metadata.colour,
            "colours": _looks(again, picture),
        }[kind]
        if kind == "colour" and not same and again.metadata.icc_profile is not None:
            return "converted"
        return "announced" if notes else "kept" if same else "SILENT"
    carried = {one for one in picture.metadata.inventory if one[0] == kind}
    assert carried, kind
    if carried <= take_inventory(made, key):
        return "converted" if kind == "GeoTIFF" else "kept"
    return "announced" if any(note.startswith("left out") for note in notes) else "SILENT"


VIDEOS = (
    ("audio, subtitles", "kept, or announced where the container has no place"),
    ("audio before the first frame", "kept"),
    ("how long every frame is shown, the last one included", "kept"),
    ("title, date, place, languages, dispositions, chapters", "kept, or announced"),
    ("HDR, BT.2020, 10 bits", "kept"),
    ("12 bits", "announced"),
    ("rotation and mirroring", "converted: applied to the pixels"),
    ("rotation by other angles", "announced"),
    ("interlacing, transparency, 4:2:2, 4:4:4", "announced"),
    ("captions, timecodes, 3D and 360° layouts beside frames", "announced"),
    ("joined recordings, whose timestamps begin again", "converted: moved, announced"),
    ("matrices that cannot be converted (YCgCo, ICtCp)", "refused"),
    ("truncated files, broken packets", "announced"),
    ("further video streams, covers, data", "announced"),
)


def page() -> str:
    """Return the page; every case is run."""
    lines = [f"| carried | {' | '.join(FORMATS)} |", f"|---{'|---' * len(FORMATS)}|"]
    for name, (kind, make) in CARRIERS.items():
        data = make()
        lines.append(f"| {name} | {' | '.join(fate(data, kind, key) for key in FORMATS)} |")
    lines += ["", "| carried by a video | |", "|---|---|"]
    lines += [f"| {name} | {what} |" for name, what in VIDEOS]
    return _HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    print(PAGE)
    sys.exit("SILENT" in page())
