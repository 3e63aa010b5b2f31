"""What is read is kept, converted or announced: never silently lost."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from files import jpeg, values
from PIL import Image, ImageCms, ImageOps
from tiffs import grey, long, short, text, tiff

from restore_cli.errors import PictureError
from restore_cli.image import Encoding, encode
from restore_cli.image.containers import (
    first_directory,
    jpeg_segment,
    png_chunk,
    png_chunks,
    tiff_directories,
)
from restore_cli.image.exif import edit_exif, geo_tags
from restore_cli.image.geometry import GeometryChange
from restore_cli.image.inventory import loss_notes, read_raw, take_inventory
from restore_cli.image.iptc import PHOTOSHOP, Resource, join_photoshop
from restore_cli.image.reading import decode
from restore_cli.image.xmp import XMP_EXTENSION, XMP_HEADER, Packet

FORMATS = ("png", "jpeg", "webp", "tiff", "avif")
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"


def block(order="<", *, large=0, **tags):
    """EXIF as a camera writes it, with tags that no library knows, GPS and a maker's notes."""
    e = order
    gps = {1: (2, b"N\0"), 2: (5, struct.pack(f"{e}6I", 50, 1, 5, 1, 30, 1))}
    inner = {
        36867: text("2026:01:02 03:04:05"),
        37500: (7, b"MAKER-NOTE-" + bytes(20)),
        40962: long(17, order=e),
        42033: text("SERIAL-123"),
        50000: (7, b"unknown to libraries"),
    }
    first = {
        271: text("Maker"),
        272: text("Model 1"),
        274: short(6, order=e),
        315: text("Zo\u00eb"),
        34665: [inner],
        34853: [gps],
        59932: (7, bytes(2060)),
    }
    first |= {int(tag[1:]): value for tag, value in tags.items()}
    if large:
        first[60000] = (7, bytes(range(256)) * (large // 256))
    preview = {513: long(0, order=e), 514: long(8, order=e)}
    return tiff([first, preview], order=order)


def packet(properties, attributes="", rdf=b""):
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}"><rdf:Description '
        f'rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
        f'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:exif="http://ns.adobe.com/exif/1.0/" '
        f'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" '
        f'xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" {attributes}>'
        f"{properties}</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode() + rdf


RECORDS = b"".join(
    b"\x1c\x02" + bytes([number]) + struct.pack(">H", len(value)) + value
    for number, value in ((0, b"\0\4"), (120, "Příliš".encode()), (25, b"one"), (25, b"two"))
)


def with_segments(*segments):
    data = jpeg(values(3, height=16, width=24), quality=95)
    return data[:2] + b"".join(jpeg_segment(*one) for one in segments) + data[2:]


def written(data, key, *, level="standard", facts=()):
    picture = decode(data, "in")
    made, notes = encode(picture, Encoding(key, metadata=level, provenance=facts), "out")
    decode(made, "out")  # it can be read again
    return made, notes


# EXIF ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", FORMATS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_with_tags_that_nobody_knows(key, order):
    data = with_segments((0xE1, b"Exif\0\0" + block(order)))
    made, notes = written(data, key)
    before, after = take_inventory(data, "jpeg"), take_inventory(made, key)
    gone = before - after - {("preview", "")}
    # Maker notes point into their file; libexif, which writes AVIF's, drops what it does not know.
    allowed = {"tiff": {"MakerNote"}, "avif": {"MakerNote", "tag 50000", "tag 59932"}}
    assert {name for _, name in gone} <= allowed.get(key, set()) | (
        {"Padding"} if key == "avif" else set()
    )
    assert bool(gone) == bool(notes), notes
    for _, name in gone:
        assert name in notes[0]


@pytest.mark.parametrize("key", ["png", "jpeg", "webp"])
def test_a_makers_notes_keep_their_place(key):
    data = with_segments((0xE1, b"Exif\0\0" + block()))
    made, _ = written(data, key)
    old, new = (read_raw(*one).exif for one in ((data, "jpeg"), (made, key)))
    assert new.index(b"MAKER-NOTE-") == old.index(b"MAKER-NOTE-")
    first = tiff_directories(new)[0]
    assert first.integer(274) == 1
    assert not any(n and not one.parent_tag for n, one in enumerate(tiff_directories(new)))


def test_a_second_exif_block_is_not_mixed_into_the_first():
    first, second = block(), b"MM\0*" + b"GPS" * 20
    data = with_segments((0xE1, b"Exif\0\0" + first), (0xE1, b"Exif\0\0" + second))
    assert read_raw(data, "jpeg").exif == first


@pytest.mark.parametrize("key", FORMATS)
def test_exif_larger_than_a_segment(key):
    large = block(large=70_000)
    pieces = [(0xE1, b"Exif\0\0" + large[n : n + 65_000]) for n in range(0, len(large), 65_000)]
    for data in (with_segments(*pieces), png_with((b"eXIf", large))):
        made, notes = written(data, key)
        kept = ("EXIF", "tag 60000") in take_inventory(made, key)
        assert kept == (key in ("png", "webp", "tiff"))
        assert kept or "tag 60000" in notes[0]
        assert ("EXIF", "Make") in take_inventory(made, key)


def test_private_is_private():
    xmp = packet("<dc:title>t</dc:title>", 'exif:GPSLatitude="50,5N" exif:BodySerialNumber="1"')
    data = with_segments((0xE1, b"Exif\0\0" + block()), (0xE1, XMP_HEADER + xmp))
    for key in FORMATS:
        made, notes = written(data, key, level="private")
        for secret in (b"SERIAL-123", b"MAKER-NOTE", b"50,5N", b"GPS", struct.pack("<2I", 50, 1)):
            assert secret not in made, (key, secret)
        kinds = take_inventory(made, key)
        assert ("EXIF", "Make") in kinds
        assert ("EXIF", "Artist") in kinds
        assert ("XMP", "title") in kinds
        assert not any("GPS" in note or "Serial" in note for note in notes)
        safe, _ = written(data, key, level="standard")
        assert ("EXIF", "GPSLatitude") in take_inventory(safe, key)  # as it always was
        none, notes = written(data, key, level="none", facts=(("model", "x"),))
        assert take_inventory(none, key) <= {("resolution", "")}
        assert notes == ()


def test_private_properties_inside_others_are_left_out():
    inner = "<exif:GPSLatitude>52,31N</exif:GPSLatitude><dc:source>s</dc:source>"
    item = f'<rdf:li rdf:parseType="Resource">{inner}</rdf:li>'
    data = with_segments(
        (0xE1, XMP_HEADER + packet(f"<dc:place><rdf:Bag>{item}</rdf:Bag></dc:place>"))
    )
    for level in ("standard", "private"):
        made, notes = written(data, "jpeg", level=level)
        assert notes == ()
        assert (b"52,31N" in made) == (level == "standard")
        assert {("XMP", "place"), ("XMP", "source")} <= take_inventory(made, "jpeg")


def test_a_preview_that_shares_values_with_the_picture():
    shared = block(t271=text("ACME CAMERA"), t282=(5, struct.pack("<2I", 300, 1)))
    first = first_directory(shared)
    make = struct.pack("<HHII", 271, 2, 12, first.tags[271].start)
    tags = make + struct.pack("<HHII", 513, 4, 1, 8) + struct.pack("<HHII", 514, 4, 1, 1 << 30)
    following = first.offset + 2 + 12 * len(first.tags)
    exif = bytearray(shared + struct.pack("<H", 3) + tags + bytes(4))
    exif[following : following + 4] = struct.pack("<I", len(shared))
    change = GeometryChange(None, 1, (1, 1))
    kept = first_directory(edit_exif(bytes(exif), level="standard", change=change))
    assert (kept.value(271), kept.number(282)) == (b"ACME CAMERA\0", 300)


def png_with(*chunks, late=False):
    buffer = io.BytesIO()
    Image.fromarray(values(3, height=16, width=24)).save(buffer, "PNG")
    data = buffer.getvalue()
    added = b"".join(png_chunk(*one) for one in chunks)
    place = len(data) - 12 if late else 33
    return data[:place] + added + data[place:]


@pytest.mark.parametrize("late", [False, True])
def test_chunks_of_png_wherever_they_stand(late):
    hexed = b"Raw profile type exif\0\0" + zlib.compress(
        b"\nexif\n    1\n" + (b"Exif\0\0" + block()).hex().encode()
    )
    title = (b"iTXt", "Title\0\0\0ja\0\u984c\0\u65e5".encode())
    data = png_with(
        (b"tEXt", "Author\0Zo\u00eb".encode("latin-1")),
        title,
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet("<dc:title>t</dc:title>")),
        (b"zTXt", hexed),
        late=late,
    )
    made, notes = written(data, "png")
    assert notes == ()
    assert {
        ("text", "Author"),
        ("text", "Title"),
        ("XMP", "title"),
        ("EXIF", "Make"),
    } <= take_inventory(made, "png")
    assert title in list(png_chunks(made))  # with its language and its keyword in that
    made, notes = written(data, "jpeg")
    assert notes == ("left out: text Author, Title",)
    made, _ = written(data, "png", level="private")
    assert b"SERIAL" not in made


def raw_profile(kind, content):
    body = f"\n{kind}\n    {len(content)}\n".encode() + content.hex().encode()
    return b"tEXt", f"Raw profile type {kind}".encode() + b"\0" + body


@pytest.mark.parametrize("kind", ["exif", "APP1"])
@pytest.mark.parametrize("head", [b"Exif\0\0", b""])
def test_exif_in_text_of_a_png_is_exif(kind, head):
    data = png_with(raw_profile(kind, head + block()))
    assert ("EXIF", "GPSLatitude") in take_inventory(data, "png")
    made, _ = written(data, "png", level="private")
    assert ("EXIF", "Make") in take_inventory(made, "png")
    assert ("EXIF", "GPSLatitude") not in take_inventory(made, "png")
    assert b"SERIAL".hex().encode() not in made


def test_xmp_and_unknown_profiles_in_text_of_a_png():
    data = png_with(raw_profile("APP1", XMP_HEADER + packet("<dc:title>t</dc:title>")))
    assert ("XMP", "title") in take_inventory(written(data, "png")[0], "png")
    made, notes = written(png_with(raw_profile("odd", b"GPS 1 2 3")), "png", level="private")
    assert notes == ("left out: text Raw profile type odd",)
    assert b"GPS 1 2 3".hex().encode() not in made


@pytest.mark.slow
def test_a_gif_that_pillow_takes_for_a_bomb_is_no_traceback():
    """Its frame has 200 megapixels, more than Pillow allows a program by default."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 20_000, 10_000, 0) + b"\x02\x02\x4c\x01\x00;"
    assert read_raw(screen + frame, "gif").exif is None
    with suppress(PictureError):
        decode(screen + frame, "a.gif")


def test_pixels_of_a_gif_that_are_not_square():
    buffer = io.BytesIO()
    Image.new("L", (24, 16), 90).save(buffer, "GIF")
    data = bytearray(buffer.getvalue())
    data[12] = 113  # pixels are twice as wide as high: (113 + 15) / 64
    made, notes = written(bytes(data), "png")
    assert notes == ()
    assert read_raw(made, "png").aspect == (64, 128)
    assert ("shape of pixels", "2:1") in take_inventory(made, "png")


def test_chunks_that_are_not_known_are_announced():
    chunks = {b"tIME": 7, b"vpAg": 9, b"caBX": 4, b"bKGD": 6}
    data = png_with(*((kind, bytes(size)) for kind, size in chunks.items()))
    _, notes = written(data, "png")
    assert notes == ("left out: chunks bKGD, caBX, tIME, vpAg",)


@pytest.mark.parametrize("value", [b"not zlib", zlib.compress(bytes(20_000_000))])
def test_text_that_cannot_be_read_is_announced(value):
    broken = (b"zTXt", b"Notes\0\0" + value)
    whole = (b"zTXt", b"Author\0\0" + zlib.compress(b"Ann"))
    made, notes = written(png_with(broken, whole), "png")
    assert notes == ("left out: text Notes (unreadable)",)
    assert ("text", "Author") in take_inventory(made, "png")


def test_what_follows_a_png_is_announced():
    assert written(png_with() + b"PK\3\4more", "png")[1] == ("left out: 8 bytes after its end",)


def test_an_animation_of_one_frame_is_a_picture():
    frame = (b"fcTL", struct.pack(">5I2H2B", 0, 24, 16, 0, 0, 1, 10, 0, 0))
    assert written(png_with((b"acTL", struct.pack(">II", 1, 0)), frame), "png")[1] == ()
    with pytest.raises(PictureError, match="several"):
        decode(png_with((b"acTL", struct.pack(">II", 2, 0)), frame), "a.png")


def test_exif_behind_another_byte():
    data = with_segments((0xE1, b"Exif\0\xff" + block()))
    assert read_raw(data, "jpeg").exif == block()


def test_comments_of_a_gif_before_and_behind_the_picture():
    with io.BytesIO() as file:
        Image.new("P", (5, 4)).save(file, "GIF", comment=b"first")
        data = file.getvalue()
    data = data.removesuffix(b";") + b"!\xfe\x05later\0;"
    assert read_raw(data, "gif").comment == b"first\nlater"
    assert "left out: comment" in written(data, "png")[1]


@pytest.mark.parametrize(
    ("text_", "kept"),
    [(b"A cell", True), (b"ImageJ=1.54", False), (b'{"shape": [6, 8]}', False), (b"<OME>", False)],
)
def test_descriptions_of_arrays_do_not_outlive_their_size(text_, kept):
    picture = decode(tiff([grey(8, 6, t270=text(text_.decode()))], pixels=bytes(48)), "a.tif")
    for scale in (1, 2):
        pixels = picture.pixels.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
        made, notes = encode(picture.with_pixels(pixels, None), Encoding("tiff"), "b.tif")
        there = first_directory(made).value(270).rstrip(b"\0") == text_
        assert there == (kept or scale == 1)
        assert notes == (() if there else ("left out: EXIF ImageDescription",))


def test_all_comments_are_kept():
    made, notes = written(with_segments((0xFE, b"first"), (0xFE, b"second")), "jpeg")
    assert (read_raw(made, "jpeg").comment, notes) == (b"first\nsecond", ())
    made, notes = written(with_segments((0xFE, b"a" * 40_000), (0xFE, b"b" * 40_000)), "jpeg")
    kept = read_raw(made, "jpeg").comment.replace(b"\n", b"")
    assert (kept, notes) == (b"a" * 40_000 + b"b" * 40_000, ())


@pytest.mark.parametrize(
    ("marker", "body", "said"),
    [
        (0xE0, b"CIFF\0more", "APP0 CIFF"),
        (0xE2, b"FPXR\0more", "APP2 FPXR"),
        (0xED, b"Adobe_CM\0more", "APP13 Adobe_CM"),
        (0xEE, b"Other\0more", "APP14 Other"),
    ],
)
def test_segments_of_other_kinds_are_announced(marker, body, said):
    _, notes = written(with_segments((marker, body)), "jpeg")
    assert notes == (f"left out: segments {said}",)


def test_pictures_behind_a_jpeg_are_announced():
    one = with_segments()
    assert ("beside it", "1 picture") in take_inventory(one + one, "jpeg")
    assert ("beside it", "2 pictures") in take_inventory(one + bytes(9) + one + one, "jpeg")
    more = take_inventory(one + one + b"SECRET" * 5, "jpeg")
    assert {("beside it", "1 picture"), ("beside it", "30 bytes after its end")} <= more
    gain = with_segments((0xE2, b"urn:iso:std:iso:ts:21496:-1\0"))
    assert {what for kind, what in take_inventory(one + gain, "jpeg") if kind == "beside it"} == {
        "a gain map"
    }
    hostile = take_inventory(one + b"\xff\xd8\xff\xd9" * 100_000, "jpeg")  # in no time
    assert ("beside it", "64 pictures") in hostile


def beside(data, key):
    return {name for kind, name in take_inventory(data, key) if kind == "beside it"}


def test_words_in_text_are_no_gain_maps_and_no_videos():
    notes = b"notes about the ftyp box and hdrgm, plain text"
    assert beside(with_segments() + notes, "jpeg") == {"46 bytes after its end"}
    film = b"\0\0\0\x18ftypmp42" + bytes(12)
    assert beside(with_segments() + b"MotionPhoto_Data" + film, "jpeg") == {"a video"}
    gain = with_segments((0xE1, XMP_HEADER + packet("", 'hdrgm:Version="1.0"')))
    assert beside(with_segments() + b"\1" + gain + film, "jpeg") == {"a gain map", "a video"}
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[270] = "the mpvd box and the moov atom"
    Image.new("RGB", (32, 32)).save(buffer, "AVIF", exif=exif)
    assert not beside(buffer.getvalue(), "avif")
    assert beside(buffer.getvalue() + b"\0\0\0\x08mpvd", "avif") == {"a video"}


def test_extensions_in_a_comment_of_a_gif_are_text():
    comment = b"x !\xff\x0bICCRGBG1012\x05hello\0 !\xff\x0bXMP DataXMP<x/>\1\xff\xfe"
    buffer = io.BytesIO()
    Image.new("P", (8, 8)).save(buffer, "GIF", comment=comment)
    made, notes = written(buffer.getvalue(), "jpeg")
    assert read_raw(made, "jpeg").comment == comment
    assert notes == decode(buffer.getvalue(), "a.gif").notes == ()


def test_files_inside_xmp_are_announced():
    google = "http://ns.google.com/photos/1.0"
    names = "".join(f'xmlns:{one}="{google}/{one}/" ' for one in ("audio", "depthmap", "image"))
    data = packet("<image:Data>AAAA</image:Data>", f'{names} audio:Data="A" depthmap:Data="A"')
    _, notes = written(with_segments((0xE1, XMP_HEADER + data)), "jpeg", level="all")
    assert notes == ("left out: a depth map in XMP, a picture in XMP, sound in XMP",)
    small = packet("", f'{names} depthmap:Mime="image/png"')
    assert written(with_segments((0xE1, XMP_HEADER + small)), "jpeg")[1] == ()


def test_a_profile_that_the_decoder_dropped_is_announced():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    half = len(profile) // 2
    pieces = [b"ICC_PROFILE\0\1\2" + profile[:half], b"ICC_PROFILE\0\2\2" + profile[half:]]
    broken = "its colour profile is broken and was left out"
    for missing in (0, 1):
        data = with_segments(*[(0xE2, one) for n, one in enumerate(pieces) if n != missing])
        assert broken in decode(data, "in").notes
    assert broken not in decode(with_segments(*[(0xE2, one) for one in pieces]), "in").notes
    for body in (zlib.compress(b"garbage" * 50), zlib.compress(profile)[:100]):
        assert broken in decode(png_with((b"iCCP", b"x\0\0" + body)), "in").notes
    whole = png_with((b"iCCP", b"x\0\0" + zlib.compress(profile)))
    assert broken not in decode(whole, "in").notes


def test_a_png_without_its_end_is_called_damaged():
    data = png_with()
    assert decode(data, "in").notes == ()
    assert any("its end is missing" in note for note in decode(data[:-12], "in").notes)


def test_what_a_tiff_has_below_its_picture_is_announced():
    layers = (7, b"Adobe Photoshop Document Data Block\0LAYERS")
    data = tiff([grey(8, 6, t37724=layers)], pixels=bytes(48))
    assert decode(data, "in").notes == ("left out: the layers of Photoshop",)
    for key in FORMATS:
        assert b"LAYERS" not in written(data, key)[0]
    inside = {256: short(4), 257: short(3)}
    data = tiff([grey(8, 6, t330=[inside])], pixels=bytes(48))
    assert decode(data, "in").notes == ("left out: 1 picture in its subdirectories",)


# IPTC ------------------------------------------------------------------------------------------


def photoshop(*others):
    return PHOTOSHOP + join_photoshop(RECORDS, others)


def swapped(records):
    """Long integers as libtiff writes them for the other byte order."""
    records += bytes(-len(records) % 4)
    return np.frombuffer(records, "<u4").astype(">u4").tobytes()


@pytest.mark.parametrize("signature", [b"MeSa", b"AgHg", b"PHUT", b"DCSR"])
def test_iptc_behind_a_resource_of_another_program(signature):
    other = Resource(7000, b"abcd", signature)
    data = with_segments(
        (0xED, PHOTOSHOP + join_photoshop(None, [other]) + photoshop()[len(PHOTOSHOP) :])
    )
    made, notes = written(data, "jpeg")
    parts = read_raw(made, "jpeg")
    assert (parts.iptc, parts.photoshop, notes) == (RECORDS, (other,), ())


@pytest.mark.parametrize("key", FORMATS)
@pytest.mark.parametrize("source", ["jpeg", "tiff", "tiff, swapped", "tiff of Photoshop", "png"])
def test_iptc_between_all(key, source):
    path = Resource(2000, b"a clipping path")
    data = {
        "jpeg": with_segments((0xED, photoshop(path, Resource(0x040C, b"preview")))),
        "tiff": tiff([grey(8, 6, t33723=(7, RECORDS))], pixels=bytes(48)),
        "tiff, swapped": tiff(
            [grey(8, 6, ">", t33723=(4, swapped(RECORDS)))], order=">", pixels=bytes(48)
        ),
        "tiff of Photoshop": tiff(
            [grey(8, 6, t34377=(1, join_photoshop(RECORDS, [path])))], pixels=bytes(48)
        ),
        "png": png_with(
            (
                b"tEXt",
                b"Raw profile type iptc\0\niptc\n  1\n"
                + join_photoshop(RECORDS, []).hex().encode(),
            )
        ),
    }[source]
    made, notes = written(data, key)
    parts = read_raw(made, key)
    if key in ("jpeg", "tiff"):
        assert notes == ()
        assert parts.iptc.rstrip(b"\0") == RECORDS
        assert list(parts.photoshop) == ([path] if source in ("jpeg", "tiff of Photoshop") else [])
    else:
        assert "IPTC 2:025 (8 bytes), 2:120" in notes[0]
    if key == "tiff":
        tag = tiff_directories(made)[0]
        assert tag.value(33723).startswith(b"\x1c\x02")


def test_iptc_of_two_resources_is_joined():
    title = b"\x1c\x02\x05\0\5title"
    second = join_photoshop(RECORDS[:7] + title, [])
    for body in (photoshop() + second, photoshop() + photoshop()[len(PHOTOSHOP) :] + second):
        made, notes = written(with_segments((0xED, body)), "jpeg")
        assert (read_raw(made, "jpeg").iptc, notes) == (RECORDS + title, ())


def test_other_iptc_in_a_tiffs_resources_stays_there():
    """The tag has precedence."""
    other = RECORDS[:7] + b"\x1c\x02\x05\0\5title"
    for records in (other, RECORDS):
        both = grey(8, 6, t33723=(7, RECORDS + b"\0"), t34377=(1, join_photoshop(records, [])))
        made, notes = written(tiff([both], pixels=bytes(48)), "tiff")
        parts = read_raw(made, "tiff")
        assert (parts.iptc.rstrip(b"\0"), notes) == (RECORDS.rstrip(b"\0"), ())
        assert [one.content for one in parts.photoshop] == [other] * (records == other)


# XMP -------------------------------------------------------------------------------------------

SPELLINGS = {
    "attribute": packet("", 'tiff:Orientation="6"'),
    "single quotes": packet("", "tiff:Orientation = '6'"),
    "element": packet("<tiff:Orientation>6</tiff:Orientation>"),
    "other prefix": packet("", 'tiff:Orientation="6"')
    .replace(b"tiff:", b"t:")
    .replace(b"xmlns:tiff", b"xmlns:t"),
    "utf-16": packet("<tiff:Orientation>6</tiff:Orientation>").decode().encode("utf-16"),
    "utf-16 without a mark": packet("", 'tiff:Orientation="6"').decode().encode("utf-16-le"),
}


@pytest.mark.parametrize("key", FORMATS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_xmp_of_every_spelling(key, spelling):
    turned = (0xE1, b"Exif\0\0" + block())
    data = with_segments(turned, (0xE1, XMP_HEADER + SPELLINGS[spelling]))
    made, _ = written(data, key)
    text = Packet.parse(read_raw(made, key).xmp).text()
    assert "6" not in text.replace("1999/02/22", "")
    assert ("XMP", "Orientation") in take_inventory(made, key)


@pytest.mark.parametrize("key", FORMATS)
def test_extended_xmp(key):
    more = packet("<dc:description>" + "x" * 80_000 + "</dc:description>")
    digest = b"0" * 32
    main = packet(
        "<dc:title>t</dc:title>",
        f'xmlns:n="http://ns.adobe.com/xmp/note/" n:HasExtendedXMP="{digest.decode()}"',
    )
    pieces = [
        (0xE1, XMP_EXTENSION + digest + struct.pack(">II", len(more), n) + more[n : n + 60_000])
        for n in range(0, len(more), 60_000)
    ]
    data = with_segments((0xE1, XMP_HEADER + main), *pieces[::-1])
    made, notes = written(data, key, facts=(("model", "gfn"),))
    assert notes == ()
    assert {("XMP", "title"), ("XMP", "description")} <= take_inventory(made, key)
    again, notes = written(made, "jpeg", facts=(("model", "gfn"),))
    assert notes == ()
    assert ("XMP", "description") in take_inventory(again, "jpeg")


def test_extended_xmp_of_another_packet_is_not_mixed():
    def piece(digest, start, body):
        return 0xE1, XMP_EXTENSION + digest * 32 + struct.pack(">II", len(more), start) + body

    more = packet("<dc:description>" + "x" * 200 + "</dc:description>")
    note = 'xmlns:n="http://ns.adobe.com/xmp/note/" n:HasExtendedXMP='
    main = (0xE1, XMP_HEADER + packet("<dc:title>t</dc:title>", f'{note}"{"A" * 32}"'))
    stale = piece(b"B", 0, packet("<dc:rights>r</dc:rights>"))
    made, notes = written(with_segments(main, stale, piece(b"A", 0, more)), "jpeg")
    names = {name for kind, name in take_inventory(made, "jpeg") if kind == "XMP"}
    assert (names, notes) == ({"title", "description"}, ())
    for broken in ([], [piece(b"A", 300, more[300:])]):
        made, notes = written(with_segments(main, stale, *broken), "jpeg")
        assert ("XMP", "title") in take_inventory(made, "jpeg")
        assert notes == ("left out: XMP (extended, broken)",)


def test_what_is_promised_and_not_there_is_stripped():
    xmp = packet(
        "<dc:title>t</dc:title>",
        'hdrgm:Version="1.0" GCamera:MotionPhoto="1" GCamera:MotionPhotoVersion="1"',
    )
    video = struct.pack(">I", 24) + b"ftypmp42" + bytes(12) + bytes(100)
    data = with_segments((0xE1, XMP_HEADER + xmp)) + video
    made, notes = written(data, "jpeg")
    assert notes == ("left out: a video",)
    assert b"hdrgm" not in made
    assert b"MotionPhoto" not in made
    data = with_segments((0xE2, b"urn:iso:std:iso:ts:21496:-1\0" + bytes(4)))
    assert written(data, "jpeg")[1] == ("left out: a gain map",)
    assert written(data, "jpeg", level="none")[1] == ("left out: a gain map",)


def test_segments_that_are_not_known_are_announced():
    data = with_segments((0xEB, b"JP\0\1jumb"), (0xE5, b"SAMSUNG\0"))
    assert written(data, "jpeg")[1] == ("left out: segments APP11 JP, APP5 SAMSUNG",)


# Resolution and places -------------------------------------------------------------------------


@pytest.mark.parametrize("key", FORMATS)
def test_shape_of_pixels_without_a_unit(key):
    data = jpeg(values(3, height=16, width=24))
    jfif = data[:13] + struct.pack(">BHH", 0, 2, 1) + data[18:]
    phys = png_with((b"pHYs", struct.pack(">IIB", 2, 1, 0)))
    ratio = {282: (5, struct.pack("<2I", 2, 1)), 283: (5, struct.pack("<2I", 1, 1)), 296: short(1)}
    tagged = tiff([grey(8, 6) | ratio], pixels=bytes(48))
    for source in (jfif, phys, tagged):
        made, notes = written(source, key)
        if key in ("webp", "avif"):
            assert notes == ("left out: shape of pixels 2:1",)
        else:
            assert notes == ()
            assert read_raw(made, key).aspect == (2, 1)


@pytest.mark.parametrize(("kind", "code"), [(3, "H"), (10, "ii"), (11, "f"), (12, "d")])
def test_shape_of_pixels_as_numbers_of_every_type(kind, code):
    two, one = ((kind, struct.pack(f"<{code}", *(n, 1)[: len(code)])) for n in (2, 1))
    data = tiff([grey(8, 6, t282=two, t283=one, t296=short(1))], pixels=bytes(48))
    assert read_raw(data, "tiff").aspect == (2, 1)


@pytest.mark.parametrize("key", FORMATS)
def test_resolution_without_a_unit_is_none(key):
    density = {282: (5, struct.pack("<2I", 300, 1)), 283: (5, struct.pack("<2I", 300, 1))}
    data = tiff([grey(8, 6) | density | {296: short(1)}], pixels=bytes(48))
    assert decode(data, "a.tif").metadata.dpi is None
    assert written(data, key)[1] == ()


@pytest.mark.parametrize("key", FORMATS)
def test_resolutions_that_cannot_be_real_are_announced(key, capfd):
    data = png_with((b"pHYs", struct.pack(">IIB", 2**32 - 1, 2**32 - 1, 1)))
    assert written(data, key)[1] == ("left out: resolution",)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("key", ["png", "jpeg", "tiff"])
@pytest.mark.parametrize(("unit", "x", "y"), [(0, 2, 1), (1, 200, 100), (1, 100, 72)])
def test_shape_of_pixels_is_turned_with_the_picture(key, unit, x, y):
    exif = block(t282=(5, struct.pack("<2I", x, 1)), t283=(5, struct.pack("<2I", y, 1)))
    data = with_segments((0xE1, b"Exif\0\0" + exif))
    place = data.index(b"JFIF\0") + 7
    data = data[:place] + struct.pack(">BHH", unit, x, y) + data[place + 5 :]
    made, notes = written(data, key)
    metadata = decode(made, "out").metadata
    assert (metadata.dpi if unit else metadata.aspect) == pytest.approx((y, x), abs=0.1)
    assert notes == (("left out: EXIF MakerNote",) if key == "tiff" else ())
    if key != "tiff":
        first = first_directory(metadata.exif)
        assert (first.number(282), first.number(283)) == (y, x)


def geo(raster=1, **others):
    keys = short(1, 1, 1, 2, 1024, 0, 1, 1, 1025, 0, 1, raster)
    doubles = {33550: (0.5, 0.5, 0.0), 33922: (2.0, 4.0, 0.0, 500_000.0, 5_300_000.0, 0.0)}
    packed = {tag: (12, struct.pack(f"<{len(v)}d", *v)) for tag, v in doubles.items()}
    return tiff(
        [grey(8, 6) | packed | {34735: keys, 42113: text("-9999")} | others], pixels=bytes(48)
    )


@pytest.mark.parametrize(("raster", "tie"), [(1, (8.0, 16.0)), (2, (9.5, 17.5))])
def test_places_on_a_map_are_scaled(raster, tie):
    picture = decode(geo(raster), "a.tif")
    larger = picture.with_pixels(picture.pixels.repeat(1, 1, 4, 4), None)
    made, notes = encode(larger, Encoding("tiff"), "b.tif")
    assert notes == ()
    tags = geo_tags(made)
    assert struct.unpack("<3d", tags[33550][1]) == (0.125, 0.125, 0.0)
    assert struct.unpack("<6d", tags[33922][1])[:2] == tie
    assert tags[42113] == (2, b"-9999\0")
    _, notes = encode(larger, Encoding("png"), "b.png")
    assert "GeoTIFF GDAL_NODATA, GeoKeyDirectory, ModelPixelScale, ModelTiepoint" in notes[0]


def test_places_that_are_not_scaled_are_announced():
    matrix = 12, struct.pack("<16d", *range(16))
    data = tiff([grey(8, 6) | {33920: matrix}], pixels=bytes(48))
    made, notes = written(data, "tiff")
    assert notes == ("left out: GeoTIFF IntergraphMatrix",)
    assert 33920 not in first_directory(made).tags


@pytest.mark.parametrize("key", ["tiff", "png"])
def test_maker_notes_of_a_tiff_are_announced(key):
    data = tiff([grey(8, 6) | {34665: [{37500: (7, b"offsets inside")}]}], pixels=bytes(48))
    assert written(data, key)[1] == ("left out: EXIF MakerNote",)


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        *((291, "GrayResponseCurve"), (336, "DotRange"), (532, "ReferenceBlackWhite")),
        *((281, "MaxSampleValue"), (341, "SMaxSampleValue"), (343, "ClipPath")),
    ],
)
def test_what_a_tiff_says_of_its_values_is_announced(tag, name):
    values_ = short(7) if tag == 341 else short(0, 1)
    data = tiff([grey(8, 6) | {tag: values_}], pixels=bytes(48))
    assert decode(data, "a.tif").notes == (f"left out: {name}",)


def test_the_whole_range_of_a_tiff_is_no_news_and_its_page_is_kept():
    tags = {280: short(0), 281: short(255), 297: short(3, 7)}
    made, notes = written(tiff([grey(8, 6) | tags], pixels=bytes(48)), "tiff")
    assert notes == ()
    assert first_directory(made).integers(297) == (3, 7)


def test_places_of_a_turned_picture_are_announced():
    data = geo(**{})
    turned = tiff(
        [grey(8, 6) | {274: short(6), 33550: (12, struct.pack("<3d", 1, 1, 0))}], pixels=bytes(48)
    )
    assert "GeoTIFF ModelPixelScale" in written(turned, "tiff")[1][0]
    assert written(data, "tiff")[1] == ()


def test_notes_are_one_and_short():
    before = {("EXIF", f"tag {n}") for n in range(20)} | {("comment", ""), ("beside it", "a video")}
    (note,) = loss_notes(before, set(), level="all")
    assert note.startswith("left out: EXIF tag 0, tag 1")
    assert "and 14 more" in note
    assert "a video; comment" in note
    assert loss_notes(before, before, level="all") == ()


def test_directories_of_bigtiff_are_read():
    entry = struct.pack("<HHQ8s", 271, 2, 3, b"ab\0")
    data = b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 1) + entry + bytes(8)
    assert tiff_directories(data)[0].value(271) == b"ab\0"


@pytest.mark.parametrize("late", [False, True])
def test_pictures_are_turned_by_the_exif_that_is_kept(late):
    """libvips does not look behind the pixels of a PNG; what is set to 1 must have been applied."""
    data = png_with((b"eXIf", block()), late=late)
    picture = decode(data, "a.png")
    assert picture.size == (24, 16)
    made, _ = encode(picture, Encoding("png"), "b.png")
    assert decode(made, "b.png").size == (24, 16)
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        wanted = np.asarray(ImageOps.exif_transpose(image))
    ours = picture.pixels[0].permute(1, 2, 0).numpy()
    assert np.array_equal(ours, wanted)


@pytest.mark.parametrize("suffix", ["png", "gif", "webp", "bmp", "avif", "heic"])
def test_data_after_the_end_is_announced(suffix):
    if suffix == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    buffer = io.BytesIO()
    mode = "P" if suffix == "gif" else "RGB"
    Image.fromarray(values(3, height=64, width=64)).convert(mode).save(
        buffer, "HEIF" if suffix == "heic" else suffix.upper()
    )
    whole = buffer.getvalue()
    assert not any("after its end" in note for note in written(whole, "png")[1])
    _, notes = written(whole + b"\1" * 50, "png")
    assert any("50 bytes after its end" in note for note in notes)
    if suffix in ("avif", "heic"):
        uuid, film = b"\0\0\0\x18uuid" + bytes(16), b"\0\0\0\x10ftypisom" + bytes(4)
        assert any("boxes uuid" in note for note in written(whole + uuid, "png")[1])
        assert any("a video" in note for note in written(whole + film, "png")[1])
