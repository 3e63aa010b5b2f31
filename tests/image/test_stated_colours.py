"""Profiles that do not fit their pictures, and colours that are stated without one."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from tiffs import grey, long, short, tiff

from restore_cli.image import Encoding, encode
from restore_cli.image.containers import png_chunk
from restore_cli.image.formats import FORMATS
from restore_cli.image.matrix_profile import make_profile, matrix_profile
from restore_cli.image.reading import decode
from restore_cli.rounding import to_float

D65 = (0.3127, 0.329)
BT709_PRIMARIES = (0.64, 0.33), (0.3, 0.6), (0.15, 0.06)
ADOBE_RGB = make_profile("a", (D65, (0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), (563 / 256,))

# Profiles that do not fit, and grey ---------------------------------------------------------------


LINEAR = {n: make_profile("linear", (D65, *BT709_PRIMARIES), (1.0,), grey=n == 1) for n in (1, 3)}


def seen(data):
    """The mean sRGB value that a viewer shows, by LittleCMS, 0 to 255."""
    with Image.open(io.BytesIO(data)) as image:
        profile = image.info.get("icc_profile")
        if profile is None:
            return np.asarray(image.convert("RGB")).mean()
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = "L" if image.mode in ("L", "LA") else "RGB"
        srgb = ImageCms.createProfile("sRGB")
        shown = ImageCms.profileToProfile(image.convert(mode), source, srgb, outputMode="RGB")
        return np.asarray(shown).mean()


@pytest.mark.parametrize("key", FORMATS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("icc", ["convert", "keep"])
def test_a_grey_picture_looks_the_same_in_every_format(key, channels, icc):
    buffer = io.BytesIO()
    Image.new("L", (32, 32), 55).save(buffer, "TIFF", icc_profile=LINEAR[channels])
    assert seen(encode(decode(buffer.getvalue(), "a"), Encoding("png"), "b")[0]) == pytest.approx(
        128, abs=2
    )
    made, notes = encode(decode(buffer.getvalue(), "a", icc=icc), Encoding(key), "b")
    assert seen(made) == pytest.approx(128, abs=2)
    assert notes == ()


def test_a_grey_profile_that_no_format_of_colours_can_hold_is_converted():
    profile = bytearray(LINEAR[1])
    profile[20:24] = b"Lab "  # its curve gives lightness
    buffer = io.BytesIO()
    Image.new("L", (32, 32), 128).save(buffer, "PNG", icc_profile=bytes(profile))
    made, notes = encode(decode(buffer.getvalue(), "a.png"), Encoding("webp"), "b")
    assert seen(made) == pytest.approx(119, abs=2)
    assert notes == ("webp cannot hold its profile for grey; it was written as sRGB",)
    _, notes = encode(decode(buffer.getvalue(), "a.png", icc="keep"), Encoding("webp"), "b")
    assert notes == ("webp cannot hold its profile for grey; the profile was left out",)


@pytest.mark.parametrize(
    ("mode", "space"), [("RGB", b"GRAY"), ("RGB", b"CMYK"), ("L", b"CMYK"), ("CMYK", b"RGB ")]
)
@pytest.mark.parametrize("icc", ["convert", "keep"])
def test_a_profile_for_other_channels_is_left_out_with_a_note(mode, space, icc):
    profile = bytearray(LINEAR[1 if space == b"GRAY" else 3])
    profile[16:20] = space
    buffer = io.BytesIO()
    Image.new(mode, (32, 32), 90).save(buffer, "JPEG", icc_profile=bytes(profile))
    picture = decode(buffer.getvalue(), "a.jpg", icc=icc)
    assert "its colour profile does not fit its values and was left out" in picture.notes
    assert picture.metadata.icc_profile is None


def test_a_table_for_rgb_in_a_grey_picture_is_not_dropped_silently():
    table = LINEAR[3].replace(b"cprt", b"A2B0")  # so that it is no profile of matrix and curves
    buffer = io.BytesIO()
    Image.new("L", (32, 32), 90).save(buffer, "TIFF", icc_profile=table)
    kept = decode(buffer.getvalue(), "a.tif", icc="keep")
    assert kept.metadata.icc_profile is None
    assert kept.notes == ("its colour profile does not fit its values and was left out",)


# What cameras, TIFFs and bitmaps state ------------------------------------------------------------


def with_colour_space(space, interoperability):
    entry = struct.pack("<HHI4s", 1, 2, 4, interoperability)
    interop = struct.pack("<H", 1) + entry + bytes(4)
    inner = struct.pack("<H", 2) + struct.pack("<HHII", 40961, 3, 1, space)
    inner += struct.pack("<HHII", 40965, 4, 1, 26 + 30) + bytes(4)
    first = struct.pack("<HHHII", 1, 34665, 4, 1, 26) + bytes(4)
    return b"Exif\0\0II*\0\x08\0\0\0" + first + inner + interop


def test_adobe_rgb_of_a_camera_is_converted_and_comes_back():
    colours = np.random.default_rng(0).integers(40, 200, (32, 32, 3), np.uint8)
    colours[:] = colours[:1, :1]  # flat, so that JPEG is exact
    buffer = io.BytesIO()
    exif = with_colour_space(65535, b"R03\0")
    Image.fromarray(colours).save(buffer, "JPEG", quality=100, subsampling=0, exif=exif)
    picture = decode(buffer.getvalue(), "a.jpg")
    expected = matrix_profile(ADOBE_RGB).to_srgb(colours)
    assert np.abs(picture.pixels[0].permute(1, 2, 0).numpy() - expected).max() < 3 / 255
    for level in ("standard", "none"):
        made, _ = encode(picture, Encoding("png", metadata=level), "b.png")
        with Image.open(io.BytesIO(made)) as image:
            assert np.abs(np.asarray(image).astype(int) - colours).max() <= 2
            assert "Adobe" in ImageCms.getProfileDescription(
                ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
            )
    made, _ = encode(decode(buffer.getvalue(), "a.jpg", icc="strip"), Encoding("jpeg"), "b")
    again = decode(made, "b")  # it no longer states Adobe RGB
    assert again.metadata.icc_profile is None
    assert torch.allclose(to_float(again.pixels), to_float(picture.pixels), atol=3 / 255)
    usual = with_colour_space(65535, b"R98\0")
    Image.fromarray(colours).save(buffer := io.BytesIO(), "JPEG", exif=usual)
    assert decode(buffer.getvalue(), "a.jpg").metadata.icc_profile is None


def rationals(*values):
    return 5, b"".join(struct.pack("<2I", round(value * 10_000), 10_000) for value in values)


@pytest.mark.parametrize(
    ("primaries", "state"),
    [
        ((0.64, 0.33, 0.21, 0.71, 0.15, 0.06), "converted"),
        ((0.64, 0.33, 0.3, 0.6, 0.15, 0.06), "sRGB"),
        ((0.3, 0.3, 0.3, 0.3, 0.3, 0.3), "invalid"),
        ((0.64, 0.33), "invalid"),
    ],
)
def test_chromaticities_of_a_tiff(primaries, state):
    rgb = grey(4, 4) | {258: short(8, 8, 8), 262: short(2), 277: short(3), 279: long(48)}
    tags = rgb | {318: rationals(0.3127, 0.329), 319: rationals(*primaries)}
    picture = decode(tiff([tags], pixels=bytes([90, 160, 60] * 16)), "a.tif")
    assert (picture.metadata.icc_profile is not None) == (state == "converted")
    assert bool(picture.notes) == (state == "invalid")
    if state == "converted":
        shown = picture.pixels[0, :, 0, 0] * 255
        assert shown[0] < 70  # less red in sRGB


def calibrated(gamma, ends, space=bytes(4), length=108):
    size = struct.pack("<IiiHHIIiiII", length, 4, 4, 1, 24, 0, 48, 2835, 2835, 0, 0)
    colours = struct.pack("<9i", *(round(n * 2**30) for n in ends))
    colours += struct.pack("<3I", *[round(gamma * 65536)] * 3)
    whole = (size + bytes(16) + space + colours).ljust(length, b"\0") + bytes([55]) * 48
    return b"BM" + struct.pack("<IHHI", 14 + len(whole), 0, 0, 14 + length) + whole


ENDS = (0.4124, 0.2126, 0.0193, 0.3576, 0.7152, 0.1192, 0.1805, 0.0722, 0.9505)  # of sRGB


def test_calibrated_colours_of_a_bitmap():
    linear = decode(calibrated(1.0, ENDS), "a.bmp")
    assert float(linear.pixels.mean()) * 255 == pytest.approx(128, abs=1)
    assert not linear.notes
    for usual in (calibrated(2.2, ENDS), calibrated(0, [0] * 9), calibrated(1.0, ENDS, b"BGRs")):
        picture = decode(usual, "a.bmp")
        assert (picture.metadata.icc_profile, picture.notes) == (None, ())
    for invalid in (calibrated(0, ENDS), calibrated(1.0, [0] * 9), calibrated(1.0, [0.5] * 9)):
        assert "calibrated colours are invalid" in decode(invalid, "a.bmp").notes[0]
    linked = decode(calibrated(1.0, [0] * 9, b"KNIL", 124), "a.bmp")
    assert "another file" in linked.notes[0]


@pytest.mark.parametrize("full", [0, 1])
def test_narrow_range_in_a_png_is_announced(full):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6)).save(buffer, "PNG")
    data = buffer.getvalue()
    data = data[:33] + png_chunk(b"cICP", bytes([1, 13, 0, full])) + data[33:]
    assert ("narrow range" in "".join(decode(data, "a").notes)) == (not full)
