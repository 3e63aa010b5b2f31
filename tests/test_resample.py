"""Bicubic resampling: large pictures go tap by tap, and come out the same."""

from __future__ import annotations

import pytest
import torch

from restore_cli import resample


@pytest.mark.parametrize("size", [(37, 90), (12, 15), (200, 7), (23, 30)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tap_by_tap_is_the_matrix(monkeypatch, size, dtype):
    torch.manual_seed(0)
    image = torch.rand(2, 3, 23, 30, dtype=dtype)
    by_matrix = resample.resize_bicubic(image, *size)
    monkeypatch.setattr(resample, "_MAX_MATRIX_ENTRIES", 0)
    by_taps = resample.resize_bicubic(image, *size)
    assert by_taps.shape == by_matrix.shape == (2, 3, *size)
    assert (by_taps - by_matrix).abs().max() < (1e-12 if dtype == torch.float64 else 2e-6)


@pytest.mark.parametrize("matrix", [0, resample._MAX_MATRIX_ENTRIES])
@pytest.mark.parametrize("size", [(37, 90), (12, 15), (23, 30)])
def test_bands_are_the_whole(monkeypatch, size, matrix):
    monkeypatch.setattr(resample, "_MAX_MATRIX_ENTRIES", matrix)
    image = torch.rand(1, 3, 23, 30, generator=torch.Generator().manual_seed(0))
    scales = (size[0] / 23, size[1] / 30)
    whole = resample.resample_bicubic(image, size, scales)
    monkeypatch.setattr(resample, "_BAND", 3 * 5 * size[1])  # bands of five rows
    tops, bands = zip(*resample.bicubic_bands(image, size, scales), strict=True)
    assert tops == tuple(range(0, size[0], 5))
    assert torch.allclose(torch.cat(bands, -2), whole, atol=1e-6)
    assert torch.allclose(resample.resample_bicubic(image, size, scales), whole, atol=1e-6)
