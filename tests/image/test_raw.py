"""What is not a picture is called by its name: raw files, reduced copies, words in comments."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tiffs import grey, long, short, text, tiff

from restore_cli.errors import PictureError
from restore_cli.image.info import describe
from restore_cli.image.raw import camera_of_raw
from restore_cli.image.reading import decode

PIXELS = bytes(range(48))


def mosaic(order="<", **others):
    return grey(16, 12, order, **others) | {262: short(32803, order=order)}


RAW = {
    "nef": tiff([grey(8, 6, t254=long(1), t271=text("NIKON"), t330=[mosaic()])], pixels=PIXELS),
    "nef, other order": tiff(
        [grey(8, 6, ">", t254=long(1, order=">"), t271=text("NIKON"), t330=[mosaic(">")])],
        order=">",
        pixels=PIXELS,
    ),
    "dng of lines": tiff([grey(8, 6, t50706=(1, b"\1\4\0\0"), t262=short(34892))], pixels=PIXELS),
    "second in the chain": tiff([grey(8, 6), mosaic()], pixels=PIXELS),
    "pattern": tiff([grey(8, 6, t330=[grey(16, 12, t33422=(1, b"\0\1\1\2"))])], pixels=PIXELS),
    "cr2": b"II*\0\x10\0\0\0CR\x02\0" + bytes(100),
    "cr3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
    "raf": b"FUJIFILMCCD-RAW 0201" + bytes(100),
    "orf": b"IIRO\x08\0\0\0" + bytes(100),
    "rw2": b"IIU\0\x08\0\0\0" + bytes(100),
}


@pytest.mark.parametrize("data", RAW.values(), ids=RAW)
def test_raw_files_are_refused_by_name(data, tmp_path):
    with pytest.raises(PictureError, match="raw file of") as caught:
        decode(data, "shot.nef")
    assert "develop" in caught.value.hint
    (tmp_path / "shot.tif").write_bytes(data)
    with pytest.raises(PictureError, match="raw file of"):
        describe(tmp_path / "shot.tif")


def test_who_made_it():
    assert camera_of_raw(RAW["nef"]) == "NIKON"
    assert camera_of_raw(RAW["cr2"]) == "Canon"
    assert camera_of_raw(RAW["pattern"]) == "a camera"


@pytest.mark.parametrize("suffix", [".IIQ", ".nef", ".mos"])
def test_a_preview_alone_in_a_raw_file_is_refused(suffix):
    plain = tiff([grey(8, 6)], pixels=PIXELS)
    with pytest.raises(PictureError, match="raw file of a camera"):
        decode(plain, f"shot{suffix}")
    assert decode(plain, "shot.tif").size == (6, 8)


def test_pixels_are_no_sign_of_a_raw_file():
    assert camera_of_raw(b"II*\0\x40\0\0\0CR\x02\0" + bytes(100)) is None


def test_reduced_copies_are_not_the_picture():
    data = tiff([grey(8, 6, t254=long(1), t330=[grey(16, 12)])], pixels=PIXELS)
    with pytest.raises(PictureError, match=r"reduced copy; the full picture \(16x12\)"):
        decode(data, "a.tif")
    # The other way round it is a picture with a smaller copy.
    data = tiff([grey(8, 6, t330=[grey(4, 3, t254=long(1))])], pixels=PIXELS)
    assert decode(data, "a.tif").size == (6, 8)


@pytest.mark.parametrize("when", ["before", "after"])
def test_words_in_comments_are_no_chunks(when):
    info = PngInfo()
    info.add_text("Comment", "the acTL chunk of APNG, and fcTL", zip=False)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6)).save(buffer, "PNG", pnginfo=info)
    data = buffer.getvalue()
    if when == "after":
        chunk = data[data.index(b"tEXt") - 4 :][: len("Comment") + 45]
        data = data.replace(chunk, b"")[:-12] + chunk + data[-12:]
    assert decode(data, "a.png").size == (6, 8)


def test_animations_are_still_refused():
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (8, 6), (n, 0, 0)) for n in range(3)]
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    with pytest.raises(PictureError, match="several pictures"):
        decode(buffer.getvalue(), "a.png")


def test_words_in_comments_are_no_further_pictures():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6)).save(buffer, "JPEG", comment=b"MPF\0 is a format")
    assert decode(buffer.getvalue(), "a.jpg").notes == ()


def test_reduced_copies_after_a_picture_are_left_out():
    """As the overviews of a GeoTIFF; other pages are pictures."""
    overviews = [grey(4, 3, t254=long(1)), grey(2, 1, t254=long(1))]
    picture = decode(tiff([grey(8, 6), *overviews], pixels=PIXELS), "a.tif")
    assert picture.size == (6, 8)
    assert picture.notes == ("left out: 2 reduced copies of it",)
    with pytest.raises(PictureError, match="2 frames or pages"):
        decode(tiff([grey(8, 6), overviews[0], grey(8, 6)], pixels=PIXELS), "a.tif")


@pytest.mark.parametrize("declared", [0, 2])
def test_an_extra_channel_that_is_not_transparency_is_announced(declared):
    """As near infrared in aerial photos."""
    tags = grey(4, 3) | {258: short(8, 8, 8, 8), 262: short(2), 277: short(4), 279: long(48)}
    picture = decode(tiff([tags | {338: short(declared)}], pixels=PIXELS), "a.tif")
    assert picture.alpha is not None
    assert any("not declared as transparency" in note for note in picture.notes) == (not declared)


def test_ycbcr_is_read_only_where_it_is_converted():
    def stored(values, across, down):
        tags = grey(8, 6) | {258: short(8, 8, 8), 262: short(6), 277: short(3)}
        tags |= {279: long(len(values)), 530: short(across, down)}
        return tiff([tags], pixels=values)

    picture = decode(stored(bytes([100] * 4 + [128, 200]) * 12, 2, 2), "a.tif")
    assert picture.alpha is None
    assert picture.pixels[0, :, 3, 3].tolist() == [201, 49, 100]
    with pytest.raises(PictureError, match="stores plain YCbCr"):
        decode(stored(bytes([100, 128, 200]) * 48, 1, 1), "a.tif")
