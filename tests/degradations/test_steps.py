"""Single steps: statistics that would be off if the code were wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import picture
from pydantic import TypeAdapter

from restore_cli.degradations.kernels import convolve, gaussian_kernel
from restore_cli.degradations.motion import draw_trajectory
from restore_cli.degradations.steps import AnyStep, Images, Scene

SCENE = Scene((480, 640), (320, 240), 1)


def step(**values):
    return TypeAdapter(AnyStep).validate_python(values)


def run(one, image, seed=0):
    drawn = one.draw(np.random.default_rng(seed), SCENE)
    images = Images(image, image.clone(), lambda linear: linear)
    one.apply(images, [drawn])
    return images.image, drawn


def flat(value, side=200):
    return torch.full((1, 3, side, side), value)


def test_gaussian_noise_has_its_sigma():
    noisy, drawn = run(step(kind="gaussian_noise", sigma=[0.01, 0.1]), flat(0.5))
    assert (noisy - 0.5).std().item() == pytest.approx(drawn["sigma"], rel=0.02)
    assert abs((noisy - 0.5).mean()) < 4 * drawn["sigma"] / np.sqrt(noisy.numel())


def test_uniform_noise_is_positive_and_flat():
    noisy, _ = run(step(kind="uniform_noise", amplitude=0.01), flat(0.5))
    noise = noisy - 0.5
    assert noise.min() >= -1e-6
    assert noise.max() <= 0.01 + 1e-6
    assert noise.mean().item() == pytest.approx(0.005, rel=0.01)
    assert noise.std().item() == pytest.approx(0.01 / np.sqrt(12), rel=0.01)


def test_poisson_gaussian_noise_grows_with_light():
    one = step(kind="noise", shot=[1e-3, 1e-3], read=[5e-3, 5e-3])
    for level in (0.0, 0.2, 0.8):
        noisy, _ = run(one, flat(level))
        assert (noisy - level).var().item() == pytest.approx(1e-3 * level + 25e-6, rel=0.03)


def test_random_kernels_have_every_odd_side_of_the_range():
    one = step(kind="random_kernel", side=[21, 75])
    sides = [one.draw(np.random.default_rng(seed), SCENE)["side"] for seed in range(600)]
    assert set(sides) == set(range(21, 76, 2))
    point = torch.zeros(1, 3, 151, 151)
    point[..., 75, 75] = 1
    spot, drawn = run(one, point, seed=4)
    assert spot[0, 0].sum().item() == pytest.approx(1, abs=1e-4)
    used = [np.flatnonzero((spot[0, 0] > 1e-6).numpy().any(axis)) for axis in (0, 1)]
    assert max(u[-1] - u[0] + 1 for u in used) in (drawn["side"] - 1, drawn["side"])


@pytest.mark.parametrize("kind", ["gaussian", "defocus"])
def test_smoothing_kernels_are_as_wide_as_drawn(kind):
    key = {"gaussian": "sigma", "defocus": "radius"}[kind]
    point = torch.zeros(1, 3, 81, 81, dtype=torch.float64)
    point[..., 40, 40] = 1
    for seed in range(5):
        spot, drawn = run(step(kind=kind, **{key: [2.0, 8.0]}), point, seed)
        y = torch.arange(81) - 40
        spread = float((spot[0, 0].sum(1) * y**2).sum()) ** 0.5
        width = drawn[key] if kind == "gaussian" else drawn[key] / 2
        assert spread == pytest.approx(width, rel=0.05)
        assert spot[0, 0].sum().item() == pytest.approx(1)


def test_highlights_raise_what_is_bright_only():
    image = torch.tensor([0.2, 0.89, 0.95, 1.0]).expand(1, 3, 1, 4).contiguous()
    raised, _ = run(step(kind="highlights", gain=[5.0, 5.0], threshold=0.9), image)
    assert raised[0, 0, 0].tolist() == pytest.approx([0.2, 0.89, 0.95 * 3, 5.0])


def test_sharpening_undoes_a_little_of_a_blur():
    image = picture(64, 64)
    blurred = convolve(image, [gaussian_kernel(1.0)])
    sharper, _ = run(step(kind="sharpen", amount=[0.7, 0.7]), blurred)
    assert (sharper - image).abs().mean() < 0.93 * (blurred - image).abs().mean()


def test_a_step_is_applied_as_often_as_its_probability():
    one = step(kind="gaussian", sigma=[1.0, 2.0], probability=0.3)
    drawn = [one.draw(np.random.default_rng(seed), SCENE) for seed in range(1000)]
    share = np.mean([d is not None for d in drawn])
    assert abs(share - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 1000)


@pytest.mark.parametrize("seed", range(10))
def test_six_degrees_of_freedom_keep_the_length_and_zoom(seed):
    path = draw_trajectory(
        np.random.default_rng(seed),
        length=40,
        samples=24,
        picture=(480, 640),
        centre=(320, 240),
        degrees_of_freedom=6,
    )
    assert path.length == pytest.approx(40)
    assert np.allclose(path.translation.mean(0), 0)
    matrices = path.homographies()
    centre = matrices @ np.array([320, 240, 1])
    seen = centre[:, :2] / centre[:, 2:] - (320, 240)
    assert np.abs(seen + path.path).mean() < 1  # to first order
    # Moving forwards scales: corners spread more than rotation alone lets them.
    scale = [np.linalg.det(m / m[2, 2]) for m in matrices]
    assert np.ptp(scale) > 1e-4


def test_blur_after_downscaling_is_shorter_in_pixels():
    one = step(kind="motion", length=[40.0, 40.0])
    small = Scene((480, 640), (320, 240), 4, downscaled_by=4)
    drawn = one.draw(np.random.default_rng(0), small)
    assert drawn["length"] == pytest.approx(10)
    assert drawn["path"]["centre"] == [80, 60]
