"""Kernels: their mass and size, convolution against its definition, files that are refused."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
import torch
from conftest import picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from restore_cli.degradations.kernels import (
    convolve,
    disc_kernel,
    gaussian_kernel,
    path_kernel,
    read_kernel,
)
from restore_cli.errors import UsageError


def moments(kernel):
    y, x = np.mgrid[0 : kernel.shape[0], 0 : kernel.shape[1]]
    y, x = y - kernel.shape[0] // 2, x - kernel.shape[1] // 2
    return (kernel * x).sum(), (kernel * y).sum(), (kernel * x * x).sum(), (kernel * y * y).sum()


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.5, 8.0])
def test_gaussian_has_its_width(sigma):
    kernel = gaussian_kernel(sigma)
    assert kernel.sum() == pytest.approx(1)
    assert moments(kernel)[:2] == pytest.approx((0, 0), abs=1e-12)
    # Cut at 3 sigma it is up to 3 % narrower; sampled at 0.5 px, a little more.
    assert moments(kernel)[2:] == pytest.approx((sigma**2, sigma**2), rel=0.15)


@pytest.mark.parametrize("radius", [0.001, 0.4, 1.0, 4.5, 10.0])
def test_disc_has_its_radius(radius):
    kernel = disc_kernel(radius)
    assert kernel.sum() == pytest.approx(1)
    assert np.allclose(kernel, kernel.T)
    assert np.allclose(kernel, kernel[::-1])
    if radius > 2:
        # A disc's own, and that of a pixel.
        assert moments(kernel)[2] == pytest.approx(radius**2 / 4 + 1 / 12, rel=0.03)
        assert 1 / kernel.max() == pytest.approx(np.pi * radius**2, rel=0.02)  # flat inside


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_path_kernels_have_their_size_and_all_their_light(half, seed):
    path = np.cumsum(np.random.default_rng(seed).standard_normal((30, 2)), axis=0)
    kernel = path_kernel(path, 2 * half + 1)
    assert kernel.shape == (2 * half + 1, 2 * half + 1)
    assert kernel.sum() == pytest.approx(1)
    assert kernel.min() >= 0
    used = [np.flatnonzero(kernel.sum(axis)) for axis in (0, 1)]
    assert max(u[-1] - u[0] + 1 for u in used) >= 2 * half  # it fills its larger extent


@pytest.mark.parametrize("shape", [(3, 5), (15, 15), (17, 9), (31, 33)])
def test_convolution_is_its_definition(shape):
    """Direct and by Fourier transform; a bright point becomes the kernel; edges are repeated."""
    rng = np.random.default_rng(0)
    kernel = rng.random(shape)
    kernel /= kernel.sum()
    image = torch.zeros(1, 1, 51, 61, dtype=torch.float64)
    image[..., 25, 30] = 1
    rows, columns = shape
    spot = convolve(image, [kernel])[0, 0].numpy()
    cut = spot[25 - rows // 2 : 26 + rows // 2, 30 - columns // 2 : 31 + columns // 2]
    assert np.allclose(cut, kernel)
    assert spot.sum() == pytest.approx(1)
    photo = picture(20, 24).double()
    padded = np.pad(
        photo[0, 1].numpy(), ((rows // 2, rows // 2), (columns // 2, columns // 2)), mode="edge"
    )
    windows = np.lib.stride_tricks.sliding_window_view(padded, shape)
    expected = (windows * kernel[::-1, ::-1]).sum((2, 3))
    assert np.allclose(convolve(photo, [kernel])[0, 1].numpy(), expected)


def test_each_picture_has_its_own_kernel():
    batch = torch.cat([picture(30, 30), picture(30, 30)])
    both = convolve(batch, [gaussian_kernel(1), disc_kernel(9)])
    assert torch.allclose(both[:1], convolve(batch[:1], [gaussian_kernel(1)]))
    assert both[1].std() < both[0].std()


def test_kernels_from_files(tmp_path):
    kernel = gaussian_kernel(1.2)
    np.save(tmp_path / "k.npy", kernel)
    savemat(tmp_path / "k.mat", {"psf": kernel, "xxfunction_workspace__": np.zeros((1, 8))})
    saved = (tmp_path / "k.mat").read_bytes()  # as MATLAB saves function handles
    (tmp_path / "k.mat").write_bytes(saved.replace(b"xxfunction", b"__function"))
    grey = (kernel / kernel.max() * 255).round().astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "k.png")
    Image.fromarray((kernel / kernel.max() * 65535).round().astype(np.uint16)).save(
        tmp_path / "deep.png"
    )
    assert np.allclose(read_kernel(tmp_path / "k.npy"), kernel)
    assert np.allclose(read_kernel(tmp_path / "k.mat"), kernel)
    assert np.allclose(read_kernel(tmp_path / "k.png"), kernel, atol=1e-3)
    assert np.allclose(read_kernel(tmp_path / "deep.png"), kernel, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (np.full((3, 3), 0.2), "sums to 1.8, not to 1"),
        (np.zeros((3, 3)), "sums to 0, not to 1"),
        (np.full((4, 3), 1 / 12), "3x4, but needs odd sides"),
        (np.full((3, 3, 3), 1 / 27), "not a matrix"),
        (np.array([[2.0, -1, 0]]), "negative or not finite"),
        (np.array([[np.nan, 1, 0]]), "negative or not finite"),
        (np.array([["a"]]), "cannot read the kernel"),
    ],
)
def test_impossible_kernels_are_refused(tmp_path, kernel, message):
    np.save(tmp_path / "k.npy", kernel)
    with pytest.raises(UsageError, match=message):
        read_kernel(tmp_path / "k.npy")


def test_files_that_are_no_kernels(tmp_path):
    np.save(tmp_path / "complex.npy", np.full((1, 1), 1 + 1j))
    np.save(tmp_path / "structured.npy", np.zeros((1, 1), [("a", "f4")]))
    np.save(tmp_path / "broken.npy", np.ones((1, 1)))
    data = (tmp_path / "broken.npy").read_bytes()
    (tmp_path / "broken.npy").write_bytes(data.replace(b"(1, 1)", b"(1, (("))
    for name in ("complex.npy", "structured.npy", "broken.npy"):
        with pytest.raises(UsageError, match=f"cannot read the kernel '.*{name}'"):
            read_kernel(tmp_path / name)
    for name in ("k.npy", "k.mat", "k.png", "absent.npy"):
        if name != "absent.npy":
            (tmp_path / name).write_text("no kernel")
        with pytest.raises(UsageError, match="cannot read the kernel"):
            read_kernel(tmp_path / name)
    savemat(tmp_path / "packed.mat", {"psf": np.full((31, 31), 1 / 961)}, do_compression=True)
    whole = (tmp_path / "packed.mat").read_bytes()
    for place in range(128, len(whole), 3):
        damaged = whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]
        (tmp_path / "packed.mat").write_bytes(damaged)
        with suppress(UsageError):  # or it is still a kernel
            read_kernel(tmp_path / "packed.mat")
    savemat(tmp_path / "two.mat", {"a": np.eye(3), "b": np.eye(3)})
    with pytest.raises(UsageError, match="contains 2 matrices"):
        read_kernel(tmp_path / "two.mat")
