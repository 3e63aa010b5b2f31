"""Degradations: reference numbers, statistics that would be off if the code were wrong, seeds."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from conftest import GOLDEN, picture, rgb8
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from restore_cli.degradations.jpeg import compress_jpeg
from restore_cli.degradations.motion import Trajectory, blur, draw_mask, draw_trajectory
from restore_cli.degradations.recipe import (
    FOLDER,
    degrade,
    draw,
    load_degradation,
    shipped_degradations,
)
from restore_cli.degradations.response import to_encoded, to_linear
from restore_cli.degradations.steps import add_noise
from restore_cli.errors import RecipeError, UsageError
from restore_cli.resample import rescale_bicubic, resize_bicubic

PICTURE = (480, 640)


@pytest.mark.parametrize(
    ("name", "scale", "kept"),
    [
        ("x025", 0.25, np.s_[:, :]),
        ("x05", 0.5, np.s_[:, ::2]),
        ("x07", 0.7, np.s_[:, ::3]),
        ("x4", 4, np.s_[::9, ::9]),
    ],
)
def test_bicubic_is_matlabs(name, scale, kept):
    image = np.load(GOLDEN / "matlab_imresize_input.npz")["input"]
    expected = np.load(GOLDEN / "matlab_imresize_output.npz")[name]
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
    result = rescale_bicubic(tensor, scale)[0].permute(1, 2, 0).numpy()[kept]
    assert np.abs(result - expected).max() <= 1e-6


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_bicubic_keeps_constants(height, width, value):
    image = torch.full((1, 1, 13, 17), value, dtype=torch.float64)
    assert torch.allclose(resize_bicubic(image, height, width), torch.tensor(value).double())


@pytest.mark.parametrize("response", ["linear", "gamma2.2", "srgb", "reds"])
def test_responses_are_invertible_rising_and_clip(response):
    values = torch.linspace(0, 1, 256)[None, None, None].expand(2, 3, 1, 256)
    linear = to_linear(values, response)
    assert linear.shape == values.shape
    assert (linear.diff() > 0).all()
    assert 0 <= linear.min() <= linear.max() <= 1
    assert torch.allclose(to_encoded(linear, response), values, atol=2e-5)
    outside = torch.tensor([-1.0, 2.0]).expand(1, 3, 1, 2)
    assert to_encoded(outside, response)[0, 0, 0].tolist() == pytest.approx([0, 1], abs=1e-6)


def test_responses_are_the_ones_they_are_called_by():
    half = torch.full((1, 3, 1, 1), 0.5)
    assert to_linear(half, "linear").flatten().tolist() == [0.5] * 3
    assert to_linear(half, "gamma2.2").flatten().tolist() == pytest.approx([0.5**2.2] * 3)
    assert to_linear(half, "srgb").flatten().tolist() == pytest.approx([0.2140411] * 3)
    # The camera of REDS: exposure 1 for the value 128 of each channel, 44.02 for red's 255.
    middle = to_linear(torch.full((1, 3, 1, 1), 128 / 255), "reds").flatten().tolist()
    assert middle == pytest.approx([1 / 44.017872, 1 / 34.551517, 1 / 46.282566], rel=1e-5)


def trajectory(seed, length=30.0, samples=24, walk=None):
    rng, size = np.random.default_rng(seed), {"picture": PICTURE, "centre": (320, 240)}
    return draw_trajectory(rng, length=length, samples=samples, walk=walk, **size)


@pytest.mark.parametrize("seed", range(5))
def test_trajectories_have_their_length_and_are_centred(seed):
    path = trajectory(seed)
    assert path.length == pytest.approx(30)
    assert np.allclose(path.shift.mean(0), 0)
    assert abs(path.roll.mean()) < 1e-12
    corner = np.hypot(*PICTURE) / 2
    assert np.ptp(path.roll) * corner <= 0.5 * 30 + 1e-9


def test_trajectories_differ_in_direction_and_bend():
    ends = np.array([trajectory(seed).shift[[0, -1]] for seed in range(200)])
    spans = ends[:, 1] - ends[:, 0]
    assert np.abs(spans.mean(0)).max() < 4  # no direction is preferred
    straight = np.hypot(*spans.T) / 30
    assert straight.max() > 0.97
    assert straight.min() < 0.6


def test_paths_of_a_hand_are_straighter_and_have_more_hooks():
    """As those of a gyroscope: `benchmarks/camera_paths.py`."""
    walk = load_degradation("handheld-gyro").steps[0].walk
    spans = [trajectory(seed, walk=walk).shift[[0, -1]] for seed in range(1000)]
    straight = np.array([np.hypot(*(end - begin)) / 30 for begin, end in spans])
    assert np.quantile(straight, [0.1, 0.25, 0.5]) == pytest.approx([0.34, 0.64, 0.94], abs=0.05)


def test_homographies_move_the_centre_along_the_path():
    path = trajectory(3)
    centre = np.array([320, 240, 1])
    moved = path.homographies() @ centre
    seen = moved[:, :2] / moved[:, 2:] - centre[:2]
    assert np.allclose(-seen, path.shift, atol=0.05)


def test_a_blurred_point_draws_the_path_with_all_its_light():
    linear = torch.zeros(1, 1, 120, 160)
    linear[..., 60, 80] = 1
    rng = np.random.default_rng(0)
    path = draw_trajectory(rng, length=30, samples=24, picture=(120, 160), centre=(80, 60))
    spot = blur(linear, [path])[0, 0].numpy()
    assert spot.sum() == pytest.approx(1, abs=0.03)
    y, x = np.mgrid[0:120, 0:160]
    assert (spot * x).sum() / spot.sum() == pytest.approx(80, abs=0.5)
    assert (spot * y).sum() / spot.sum() == pytest.approx(60, abs=0.5)
    spread = np.sqrt((spot * ((x - 80) ** 2 + (y - 60) ** 2)).sum())
    assert spread == pytest.approx(np.sqrt((path.shift**2).sum(1).mean()), rel=0.15)


def test_roll_blurs_the_corners_more_than_the_centre():
    image = picture(240, 320)
    path = trajectory(1)
    turning = type(path)(
        np.zeros_like(path.shift), np.linspace(-0.05, 0.05, 24), path.focal, (160, 120)
    )
    change = (blur(image, [turning]) - image).abs()
    assert change[..., 110:130, 150:170].mean() < 0.5 * change[..., :40, :40].mean()


def test_masks_are_soft_and_of_reasonable_size():
    covered = [draw_mask(np.random.default_rng(seed), 96, 128).mean() for seed in range(40)]
    assert 0.1 < np.mean(covered) < 0.5
    mask = draw_mask(np.random.default_rng(0), 96, 128)
    assert mask.min() == 0
    assert mask.max() == 1
    assert 0.01 < ((mask > 0.05) & (mask < 0.95)).mean() < 0.3


def test_noise_has_the_stated_variance():
    linear = torch.full((2, 3, 200, 200), 0.25)
    linear[1] = 0
    shot, read = torch.tensor([4e-4, 4e-4]), torch.tensor([2e-3, 2e-3])
    noisy = add_noise(linear, shot, read, [1, 2])
    assert (noisy - linear)[0].var().item() == pytest.approx(4e-4 * 0.25 + 4e-6, rel=0.03)
    assert (noisy - linear)[1].std().item() == pytest.approx(2e-3, rel=0.03)
    assert (noisy - linear)[0].mean().abs() < 1e-4


@pytest.mark.parametrize("quality", [30, 60, 90])
def test_jpeg_is_libjpegs(quality):
    image = (picture(48, 64) * 255).round() / 255
    buffer = io.BytesIO()
    array = rgb8(image)
    Image.fromarray(array).save(buffer, "JPEG", quality=quality, subsampling=2)
    expected = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)[None] / 255
    ours = compress_jpeg(image, torch.tensor([float(quality)]))
    damage = (expected - image).abs().mean()
    assert (ours - expected).abs().mean() < 0.2 * damage


def test_each_picture_has_its_own_quality_and_any_size():
    image = picture(37, 51).repeat(2, 1, 1, 1)
    both = compress_jpeg(image, torch.tensor([98.0, 10.0]))
    assert both.shape == image.shape
    error = (both - image).abs().mean((1, 2, 3))
    assert error[0] < 0.5 * error[1]


def drawn(name, seed, size=(160, 192), count=1):
    recipe = load_degradation(name)
    centre = (size[1] / 2, size[0] / 2)
    return recipe, [
        draw(recipe, np.random.default_rng([seed, n]), picture=size, centre=centre)
        for n in range(count)
    ]


def near(found, wanted, count):
    """Whether the mean of independent draws is within four standard deviations."""
    return abs(found - wanted) <= 4 * np.sqrt(wanted * (1 - wanted) / count) + 1e-9


@pytest.mark.parametrize("name", shipped_degradations())
def test_shipped_recipes_draw_what_they_say(name):
    count = 200
    recipe, pictures = drawn(name, 0, count=count)
    assert recipe.name == name
    assert recipe.source
    for n, step in enumerate(recipe.steps):
        found = [p[n] for p in pictures if p[n] is not None]
        wanted = step.probability * (1 - getattr(step, "sharp", 0))
        assert near(len(found) / count, wanted, count), step.kind
        for key, value in (found[0] or {}).items():
            limits = getattr(step, key, None)
            if isinstance(limits, tuple) and isinstance(value, float):
                values = np.array([one[key] for one in found])
                assert limits[0] * 0.999 <= values.min()
                assert values.max() <= limits[1] * 1.001
                if key not in ("quality", "amount"):  # the others are log-uniform
                    off = np.log(np.median(values)) - np.log(limits).mean()
                    assert abs(off) <= 4 * 0.5 * np.ptp(np.log(limits)) / np.sqrt(len(values))
        if step.kind == "motion":
            paths = [Trajectory.from_record(one["path"]) for one in found]
            lengths = [path.length for path in paths]
            assert lengths == pytest.approx([one["length"] for one in found])
            objects = np.mean([one["object"] is not None for one in found])
            assert near(objects, step.objects, len(found))
            assert all(
                (path.translation is None) == (step.degrees_of_freedom == 3) for path in paths
            )


@pytest.mark.parametrize("name", shipped_degradations())
def test_drawn_numbers_survive_json(name):
    recipe, pictures = drawn(name, 3, size=(96, 128), count=3)
    assert json.loads(json.dumps(pictures)) == pictures
    sharp = picture(96, 128)
    degraded, reference = degrade(sharp, pictures[:1], recipe)
    assert degraded.shape[-2:] == (96 // recipe.scale, 128 // recipe.scale)
    assert reference.shape == sharp.shape
    on_grid = torch.allclose((degraded * 255).round() / 255, degraded, atol=1e-7)
    assert on_grid == (recipe.bits == 8)


@pytest.mark.parametrize("name", shipped_degradations())
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_recipes_at_other_scales(name, scale):
    recipe = load_degradation(name).at_scale(scale)
    parameters = draw(recipe, np.random.default_rng(0), picture=(96, 96), centre=(48, 48))
    small, reference = degrade(picture(97, 98), [parameters], recipe)
    assert small.shape[-2:] == (97 // scale, 98 // scale)
    assert reference.shape[-2:] == (97 - 97 % scale, 98 - 98 % scale)
    if load_degradation(name).scale == scale:
        assert recipe == load_degradation(name)


def test_patches_that_are_too_small_for_a_scale(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text(SHAKE + "[patches]\nside = 16\nstride = 8\n")
    with pytest.raises(RecipeError, match=r"'shake' at scale 7: patches.side: .*equal to 16"):
        load_degradation(str(path)).at_scale(7)


@pytest.mark.parametrize("name", ["shake-mixed", "real", "lai-uniform"])
def test_a_picture_does_not_depend_on_its_batch(name):
    sharp = torch.cat([picture(96, 128, seed) for seed in range(4)])
    recipe, parameters = drawn(name, 5, size=(96, 128), count=4)
    together, references = degrade(sharp, parameters, recipe)
    for n, one in enumerate(parameters):
        alone, reference = degrade(sharp[n : n + 1], [one], recipe)
        assert (alone - together[n]).abs().max() <= 1 / 255 + 1e-6
        assert torch.allclose(reference, references[n : n + 1], atol=1e-6)


def test_degraded_pictures_are_on_the_8_bit_grid_and_small():
    recipe, parameters = drawn("shake-mixed", 1, size=(130, 163))
    small, reference = degrade(picture(130, 163), parameters, recipe)
    assert small.shape == (1, 3, 32, 40)
    assert reference.shape == (1, 3, 128, 160)
    assert torch.allclose((small * 255).round() / 255, small, atol=1e-7)
    assert 0 <= small.min() <= small.max() <= 1


def test_without_motion_the_degraded_picture_is_the_bicubic_one():
    recipe, (one,) = drawn("shake", 0)
    sharp = picture(128, 160)
    small, reference = degrade(sharp, [[None, one[1]]], recipe)
    assert torch.equal(reference, sharp)
    bicubic = resize_bicubic(sharp, 32, 40).clamp(0, 1)
    assert (small - bicubic).abs().max() <= 0.5 / 255 + 1e-5


def test_margins_show_real_neighbours():
    recipe, parameters = drawn("shake", 2)
    sharp = picture(128, 160)
    whole, _ = degrade(sharp, parameters, recipe)
    inner, reference = degrade(sharp, parameters, recipe, margin=16)
    assert torch.equal(inner, whole[..., 4:-4, 4:-4])
    assert reference.shape[-2:] == (96, 128)


SHAKE = (FOLDER / "shake.toml").read_text()
MIXED = (FOLDER / "shake-mixed.toml").read_text()
DOWN = '[[steps]]\nkind = "downscale"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nam = 3", "a.toml: nam: unknown key. Did you mean 'name'"),
        ("name = 3\nx", "is not TOML"),
        (MIXED.replace("sharp = 0.15", "sharp = 1.5"), "sharp"),
        (SHAKE.replace("[5.0, 60.0]", "[60.0, 5.0]"), "above high"),
        (SHAKE.replace("[5.0, 60.0]", "[0.0, 5.0]"), "greater than 0"),
        (SHAKE.replace("[5.0, 60.0]", "[5.0, inf]"), "length.*finite"),
        (SHAKE.replace("[5.0, 60.0]", "[nan, 5.0]"), "length.*finite"),
        (MIXED.replace("[60.0, 98.0]", "[0, 95]"), "greater than or equal to 1"),
        (SHAKE.replace("samples = 24", 'samples = "24"'), "samples"),
        (SHAKE.replace('kind = "motion"', 'kind = "teleport"'), "teleport"),
        (SHAKE.replace("samples = 24", "sample = 24"), "sample"),
        (SHAKE.replace("scale = 4", "scale = 1"), "scale 1 does not permit a downscale"),
        (SHAKE.replace(DOWN, ""), "scale 4 needs a downscale step"),
        (SHAKE + DOWN, "a.toml: more than one downscale"),
        (SHAKE.replace(DOWN, DOWN + "probability = 0.5\n"), "downscale step applies to every"),
        (SHAKE.replace(DOWN, "").replace("[[steps]]", DOWN + "[[steps]]", 1), "must come before"),
        (SHAKE + "[frames]\ncount = [4, 8]\n", "odd"),
        (SHAKE + "[patches]\nside = 30\nstride = 8\n", "not divisible by scale"),
        ("name = '\udcff'", "is not TOML"),
        (SHAKE.replace("samples = 24", "samples = 1000000"), "samples.*1000"),  # endless
        ("sizes = [1e-9]\n" + SHAKE, "sizes"),  # these need terabytes
        (SHAKE + '[[steps]]\nkind = "gaussian"\nsigma = [1, 1e6]\n', "sigma.*250"),
        (SHAKE + '[[steps]]\nkind = "defocus"\nradius = [1, 1e6]\n', "radius.*250"),
    ],
)
def test_broken_recipes_name_the_key(tmp_path, text, message):
    path = tmp_path / "a.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RecipeError, match=message):
        load_degradation(str(path))


def test_unknown_recipes_suggest_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'shake'"):
        load_degradation("shak")
