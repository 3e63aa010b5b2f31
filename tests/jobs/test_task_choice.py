"""The job that is chosen for a picture, over thirty situations from thumbnails to 12 megapixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from conftest import slow
from situations import situation

from restore_cli import load_model
from restore_cli.errors import PictureError
from restore_cli.image import MAX_PIXELS, Encoding, Picture, write_image
from restore_cli.jobs.task_choice import (
    HEAVY_BLUR,
    BlurMeasurement,
    TaskChoice,
    blur_extents,
    choose,
    choose_for_run,
    is_sharpened,
    measure_blur,
)

SITUATIONS = [
    # photo, width, height, blur, its pixels, noise of 255, what is right
    ("motorcycle", 48, 48, "0", 0, 0, "x4"),
    ("motorcycle", 160, 90, "30", 6, 0, "x4"),
    ("discs", 128, 128, "disc", 4, 0, "x4"),
    ("casa-mila", 240, 160, "0", 0, 0, "x4"),
    ("casa-mila", 240, 160, "30", 5, 0, "x4"),
    ("snowy-mountains", 320, 180, "120", 9, 4, "x4"),
    ("motorcycle", 320, 240, "corner", 8, 0, "x4"),
    ("discs", 640, 360, "75", 9, 2, "x4"),
    ("casa-mila", 640, 480, "0", 0, 6, "x4"),
    ("snowy-mountains", 640, 480, "corner", 6, 0, "x4"),
    ("motorcycle", 800, 600, "30", 7, 0, "x4"),
    ("discs", 640, 480, "30", 32, 0, "x1"),
    ("motorcycle", 640, 480, "60", 40, 2, "x1"),
    ("snowy-mountains", 800, 600, "corner", 28, 0, "x1"),
    ("casa-mila", 1280, 720, "0", 0, 0, "x1"),
    ("casa-mila", 1280, 720, "30", 12, 0, "x1"),
    ("motorcycle", 1280, 720, "0", 24, 2, "x1"),
    ("discs", 1280, 720, "90", 20, 4, "x1"),
    ("snowy-mountains", 1920, 1080, "120", 9, 6, "x1"),
    ("motorcycle", 1920, 1080, "disc", 5, 0, "x1"),
    ("discs", 1920, 1080, "0", 0, 10, "x1"),
    ("casa-mila", 1920, 1080, "disc", 24, 0, "keep"),
    ("snowy-mountains", 3000, 2000, "0", 0, 0, "x1"),
    ("motorcycle", 3000, 2000, "45", 18, 0, "x1"),
    ("discs", 3000, 2000, "disc", 20, 2, "keep"),
    ("motorcycle", 3000, 2000, "corner", 36, 0, "keep"),
    ("casa-mila", 4000, 3000, "0", 0, 4, "x1"),
    ("discs", 4000, 3000, "30", 16, 0, "x1"),
    ("motorcycle", 4000, 3000, "disc", 28, 4, "keep"),
    ("snowy-mountains", 4000, 3000, "corner", 40, 0, "keep"),
]


@pytest.mark.parametrize(
    "case",
    [slow(case) if case[1] > 2000 else case for case in SITUATIONS],
    ids=lambda case: "-".join(map(str, case)),
)
def test_the_right_job(case):
    *what, right = case
    seen = measure_blur(situation(*what))
    tried = []
    choice = choose(seen, lambda factor: tried.append(factor) or right != "keep")
    assert choice.task == right, seen
    assert tried or right != "keep"
    assert not tried or seen.blur > HEAVY_BLUR
    assert choice.reason.startswith(f"{what[1]}x{what[2]}, ")
    assert "\n" not in choice.reason


@pytest.mark.parametrize("pixels", [9, 18, 28])
def test_extents_are_those_of_the_blur(pixels):
    """Within a factor of 2.5 over photos; that is enough for what is decided by them."""
    for name in ("motorcycle", "casa-mila", "snowy-mountains", "discs"):
        luma = situation(name, 1200, 900, "disc", pixels, 0)[0, 0].numpy()
        most, least = blur_extents(luma)
        assert pixels / 2.5 <= most <= pixels * 2.5, (name, most)
        assert least <= most


def test_detail_across_the_motion_counts():
    luma = situation("motorcycle", 1200, 900, "0", 28, 0)[0, 0].numpy()
    most, least = blur_extents(luma)
    assert most > 14
    assert least < most / 2


def test_a_thing_that_moved_before_a_sharp_scene_is_no_blurred_picture():
    image = situation("motorcycle", 1800, 1200, "0", 0, 0)[0, 0].numpy().copy()
    image[400:800, 600:1200] = cv2.blur(image[400:800, 600:1200], (31, 31))
    assert blur_extents(image)[0] < 3


@pytest.mark.parametrize(("blur", "is_sharp"), [(0, True), (24, False)])
def test_a_subject_between_the_windows_counts_if_it_is_sharp(blur, is_sharp):
    image = situation("casa-mila", 3000, 2000, "disc", 40, 2)[0, 0].numpy().copy()
    subject = situation("motorcycle", 640, 480, "disc" if blur else "0", blur, 2)[0, 0].numpy()
    image[20:470, 800:1250] = subject[:450, 100:550]
    extents = blur_extents(image)
    assert (extents[0] < 5) == is_sharp
    assert (extents[1] < 5) == is_sharp
    assert extents[1] <= extents[0]


def test_sky_tells_nothing():
    """A sharp subject in one corner of an empty picture is detail that must stay."""
    image = np.full((1800, 2400), 0.7, np.float32)
    image[1200:, :800] = situation("motorcycle", 800, 600, "0", 0, 0)[0, 0].numpy()
    pixels = torch.from_numpy(image).expand(1, 3, -1, -1)
    assert choose(measure_blur(pixels)).task == "x1"
    assert choose(measure_blur(torch.full((1, 3, 1200, 1600), 0.5))).task in ("x1", "keep")


@pytest.mark.parametrize(
    ("factors", "task"), [([1.2, 1.1], "x1"), ([1.4], "x1"), ([1.2, 1.3], "half")]
)
def test_a_much_blurred_large_picture_is_tried_where_it_has_most_detail(tmp_path, factors, task):
    image = np.full((900, 1200), 0.7, np.float32)
    blurred = situation("motorcycle", 600, 450, "0", 24, 0)[0, 0].numpy()
    image[450:, :600] = blurred
    pixels = torch.from_numpy(image).expand(1, 3, -1, -1)
    write_image(tmp_path / "a.png", Picture(pixels, None, False, "png"), Encoding("png"))
    parts = []

    def restore(part):
        parts.append(part)
        return part.mean() + factors[len(parts) - 1] * (part - part.mean())

    choice = choose_for_run([tmp_path / "a.png"], max_pixels=MAX_PIXELS, restore=restore)
    assert choice.task == task
    assert len(parts) == len(factors)
    part = parts[0]
    assert part.shape == (1, 3, 384, 384)
    assert ((part - 0.7).abs() < 0.01).all(1).float().mean() < 0.25
    assert choose_for_run([tmp_path / "a.png"], max_pixels=MAX_PIXELS).task == "x1"  # not tried

    def fails(part):
        raise PictureError("not finite")

    assert choose_for_run([tmp_path / "a.png"], max_pixels=MAX_PIXELS, restore=fails) is None


def test_a_video_is_judged_by_one_of_its_frames(tmp_path):
    for name, size in {"large": (1280, 720), "small": (320, 240)}.items():
        photo = situation("motorcycle", *size, "0", 0, 0)[0, 0].numpy().clip(0, 1)
        coder = cv2.VideoWriter_fourcc(*"MJPG")
        writer = cv2.VideoWriter(str(tmp_path / f"{name}.avi"), coder, 10, size)
        for n in range(12):
            frame = photo if n > 8 else np.zeros_like(photo)
            writer.write(np.repeat((frame * 255).astype(np.uint8)[..., None], 3, -1))
        writer.release()
    most = {"max_pixels": MAX_PIXELS}
    assert choose_for_run([tmp_path / "large.avi"], **most).task == "x1"
    assert choose_for_run([tmp_path / "small.avi"], **most).task == "x4"
    assert choose_for_run(sorted(tmp_path.iterdir()), **most).reason.startswith(
        "suits 1 of 2 sampled"
    )
    (tmp_path / "broken.avi").write_bytes(b"RIFF")
    assert choose_for_run([tmp_path / "broken.avi"], **most) is None


@pytest.mark.parametrize(
    ("sides", "task"),
    [((900, 900, 900), "keep"), ((900, 900, 1000), "x1"), ((900,) * 9 + (100,), "x1")],
)
def test_pictures_are_shrunk_only_if_it_harms_none_of_them(tmp_path, monkeypatch, sides, task):
    for n, side in enumerate(sides):
        path = tmp_path / f"{n}.png"
        write_image(path, Picture(torch.zeros(1, 3, side, side), None, False, "png"), Encoding())
    tasks = {900: "keep", 1000: "x1", 100: "x4"}
    monkeypatch.setattr(
        "restore_cli.jobs.task_choice.choose", lambda seen: TaskChoice(tasks[seen.height], "seen")
    )
    choice = choose_for_run(sorted(tmp_path.iterdir()), max_pixels=MAX_PIXELS)
    assert choice.task == task  # of the ten, the small one is not among the five that are examined
    assert ("would lose detail" in choice.reason) == (task == "x1")


def test_only_what_has_no_detail_in_any_direction_is_shrunk_to_a_quarter():
    for least, task in ((5.0, "x1"), (12.0, "keep")):
        choice = choose(BlurMeasurement(3000, 4000, 40.0, least), lambda factor: False)
        assert choice.task == task


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "sharpens"),
    [(("motorcycle", 1280, 720, "0", 24, 2), True), (("casa-mila", 1920, 1080, "disc", 24, 0), 0)],
)
def test_the_default_model_sharpens_motion_blur_only(what, sharpens):
    pixels = situation(*what).clamp(0, 1).expand(1, 3, -1, -1)
    assert is_sharpened(pixels, load_model("maxim", precision="fp32")) == sharpens


def test_earlier_results_do_not_change_the_choice_for_a_folder(tmp_path):
    """A majority of small pictures; with the large results that they became, one of large ones."""
    made = Encoding("png", provenance=(("version", "0"), ("key", "k")))
    for name, size in {"a": (600, 400), "b": (1600, 1200), "c": (640, 400)}.items():
        seen = situation("casa-mila", *size, "30", 6, 0)
        write_image(tmp_path / f"{name}.png", Picture(seen, None, False, "png"), Encoding("png"))
    before = choose_for_run(sorted(tmp_path.iterdir()), max_pixels=MAX_PIXELS)
    for name in "abc":
        result = Picture(situation("casa-mila", 1200, 900, "30", 6, 0), None, False, "png")
        write_image(tmp_path / f"{name}_x4.png", result, made)
    assert choose_for_run(sorted(tmp_path.iterdir()), max_pixels=MAX_PIXELS) == before
    assert before.task == "x4"
    results = sorted(tmp_path.glob("*_x4.png"))
    assert choose_for_run(results, max_pixels=MAX_PIXELS).task == "x1"  # asked for by name
