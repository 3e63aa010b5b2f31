"""Pictures: what is read is what was written, what cannot be kept is refused, hostile files too."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from restore_cli.errors import PictureError
from restore_cli.image import FORMATS, HOLDS_ALPHA, read_image, read_rgb8, write_image

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def values(mode: str, height: int = 12, width: int = 17) -> np.ndarray:
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
    array = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    if mode in ("LA", "RGBA"):
        array[..., -1] |= 1  # colour under alpha 0 is replaced, see below
    return array


def save(path, array, **options):
    Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("key", sorted(FORMATS))
def test_lossless_formats_keep_every_value_and_the_mode(tmp_path, mode, key):
    array = values(mode)
    picture = read_image(save(tmp_path / "in.png", array))
    assert picture.grey == mode.startswith("L")
    assert (picture.alpha is not None) == mode.endswith("A")
    target = tmp_path / f"out.{key}"
    if picture.alpha is not None and key not in HOLDS_ALPHA:
        with pytest.raises(PictureError, match="cannot hold transparency"):
            write_image(target, picture, format_key=key)
        assert not target.exists()
        return
    write_image(target, picture, format_key=key)
    with Image.open(target) as image:
        assert image.format == FORMATS[key]
        wanted = "RGB" if key == "webp" and mode == "L" else mode
        wanted = "RGBA" if key == "webp" and mode == "LA" else wanted
        assert image.mode == wanted
        if key != "jpeg":
            result = np.array(image.convert(mode)).reshape(array.shape)
            assert np.array_equal(result, array)
        else:
            original = array[..., 0].astype(int) if mode == "L" else array.astype(int)
            assert np.abs(np.array(image).astype(int) - original).mean() < 12


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_png_round_trip_of_any_size(tmp_path_factory, height, width, seed):
    folder = tmp_path_factory.mktemp("png")
    array = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    path = save(folder / "a.png", array)
    write_image(folder / "b.png", read_image(path), format_key="png")
    assert np.array_equal(np.array(Image.open(folder / "b.png")), array)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once_and_written_as_1(tmp_path, orientation):
    array = values("RGB", 8, 20)
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = save(tmp_path / "in.png", array, exif=exif)
    picture = read_image(source)
    turned = orientation >= 5
    assert picture.pixels.shape[-2:] == ((20, 8) if turned else (8, 20))
    write_image(tmp_path / "out.png", picture, format_key="png")
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
    save(source, values("RGB"), exif=exif, icc_profile=PROFILE, dpi=(300, 300), quality=90)
    picture = read_image(source)
    doubled = picture.with_pixels(
        torch.nn.functional.interpolate(picture.pixels, scale_factor=2), None
    )
    write_image(tmp_path / "out", doubled, format_key=key)
    with Image.open(tmp_path / "out") as image:
        kept = image.getexif()
        assert kept[0x010F] == "Maker"
        assert kept.get_ifd(0x8769)[0x9003] == "2026:01:02 03:04:05"
        assert kept.get_ifd(0x8769)[0xA002] == 34  # the new width
        assert image.info["icc_profile"] == PROFILE
        if key != "webp":  # WebP has no place for it
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_colour_under_transparency_does_not_bleed(tmp_path):
    array = np.zeros((20, 20, 4), np.uint8)
    array[5:15, 5:15] = [200, 100, 50, 255]
    picture = read_image(save(tmp_path / "in.png", array))
    assert torch.allclose(picture.pixels[0, :, 0, 0] * 255, torch.tensor([200.0, 100, 50]))
    assert picture.alpha[0, 0, 0, 0] == 0


def test_palette_with_transparency_becomes_rgba(tmp_path):
    image = Image.fromarray(values("RGB")).quantize(8)
    image.save(tmp_path / "p.png", transparency=0)
    picture = read_image(tmp_path / "p.png")
    assert picture.alpha is not None
    assert not picture.grey


def png16(path):
    """A 16-bit RGB PNG, which Pillow would open as 8 bits without a word."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    rows = b"".join(b"\0" + bytes(4 * 6) for _ in range(4))
    head = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def animated(path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def bomb(path):
    Image.new("L", (30_000, 10_000)).save(path)


def truncated(path):
    buffer = io.BytesIO()
    Image.fromarray(values("RGB", 64, 64)).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])


HOSTILE = {
    "empty": (lambda p: p.write_bytes(b""), "not a picture"),
    "text": (lambda p: p.write_text("hello"), "not a picture"),
    "truncated": (truncated, "cannot read"),
    "folder": (lambda p: p.mkdir(), "cannot read"),
    "missing": (lambda p: None, "cannot read"),
    "sixteen bit": (png16, "16 bits"),
    "sixteen bit grey": (lambda p: Image.new("I;16", (4, 4)).save(p), "16 bits"),
    "animated": (animated, "animated"),
    "cmyk": (lambda p: Image.new("CMYK", (4, 4)).save(p, "JPEG"), "is CMYK"),
    "tiff": (lambda p: Image.new("RGB", (4, 4)).save(p, "TIFF"), "is TIFF"),
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


@given(st.binary(max_size=300), st.sampled_from(["PNG", "JPEG", "WEBP"]), st.data())
@settings(max_examples=80, deadline=None)
def test_broken_bytes_never_crash_the_reader(tmp_path_factory, noise, format_name, data):
    buffer = io.BytesIO()
    Image.fromarray(values("RGB", 16, 16)).save(buffer, format_name)
    content = bytearray(buffer.getvalue())
    for byte in noise[:20]:
        content[data.draw(st.integers(0, len(content) - 1))] = byte
    path = tmp_path_factory.mktemp("fuzz") / "a.png"
    path.write_bytes(content)
    try:
        picture = read_image(path, max_pixels=10**6)
        write_image(path.with_suffix(".out"), picture, format_key="png")
    except PictureError:
        return
    assert picture.pixels.isfinite().all()


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    picture = read_image(save(tmp_path / "in.png", values("RGB")))
    target = tmp_path / "out.png"
    target.write_bytes(b"old")

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(PictureError, match="No space left"):
        write_image(target, picture, format_key="png")
    assert target.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.png", "out.png"]


def test_read_rgb8(tmp_path):
    array = values("RGB")
    photo = read_rgb8(save(tmp_path / "a.png", array))
    assert np.array_equal(photo.permute(1, 2, 0).numpy(), array)


def test_broken_exif_is_left_out_with_a_note(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = save(tmp_path / "a.jpg", values("RGB"), exif=exif).read_bytes()
    # Orientation, a SHORT, becomes an ASCII string.
    broken = content.replace(b"\x01\x12\x00\x03", b"\x01\x12\x00\x02", 1)
    assert broken != content
    (tmp_path / "a.jpg").write_bytes(broken)
    picture = read_image(tmp_path / "a.jpg")
    write_image(tmp_path / "b.png", picture, format_key="png")
    assert picture.metadata.exif is None or not picture.notes
    assert (tmp_path / "b.png").stat().st_size > 100


def test_a_phones_jpeg_with_further_pictures_is_its_first(tmp_path):
    first, second = (Image.fromarray(values("RGB") // n) for n in (1, 2))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    picture = read_image(tmp_path / "a.jpg")
    assert picture.format == "jpeg"
    assert picture.notes == ("only the first picture in the file was taken",)


XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>"""


@pytest.mark.parametrize("key", sorted(FORMATS))
def test_xmp_is_kept_and_does_not_turn_the_picture_again(tmp_path, key):
    source = tmp_path / "a.jpg"
    save(source, values("RGB"), xmp=XMP, comment="hello")
    write_image(tmp_path / "out", read_image(source), format_key=key)
    with Image.open(tmp_path / "out") as image:
        image.load()
        kept = image.info["xmp"]
        assert b'tiff:Orientation="1"' in (kept.encode() if isinstance(kept, str) else kept)
        assert key != "jpeg" or image.info["comment"] == b"hello"


def test_text_of_a_png_is_kept(tmp_path):
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Author", "Grüße")
    save(tmp_path / "a.png", values("RGB"), pnginfo=chunks)
    write_image(tmp_path / "b.png", read_image(tmp_path / "a.png"), format_key="png")
    with Image.open(tmp_path / "b.png") as image:
        assert image.text == {"Author": "Grüße"}
