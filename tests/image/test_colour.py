"""Colours without loss: through a profile and back, and what other means than profiles say."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
import pyvips
import torch
from files import save, values, wide_profile
from PIL import Image, ImageCms

from restore_cli.errors import PictureError
from restore_cli.image import Encoding, encode, read_image
from restore_cli.image.containers import png_chunks
from restore_cli.image.info import describe
from restore_cli.image.matrix_profile import make_profile, matrix_profile
from restore_cli.image.reading import decode
from restore_cli.inference.pipeline import PipelineSpec
from restore_cli.inference.restorer import RestorerOptions
from restore_cli.jobs.plan import Item
from restore_cli.jobs.request import Processing, RestoreRequest, Selection
from restore_cli.jobs.restoration import Restoration, Task
from restore_cli.rounding import to_float

D65 = (0.3127, 0.329)
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
SPACES = {
    "sRGB": make_profile("s", (D65, (0.64, 0.33), (0.3, 0.6), (0.15, 0.06)), SRGB_CURVE),
    "Display P3": make_profile("p", (D65, (0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), SRGB_CURVE),
    "Adobe RGB": make_profile("a", (D65, (0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), (563 / 256,)),
    "ProPhoto": make_profile(
        "r",
        ((0.3457, 0.3585), (0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)),
        (1.8,),
    ),
    "P3 and 2.2": wide_profile(),
}


def ramps():
    """(H, 256, 3): all of 65536 values as grey, and each primary's ramp with the others at 0."""
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    planes = [np.stack([ramp] * 3, -1)]
    for n in range(3):
        planes.append(np.zeros((256, 256, 3), np.uint16))
        planes[-1][..., n] = ramp
    rng = np.random.default_rng(0)
    return np.concatenate([*planes, rng.integers(0, 65536, (256, 256, 3), np.uint16)])


def tiff16(values, profile):
    image = pyvips.Image.new_from_array(values)
    image = image.copy(interpretation="rgb16" if values.ndim == 3 else "grey16")
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    return image.tiffsave_buffer(keep=8)


def restored(data):
    """As `restore image --model bicubic -x1`: values through float32, and the excess added."""
    picture = decode(data, "a.tif")
    pixels = (
        picture.pixels if picture.out_of_gamut is None else picture.pixels + picture.out_of_gamut
    )
    whole, notes = encode(picture.with_pixels(pixels, None), Encoding("tiff"), "b.tif")
    assert not notes
    return pyvips.Image.tiffload_buffer(whole).numpy()


@pytest.mark.parametrize("space", SPACES)
def test_every_value_of_16_bits_comes_back(space):
    values = ramps()
    difference = restored(tiff16(values, SPACES[space])).astype(int) - values
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("space", SPACES)
def test_grey_under_a_profile_for_rgb_comes_back(space):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    there = restored(tiff16(values, SPACES[space])).reshape(256, 256)
    assert np.abs(there.astype(int) - values).max() <= 1


@pytest.mark.parametrize("space", ["Display P3", "Adobe RGB", "P3 and 2.2"])
def test_the_conversion_is_littlecms_own(space):
    """An independent judge: LittleCMS by Pillow, in 8 bits, where sRGB has the colour."""
    values = np.random.default_rng(1).integers(60, 200, (40, 40, 3), np.uint8)
    source = ImageCms.ImageCmsProfile(io.BytesIO(SPACES[space]))
    wanted = ImageCms.profileToProfile(
        Image.fromarray(values), source, ImageCms.createProfile("sRGB"), renderingIntent=1
    )
    ours = matrix_profile(SPACES[space]).to_srgb(values) * 255
    inside = ((ours > 1) & (ours < 254)).all(-1)
    assert inside.mean() > 0.5
    assert np.abs(ours - np.asarray(wanted))[inside].max() < 1.6


def curve(kind, *numbers):
    body = b"".join(struct.pack(">i", round(n * 65536)) for n in numbers)
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + body


def with_curve(body):
    """A profile of one shared curve, of any kind, at its end."""
    profile = bytearray(SPACES["Adobe RGB"])
    for n in range(struct.unpack_from(">I", profile, 128)[0]):
        if profile[133 + 12 * n : 136 + 12 * n] == b"TRC":
            struct.pack_into(">II", profile, 136 + 12 * n, len(profile), len(body))
    whole = bytes(profile) + body + bytes(-len(body) % 4)
    return struct.pack(">I", len(whole)) + whole[4:]


TABLE = (np.linspace(0, 1, 1024) ** 2.4 * 65535).round().astype(">u2").tobytes()
CURVES = {
    "identity": b"curv" + bytes(8),
    "gamma": b"curv\0\0\0\0" + struct.pack(">IH", 1, 563),
    "table": b"curv\0\0\0\0" + struct.pack(">I", 1024) + TABLE,
    "type 0": curve(0, 2.2),
    "type 1": curve(1, 2.4, 1 / 1.055, 0.055 / 1.055),
    "type 2": curve(2, 2.4, 0.9, 0.05, 0.01),
    "type 3": curve(3, *SRGB_CURVE),
    "type 4": curve(4, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045, 0.0, 0.0),
}


@pytest.mark.parametrize("name", CURVES)
def test_every_kind_of_curve_is_littlecms_own(name):
    profile = with_curve(CURVES[name])
    values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    wanted = ImageCms.profileToProfile(
        Image.fromarray(values),
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=1,
    )
    ours = np.clip(matrix_profile(profile).to_srgb(values) * 255, 0, 255)
    assert np.abs(ours - np.asarray(wanted)).max() < 1.6


@pytest.mark.parametrize("entries", [256, 1024, 4096])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_black_and_white_of_tables_come_back(entries, kind):
    """The first entries of a table of a power function are equal: 0 after rounding."""
    table = (np.linspace(0, 1, entries) ** 2.2 * 65535).round().astype(">u2").tobytes()
    profile = matrix_profile(with_curve(b"curv\0\0\0\0" + struct.pack(">I", entries) + table))
    top = np.iinfo(kind).max
    values = np.linspace(0, top, 256).round().astype(kind).reshape(16, 16, 1).repeat(3, 2)
    back = profile.from_srgb(profile.to_srgb(values), 8 * values.itemsize)
    assert (back[0, 0].tolist(), back[-1, -1].tolist()) == ([0] * 3, [top] * 3)
    assert np.abs(back.astype(int) - values)[4:].max() <= 1


def test_broken_profiles_are_none():
    whole = SPACES["Adobe RGB"]
    for n in range(0, len(whole), 7):
        matrix_profile(whole[:n])
        matrix_profile(whole[:n] + b"\xff\xff\xff\xff" + whole[n + 4 :])
    with pytest.raises(ValueError, match="on one line"):
        make_profile("x", (D65, (0.3, 0.3), (0.3, 0.3), (0.3, 0.3)), (2.2,))


# By other means than a profile -----------------------------------------------------------------


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks, mode="RGB", size=(8, 6)):
    """A ramp under chunks that say what it means."""
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert(mode).save(buffer, "PNG")
    data = buffer.getvalue()
    return data[:33] + b"".join(chunk(*one) for one in chunks) + data[33:]


GAMMA_1 = (b"gAMA", struct.pack(">I", 100_000))
USUAL = (b"gAMA", struct.pack(">I", 45_455))
P3 = (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
BT709 = (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))


def names(data):
    return [kind for kind, _ in png_chunks(data)]


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    ("chunks", "kept"),
    [
        ([GAMMA_1], True),
        ([USUAL, P3], True),
        ([P3], True),
        ([(b"cICP", bytes([12, 13, 0, 1]))], True),
        ([(b"cICP", bytes([9, 8, 0, 1]))], True),
        ([USUAL, BT709], False),
        ([(b"sRGB", b"\0"), USUAL], False),
        ([(b"cICP", bytes([1, 13, 0, 1]))], False),
        ([], False),
    ],
)
def test_what_chunks_mean_is_kept_and_becomes_a_profile(mode, chunks, kept):
    data = png(*chunks, mode=mode)
    values = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    picture = decode(data, "a.png")
    coloured = kept and not (mode == "L" and chunks[-1] == P3)
    assert (picture.metadata.icc_profile is not None) == coloured
    made, notes = encode(picture, Encoding("png"), "b.png")
    assert not notes
    for one in chunks:
        assert one in list(png_chunks(made))
    assert (b"iCCP" in names(made)) == coloured
    assert (
        np.abs(np.asarray(Image.open(io.BytesIO(made)).convert("RGB")).astype(int) - values).max()
        <= 1
    )
    _, notes = encode(picture, Encoding("webp"), "b.webp")
    assert any("were converted to a colour profile" in note for note in notes) == coloured


def test_linear_light_is_shown_as_light():
    """Code value 0.5 of linear light is sRGB 188."""
    data = png(GAMMA_1)
    pixels = decode(data, "a.png").pixels[0, 0].numpy()
    values = np.asarray(Image.open(io.BytesIO(data)).convert("L")) / 255
    wanted = np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)
    assert np.abs(pixels - wanted).max() < 2e-3


@pytest.mark.parametrize(
    "broken",
    [
        (b"gAMA", b"\0\0\0\0"),
        (b"gAMA", b"\0"),
        (b"cHRM", bytes(32)),
        (b"cHRM", b"short"),
        (b"cICP", bytes([77, 99, 0, 1])),
    ],
)
def test_chunks_that_say_nothing_are_said(broken):
    picture = decode(png(broken), "a.png")
    assert "taken as sRGB" in picture.notes[0]
    assert picture.metadata.icc_profile is None


@pytest.mark.parametrize(("transfer", "full"), [(16, 1), (18, 1), (16, 0)])
def test_high_dynamic_range_goes_through_or_not_at_all(transfer, full):
    said = (b"cICP", bytes([9, transfer, 0, full]))
    picture = decode(png(said), "a.png")
    made, _ = encode(picture, Encoding("png"), "b.png")
    assert said in list(png_chunks(made))
    assert np.array_equal(decode(made, "b").pixels, picture.pixels)
    for key in ("jpeg", "webp", "tiff", "avif"):
        with pytest.raises(PictureError, match="high dynamic range") as caught:
            encode(picture, Encoding(key), "b")
        assert "png" in caught.value.hint
    with pytest.raises(PictureError, match="high dynamic range"):
        decode(png(said), "a.png", icc="strip")


def heic(bits, nclx=None, count=1):
    heif = pytest.importorskip("pillow_heif")
    ramp = np.linspace(0, 65535, 96 * 64).astype(np.uint16).reshape(64, 96, 1).repeat(3, 2)
    made = heif.HeifFile()
    for _ in range(count):
        mode = "RGB;16" if bits > 8 else "RGB"
        values = ramp if bits > 8 else (ramp >> 8).astype(np.uint8)
        made.add_frombytes(mode, (96, 64), values.tobytes())
    buffer = io.BytesIO()
    options = {} if nclx is None else dict(zip(NCLX, nclx, strict=True))
    made.save(buffer, quality=-1, chroma=444, **options)
    return buffer.getvalue()


NCLX = ("color_primaries", "transfer_characteristics", "matrix_coefficients")


def test_heic_of_ten_bits_is_sixteen(tmp_path):
    data = heic(10)
    picture = decode(data, "a.heic")
    assert (picture.depth, picture.source_bits) == (16, 10)
    assert picture.pixels.numpy().max() > 0.999 * 65535
    assert len(np.unique(picture.pixels[0, 1].numpy())) > 500
    (tmp_path / "a.heic").write_bytes(data)
    assert describe(tmp_path / "a.heic")["depth"] == 10
    made, notes = encode(picture, Encoding("png"), "b.png")
    assert not notes
    assert decode(made, "b").depth == 16
    _, notes = encode(picture, Encoding("webp"), "b")
    assert notes == ("webp has 8 bits per channel, not 10",)
    _, notes = encode(picture, Encoding("avif"), "b")
    assert notes == ()


def test_second_pictures_of_heic_are_said():
    assert decode(heic(8), "a").notes == ()
    assert "only the main picture" in decode(heic(8, count=2), "a").notes[0]


@pytest.mark.parametrize(
    ("numbers", "hdr"), [((9, 16, 9), "PQ"), ((9, 18, 9), "HLG"), ((12, 13, 6), "")]
)
def test_nclx_is_read(numbers, hdr):
    picture = decode(heic(10, numbers), "a.heic")
    assert picture.hdr == hdr
    assert (picture.metadata.icc_profile is not None) == (not hdr)
    if hdr:
        made, _ = encode(picture, Encoding("png"), "b.png")
        assert (b"cICP", bytes([*numbers[:2], 0, 1])) in list(png_chunks(made))


def test_a_converted_input_is_not_rounded_before_it_is_restored(tmp_path):
    """Muted colours of a wide profile lie in sRGB, but not on its steps."""
    muted = values(3) // 8 + 112
    source = save(tmp_path / "a.png", muted, icc_profile=wide_profile())
    asked = RestoreRequest(Selection((source,)), processing=Processing(icc="strip"))
    pipeline = PipelineSpec.parse("bicubic", None, 4, RestorerOptions(torch.device("cpu"))).load()
    task = Task(Item(source, source), source.read_bytes(), "", "")
    picture = Restoration(asked, pipeline).load(task)
    assert picture.out_of_gamut is None
    assert torch.equal(picture.pixels, read_image(source, icc="strip").pixels)


@pytest.mark.parametrize("what", [GAMMA_1, P3, (b"cICP", bytes([12, 13, 0, 1]))])
def test_stripped_colours_are_described_by_no_chunk(what):
    picture = decode(png(what), "a.png", icc="strip")
    made, _ = encode(picture, Encoding("png"), "b.png")
    assert not {what[0], b"iCCP"} & set(names(made))


@pytest.mark.parametrize("known", [[12, 1, 0, 1], [9, 8, 0, 1], [1, 13, 0, 1]])
def test_cicp_takes_precedence_over_a_profile(known):
    check_precedence(known, of_cicp=True)


@pytest.mark.parametrize("unknown", [[200, 13, 0, 1], [2, 2, 0, 1], [2, 13, 0, 1], [12, 2, 0, 1]])
def test_a_profile_takes_precedence_over_unknown_and_unspecified_cicp(unknown):
    check_precedence(unknown, of_cicp=False)


def check_precedence(numbers, *, of_cicp):
    profile = (b"iCCP", b"p\0\0" + zlib.compress(SPACES["ProPhoto"]))
    cicp = (b"cICP", bytes(numbers))
    both, wanted = (
        decode(png(*chunks), "a.png")
        for chunks in ((profile, cicp), (cicp,) if of_cicp else (profile,))
    )
    assert torch.equal(to_float(both.pixels), to_float(wanted.pixels))
    assert not both.notes
    back = Image.open(io.BytesIO(encode(both, Encoding("png"), "b.png")[0]))
    assert np.abs(np.asarray(back).astype(int) - values_of(png())).max() <= 1


def values_of(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_the_curve_of_a_grey_profile_in_lab_gives_lightness():
    """Half of the lightness is sRGB 119; half of the light would be 188."""
    profile = bytearray(
        make_profile("g", (D65, *((0.6, 0.3), (0.3, 0.6), (0.1, 0.1))), (1.0,), grey=True)
    )
    profile[20:24] = b"Lab "
    buffer = io.BytesIO()
    Image.new("L", (4, 4), 128).save(buffer, "PNG", icc_profile=bytes(profile))
    picture = decode(buffer.getvalue(), "a.png")
    assert float(picture.pixels.mean()) * 255 == pytest.approx(119, abs=1)
    back = Image.open(io.BytesIO(encode(picture, Encoding("png"), "b.png")[0]))
    assert back.getpixel((0, 0)) == 128


def gif_with_profile(colours, profile):
    buffer = io.BytesIO()
    Image.fromarray(colours).quantize(8).save(buffer, "GIF")
    data = buffer.getvalue()
    place = 13 + (3 << (data[10] & 7) + 1)  # after the palette
    blocks = [profile[n : n + 255] for n in range(0, len(profile), 255)]
    packed = b"".join(bytes([len(block)]) + block for block in blocks)
    return data[:place] + b"!\xff\x0bICCRGBG1012" + packed + b"\0" + data[place:]


def bmp_with_profile(colours, profile):
    """Of version 5, with 24 bits and an embedded profile ([MS-WMF] 2.2.2.12)."""
    height, width = colours.shape[:2]
    rows = np.ascontiguousarray(colours[::-1, :, ::-1]).tobytes()
    size = struct.pack("<IiiHHIIiiII", 124, width, height, 1, 24, 0, len(rows), 2835, 2835, 0, 0)
    space = bytes(16) + b"DEBM" + bytes(48)
    where = struct.pack("<4I", 4, 124 + len(rows), len(profile), 0)
    whole = size + space + where + rows + profile
    return b"BM" + struct.pack("<IHHI", 14 + len(whole), 0, 0, 138) + whole


@pytest.mark.parametrize("packed", [gif_with_profile, bmp_with_profile])
def test_profiles_in_gif_and_bmp_count(packed):
    colours = np.random.default_rng(0).integers(0, 256, (2, 4, 3), np.uint8)
    buffer = io.BytesIO()
    profile = SPACES["Display P3"]
    Image.fromarray(colours).save(buffer, "PNG", icc_profile=profile)
    expected = decode(buffer.getvalue(), "a.png")
    found = decode(packed(colours, profile), "a")
    assert found.metadata.icc_profile == profile
    assert torch.equal(to_float(found.pixels), to_float(expected.pixels))
    assert not found.notes
    broken = decode(packed(colours, b"no profile"), "a")
    assert broken.notes == ("its colour profile is broken and was left out",)
    cut = packed(colours, profile)[: 14 + 124 + 10]
    with suppress(PictureError):
        decode(cut, "a")


@pytest.mark.parametrize("photometric", [8, 9])
def test_lab_is_refused_and_a_transfer_function_announced(photometric):
    pixels = Image.new("RGB", (4, 4))
    buffer = io.BytesIO()
    pixels.save(buffer, "TIFF", tiffinfo={301: tuple(range(768))})
    data = buffer.getvalue()
    assert "its transfer function was left out" in decode(data, "a").notes[0]
    at = data.find(struct.pack("<HHI", 262, 3, 1))
    lab = data[: at + 8] + struct.pack("<H", photometric) + data[at + 10 :]
    with pytest.raises(PictureError, match="stores CIELab"):
        decode(lab, "a")
