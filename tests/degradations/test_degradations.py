"""Degradations: reference numbers, statistics that would be off if the code were wrong, seeds."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from conftest import GOLDEN, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from restore_cli.degradations.jpeg import compress_jpeg
from restore_cli.degradations.motion import blur, draw_mask, draw_trajectory
from restore_cli.degradations.recipe import FOLDER, degrade, draw, load_degradation
from restore_cli.degradations.response import to_encoded, to_linear
from restore_cli.degradations.sensor import add_noise
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


def test_response_is_its_own_inverse():
    values = torch.linspace(0, 1, 256)
    assert torch.allclose(to_encoded(to_linear(values)), values, atol=1e-6)
    assert to_encoded(torch.tensor([-1.0, 2.0])).tolist() == pytest.approx([0, 1])


def trajectory(seed, length=30.0, samples=24):
    rng = np.random.default_rng(seed)
    return draw_trajectory(rng, length=length, samples=samples, picture=PICTURE, centre=(320, 240))


@pytest.mark.parametrize("seed", range(20))
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


def test_homographies_move_the_centre_along_the_path():
    path = trajectory(3)
    centre = np.array([320, 240, 1])
    moved = path.homographies() @ centre
    seen = moved[:, :2] / moved[:, 2:] - centre[:2]
    assert np.allclose(-seen, path.shift, atol=0.05)


def test_a_blurred_point_draws_the_path_with_all_its_light():
    light = torch.zeros(1, 1, 120, 160)
    light[..., 60, 80] = 1
    rng = np.random.default_rng(0)
    path = draw_trajectory(rng, length=30, samples=24, picture=(120, 160), centre=(80, 60))
    spot = blur(light, [path])[0, 0].numpy()
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
    shares = [draw_mask(np.random.default_rng(seed), 96, 128).mean() for seed in range(40)]
    assert 0.1 < np.mean(shares) < 0.5
    mask = draw_mask(np.random.default_rng(0), 96, 128)
    assert mask.min() == 0
    assert mask.max() == 1
    assert 0.01 < ((mask > 0.05) & (mask < 0.95)).mean() < 0.3


def test_noise_has_the_stated_variance():
    light = torch.full((2, 3, 200, 200), 0.25)
    light[1] = 0
    shot, read = torch.tensor([4e-4, 4e-4]), torch.tensor([2e-3, 2e-3])
    noisy = add_noise(light, shot, read, [1, 2])
    assert (noisy - light)[0].var().item() == pytest.approx(4e-4 * 0.25 + 4e-6, rel=0.03)
    assert (noisy - light)[1].std().item() == pytest.approx(2e-3, rel=0.03)
    assert (noisy - light)[0].mean().abs() < 1e-4


@pytest.mark.parametrize("quality", [30, 60, 90])
def test_jpeg_is_libjpegs(quality):
    image = (picture(48, 64) * 255).round() / 255
    buffer = io.BytesIO()
    array = (image[0].permute(1, 2, 0) * 255).round().byte().numpy()
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


def drawn(name, seed, size=(128, 160), count=1):
    recipe = load_degradation(name)
    centre = (size[1] / 2, size[0] / 2)
    return recipe, [
        draw(recipe, np.random.default_rng([seed, n]), picture=size, centre=centre)
        for n in range(count)
    ]


@pytest.mark.parametrize("name", sorted(p.stem for p in FOLDER.glob("*.toml")))
def test_shipped_recipes_work_and_keep_their_promises(name):
    recipe, parameters = drawn(name, 0, count=400)
    assert recipe.name == name
    lengths = [p.trajectory.length for p in parameters if p.trajectory.length > 0]
    assert recipe.length[0] * 0.999 <= min(lengths)
    assert max(lengths) <= recipe.length[1] * 1.001
    assert np.median(lengths) == pytest.approx(np.sqrt(np.prod(recipe.length)), rel=0.2)
    at_rest = np.mean([p.trajectory.length == 0 for p in parameters])
    assert at_rest == pytest.approx(recipe.sharp, abs=0.06)
    noisy = np.mean([p.shot > 0 for p in parameters])
    assert noisy == pytest.approx(recipe.noise, abs=0.08)
    compressed = np.mean([p.quality is not None for p in parameters])
    assert compressed == pytest.approx(recipe.jpeg, abs=0.08)
    moving = np.mean([p.moving is not None for p in parameters])
    assert moving == pytest.approx(recipe.objects * (1 - recipe.sharp), abs=0.08)


def test_a_picture_does_not_depend_on_its_batch():
    sharp = torch.cat([picture(128, 160, seed) for seed in range(6)])
    _, parameters = drawn("shake-mixed", 5, count=6)
    together, references = degrade(sharp, parameters, 4)
    for n, one in enumerate(parameters):
        alone, reference = degrade(sharp[n : n + 1], [one], 4)
        assert (alone - together[n]).abs().max() <= 1 / 255 + 1e-6
        assert torch.allclose(reference, references[n : n + 1], atol=1e-6)


def test_degraded_pictures_are_on_the_8_bit_grid_and_small():
    _, parameters = drawn("shake-mixed", 1, size=(130, 163))
    small, reference = degrade(picture(130, 163), parameters, 4)
    assert small.shape == (1, 3, 32, 40)
    assert reference.shape == (1, 3, 128, 160)
    assert torch.allclose((small * 255).round() / 255, small, atol=1e-7)
    assert 0 <= small.min() <= small.max() <= 1


def test_without_motion_the_degraded_picture_is_the_bicubic_one():
    recipe = load_degradation("shake").model_copy(update={"sharp": 1.0})
    one = draw(recipe, np.random.default_rng(0), picture=(128, 160), centre=(80, 64))
    sharp = picture(128, 160)
    small, reference = degrade(sharp, [one], 4)
    assert torch.equal(reference, sharp)
    bicubic = resize_bicubic(sharp, 32, 40).clamp(0, 1)
    assert (small - bicubic).abs().max() <= 0.5 / 255 + 1e-5


def test_margins_show_real_neighbours():
    _, parameters = drawn("shake", 2)
    sharp = picture(128, 160)
    whole, _ = degrade(sharp, parameters, 4)
    inner, reference = degrade(sharp, parameters, 4, margin=16)
    assert torch.equal(inner, whole[..., 4:-4, 4:-4])
    assert reference.shape[-2:] == (96, 128)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nam = 3", "nam"),
        ("name = 3\nx", "is not TOML"),
        ((FOLDER / "shake.toml").read_text().replace("sharp = 0.0", "sharp = 1.5"), "sharp"),
        ((FOLDER / "shake.toml").read_text().replace("[5.0, 60.0]", "[60.0, 5.0]"), "above high"),
        ((FOLDER / "shake.toml").read_text().replace("[5.0, 60.0]", "[0.0, 5.0]"), "above 0"),
        ((FOLDER / "shake.toml").read_text().replace("[95.0, 95.0]", "[0, 95]"), "1 to 100"),
        ((FOLDER / "shake.toml").read_text().replace("samples = 24", 'samples = "24"'), "samples"),
        ("name = '\udcff'", "is not TOML"),
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
