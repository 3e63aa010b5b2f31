"""Fidelity: what is read is what was written; what a format cannot hold is said or refused."""

from __future__ import annotations

import io
import os
import struct
import sys
import tracemalloc
from dataclasses import replace

import cv2
import numpy as np
import pytest
import pyvips
import torch
from files import SRGB, jpeg, load16, save, values, wide_profile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from restore_cli.errors import PictureError
from restore_cli.image import (
    FORMATS,
    Encoding,
    Picture,
    decode,
    encode,
    read_image,
    read_rgb8,
    read_size,
    write_image,
)
from restore_cli.image.containers import png_chunk
from restore_cli.image.content import read_stdin
from restore_cli.image.info import describe, provenance_of
from restore_cli.image.inventory import read_raw
from restore_cli.image.xmp import Packet

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
PILLOW = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP", "tiff": "TIFF", "avif": "AVIF"}


@pytest.mark.parametrize("channels", sorted(MODES))
@pytest.mark.parametrize("key", sorted(FORMATS))
def test_every_mode_in_every_format(tmp_path, channels, key):
    array, mode = values(channels), MODES[channels]
    picture = read_image(save(tmp_path / "in.png", array))
    assert picture.grey == mode.startswith("L")
    assert (picture.alpha is not None) == mode.endswith("A")
    target = tmp_path / "out"
    if picture.alpha is not None and not FORMATS[key].alpha:
        with pytest.raises(PictureError, match="cannot hold"):
            write_image(target, picture, Encoding(key))
        assert not target.exists()
        return
    notes = write_image(target, picture, Encoding(key, lossless=key in ("webp", "avif")))
    assert notes == ()
    with Image.open(target) as image:
        assert image.format == PILLOW[key]
        if key in ("png", "tiff", "jpeg"):
            assert image.mode == mode
        if key == "jpeg":
            original = array[..., 0].astype(int) if mode == "L" else array.astype(int)
            assert np.abs(np.array(image).astype(int) - original).mean() < 12
    if key != "jpeg":
        again = read_image(target)
        result = torch.cat([again.pixels, *([] if again.alpha is None else [again.alpha])], 1)
        wanted = torch.cat([picture.pixels, *([] if again.alpha is None else [picture.alpha])], 1)
        # AVIF stores grey and colour by other matrices; its lossless RGB is exact.
        assert (result - wanted).abs().max() <= (1 / 255 if key == "avif" else 1e-6)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bits_survive_exactly(tmp_path, channels, suffix):
    array = values(channels, depth=16)
    picture = read_image(save(tmp_path / f"in{suffix}", array))
    assert picture.depth == 16
    for key in ("png", "tiff"):
        target = tmp_path / f"out.{key}"
        assert write_image(target, picture, Encoding(key)) == ()
        assert np.array_equal(load16(target), array)
    write_image(tmp_path / "8.png", picture, Encoding("png", depth=8))
    assert np.array_equal(
        load16(tmp_path / "8.png"), (array.astype(float) / 257).round().astype(np.uint8)
    )


def test_grey_with_alpha_and_16_bits(tmp_path):
    rgb = read_image(save(tmp_path / "in.png", values(1, depth=16)))
    alpha = read_image(save(tmp_path / "alpha.png", values(1, depth=16)[::-1]))
    picture = replace(rgb, alpha=alpha.pixels[:, :1])
    write_image(tmp_path / "out.png", picture, Encoding("png"))
    again = read_image(tmp_path / "out.png")
    assert (again.grey, again.depth) == (True, 16)
    assert torch.equal(again.alpha, picture.alpha)


@pytest.mark.parametrize(("key", "bits"), [("jpeg", 8), ("webp", 8), ("avif", 12)])
def test_what_has_no_room_is_said(tmp_path, key, bits):
    picture = read_image(save(tmp_path / "in.png", values(3, depth=16)))
    (note,) = write_image(tmp_path / "out", picture, Encoding(key))
    assert note == f"{key} has {bits} bits per channel, not 16"
    assert read_image(tmp_path / "out").depth == (16 if bits == 12 else 8)


def test_one_bit_and_palettes(tmp_path):
    bits = values(1)[..., 0] > 127
    Image.fromarray(bits).save(tmp_path / "bits.png")
    picture = read_image(tmp_path / "bits.png")
    assert picture.grey
    assert np.array_equal(picture.pixels[0, 0].numpy(), bits.astype(np.float32))
    Image.fromarray(values(3)).quantize(8).save(tmp_path / "p.gif", transparency=0)
    assert read_image(tmp_path / "p.gif").alpha is not None
    Image.fromarray(values(3)).save(tmp_path / "b.bmp")
    picture = read_image(tmp_path / "b.bmp")
    assert picture.default_format == "png"
    assert np.array_equal((picture.pixels[0] * 255).round().permute(1, 2, 0), values(3))


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_the_size_of_a_picture_whose_name_is_not_utf8(tmp_path):
    path = tmp_path / os.fsdecode(b"q\xff[1].png")
    Image.new("RGB", (9, 7)).save(path)
    assert read_size(path) == (7, 9)


def test_heic_by_the_extra(tmp_path, monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    smooth = np.repeat(np.linspace(20, 230, 64).astype(np.uint8)[None, :, None], 3, 2)
    heif.from_pillow(Image.fromarray(np.repeat(smooth, 64, 0))).save(tmp_path / "a.heic")
    picture = read_image(tmp_path / "a.heic")
    assert picture.size == (64, 64)
    assert (picture.pixels[0, :, 5] * 255 - torch.tensor(smooth[0]).T).abs().max() < 8
    monkeypatch.setattr(Image, "ID", [kind for kind in Image.ID if kind != "HEIF"])
    assert read_size(tmp_path / "a.heic") == (64, 64)  # also if no HEIC was read before
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(PictureError, match="is HEIC") as caught:
        read_image(tmp_path / "a.heic")
    assert "heif" in caught.value.hint


def test_cmyk_without_a_profile_becomes_rgb_and_says_so(tmp_path):
    Image.new("CMYK", (20, 10), (0, 255, 255, 0)).save(tmp_path / "in.jpg", quality=95)
    picture = read_image(tmp_path / "in.jpg")
    red, green, blue = picture.pixels[0, :, 5, 5]
    assert red > 0.7
    assert max(green, blue) < 0.3
    assert "CMYK without a profile" in picture.notes[0]
    write_image(tmp_path / "out.jpg", picture, Encoding("jpeg"))
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.mode == "RGB"


def test_cmyk_with_a_profile_goes_back_to_its_inks(tmp_path):
    grey = pyvips.Image.new_from_array((values(3) // 2 + 64).astype(np.uint8))
    inks = grey.copy(interpretation="srgb").icc_transform("cmyk", input_profile="srgb")
    before = inks.numpy()
    (tmp_path / "in.tif").write_bytes(inks.tiffsave_buffer(compression="deflate"))
    picture = read_image(tmp_path / "in.tif")
    assert (picture.colours, picture.notes) == ("cmyk", ())
    assert write_image(tmp_path / "out.tif", whole(picture), Encoding("tiff")) == ()
    after = pyvips.Image.new_from_file(str(tmp_path / "out.tif"))
    assert after.interpretation == "cmyk"
    # Inks mix in more than one way; what is seen is the same.
    seen = [
        image.icc_transform("srgb", embedded=True).numpy().astype(int)
        for image in (after, pyvips.Image.new_from_file(str(tmp_path / "in.tif")))
    ]
    assert np.abs(seen[0] - seen[1]).mean() < 1.5
    assert before.shape == after.numpy().shape
    (note,) = write_image(tmp_path / "out.png", whole(picture), Encoding("png"))
    assert note == "png cannot hold CMYK; it was written as sRGB"


def test_a_picture_that_cannot_be_seen(tmp_path):
    array = values(4)
    array[..., 3] = 0
    picture = read_image(save(tmp_path / "a.png", array))
    write_image(tmp_path / "b.png", picture, Encoding("png"))
    assert np.array_equal(load16(tmp_path / "b.png"), array)


def littlecms(array: np.ndarray, profile: bytes) -> np.ndarray:
    """The same conversion by Pillow's littleCMS, with 8 bits."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    image = ImageCms.profileToProfile(
        Image.fromarray(array), source, ImageCms.createProfile("sRGB"), renderingIntent=1
    )
    assert image is not None
    return np.array(image)


def whole(picture: Picture) -> Picture:
    """With its colours outside of sRGB, as a restored one has them."""
    return picture.with_pixels(
        picture.pixels if picture.out_of_gamut is None else picture.pixels + picture.out_of_gamut,
        None,
    )


@pytest.mark.parametrize("depth", [8, 16])
def test_a_profile_is_converted_to_srgb_and_back(tmp_path, depth):
    array = (values(3, 8, 40, 40) // 2 + 64).astype(np.uint8)  # not too saturated
    path = tmp_path / "in.png"
    Image.fromarray(array).save(path, icc_profile=wide_profile())
    if depth == 16:
        write_image(path, whole(read_image(path)), Encoding("png", depth=16))
    picture = read_image(path)
    assert picture.colours == "profile"
    ours = whole(picture).pixels * 255
    theirs = littlecms(array, wide_profile())
    inside = (theirs > 0) & (theirs < 255)
    difference = np.abs(ours[0].permute(1, 2, 0).numpy() - theirs)[inside]
    assert difference.max() < 1.6  # half a step of its rounding, and the curve's steepest part
    assert difference.mean() < 0.4
    restored = whole(picture)
    for key in ("png", "tiff"):
        write_image(tmp_path / "out", restored, Encoding(key, depth=8))
        with Image.open(tmp_path / "out") as image:
            assert image.info["icc_profile"] == wide_profile()
            assert np.abs(np.array(image).astype(int) - array).max() <= 1


def test_colours_outside_of_srgb_are_kept(tmp_path):
    array = np.zeros((10, 10, 3), np.uint8)
    array[..., 1] = 255  # the greenest green of a wide profile
    Image.fromarray(array).save(tmp_path / "in.png", icc_profile=wide_profile())
    picture = read_image(tmp_path / "in.png")
    assert picture.out_of_gamut is not None
    assert picture.out_of_gamut[0, 0].max() < -0.2  # red below zero
    restored = whole(picture)
    write_image(tmp_path / "out.png", restored, Encoding("png"))
    with Image.open(tmp_path / "out.png") as image:
        assert np.abs(np.array(image).astype(int) - array).max() <= 1


@pytest.mark.parametrize("icc", ["keep", "strip"])
def test_profiles_kept_or_stripped(tmp_path, icc):
    array = values(3)
    Image.fromarray(array).save(tmp_path / "in.png", icc_profile=wide_profile())
    picture = read_image(tmp_path / "in.png", icc=icc)
    write_image(tmp_path / "out.png", picture, Encoding("png"))
    with Image.open(tmp_path / "out.png") as image:
        assert ("icc_profile" in image.info) == (icc == "keep")
        same = np.array_equal(np.array(image), array)
    assert same == (icc == "keep")


def test_a_grey_picture_with_a_profile_stays_grey(tmp_path):
    array = values(1)
    Image.fromarray(array[..., 0]).save(tmp_path / "in.png", icc_profile=wide_profile())
    picture = read_image(tmp_path / "in.png")
    write_image(tmp_path / "out.png", picture, Encoding("png"))
    with Image.open(tmp_path / "out.png") as image:
        assert image.mode == "L"
        assert np.abs(np.array(image).astype(int) - array[..., 0]).max() <= 1


@pytest.mark.parametrize("profile", [SRGB, wide_profile()], ids=["srgb", "wide"])
def test_a_grey_jpeg_with_a_profile_for_rgb(tmp_path, profile):
    Image.new("L", (12, 12), 90).save(tmp_path / "a.jpg", icc_profile=profile)
    picture = read_image(tmp_path / "a.jpg")
    assert picture.grey
    assert abs(float(picture.pixels.mean()) * 255 - 90) < 5


def test_srgb_under_another_name_is_not_converted(tmp_path):
    Image.fromarray(values(3)).save(tmp_path / "in.png", icc_profile=SRGB)
    picture = read_image(tmp_path / "in.png")
    assert picture.colours == "rgb"
    assert np.array_equal((picture.pixels[0] * 255).round().permute(1, 2, 0), values(3))


def test_a_broken_profile_is_left_out_with_a_note(tmp_path):
    Image.fromarray(values(3)).save(tmp_path / "in.jpg", icc_profile=b"no profile" * 20)
    picture = read_image(tmp_path / "in.jpg")
    write_image(tmp_path / "out.png", picture, Encoding("png"))
    with Image.open(tmp_path / "out.png") as image:
        assert "icc_profile" not in image.info
    assert picture.notes == ("its colour profile is broken and was left out",)


def test_words_that_are_not_ascii_survive(tmp_path):
    exif = Image.Exif()
    exif[0x013B] = "Artist"
    data = jpeg(values(3), exif=exif).replace(b"Artist", "Jörg".encode() + b"\0")
    (tmp_path / "a.jpg").write_bytes(data)
    for key in ("jpeg", "png", "webp", "avif"):
        write_image(tmp_path / "out", read_image(tmp_path / "a.jpg"), Encoding(key))
        assert "Jörg".encode() in (tmp_path / "out").read_bytes()


def test_who_took_a_tiff(tmp_path):
    Image.fromarray(values(3)).save(
        tmp_path / "a.tif", tiffinfo={271: "Maker", 315: "Somebody", 33432: "CC0"}
    )
    picture = read_image(tmp_path / "a.tif")
    write_image(tmp_path / "a.jpg", picture, Encoding("jpeg"))
    with Image.open(tmp_path / "a.jpg") as image:
        kept = image.getexif()
        assert (kept[271], kept[315], kept[33432]) == ("Maker", "Somebody", "CC0")
    assert write_image(tmp_path / "b.tif", picture, Encoding("tiff")) == ()
    with Image.open(tmp_path / "b.tif") as image:
        assert [image.tag_v2[tag] for tag in (271, 315, 33432)] == ["Maker", "Somebody", "CC0"]


@pytest.mark.parametrize(
    ("key", "encoding", "note"),
    [
        ("jpeg", {}, "left out: text Author"),
        ("jpeg", {"lossless": True}, "cannot be lossless"),
        ("jpeg", {"depth": 16}, "has 8 bits"),
        ("png", {"quality": 50}, "is lossless"),
    ],
)
def test_what_is_asked_for_and_cannot_be_is_said(tmp_path, key, encoding, note):
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Author", "somebody")
    save(tmp_path / "a.png", values(3), pnginfo=chunks)
    notes = write_image(tmp_path / "b", read_image(tmp_path / "a.png"), Encoding(key, **encoding))
    assert any(note in one for one in notes), notes


def test_white_is_white_in_avif(tmp_path):
    white = read_image(save(tmp_path / "a.png", np.full((8, 8, 3), 65535, np.uint16)))
    write_image(tmp_path / "a.avif", white, Encoding("avif", lossless=True))
    again = read_image(tmp_path / "a.avif")
    assert again.depth == 16
    assert again.pixels.min() == 1


def test_xmp_of_many_beginnings_is_read_once():
    """A pattern that may begin anywhere would look at it 100,000 times."""
    assert Packet.parse(b"<rdf:Description" * 100_000) is None


@pytest.mark.parametrize(
    ("options", "damage", "fault"),
    [
        ({}, lambda data: data[: len(data) // 2] + bytes(8 * len(data)), "its end is missing"),
        ({}, lambda data: data[: len(data) // 2] + data, "Corrupt JPEG data"),
        (
            {"progressive": True},
            lambda data: data[: len(data) // 2] + bytes(400) + data[len(data) // 2 + 400 :],
            "Corrupt JPEG data",
        ),
    ],
)
def test_damaged_jpegs_say_so(options, damage, fault):
    """They are decoded to the end, with wrong parts."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((320, 240)).save(buffer, "JPEG", quality=85, **options)
    assert not decode(buffer.getvalue(), "a.jpg").notes
    (note,) = decode(damage(buffer.getvalue()), "a.jpg").notes
    assert note.startswith("it is damaged, so parts of the picture can be wrong (")
    assert fault in note


@pytest.mark.parametrize(
    ("kind", "options"),
    [("WebP", {}), ("WebP", {"lossless": True}), ("GIF", {}), ("HEIF", {"quality": 50})],
)
def test_files_that_end_in_zeros_say_so(kind, options):
    """As interrupted copies do; their decoders take the zeros for a picture."""
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((320, 240)).save(buffer, kind, **options)
    whole = buffer.getvalue()
    assert not decode(whole, "a").notes
    assert not decode(whole + (b"" if kind == "HEIF" else bytes(1000)), "a").notes
    (note,) = decode(whole[: -len(whole) // 2] + bytes(len(whole) // 2), "a").notes
    assert note.endswith("parts of the picture can be wrong (its end is missing)")


def test_a_stream_is_read_in_pieces(monkeypatch):
    """One `read` of the most that is allowed would reserve gigabytes."""
    asked = []

    class Stream(io.BytesIO):
        def read(self, size=-1):
            asked.append(size)
            return super().read(size)

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(Stream(b"a" * 3_000_000)))
    assert len(read_stdin()) == 3_000_000
    assert max(asked) <= 1 << 20
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(Stream(b"a" * 3_000_000)))
    monkeypatch.setattr("restore_cli.image.content._MAX_BYTES", 2_000_000)
    with pytest.raises(PictureError, match="more than 2,000,000 bytes"):
        read_stdin()


def test_xmp_that_is_large_or_odd(tmp_path):
    facts = (("model", "m\udcff\x07"),)
    large = XMP_OTHER.replace(b"></rdf:RDF>", b"><!--" + b" " * 70_000 + b"--></rdf:RDF>")
    huge = XMP_OTHER.replace(
        b"></rdf:RDF>",
        b'><rdf:Description xmlns:a="urn:a" rdf:about=""><a:b>' + b"x" * 200_000 + b"</a:b>"
        b"</rdf:Description></rdf:RDF>",
    )
    odd = b'<?xml version="1.0" encoding="foo"?><a/>'
    for packet, replaced in ((large, False), (huge, False), (odd, True), (XMP_OTHER, False)):
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", packet.decode())
        picture = read_image(save(tmp_path / "a.png", values(3), pnginfo=chunks))
        notes = write_image(tmp_path / "b", picture, Encoding("jpeg", provenance=facts))
        assert any("XMP" in note for note in notes) == replaced
        assert provenance_of(tmp_path / "b") == {"model": "m??"}
        assert (("XMP", "b") in read_image(tmp_path / "b").metadata.inventory) == (packet == huge)
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes().replace(XMP_OTHER, odd))
    assert provenance_of(tmp_path / "c.png") == {}


XMP_OTHER = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"></rdf:RDF></x:xmpmeta>'
)


def test_provenance_comes_back_from_every_format(tmp_path):
    picture = read_image(save(tmp_path / "in.png", values(3)))
    facts = (("version", "1"), ("options", '{"a":"<\'\u00fc\'>"}'))
    for key in FORMATS:
        write_image(tmp_path / "out", picture, Encoding(key, provenance=facts))
        assert provenance_of(tmp_path / "out") == dict(facts)
        assert describe(tmp_path / "out")["size"].startswith("17x")
        again = read_image(tmp_path / "out")  # and only the last is kept
        write_image(tmp_path / "again", again, Encoding(key, provenance=(("version", "2"),)))
        assert provenance_of(tmp_path / "again") == {"version": "2"}
        write_image(tmp_path / "none", picture, Encoding(key, metadata="none", provenance=facts))
        assert provenance_of(tmp_path / "none") == {}


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_png_round_trip_of_any_size(tmp_path_factory, height, width, seed):
    folder = tmp_path_factory.mktemp("png")
    array = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    path = save(folder / "a.png", array)
    write_image(folder / "b.png", read_image(path), Encoding("png"))
    assert np.array_equal(np.array(Image.open(folder / "b.png")), array)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once_and_written_as_1(tmp_path, orientation):
    array = values(3, 8, 8, 20)
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = save(tmp_path / "in.png", array, exif=exif)
    picture = read_image(source)
    turned = orientation >= 5
    assert picture.pixels.shape[-2:] == ((20, 8) if turned else (8, 20))
    write_image(tmp_path / "out.png", picture, Encoding("png"))
    with Image.open(tmp_path / "out.png") as image:
        assert image.getexif()[0x0112] == 1
        with Image.open(source) as original:
            assert np.array_equal(np.array(image), np.array(ImageOps.exif_transpose(original)))


@pytest.mark.parametrize("key", sorted(FORMATS))
def test_profile_and_metadata_are_kept(tmp_path, key):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0x8769] = {0xA002: 17, 0x9003: "2026:01:02 03:04:05"}
    source = tmp_path / "in.jpg"
    save(source, values(3), exif=exif, icc_profile=SRGB, dpi=(300, 300), quality=90)
    picture = read_image(source)
    doubled = picture.with_pixels(
        torch.nn.functional.interpolate(picture.pixels, scale_factor=2), None
    )
    notes = write_image(tmp_path / "out", doubled, Encoding(key))
    with Image.open(tmp_path / "out") as image:
        kept = image.getexif()
        assert notes == (("left out: resolution",) if key == "webp" else ())
        assert kept[0x010F] == "Maker"
        assert kept.get_ifd(0x8769)[0x9003] == "2026:01:02 03:04:05"
        if key != "tiff":  # which says it elsewhere
            assert kept.get_ifd(0x8769)[0xA002] == 34  # the new width
        assert image.info["icc_profile"] == SRGB
        if key not in ("webp", "avif"):  # which have no place for it
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_colour_under_transparency_does_not_bleed(tmp_path):
    array = np.zeros((20, 20, 4), np.uint8)
    array[5:15, 5:15] = [200, 100, 50, 255]
    picture = read_image(save(tmp_path / "in.png", array))
    assert torch.allclose(picture.pixels[0, :, 0, 0] * 255, torch.tensor([200.0, 100, 50]))
    assert picture.alpha[0, 0, 0, 0] == 0


def test_palette_with_transparency_becomes_rgba(tmp_path):
    image = Image.fromarray(values(3)).quantize(8)
    image.save(tmp_path / "p.png", transparency=0)
    picture = read_image(tmp_path / "p.png")
    assert picture.alpha is not None
    assert not picture.grey


def animated(path, kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(path, kind, save_all=True, append_images=frames[1:])


def bomb(path):
    Image.new("1", (30_000, 10_000)).save(path)


def truncated(path):
    buffer = io.BytesIO()
    Image.fromarray(values(3, 8, 64, 64)).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])


def float_tiff(path, value=np.nan):
    done, content = cv2.imencode(".tiff", np.full((4, 4, 3), value, np.float32))
    assert done
    path.write_bytes(content.tobytes())


def animated_png(path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(path, "PNG", save_all=True, append_images=frames[1:])


def pages(path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(path, "TIFF", save_all=True, append_images=frames[1:])


def cut_jpeg(path):
    content = jpeg(values(3, 8, 64, 64))
    path.write_bytes(content[: len(content) // 2])


HOSTILE = {
    "empty": (lambda p: p.write_bytes(b""), "is empty"),
    "video": (lambda p: p.write_bytes(b"\0\0\0\x18ftypisom\0\0\2\0isomiso2"), "looks like a video"),
    "broadcast": (lambda p: p.write_bytes((b"G" + bytes(187)) * 3), "looks like a video"),
    "of a camera": (lambda p: p.write_bytes((bytes(4) + b"G" + bytes(187)) * 3), "like a video"),
    "Ogg": (lambda p: p.write_bytes(b"OggS\0\2" + bytes(200)), "looks like a video"),
    "text": (lambda p: p.write_text("hello"), "not a picture"),
    "svg": (lambda p: p.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"), "not a picture"),
    "truncated": (truncated, "cannot read"),
    "truncated jpeg": (cut_jpeg, "cannot read"),
    "head only": (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n"), "cannot read"),
    "folder": (lambda p: p.mkdir(), "is a folder"),
    "missing": (lambda p: None, "cannot read"),
    "loop": (lambda p: p.symlink_to(p), "cannot read"),
    "device": (lambda p: p.symlink_to("/dev/zero"), "is a device"),
    "animated png": (animated_png, "several pictures .png, 2 frames"),
    "animated webp": (lambda p: animated(p, "WEBP"), "several pictures"),
    "animated gif": (lambda p: animated(p, "GIF"), "several pictures"),
    "pages": (pages, "several pictures"),
    "float": (float_tiff, "values of type float"),
    "bomb": (bomb, "the limit is 268"),
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_files_are_one_line(tmp_path, name):
    make, message = HOSTILE[name]
    path = tmp_path / "a.png"
    make(path)
    with pytest.raises(PictureError, match=message) as caught:
        read_image(path)
    assert "a.png" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@given(
    st.binary(max_size=300),
    st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "AVIF"]),
    st.data(),
)
@settings(max_examples=300, deadline=None)
def test_broken_bytes_never_crash_the_reader(tmp_path_factory, noise, format_name, data):
    buffer = io.BytesIO()
    Image.fromarray(values(3, 8, 16, 16)).save(buffer, format_name)
    content = bytearray(buffer.getvalue())
    for byte in noise[:20]:
        content[data.draw(st.integers(0, len(content) - 1))] = byte
    path = tmp_path_factory.mktemp("fuzz") / "a.png"
    path.write_bytes(content)
    try:
        picture = read_image(path, max_pixels=10**6)
        write_image(path.with_suffix(".out"), picture, Encoding("png"))
    except PictureError:
        return
    assert picture.pixels.isfinite().all()


@pytest.mark.parametrize("key", ["png", "jpeg", "tiff"])
def test_an_encoded_file_is_in_memory_only_once(key):
    noise = torch.randint(0, 256, (1500, 2000, 3), dtype=torch.uint8)  # files cannot be smaller
    pixels = noise.permute(2, 0, 1)[None]  # the layout of restored pixels
    picture = Picture(pixels, None, grey=False, format="png")
    encoding = Encoding(key, quality=100, provenance=(("model", "gfn"),))
    encode(picture, encoding, "noise")
    tracemalloc.start()
    data, _ = encode(picture, encoding, "noise")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.3 * len(data)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    picture = read_image(save(tmp_path / "in.png", values(3)))
    target = tmp_path / "out.png"
    target.write_bytes(b"old")

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(PictureError, match="No space left"):
        write_image(target, picture, Encoding("png"))
    assert target.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.png", "out.png"]


def test_read_rgb8(tmp_path):
    array = values(3)
    photo = read_rgb8(save(tmp_path / "a.png", array))
    assert np.array_equal(photo.permute(1, 2, 0).numpy(), array)


def test_broken_exif_does_no_harm(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = save(tmp_path / "a.jpg", values(3), exif=exif).read_bytes()
    # Orientation, a SHORT, becomes an ASCII string.
    broken = content.replace(b"\x01\x12\x00\x03", b"\x01\x12\x00\x02", 1)
    assert broken != content
    (tmp_path / "a.jpg").write_bytes(broken)
    picture = read_image(tmp_path / "a.jpg")
    for key in FORMATS:
        write_image(tmp_path / "b", picture, Encoding(key))
        assert read_image(tmp_path / "b").size == picture.size


def test_a_phones_jpeg_with_further_pictures_is_its_first(tmp_path):
    first, second = (Image.fromarray(values(3) // n) for n in (1, 2))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    picture = read_image(tmp_path / "a.jpg")
    assert picture.format == "jpeg"
    assert picture.notes == ("only the main picture in the file was used",)


def test_kinds_of_jpeg_that_are_not_supported_have_a_remedy():
    data = bytearray(jpeg(values(3)))
    data[data.index(b"\xff\xc0") + 4] = 12  # bits per channel
    with pytest.raises(PictureError, match="precision 12") as caught:
        decode(bytes(data), "a.jpg")
    assert "save it there as PNG" in caught.value.hint


XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:tiff="http://ns.adobe.com/tiff/1.0/">
<rdf:Description rdf:about="" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>"""


@pytest.mark.parametrize("key", sorted(FORMATS))
def test_xmp_is_kept_and_does_not_turn_the_picture_again(tmp_path, key):
    source, exif = tmp_path / "a.jpg", Image.Exif()
    exif[0x0112] = 6
    save(source, values(3), xmp=XMP, comment="hello", exif=exif)
    write_image(tmp_path / "out", read_image(source), Encoding(key))
    with Image.open(tmp_path / "out") as image:
        image.load()
        kept = image.info["xmp"]
        assert b'tiff:Orientation="1"' in (kept.encode() if isinstance(kept, str) else kept)
        assert key != "jpeg" or image.info["comment"] == b"hello"


def test_xmp_of_a_gif_is_kept(tmp_path):
    source = save(tmp_path / "a.gif", values(1)[..., 0], comment="hello")
    data = source.read_bytes()
    trailer = bytes([1, *range(255, -1, -1), 0])
    at = data.index(b"!\xfe")  # the comment, before the pixels
    source.write_bytes(data[:at] + b"!\xff\x0bXMP DataXMP" + XMP + trailer + data[at:])
    made, _ = encode(read_image(source), Encoding("png"), "a")
    kept = read_raw(made, "png").xmp
    assert kept is not None
    assert b'tiff:Orientation="6"' in kept  # it was not applied, as browsers do not


def test_the_embedded_preview_goes_unless_all_is_kept(tmp_path):
    content, preview = with_preview()
    (tmp_path / "a.jpg").write_bytes(content)
    picture = read_image(tmp_path / "a.jpg")
    for level, there in (("standard", False), ("all", True), ("none", False)):
        data, _ = encode(picture, Encoding("jpeg", metadata=level), "a")
        assert (preview in data) == there
        with Image.open(io.BytesIO(data)) as image:
            assert image.getexif().get(0x010F) == (None if level == "none" else "Cam")


def with_preview() -> tuple[bytes, bytes]:
    """A JPEG whose EXIF has a second directory with a small picture in it."""
    preview = jpeg(np.full((40, 60, 3), 200, np.uint8))
    first = struct.pack("<H", 1) + struct.pack("<HHI4sI", 0x10F, 2, 4, b"Cam", 26)
    second = struct.pack("<H", 3) + struct.pack("<HHII", 0x103, 3, 1, 6)
    second += struct.pack("<HHII", 0x201, 4, 1, 26 + 2 + 36 + 4)
    second += struct.pack("<HHIII", 0x202, 4, 1, len(preview), 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + first + second + preview
    return jpeg(values(3), exif=exif), preview


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_files(tmp_path):
    path = save(tmp_path / "a.png", values(3))
    path.chmod(0)
    with pytest.raises(PictureError, match="Permission denied"):
        read_image(path)


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1)])
def test_odd_sizes(tmp_path, size):
    picture = read_image(save(tmp_path / "a.png", values(3, 8, *size)))
    assert picture.size == size


def test_text_of_a_png_is_kept(tmp_path):
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Author", "Grüße")
    save(tmp_path / "a.png", values(3), pnginfo=chunks)
    write_image(tmp_path / "b.png", read_image(tmp_path / "a.png"), Encoding("png"))
    with Image.open(tmp_path / "b.png") as image:
        assert image.text == {"Author": "Grüße"}


def test_text_under_a_name_that_is_not_utf8_does_not_end_the_reading(tmp_path):
    """Found by tools/fuzz.py: pyvips cannot list such a field."""
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8), (10, 20, 30)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[:33] + png_chunk(b"tEXt", b"Com\x80ment\0hello") + data[33:])
    assert describe(path)
    assert read_image(path).pixels.shape == (1, 3, 8, 8)


def test_a_large_jpeg_is_coded_in_one_pass_with_the_same_pixels(tmp_path, monkeypatch):
    picture = read_image(save(tmp_path / "a.png", values(3, height=64, width=64)))
    optimal, _ = encode(picture, Encoding("jpeg"), "a")
    monkeypatch.setattr("restore_cli.image.kinds.jpeg._OPTIMAL_JPEG", 64 * 64 - 1)
    quick, _ = encode(picture, Encoding("jpeg"), "a")
    assert len(quick) > len(optimal)
    assert torch.equal(decode(quick, "a").pixels, decode(optimal, "a").pixels)
