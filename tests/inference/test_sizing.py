"""`--size`: one resampling, on the grid of the result, and exactly the size that was asked for."""

from __future__ import annotations

import pytest
import torch
from conftest import picture

from restore_cli.errors import UsageError
from restore_cli.inference.sizing import KEEP, TargetSize, input_size, parse_size, restore_to_size
from restore_cli.inference.stages import Bicubic
from restore_cli.resample import resize_bicubic


class Watched(Bicubic):
    """Bicubic that remembers the sizes it was given."""

    def __init__(self, scale: int = 4) -> None:
        super().__init__(scale)
        self.given: list[tuple[int, int]] = []

    def __call__(self, image, report=lambda done, tiles: None, depth=None):
        self.given.append(tuple(image.shape[-2:]))
        assert image.min() >= 0
        assert image.max() <= 1
        return super().__call__(image, report, depth)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("keep", (300, 400)),
        ("2x", (600, 800)),
        ("0.5x", (150, 200)),
        ("1.5x", (450, 600)),
        ("1600x1200", (1200, 1600)),
        ("1600x1600", (1200, 1600)),
        ("100x9000", (75, 100)),
        ("1x1", (1, 1)),
    ],
)
def test_sizes_of_a_picture_of_400x300(text, expected):
    size = parse_size(text)
    assert size.of(300, 400) == expected
    assert str(size) == text


@pytest.mark.parametrize("text", ["0x0", "99999999x4", "0x", "9x"])
def test_sizes_that_no_picture_has_are_refused_with_their_limits(text):
    with pytest.raises(UsageError, match=r"between (1 and 65536 px|0\.01x and 8x)"):
        parse_size(text)


@pytest.mark.parametrize("text", ["", "big", "x2", "-2x", "4"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match="is not a size") as refused:
        parse_size(text)
    assert "WIDTHxHEIGHT" in refused.value.hint


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("before", [(96, 128), (95, 127), (97, 50), (31, 7)])
@pytest.mark.parametrize("text", ["keep", "2x", "0.5x", "3x", "6x", "77x41"])
@pytest.mark.parametrize("depth", [None, 8])
def test_it_lands_on_the_size(scale, before, text, depth):
    stage, size = Watched(scale), parse_size(text).of(*before)
    result = restore_to_size(stage, picture(*before), size, depth=depth)
    assert result.shape == (1, 3, *size)
    assert result.dtype == (torch.float32 if depth is None else torch.uint8)
    assert stage.given == [input_size(scale, before, size)]
    if depth is None:
        assert result.min() >= 0
        assert result.max() <= 1


@pytest.mark.parametrize("before", [(96, 128), (97, 131)])
def test_nothing_moves(before):
    """A smooth picture keeps its place to a hundredth of a pixel, whatever is left over."""
    height, width = before
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    ramp = (0.2 + 0.6 * (x / width + y / height) / 2)[None, None].expand(1, 3, -1, -1).contiguous()
    result = restore_to_size(Watched(), ramp, before)
    inside = (..., slice(16, height - 20), slice(16, width - 20))
    step = 0.3 / max(before)  # between neighbours
    assert (result - ramp)[inside].abs().max() < 0.01 * step + 1e-6


def test_a_multiple_of_the_scale_is_one_plain_resize():
    image, stage = picture(96, 128), Watched()
    small = resize_bicubic(image, 24, 32).clamp(0, 1)
    assert torch.equal(restore_to_size(stage, image, (96, 128)), stage(small))


def test_keep_is_a_factor_of_one():
    assert TargetSize(1.0) == KEEP
    assert KEEP.of(7, 9) == (7, 9)
