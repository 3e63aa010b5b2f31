"""Metadata that refers to places in the picture follows it when it is turned and enlarged."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps
from tiffs import long, short, tiff

from restore_cli.image import Encoding, encode
from restore_cli.image.containers import jpeg_segment, tiff_directories
from restore_cli.image.exif import dots_per_inch
from restore_cli.image.geometry import GeometryChange
from restore_cli.image.inventory import read_raw
from restore_cli.image.raw_metadata import register_heic
from restore_cli.image.reading import decode
from restore_cli.image.xmp import XMP_HEADER, Packet

WIDTH, HEIGHT = 64, 48
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
PANO = "{http://ns.google.com/photos/1.0/panorama/}"
AREA = "{http://ns.adobe.com/xmp/sType/Area#}"
SIDES = "{http://ns.adobe.com/xap/1.0/sType/Dimensions#}"
REGIONS = "http://www.metadataworkinggroup.com/schemas/regions/"


def upright(values, orientation):
    """What a viewer shows of values (H, W), by Pillow."""
    image = Image.fromarray(values)
    image.getexif()[274] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_places_are_those_that_a_viewer_shows(orientation):
    stored = np.zeros((HEIGHT, WIDTH), np.uint8)
    stored[6:8, 10:12] = 255  # around the corner of four pixels (11, 7)
    rows, columns = np.nonzero(upright(stored, orientation))
    turned = orientation >= 5
    after = (HEIGHT, WIDTH) if turned else (WIDTH, HEIGHT)
    change = GeometryChange((WIDTH, HEIGHT), orientation, after)
    assert change.point(11, 7) == (columns.max(), rows.max())
    assert change.extent(20, 10) == ((10, 20) if turned else (20, 10))
    larger = GeometryChange((WIDTH, HEIGHT), orientation, (after[0] * 4, after[1] * 4))
    assert larger.point(11, 7) == (4 * columns.max(), 4 * rows.max())


def saved(kind, **options):
    buffer = io.BytesIO()
    image = Image.linear_gradient("L").resize((WIDTH, HEIGHT)).convert("RGB")
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def restored(*segments, scale=4):
    """A JPEG with these segments, decoded, enlarged and written, and its notes."""
    data = saved("JPEG")
    return enlarged(
        data[:2] + b"".join(jpeg_segment(0xE1, one) for one in segments) + data[2:], scale
    )


def enlarged(data, scale=4):
    picture = decode(data, "photo")
    large = picture.pixels.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    made, notes = encode(picture.with_pixels(large, None), Encoding("jpeg"), "made.jpg")
    return read_raw(made, "jpeg"), (*picture.notes, *notes)


def exif(orientation, area):
    inner = {
        37396: (3, struct.pack(f"<{len(area)}H", *area)),
        41492: (3, struct.pack("<2H", *area[:2])),
        40965: [{4097: long(WIDTH), 4098: long(HEIGHT)}],
    }
    block = tiff([{274: short(orientation), 34665: [inner]}])
    return b"Exif\0\0" + block


@pytest.mark.parametrize(
    ("orientation", "area", "expected"),
    [
        (1, (10, 20, 8, 4), (40, 80, 32, 16)),
        (6, (10, 20, 8, 4), (4 * (HEIGHT - 20), 40, 16, 32)),
        (8, (10, 20), (80, 4 * (WIDTH - 10))),
        (3, (10, 20, 6), (4 * (WIDTH - 10), 4 * (HEIGHT - 20), 24)),
    ],
)
def test_the_subject_stays_where_it_is(orientation, area, expected):
    parts, notes = restored(exif(orientation, area))
    directories = tiff_directories(parts.exif)
    inner = next(one for one in directories if one.parent_tag == 34665)
    assert inner.integers(37396) == expected
    assert inner.integers(41492) == expected[:2]
    related = next(one for one in directories if one.parent_tag == 40965)
    sides = (HEIGHT, WIDTH) if orientation >= 5 else (WIDTH, HEIGHT)
    assert (related.integer(4097), related.integer(4098)) == (4 * sides[0], 4 * sides[1])
    assert notes == ()


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, (40, 80, 32, 16)),
        (6, (4 * (HEIGHT - 20), 40, 16, 32)),
        (8, (80, 4 * (WIDTH - 10), 16, 32)),
    ],
)
def test_the_subject_of_a_picture_that_its_decoder_turns(kind, orientation, expected):
    if kind == "HEIF" and register_heic() is None:
        pytest.skip("pillow-heif is not installed")
    parts, _ = enlarged(saved(kind, exif=exif(orientation, (10, 20, 8, 4))))
    inner = next(one for one in tiff_directories(parts.exif) if one.parent_tag == 34665)
    assert inner.integers(37396) == expected


@pytest.mark.parametrize("kind", ["AVIF", "HEIF", "JPEG"])
@pytest.mark.parametrize("to", ["png", "jpeg", "webp", "tiff"])
def test_resolution_is_turned_with_the_picture(kind, to):
    if kind == "HEIF" and register_heic() is None:
        pytest.skip("pillow-heif is not installed")
    tags = {282: (5, struct.pack("<2I", 300, 1)), 283: (5, struct.pack("<2I", 100, 1))}
    block = tiff([tags | {274: short(6), 296: short(2)}])
    picture = decode(saved(kind, exif=b"Exif\0\0" + block), "in")
    assert picture.metadata.dpi == pytest.approx((100, 300))
    made, _ = encode(picture, Encoding(to), "out")
    assert dots_per_inch(read_raw(made, to).exif if to != "tiff" else made) == (
        pytest.approx((100, 300))
    )


def test_a_subject_beyond_what_exif_can_hold_is_announced():
    parts, notes = restored(exif(1, (0xFFFF, 20, 8, 4)))
    assert not any(37396 in one.tags for one in tiff_directories(parts.exif))
    assert any("SubjectLocation" in note for note in notes), notes


def packet(properties):
    text = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}">{properties}</rdf:RDF>'
    return XMP_HEADER + f"{text}</x:xmpmeta>".encode()


IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
PEOPLE = "http://ns.microsoft.com/photo/1.2/t/Region#"


@pytest.mark.parametrize(
    ("orientation", "unit", "place", "expected"),
    [
        (1, "pixel", (4, 8, 12, 16), (16, 32, 48, 64)),
        (6, "pixel", (4, 8, 12, 16), (4 * (HEIGHT - 24), 16, 64, 48)),
        (1, "relative", (0.1, 0.2, 0.3, 0.4), (0.1, 0.2, 0.3, 0.4)),
        (6, "relative", (0.1, 0.2, 0.3, 0.4), (0.4, 0.1, 0.4, 0.3)),
    ],
)
@pytest.mark.parametrize("spelling", ["elements", "attributes"])
def test_regions_of_iptc_stay_where_they_are(orientation, unit, place, expected, spelling):
    fields = zip(("rbUnit", "rbX", "rbY", "rbW", "rbH"), (unit, *place), strict=True)
    if spelling == "elements":
        inside = "".join(f"<i:{name}>{value}</i:{name}>" for name, value in fields)
        boundary = f'<i:RegionBoundary rdf:parseType="Resource">{inside}</i:RegionBoundary>'
    else:
        inside = " ".join(f'i:{name}="{value}"' for name, value in fields)
        boundary = f"<i:RegionBoundary {inside}/>"
    says = (
        f'<rdf:Description rdf:about="" xmlns:i="{IPTC}"><i:ImageRegion><rdf:Bag>'
        f'<rdf:li rdf:parseType="Resource">{boundary}</rdf:li></rdf:Bag></i:ImageRegion>'
        "</rdf:Description>"
    )
    parts, notes = restored(exif(orientation, (1, 1)), packet(says))
    made = next(Packet.parse(parts.xmp).root.iter(f"{{{IPTC}}}RegionBoundary"))
    names = [f"{{{IPTC}}}{name}" for name in ("rbX", "rbY", "rbW", "rbH")]
    assert [float(made.get(n) or made.findtext(n)) for n in names] == pytest.approx(expected)
    assert notes == ()


@pytest.mark.parametrize(
    ("orientation", "unit", "radius", "expected"),
    [(6, "pixel", 6, 24), (1, "relative", 0.3, 0.3), (6, "relative", 0.3, 0.3 * WIDTH / HEIGHT)],
)
def test_a_circle_of_iptc_keeps_its_size(orientation, unit, radius, expected):
    says = (
        f'<rdf:Description rdf:about="" xmlns:i="{IPTC}"><i:RegionBoundary i:rbUnit="{unit}" '
        f'i:rbX="0" i:rbY="0" i:rbRx="{radius}"/></rdf:Description>'
    )
    parts, _ = restored(exif(orientation, (1, 1)), packet(says))
    made = next(Packet.parse(parts.xmp).root.iter(f"{{{IPTC}}}RegionBoundary"))
    assert float(made.get(f"{{{IPTC}}}rbRx")) == pytest.approx(expected, abs=1e-6)


def test_corners_of_a_region_of_iptc():
    corner = '<rdf:li rdf:parseType="Resource"><i:rbX>{}</i:rbX><i:rbY>{}</i:rbY></rdf:li>'
    says = (
        f'<rdf:Description rdf:about="" xmlns:i="{IPTC}"><i:RegionBoundary '
        f'rdf:parseType="Resource"><i:rbUnit>pixel</i:rbUnit><i:rbVertices><rdf:Seq>'
        f"{corner.format(1, 2)}{corner.format(3, 5)}</rdf:Seq></i:rbVertices>"
        "</i:RegionBoundary></rdf:Description>"
    )
    parts, _ = restored(packet(says))
    root = Packet.parse(parts.xmp).root
    places = [[float(one.text) for one in root.iter(f"{{{IPTC}}}rb{axis}")] for axis in "XY"]
    assert places == [[4, 12], [8, 20]]


@pytest.mark.parametrize("spelling", ["element", "attribute"])
def test_people_of_windows_stay_where_they_are(spelling):
    place = "0.1, 0.2, 0.3, 0.4"
    person = (
        f"<rdf:li rdf:parseType='Resource'><m:Rectangle>{place}</m:Rectangle></rdf:li>"
        if spelling == "element"
        else f'<rdf:li m:Rectangle="{place}"/>'
    )
    says = (
        f'<rdf:Description rdf:about="" xmlns:m="{PEOPLE}" xmlns:p="urn:p"><p:Regions><rdf:Bag>'
        f"{person}</rdf:Bag></p:Regions></rdf:Description>"
    )
    parts, notes = restored(exif(6, (1, 1)), packet(says))
    assert b"0.4, 0.1, 0.4, 0.3" in parts.xmp
    assert notes == ()


def test_a_panorama_stays_one():
    says = (
        f'<rdf:Description rdf:about="" xmlns:GPano="{PANO[1:-1]}"'
        ' GPano:ProjectionType="equirectangular" GPano:PoseHeadingDegrees="12.5"'
        ' GPano:FullPanoWidthPixels="128"><GPano:CroppedAreaLeftPixels>16'
        "</GPano:CroppedAreaLeftPixels><GPano:CroppedAreaImageHeightPixels>48"
        "</GPano:CroppedAreaImageHeightPixels></rdf:Description>"
    )
    parts, notes = restored(packet(says))
    made = Packet.parse(parts.xmp)
    expected = {
        "ProjectionType": "equirectangular",
        "PoseHeadingDegrees": "12.5",
        "FullPanoWidthPixels": "512",
        "CroppedAreaLeftPixels": "64",
        "CroppedAreaImageHeightPixels": "192",
    }
    assert {name: made.value(PANO + name) for name in expected} == expected
    assert notes == ()
    for odd in ("inf", "1e308", "nan", "wide", "-7"):
        parts, _ = restored(packet(says.replace('"128"', f'"{odd}"')))
        kept = Packet.parse(parts.xmp).value(PANO + "FullPanoWidthPixels")
        assert kept == ("-28" if odd == "-7" else odd)
    parts, notes = restored(exif(6, (10, 20)), packet(says))
    assert PANO.encode()[1:-1] not in parts.xmp
    assert any("ProjectionType" in note for note in notes)


@pytest.mark.parametrize(
    ("orientation", "stated", "place", "expected"),
    [
        (1, (WIDTH, HEIGHT), (0.25, 0.75, 0.1, 0.2), (0.25, 0.75, 0.1, 0.2)),
        (6, (WIDTH, HEIGHT), (0.25, 0.75, 0.1, 0.2), (0.25, 0.25, 0.2, 0.1)),
        (6, (HEIGHT, WIDTH), (0.25, 0.75, 0.1, 0.2), (0.25, 0.75, 0.1, 0.2)),  # upright already
        (3, (WIDTH, HEIGHT), (0.25, 0.75, 0.1, 0.2), (0.75, 0.25, 0.1, 0.2)),
    ],
)
@pytest.mark.parametrize("as_elements", [False, True])
def test_faces_stay_where_they_are(orientation, stated, place, expected, as_elements):
    fields = dict(zip("xywh", place, strict=True))
    if as_elements:
        inner = "".join(f"<stArea:{key}>{value}</stArea:{key}>" for key, value in fields.items())
        area = f'<mwg-rs:Area rdf:parseType="Resource">{inner}</mwg-rs:Area>'
    else:
        inner = " ".join(f'stArea:{key}="{value}"' for key, value in fields.items())
        area = f"<mwg-rs:Area {inner}/>"
    says = (
        f'<rdf:Description rdf:about="" xmlns:mwg-rs="{REGIONS}" xmlns:stArea="{AREA[1:-1]}"'
        f' xmlns:stDim="{SIDES[1:-1]}"><mwg-rs:Regions rdf:parseType="Resource">'
        f'<mwg-rs:AppliedToDimensions stDim:w="{stated[0]}" stDim:h="{stated[1]}"/>'
        '<mwg-rs:RegionList><rdf:Bag><rdf:li rdf:parseType="Resource">'
        f"<mwg-rs:Name>Ada</mwg-rs:Name>{area}</rdf:li></rdf:Bag></mwg-rs:RegionList>"
        "</mwg-rs:Regions></rdf:Description>"
    )
    parts, notes = restored(exif(orientation, (10, 20)), packet(says))
    root = Packet.parse(parts.xmp).root
    found = next(root.iter(f"{{{REGIONS}}}Area"))
    texts = [found.get(AREA + key) or found.findtext(AREA + key) for key in "xywh"]
    assert [float(text) for text in texts] == pytest.approx(expected)
    size = next(root.iter(f"{{{REGIONS}}}AppliedToDimensions"))
    sides = (HEIGHT, WIDTH) if orientation >= 5 else (WIDTH, HEIGHT)
    assert (size.get(SIDES + "w"), size.get(SIDES + "h")) == (str(4 * sides[0]), str(4 * sides[1]))
    assert notes == ()
