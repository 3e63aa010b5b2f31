import copy
import io
import pickle
import re
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Unpack, get_overloads, get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

import restore_cli
from restore_cli import LoadedModel, api, list_models, load_model, restore
from restore_cli.errors import DeviceError, PictureError, UsageError, WeightsError
from restore_cli.image import Encoding
from restore_cli.image.matrix_profile import make_profile
from restore_cli.inference.loading import load_network
from restore_cli.inference.restorer import Restorer, RestorerOptions
from restore_cli.jobs.request import Destination, Processing, RestoreRequest, Selection
from restore_cli.weights.checkpoint import read_checkpoint, write_checkpoint
from restore_cli.weights.manifest import default_model
from restore_cli.weights.store import locate


@pytest.fixture(scope="module")
def colours():
    return np.random.default_rng(0).integers(0, 256, (20, 28, 3), np.uint8)


@pytest.fixture(scope="module")
def gfn():
    return load_model("gfn", device="cpu")


@pytest.mark.slow
def test_it_gives_the_pixels_of_the_command_line(colours, tmp_path):
    Image.fromarray(colours).save(tmp_path / "a.png")
    command = [sys.executable, "-m", "restore_cli", "image", str(tmp_path / "a.png"), "-q"]
    subprocess.run([*command, "--device", "cpu"], check=True, capture_output=True)
    with Image.open(tmp_path / "a_x4.png") as written:
        assert np.array_equal(restore(colours, device="cpu"), np.asarray(written))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
def test_pil_keeps_its_mode_and_profile(mode, colours, gfn):
    image = Image.fromarray(colours).convert(mode)
    image.info["icc_profile"] = b"a profile"
    restored = gfn(image)
    assert (restored.mode, restored.size) == (mode, (112, 80))
    assert restored.info["icc_profile"] == b"a profile"


def test_pil_is_turned_upright(colours, gfn):
    image = Image.fromarray(colours)
    image.getexif()[0x0112] = 6  # as a phone held upright
    assert gfn(image).size == (80, 112)


def test_what_lies_under_alpha_0_does_not_show(colours, gfn):
    seen = np.zeros((20, 28, 1), np.uint8)
    seen[:, :14] = 255
    black = np.concatenate([colours * (seen > 0), seen], 2)
    white = np.concatenate([np.where(seen > 0, colours, 255), seen], 2).astype(np.uint8)
    assert np.array_equal(gfn(black), gfn(white))


@pytest.mark.slow
def test_bicubic_enlarges_to_the_scale_that_is_asked_for(colours, tmp_path):
    Image.fromarray(colours).save(tmp_path / "a.png")
    command = [sys.executable, "-m", "restore_cli", "image", str(tmp_path / "a.png"), "-q"]
    subprocess.run([*command, "-m", "bicubic", "-x2"], check=True, capture_output=True)
    with Image.open(tmp_path / "a_x2.png") as written:
        assert np.array_equal(restore(colours, "bicubic", scale=2), np.asarray(written))


@pytest.mark.parametrize(("mode", "colour", "kept"), [("L", 0, "LA"), ("RGB", (0, 0, 0), "RGBA")])
def test_a_transparent_colour_stays_transparent(mode, colour, kept, gfn, tmp_path):
    Image.new(mode, (16, 16)).save(tmp_path / "a.png", transparency=colour)
    restored = gfn(Image.open(tmp_path / "a.png"))
    assert restored.mode == kept
    assert restored.getextrema()[-1] == (0, 0)


def test_arrays_of_another_byte_order(colours):
    bicubic = restore_cli.load_model("bicubic")
    deep = np.asarray(colours).astype(np.uint16) * 257
    assert np.array_equal(bicubic(deep.astype(">u2"), scale=2), bicubic(deep, scale=2))


def test_palettes_become_colours(colours, gfn):
    assert gfn(Image.fromarray(colours).convert("P")).mode == "RGB"
    assert gfn(Image.fromarray(colours).convert("1")).mode == "L"
    with pytest.raises(UsageError, match="mode CMYK") as error:
        gfn(Image.fromarray(colours).convert("CMYK"))
    assert error.value.hint == 'image.convert("RGB")'
    deep = gfn(Image.fromarray(colours[..., 0].astype(np.uint16) * 257))
    assert (deep.mode, deep.size) == ("I;16", (112, 80))


@pytest.mark.parametrize("shape", [(20, 28), (20, 28, 1), (20, 28, 2), (20, 28, 3), (20, 28, 4)])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32", "float64"])
def test_arrays_keep_their_type_and_shape(shape, kind, gfn):
    values = np.random.default_rng(1).random(shape)
    peak = {"uint8": 255, "uint16": 65535}.get(kind, 1)
    restored = gfn((values * peak).astype(kind))
    assert restored.dtype == kind
    assert restored.shape == (80, 112, *shape[2:])
    assert 0 <= restored.min() <= restored.max() <= peak
    assert abs(restored.mean() / peak - values.mean()) < 0.05  # not dark, not upside down


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.float64])
def test_tensors_keep_their_type_and_shape(dtype, gfn):
    batch = torch.rand(2, 3, 20, 28)
    given = (batch * 255).round().byte() if dtype == torch.uint8 else batch.to(dtype)
    restored = gfn(given)
    assert (restored.dtype, tuple(restored.shape)) == (dtype, (2, 3, 80, 112))
    assert torch.equal(gfn(given[1]), restored[1])


def test_it_is_the_restorer(gfn):
    image = torch.rand(1, 3, 20, 28)
    options = RestorerOptions(torch.device("cpu"), dtype=None)
    stage = Restorer(load_network(locate(None, "gfn")), options)
    assert torch.equal(gfn(image), stage(image))


def test_another_scale_is_bicubic_from_the_networks_own(gfn, colours):
    assert gfn(colours, scale=2).shape == (40, 56, 3)
    assert gfn(colours, scale=1).shape == colours.shape
    with pytest.raises(UsageError, match="scale 0"):
        gfn(colours, scale=0)
    for scale in (0, -2):
        with pytest.raises(UsageError, match=f"scale {scale} is not possible"):
            gfn.restore_files(RestoreRequest(Selection((Path("a.png"),))), scale=scale)


@pytest.mark.parametrize(
    "wrong",
    [
        7,
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.int32),
        torch.zeros(4, 4, 3),
        torch.zeros(3, 4, 4, dtype=torch.int32),
        torch.full((3, 4, 4), torch.nan),
    ],
)
def test_what_is_no_picture_is_refused(wrong, gfn):
    with pytest.raises(UsageError):
        gfn(wrong)


def test_names_and_weights():
    assert "mprnet-mscam" in list_models()
    assert load_model("bicubic").scale == 4
    assert load_model(weights="gfn-lite.shake", device="cpu").name == "gfn"
    with pytest.raises(UsageError, match="Did you mean 'gfn'"):
        load_model("gfm")
    with pytest.raises(WeightsError):
        load_model(weights="nothing.safetensors")
    with pytest.raises(UsageError, match="precision"):
        load_model("gfn", precision="int4")
    with pytest.raises(UsageError, match="'fp16' is for GPUs"):  # as on the command line
        load_model("gfn", device="cpu", precision="fp16")


def test_paths_lists_and_batches(colours, gfn, tmp_path):
    Image.fromarray(colours).save(tmp_path / "a.png")
    one = gfn(colours)
    assert np.array_equal(np.asarray(gfn(tmp_path / "a.png")), one)
    assert np.array_equal(np.asarray(gfn(str(tmp_path / "a.png"))), one)
    first, second = gfn([colours, Image.fromarray(colours)])
    assert np.array_equal(first, np.asarray(second))
    batch = gfn(np.stack([colours, colours[:, ::-1]]))
    assert batch.shape == (2, 80, 112, 3)
    assert np.array_equal(batch[0], one)
    (tmp_path / "no.png").write_text("no picture")
    with pytest.raises(PictureError, match=r"no\.png"):
        gfn(tmp_path / "no.png")


ADOBE = make_profile("a", ((0.3127, 0.329), (0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), (563 / 256,))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("RGB", "RGB"), ("RGBA", "RGBA"), ("CMYK", "RGB"), ("L", "L"), ("LA", "LA"), ("I;16", "I;16")],
)
@pytest.mark.filterwarnings("ignore:.*CMYK without a profile")
def test_files_of_any_colours_are_read(mode, expected, colours, tmp_path):
    deep = Image.fromarray(colours[..., 0].astype(np.uint16) * 256 + 7)
    image = deep if mode == "I;16" else Image.fromarray(colours).convert(mode)
    image.save(tmp_path / "a.tif", dpi=(300, 300))
    bicubic = load_model("bicubic")
    made = bicubic(tmp_path / "a.tif", scale=1)
    assert (made.mode, made.size) == (expected, image.size)
    assert made.info["dpi"] == pytest.approx((300, 300))
    if mode != "CMYK":
        assert np.array_equal(
            np.asarray(made), np.asarray(image if mode == "I;16" else bicubic(image, scale=1))
        )


def test_profiles_of_files_are_applied(colours, tmp_path):
    image = Image.fromarray(colours // 2 + 64)  # inside of sRGB
    image.save(tmp_path / "a.png", icc_profile=ADOBE)
    made = load_model("bicubic")(tmp_path / "a.png", scale=1)
    profile, srgb = (
        ImageCms.ImageCmsProfile(p) for p in (io.BytesIO(ADOBE), ImageCms.createProfile("sRGB"))
    )
    wanted = ImageCms.profileToProfile(image, profile, srgb, renderingIntent=1)
    off = np.abs(np.asarray(made).astype(int) - np.asarray(wanted))
    assert off.max() <= 2
    assert np.abs(np.asarray(image).astype(int) - np.asarray(wanted)).max() > 10
    assert "icc_profile" not in made.info


@pytest.mark.parametrize(
    ("low", "high", "hint"),
    [
        (0, 200, "divide by 255"),
        (0, 60000, "divide by 65535"),
        (0, 1.3, "clip them"),
        (-1, 1, r"use (x + 1) / 2"),
    ],
)
def test_floats_of_another_range_are_refused(low, high, hint, gfn):
    values = np.linspace(low, high, 20 * 28 * 3).reshape(20, 28, 3)
    for wrong in (values, torch.from_numpy(values).permute(2, 0, 1)):
        with pytest.raises(UsageError, match="not in") as error:
            gfn(wrong)
        assert error.value.hint == hint


def test_progress_and_repr(colours, gfn):
    seen = []
    gfn(colours, progress=lambda done, tiles: seen.append((done, tiles)))
    assert seen[-1] == (1, 1)
    assert repr(gfn) == "<LoadedModel gfn x4, weights gfn-lite.shake, on cpu>"


def test_files_go_the_way_of_the_command_line(colours, gfn, tmp_path):
    Image.fromarray(colours).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    outcomes = []
    request = RestoreRequest(Selection((tmp_path,)), Destination(tmp_path / "out"))
    summary = gfn.restore_files(request, outcomes.append)
    assert (summary.restored, len(summary.failed), summary.exit_status) == (1, 1, 1)
    assert [outcome.status for outcome in outcomes] == ["restored", "failed"]
    told = []
    again = replace(request, destination=Destination(tmp_path / "again"))
    summary = gfn.restore_files(again, report=lambda *tile: told.append(tile), fail_fast=True)
    assert (summary.restored, len(summary.failed)) == (1, 1)
    assert [(done, tiles) for _, done, tiles in told] == [(0, 1), (1, 1)]
    with Image.open(tmp_path / "out/a_x4.png") as written:
        assert np.array_equal(gfn(colours), np.asarray(written))


def test_options_have_names_and_types():
    """So that mypy refuses `tile="big"`, of both functions."""
    hints = get_type_hints(load_model)
    options = get_type_hints(api.Options)
    assert {name: hints[name] for name in options} == options
    assert set(hints) - set(options) == {"model", "return"}
    assert get_type_hints(restore)["options"] == Unpack[api.Options]
    assert len(get_overloads(restore)) == 2


def test_a_model_is_loaded_once(colours, monkeypatch):
    restore(colours, "bicubic", 2)
    monkeypatch.setattr("restore_cli.api.LoadedModel", None)
    restore(colours, "bicubic", 2)


def test_the_default_model_is_that_of_the_scale(colours, monkeypatch):
    asked = []
    monkeypatch.setattr(api, "_kept", lambda _, model, **options: asked.append(model) or _same)
    for scale in (1, None, 4):
        restore(colours, scale=scale)
    restore(colours, "gfn", scale=1)
    restore(colours, weights="gfn-lite.shake", scale=1)
    assert asked == [default_model(1), default_model(4), default_model(4), "gfn", None]


def _same(image, *, scale, progress):
    return image


def test_threads_share_a_model(gfn):
    images = [torch.rand(3, 16 + 4 * n, 24) for n in range(6)]
    alone = [gfn(image) for image in images]
    together = [None] * len(images)

    def work(n):
        together[n] = gfn(images[n])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.slow
def test_the_package_imports_nothing_until_it_is_asked():
    code = "import sys, restore_cli; assert 'torch' not in sys.modules; restore_cli.restore"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert set(restore_cli.__all__) <= set(dir(restore_cli))
    assert restore_cli.LoadedModel is LoadedModel
    with pytest.raises(AttributeError, match="no attribute 'restored'"):
        _ = restore_cli.restored


def test_errors_are_ours():
    assert issubclass(PictureError, restore_cli.errors.RestoreError)


@pytest.mark.slow
def test_the_page_about_it_runs(tmp_path, monkeypatch, capsys):
    root = Path(__file__).parent.parent
    blocks = re.findall(r"```python\n(.*?)```", (root / "docs/python.md").read_text("utf-8"), re.S)
    assert len(blocks) > 1
    (tmp_path / "examples").symlink_to(root / "examples")
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert (tmp_path / "casa-mila_x4.png").exists()
    assert "mprnet-mscam" in capsys.readouterr().out


def test_deep_grey_keeps_profile_and_resolution():
    image = Image.fromarray(np.full((8, 9), 40_000, np.uint16))
    image.info |= {"icc_profile": b"profile", "dpi": (300, 300)}
    made = load_model("bicubic")(image, scale=1)
    assert made.info == image.info


@pytest.mark.parametrize(
    ("image", "scale", "message"),
    [
        (np.zeros((4, 4, 3), np.uint8), 1.5, "scale 1.5 is not possible"),
        (np.zeros((4, 4, 3), np.uint8), "2", "scale '2' is not possible"),
        (np.ma.masked_array(np.zeros((4, 4, 3), np.uint8)), 1, "a MaskedArray is not a picture"),
        (torch.zeros(3, 4, 4).to_sparse(), 1, "sparse or meta tensor"),
        (torch.zeros(3, 4, 4, device="meta"), 1, "sparse or meta tensor"),
    ],
)
def test_odd_arguments_are_refused_in_words(image, scale, message):
    with pytest.raises(UsageError, match=message):
        load_model("bicubic")(image, scale=scale)


@pytest.mark.parametrize(
    "arguments",
    [
        *({"model": value} for value in (5, True, ["gfn"], b"gfn", "")),
        *({"model": "gfn", "weights": value} for value in (5, "", b"gfn-lite.shake")),
        *({"model": "gfn", "tile": value} for value in ("auto", 256.5, -1, True)),
        *({"model": "gfn", "overlap": value} for value in ("auto", -8)),
        {"model": "gfn", "device": None},
        {"model": "gfn", "precision": 16},
    ],
    ids=repr,
)
def test_options_of_the_wrong_kind_are_refused_in_words(arguments, colours):
    wrong = list(arguments)[-1]
    for call in (load_model, lambda **options: restore(colours, **options)):
        with pytest.raises(UsageError, match=f"{wrong} .* is not possible"):
            call(**arguments)


def test_weights_may_be_a_path_and_are_read_again_when_they_change(tiny_weights, colours):
    assert load_model(weights=tiny_weights).name == "mprnet-mscam"
    first = restore(colours, weights=tiny_weights, scale=4)
    assert np.array_equal(first, restore(colours, weights=str(tiny_weights), scale=4))
    content = read_checkpoint(tiny_weights)
    changed = {name: tensor * 1.1 for name, tensor in content.tensors.items()}
    write_checkpoint(tiny_weights, changed, content.header)
    assert not np.array_equal(first, restore(colours, weights=tiny_weights, scale=4))


def test_a_callback_may_call_the_model(colours, gfn):
    previews = []
    gfn(colours, progress=lambda done, tiles: done or previews.append(gfn(colours)))
    assert len(previews) == 1
    assert gfn(colours, progress=None) is not None


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("mine")])
def test_what_a_callback_raises_reaches_the_caller(error, colours, gfn):
    def fail(done, tiles):
        raise error

    with pytest.raises(type(error)) as raised:
        gfn(colours, progress=fail)
    assert raised.value is error


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("model", ["bicubic", "gfn"])
def test_defaults_of_torch_change_nothing(model, dtype, colours):
    deep = colours.astype(np.uint16) * 257
    expected = load_model(model, device="cpu")(deep)
    try:
        torch.set_default_dtype(dtype)
        with torch.device("meta"), torch.autocast("cpu", torch.bfloat16):
            assert np.array_equal(load_model(model, device="cpu")(deep), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_transparency_does_not_change_greys(colours, gfn, tmp_path):
    grey = Image.fromarray(colours).convert("L")
    opaque = grey.copy()
    opaque.putalpha(255)
    opaque.save(tmp_path / "a.png")
    expected = np.asarray(gfn(grey))
    assert np.array_equal(np.asarray(gfn(opaque))[..., 0], expected)
    assert np.array_equal(np.asarray(gfn(tmp_path / "a.png"))[..., 0], expected)


@pytest.mark.filterwarnings("ignore:.*CMYK without a profile")
@pytest.mark.parametrize("kind", ["Adobe RGB", "CMYK"])
def test_colours_outside_of_srgb_as_on_the_command_line(kind, colours, gfn, tmp_path):
    if kind == "CMYK":
        Image.fromarray(colours).convert("CMYK").save(tmp_path / "a.tif")
    else:
        Image.fromarray(colours).save(tmp_path / "a.tif", icc_profile=ADOBE)
    selection, out = Selection(str(tmp_path / "a.tif")), str(tmp_path / "b.png")
    summary = gfn.restore_files(
        RestoreRequest(selection, Destination(out), Processing(icc="strip"))
    )
    assert not summary.failed
    with Image.open(out) as written:
        assert np.array_equal(np.asarray(gfn(tmp_path / "a.tif")), np.asarray(written))


def test_a_loaded_model_can_be_pickled_and_copied(colours, gfn):
    expected = gfn(colours)
    for other in (pickle.loads(pickle.dumps(gfn)), copy.deepcopy(gfn)):
        assert np.array_equal(other(colours), expected)


def test_threads_load_a_model_once(colours, monkeypatch):
    loads, real = [], api.load_model
    monkeypatch.setattr(api, "load_model", lambda *a, **k: loads.append(a) or real(*a, **k))
    api._kept.cache_clear()
    threads = [threading.Thread(target=restore, args=(colours, "bicubic")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1


def test_hints_name_arguments():
    with pytest.raises(UsageError, match=r"^tile=48 is too small") as error:
        load_model("gfn", tile=48, device="cpu")
    assert re.fullmatch(r"use tile=\d+ or more, or a smaller overlap", error.value.hint)


@pytest.mark.slow
def test_limits_of_pillow_stay_as_they_are():
    code = "from PIL import Image; a = Image.MAX_IMAGE_PIXELS; import restore_cli.api\n"
    code += "assert a and Image.MAX_IMAGE_PIXELS == a"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Selection(("a",), shard=(0, 2)),
        lambda: Selection(("a",), shard=(3, 2)),
        lambda: Encoding(quality=0),
        lambda: Encoding(depth=12),
        lambda: Processing(size="huge"),
        lambda: Selection(""),
        lambda: Destination(""),
    ],
)
def test_requests_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UsageError):
        wrong()


@pytest.mark.parametrize(
    ("image", "scale", "message"),
    [
        ("", None, "the path is empty"),
        ("https://example.com/a.png", None, "is not the path of a file"),
        (np.zeros((4, 4, 3), np.uint8), True, "scale True is not possible"),
    ],
)
def test_what_is_no_path_or_scale(image, scale, message):
    with pytest.raises(UsageError, match=message):
        restore(image, "bicubic", scale)


def test_a_closed_picture_is_refused_in_words(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png")
    image.close()
    with pytest.raises(PictureError, match="cannot be read"):
        restore(image, "bicubic")


def test_a_size_that_overflows_is_an_error_of_memory():
    with pytest.raises(DeviceError, match="out of memory"):
        restore(np.zeros((8, 8, 3), np.uint8), "gfn", scale=10**9, device="cpu")


def test_messages_of_files_name_arguments(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    request = RestoreRequest(Selection(tmp_path / "a.png"), Destination(tmp_path / "b.png"))
    load_model("bicubic").restore_files(request)
    with pytest.raises(restore_cli.RestoreError, match="exists") as error:
        load_model("bicubic").restore_files(request)
    assert error.value.hint == "use resume, or on_exists skip, overwrite or rename"


def test_requests_take_text():
    assert Selection("a b").inputs == (Path("a b"),)
    assert Processing(size="2x").size.of(3, 4) == (6, 8)


def test_notes_on_a_file_are_warnings(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    noted = replace(api.read_image(tmp_path / "a.png"), notes=("a note",))
    monkeypatch.setattr(api, "read_image", lambda *a, **k: noted)
    with pytest.warns(UserWarning, match="a note"):
        load_model("bicubic")(tmp_path / "a.png", scale=1)


def test_broken_exif_data_are_a_warning_at_the_callers_line(colours):
    bicubic = load_model("bicubic")
    for call in (bicubic, lambda one, scale: restore([one], "bicubic", scale)):
        image = Image.fromarray(colours)
        image.info["exif"] = b"Exif\0\0garbagegarbage"
        with pytest.warns(UserWarning, match="EXIF data cannot be read") as caught:
            call(image, scale=1)
        ours = [one.filename for one in caught if "EXIF data cannot be read" in str(one.message)]
        assert ours == [__file__]


def test_a_truncated_picture_is_refused_in_words(colours):
    whole = io.BytesIO()
    Image.fromarray(colours).save(whole, "JPEG")
    with Image.open(io.BytesIO(whole.getvalue()[:-200])) as image, pytest.raises(PictureError):
        load_model("bicubic")(image)


def test_a_device_of_torch():
    assert load_model("bicubic", device=torch.device("cpu")).scale == 4


def test_too_large_a_scale_is_an_error_of_memory():
    with pytest.raises(DeviceError, match="out of memory"):
        load_model("bicubic")(np.zeros((8, 8, 3), np.uint8), scale=10**6)


def test_a_path_that_no_system_can_hold():
    with pytest.raises(PictureError, match="cannot read"):
        load_model("bicubic")("a\0b.png")


def test_rare_kinds_of_pictures():
    bicubic = load_model("bicubic")
    with pytest.warns(PendingDeprecationWarning, match="matrix"):  # of NumPy
        assert bicubic(np.asmatrix(np.zeros((8, 9))), scale=2).shape == (16, 18)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns once
        nested = torch.nested.nested_tensor([torch.zeros(3, 4, 4)])
    with pytest.raises(UsageError, match="not a picture"):
        bicubic(nested)
    image = Image.fromarray(np.zeros((8, 9), np.uint16))
    image.info["transparency"] = 5
    with pytest.raises(UsageError, match="transparency is not supported"):
        bicubic(image)


@pytest.mark.parametrize(
    ("option", "value"), [("tlsc", "no"), ("tlsc", 1), ("self_ensemble", "no")]
)
def test_switches_are_true_or_false(option, value):
    with pytest.raises(UsageError, match=f"{option} {value!r} is not possible"):
        load_model("gfn", **{option: value})


def test_tlsc_where_there_is_none():
    with pytest.raises(UsageError, match="'bicubic' has no global statistics"):
        load_model("bicubic", tlsc=True)
    with pytest.raises(UsageError, match="lacks a name"):
        load_model("gfn+")


def test_the_other_frames_of_an_animation_are_announced(tmp_path):
    frames = [Image.new("RGB", (8, 8), (n, 0, 0)) for n in (0, 99, 200)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    model = load_model("bicubic", precision="fp32")
    with Image.open(tmp_path / "a.png") as image, pytest.warns(UserWarning, match="frame 1 of 3"):
        model(image)
