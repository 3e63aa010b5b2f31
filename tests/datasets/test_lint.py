"""The dataset lint finds what is wrong, and nothing in what is right."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import ROOT, slow
from PIL import Image, ImageCms, ImageFilter

from restore_cli.datasets.degrade_job import DegradeJob
from restore_cli.datasets.lint import check_pairs
from restore_cli.datasets.synthesize import make_pairs
from restore_cli.degradations.recipe import load_degradation
from restore_cli.errors import NoInputError
from restore_cli.image.matrix_profile import make_profile


def photo(n):
    """Pieces of two real photographs, all of them different."""
    name = ("casa-mila.jpg", "snowy-mountains.jpg")[n % 2]
    with Image.open(ROOT / "examples" / "sharp" / name) as image:
        left, top = 120 * (n // 2 % 4), 200 * (n // 8)
        return image.crop((left, top, left + 480, top + 384))


def dataset(folder, count=5, first=0, recipe="shake"):
    sharp = folder.parent / f"sharp_{folder.name}"
    sharp.mkdir()
    for n in range(count):
        photo(first + n).save(sharp / f"{n}.png")
    inputs = tuple(sorted(sharp.iterdir()))
    list(make_pairs(DegradeJob(inputs, folder, load_degradation(recipe), seed=1)))
    return folder


def kinds(folder):
    return sorted((f.kind, f.path.relative_to(folder).as_posix()) for f in check_pairs(folder))


def test_broken_and_tiny_pairs(tmp_path):
    for side in ("lr", "hr"):
        (tmp_path / side).mkdir()
        for n, size in enumerate([(1, 1), (16, 1)]):
            Image.new("RGB", size).save(tmp_path / side / f"tiny{n}.png")
        np.save(tmp_path / side / "good.npy", np.zeros((16, 16, 3), np.float32))
    np.save(tmp_path / "hr" / "cube.npy", np.zeros((1, 3, 16, 16), np.float32))
    np.save(tmp_path / "lr" / "cube.npy", np.full((16, 16, 3), np.nan, np.float32))
    with (tmp_path / "lr" / "archive.npy").open("wb") as stream:
        np.savez(stream, a=np.ones((16, 16, 3)))
    good = (tmp_path / "hr" / "good.npy").read_bytes()
    (tmp_path / "hr" / "archive.npy").write_bytes(good.replace(b"(16,", b"((("))
    unreadable = ("hr/archive.npy", "hr/cube.npy", "lr/archive.npy", "lr/cube.npy")
    assert kinds(tmp_path) == [("unreadable", name) for name in unreadable]


@pytest.mark.slow
def test_what_degrade_makes_is_right(tmp_path):
    assert kinds(dataset(tmp_path / "a", count=8)) == []


@pytest.mark.slow
def test_everything_wrong_is_found(tmp_path):
    folder = dataset(tmp_path / "a", count=7)
    (folder / "hr" / "0.png").unlink()
    (folder / "lr" / "1.png").unlink()
    shifted = np.asarray(Image.open(folder / "lr" / "2.png"))
    Image.fromarray(np.roll(shifted, 2, axis=1)).save(folder / "lr" / "2.png")
    with Image.open(folder / "hr" / "3.png") as image:
        image.resize((image.width // 2, image.height // 2)).save(folder / "hr" / "3.png")
    with Image.open(folder / "hr" / "4.png") as image:
        tags = Image.Exif()
        tags[0x0112] = 6
        image.save(folder / "hr" / "4.png", exif=tags)
    whole = (folder / "lr" / "5.png").read_bytes()
    (folder / "lr" / "5.png").write_bytes(whole[: len(whole) // 2])
    found = kinds(folder)
    assert found == [
        ("missing", "hr/1.png"),
        ("missing", "lr/0.png"),
        ("rotated", "hr/4.png"),
        ("scale", "lr/3.png"),
        ("shifted", "lr/2.png"),
        ("unreadable", "lr/5.png"),
    ]
    (shift,) = (f for f in check_pairs(folder) if f.kind == "shifted")
    assert "+2" in shift.text or "+1.9" in shift.text


def test_a_pixel_of_the_small_picture_is_a_shift(tmp_path):
    folder = dataset(tmp_path / "a", count=1)
    sharp = Image.open(folder / "hr" / "0.png")
    for pixels, wrong in ((1, False), (4, True)):  # of the large picture: 1/4 and 1 of the small
        moved = np.roll(np.asarray(sharp), pixels, axis=0)
        Image.fromarray(moved).resize((120, 96), Image.Resampling.BICUBIC).save(
            folder / "lr" / "0.png"
        )
        assert [kind for kind, _ in kinds(folder)] == ["shifted"] * wrong


def test_blur_and_noise_are_no_shift(tmp_path):
    rng = np.random.default_rng(0)
    fade = np.linspace(120, 200, 384)[:, None, None] * np.array([0.6, 0.8, 1.2])
    sky = fade + rng.normal(0, 1, (384, 480, 3))
    for name, sharp, sigma, scale in (
        ("defocus", photo(0), 30, 1),
        ("small", photo(1), 30, 4),
        ("sky", Image.fromarray(sky.clip(0, 255).astype(np.uint8)), 2, 4),
    ):
        for side in ("lr", "hr"):
            (tmp_path / name / side).mkdir(parents=True)
        sharp.save(tmp_path / name / "hr/a.png")
        blurred = sharp.filter(ImageFilter.GaussianBlur(sigma))
        blurred.resize((480 // scale, 384 // scale)).save(tmp_path / name / "lr/a.png")
        assert kinds(tmp_path / name) == []


def test_pairs_whose_values_cannot_be_compared(tmp_path):
    corners = ((0.3127, 0.329), (0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
    wide = make_profile("wide", corners, (2.2,))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for side, profile in (("lr", wide), ("hr", srgb)):
        (tmp_path / side).mkdir()
        photo(0).save(tmp_path / side / "wide.png", icc_profile=profile)
        photo(1).save(tmp_path / side / "srgb.png", icc_profile=srgb if side == "lr" else None)
        clear = photo(2)
        clear.putalpha(128 if side == "hr" else 255)
        clear.save(tmp_path / side / "clear.png")
    assert kinds(tmp_path) == [("colour", "lr/wide.png"), ("transparent", "hr/clear.png")]


@pytest.mark.parametrize("recipe", ["handheld", slow("handheld-mixed")])
def test_exchanged_folders(recipe, tmp_path):
    folder = dataset(tmp_path / "a", count=4, recipe=recipe)
    assert "exchanged" not in {kind for kind, _ in kinds(folder)}
    (folder / "lr").rename(folder / "other")
    (folder / "hr").rename(folder / "lr")
    (folder / "other").rename(folder / "hr")
    assert ("exchanged", ".") in kinds(folder)


def test_a_picture_in_two_splits(tmp_path):
    (tmp_path / "d").mkdir()
    dataset(tmp_path / "d" / "train", count=3, recipe="lai-uniform")
    dataset(
        tmp_path / "d" / "val", count=2, first=2, recipe="lai-uniform"
    )  # its first is train's last
    (finding,) = (f for f in check_pairs(tmp_path / "d") if f.kind == "duplicate")
    assert finding.path.name == "2.png"
    assert "is also in 'val'" in finding.text


def test_two_videos_are_not_two_splits(tmp_path):
    for video in ("GOPR0001_00_00", "GOPR0001_00_01"):
        for side in ("blur", "sharp"):
            (tmp_path / "train" / video / side).mkdir(parents=True)
            photo(0).save(tmp_path / "train" / video / side / "1.png")
    assert kinds(tmp_path) == kinds(tmp_path / "train") == []


def test_the_reason_is_stated_and_progress_reported(tmp_path):
    for side in ("lr", "hr"):
        (tmp_path / side).mkdir()
        for name in "abc":
            photo(0).resize((48, 36)).save(tmp_path / side / f"{name}.png")
    photo(0).save(tmp_path / "hr/a.png", save_all=True, append_images=[photo(1)])
    (tmp_path / "hr/b.png").write_bytes(b"")
    calls = []
    found = check_pairs(tmp_path, lambda done, total: calls.append((done, total)))
    texts = [finding.text for finding in found]
    assert texts == ["contains several pictures (png, 2 frames or pages)", "is empty"]
    assert calls == [(0, 3), (1, 3), (2, 3)]


def test_folders_without_pairs(tmp_path):
    with pytest.raises(NoInputError, match="no pairs below"):
        list(check_pairs(tmp_path))
    with pytest.raises(NoInputError, match="no folder"):
        list(check_pairs(tmp_path / "absent"))


def test_sixteen_bit_grey_is_seen_as_eight_bit_grey_is(tmp_path):
    (tmp_path / "lr").mkdir()
    (tmp_path / "hr").mkdir()
    for n in range(3):
        sharp = np.asarray(photo(n).convert("L"), np.uint16)
        small = np.asarray(photo(n).convert("L").resize((120, 96), Image.Resampling.BOX), np.uint16)
        small = np.roll(small, 3 * (n == 1), axis=1)
        Image.fromarray(sharp * 257).save(tmp_path / f"hr/{n}.png")
        Image.fromarray(small * 257).save(tmp_path / f"lr/{n}.png")
    assert kinds(tmp_path) == [("shifted", "lr/1.png")]


def test_partners_have_any_suffix_that_train_takes(tmp_path):
    for degraded, reference in (("lr", "hr"), ("input", "target"), ("blur", "sharp")):
        for n, suffix in enumerate((".webp", ".tif", ".jpeg", ".JPG")):
            for folder, ending in ((degraded, ".png"), (reference, suffix)):
                path = tmp_path / degraded / folder / f"{n}{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                photo(n).resize((480, 384)).save(path)
                (path.parent / f"._{path.name}").write_bytes(b"AppleDouble")
        assert kinds(tmp_path / degraded) == []


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda a: a, None),
        (lambda a: a[..., ::-1], "colour"),
        (lambda a: a.mean(-1, keepdims=True).repeat(3, -1), "colour"),
        (lambda a: a // 3, "different"),
        (lambda a: a * 0 + 99, "different"),
        (lambda a: np.asarray(photo(1).resize((240, 192))), "different"),
        (lambda a: np.roll(a, 4, 1), "shifted"),
    ],
)
def test_partners_that_differ(change, kind, tmp_path):
    for side in ("lr", "hr"):
        (tmp_path / side).mkdir()
    sharp = photo(0).resize((240, 192))
    sharp.save(tmp_path / "hr/a.png")
    changed = np.ascontiguousarray(change(np.asarray(sharp))).astype(np.uint8)
    Image.fromarray(changed).save(tmp_path / "lr/a.png")
    assert kinds(tmp_path) == ([(kind, "lr/a.png")] if kind else [])


def test_a_dangling_link_is_unreadable_and_accents_are_paired(tmp_path):
    for side, accent in (("lr", "e\u0301"), ("hr", "\u00e9")):
        (tmp_path / side).mkdir()
        photo(0).resize((48, 36)).save(tmp_path / side / f"{accent}.png")
    photo(1).resize((48, 36)).save(tmp_path / "lr/b.png")
    (tmp_path / "hr/b.png").symlink_to(tmp_path / "unmounted.png")
    assert kinds(tmp_path) == [("unreadable", "hr/b.png")]
