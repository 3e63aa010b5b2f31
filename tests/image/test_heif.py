"""HEIC and AVIF: transparency, shape of pixels and high dynamic range as their boxes state them."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from restore_cli.image import PHOTO_SUFFIXES, read_image
from restore_cli.image import heif as boxes_of_heif
from restore_cli.image.containers import Heif, png_chunks
from restore_cli.image.formats import HEAD, recognise
from restore_cli.image.writing import Encoding, encode

heif = pytest.importorskip("pillow_heif")


def see_through(height=32, width=48):
    """RGBA, of which alpha grows to the right; colours are not multiplied by it."""
    rows, columns = np.mgrid[:height, :width]
    values = np.stack([5 * columns, 200 - 4 * rows, 0 * rows + 119, 60 + 4 * columns], -1)
    return values.clip(0, 255).astype(np.uint8)


def multiplied(values):
    alpha = values[..., 3:].astype(float) / np.iinfo(values.dtype).max
    return np.concatenate(
        [(values[..., :3] * alpha + 0.5).astype(values.dtype), values[..., 3:]], -1
    )


def as_heic(values, mode):
    made = heif.HeifFile()
    made.add_frombytes(mode, (values.shape[1], values.shape[0]), values.tobytes())
    buffer = io.BytesIO()
    made.save(buffer, quality=-1, chroma=444, matrix_coefficients=0)
    return buffer.getvalue()


def as_avif(values, **options):
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "AVIF", quality=100, subsampling="4:4:4", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["heic", "avif"])
def test_colours_that_are_multiplied_by_alpha(tmp_path, kind):
    values = see_through()
    if kind == "heic":
        data = as_heic(multiplied(values), "RGBa")
    else:
        data = as_avif(values, alpha_premultiplied=True)
    (tmp_path / "a").write_bytes(data)
    picture = read_image(tmp_path / "a")
    found = (picture.pixels[0].permute(1, 2, 0).numpy() * 255).round()
    assert np.abs(picture.alpha[0, 0].numpy() * 255 - values[..., 3]).max() <= 1
    assert np.abs(found - values[..., :3]).max() <= 8  # two roundings, divided by alpha


def test_deep_colours_that_are_multiplied_by_alpha(tmp_path):
    values = see_through().astype(np.uint16) * 257
    (tmp_path / "a.heic").write_bytes(as_heic(multiplied(values), "RGBa;16"))
    picture = read_image(tmp_path / "a.heic")
    assert picture.depth == 16
    found = picture.pixels[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(found - see_through()[..., :3]).max() <= 4


def test_mastering_data_become_those_of_a_png():
    numbers = (*(13_250, 34_500), *(7_500, 3_000), *(34_000, 16_000), *(15_635, 16_450))
    mastering = struct.pack(">8H2I", *numbers, 10_000_000, 50)
    boxes = [(b"mdcv", mastering), (b"clli", struct.pack(">HH", 1000, 400))]
    chunks = dict(boxes_of_heif._brightness(Heif(primary=1, properties={1: boxes})))
    assert struct.unpack(">2H", chunks[b"mDCV"][:4]) == (34_000, 16_000)  # red first
    assert struct.unpack(">2H", chunks[b"mDCV"][4:8]) == (13_250, 34_500)
    assert chunks[b"mDCV"][12:] == mastering[12:]
    assert struct.unpack(">II", chunks[b"cLLI"]) == (10_000_000, 4_000_000)
    assert boxes_of_heif._brightness(Heif(primary=1, properties={1: [(b"clli", b"")]})) == ()


@pytest.mark.parametrize(("quarters", "expected"), [(0, (1, 2)), (1, (2, 1))])
def test_pixels_that_are_not_square(tmp_path, monkeypatch, quarters, expected):
    """Twice as wide as high, before the picture is turned."""
    boxes = [(b"pasp", struct.pack(">II", 2, 1)), (b"irot", bytes([quarters]))]
    stated = Heif(primary=1, properties={1: boxes})
    monkeypatch.setattr(boxes_of_heif, "read_heif", lambda _: stated)
    (tmp_path / "a.avif").write_bytes(as_avif(see_through()[..., :3].copy()))
    picture = read_image(tmp_path / "a.avif")
    assert picture.metadata.aspect == expected
    assert ("shape of pixels", "2:1") in picture.metadata.inventory
    made, _ = encode(picture, Encoding("png"), "a.png")
    assert struct.unpack(">II", dict(png_chunks(made))[b"pHYs"][:8]) == expected


def test_every_brand_counts_and_every_suffix_of_cameras():
    brands = b"mif1" + bytes(4) + b"mif1miafMA1Bxxxxyyyyzzzzavif"
    head = struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands
    assert recognise(head + b"avifheic") == "avif"
    short = struct.pack(">I", 20) + b"ftypmif1" + bytes(4) + b"heic"
    assert recognise(short + b"avif") == "heic"  # what follows is another box
    assert len(head) < HEAD
    assert ".hif" in PHOTO_SUFFIXES


def test_an_animated_avif_is_announced_as_several_pictures(tmp_path):
    frames = [Image.new("RGB", (16, 16), (n, 0, 0)) for n in (0, 99)]
    frames[0].save(tmp_path / "a.avif", save_all=True, append_images=frames[1:])
    picture = read_image(tmp_path / "a.avif")
    assert "only the main picture in the file was used" in picture.notes
    assert not any(name == "a video" for _, name in picture.metadata.inventory)
