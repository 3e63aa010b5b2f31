"""Files of common kinds with rare properties or damage: read as meant, or refused in one line."""

from __future__ import annotations

import io

import numpy as np
import pytest
import pyvips
from files import jpeg, values
from PIL import Image
from tiffs import grey, long, short, tiff

from restore_cli.errors import PictureError
from restore_cli.image import decode
from restore_cli.image.containers import first_directory


def pixels_of(picture):
    return picture.pixels[0].permute(1, 2, 0).numpy()


TILED = {tag: value for tag, value in grey(16, 16).items() if tag not in (273, 278, 279)}
TILED |= {322: short(16), 323: short(16), 325: short(256)}


def test_tiles_that_are_cut_off_or_damaged_are_refused():
    """libvips fills them with black or noise, which it reports only as a warning."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    data = pyvips.Image.new_from_array(pixels).tiffsave_buffer(
        tile=True, tile_width=16, tile_height=16, compression="lzw"
    )
    assert np.array_equal(pixels_of(decode(data, "a")), pixels)
    last = max(first_directory(data).integers(324))
    damaged = data[:last] + b"\xff" * 300 + data[last + 300 :]
    for broken in (damaged, tiff([{**TILED, 324: long(10_000)}])):
        with pytest.raises(PictureError, match="cannot read 'a'") as caught:
            decode(broken, "a")
        assert "copy it again" in caught.value.hint


def test_harmless_warnings_of_tiled_tiffs_are_passed_over():
    """Text without its zero, e.g., of which libtiff warns."""
    whole = tiff([{**TILED, 324: "pixels", 270: (2, b"abcde")}], pixels=bytes(range(256)))
    picture = decode(whole, "a")
    assert picture.notes == ()
    assert np.array_equal(pixels_of(picture)[..., 0].ravel(), np.arange(256))


@pytest.mark.parametrize("number", [0, 9])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiffs_whose_orientation_is_no_orientation_are_upright(number, order):
    data = tiff(
        [grey(8, 4, order, t274=short(number, order=order))], order=order, pixels=bytes(range(32))
    )
    picture = decode(data, "a")
    assert picture.notes == ()
    assert np.array_equal(pixels_of(picture)[..., 0].ravel(), np.arange(32))


def test_alpha_that_multiplies_the_colours_of_a_tiff_is_divided_with_rounding():
    """libvips truncates, which darkens by half a step on average."""
    alpha = np.arange(1, 256, dtype=np.uint8)
    multiplied = (np.random.default_rng(0).random(255) * (alpha.astype(int) + 1)).astype(np.uint8)
    tags = grey(255, 1) | {277: short(2), 258: short(8, 8), 338: short(1), 279: short(510)}
    data = tiff([tags], pixels=np.stack([multiplied, alpha], -1).tobytes())
    picture = decode(data, "a")
    exact = (multiplied * (255 / alpha)).clip(0, 255)
    assert np.abs(pixels_of(picture)[0, :, 0] - exact).max() <= 0.501
    assert np.allclose(picture.alpha.numpy().ravel() * 255, alpha)


@pytest.mark.parametrize("progressive", [False, True])
def test_jpegs_without_their_last_marker_are_read(progressive):
    buffer = io.BytesIO()
    Image.fromarray(values(3)).save(buffer, "JPEG", progressive=progressive)
    whole = buffer.getvalue()
    for cut in (1, 2):
        picture = decode(whole[:-cut], "a")
        assert np.array_equal(pixels_of(picture), pixels_of(decode(whole, "a")))
        assert "its end is missing" in picture.notes[0]
    with pytest.raises(PictureError, match="cannot read 'a'"):
        decode(whole[: len(whole) * 3 // 4], "a")


def test_whoever_decodes_errors_are_one_line_with_a_remedy():
    pytest.importorskip("pillow_heif").register_heif_opener()
    files = {"TIFF": tiff([grey(4, 4)]), "JPEG": jpeg(values(3))}
    for kind in ("PNG", "BMP", "HEIF", "GIF", "WebP"):
        buffer = io.BytesIO()
        Image.fromarray(values(3)).resize((64, 64)).save(buffer, kind)
        files[kind] = buffer.getvalue()
    for data in files.values():
        with pytest.raises(PictureError) as caught:
            decode(data[: len(data) * 2 // 3], "a")
        assert "\n" not in str(caught.value)
        assert "copy it again" in caught.value.hint
