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
    monkeypatch.setattr(resample, "_LARGEST_MATRIX", 0)
    by_taps = resample.resize_bicubic(image, *size)
    assert by_taps.shape == by_matrix.shape == (2, 3, *size)
    assert (by_taps - by_matrix).abs().max() < (1e-12 if dtype == torch.float64 else 2e-6)
