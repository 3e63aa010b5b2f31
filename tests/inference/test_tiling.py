"""Tiles: plans that cover, fades that keep constants, and tiled = whole for a local operation."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from conftest import picture
from hypothesis import given, settings
from hypothesis import strategies as st

from restore_cli.inference.tiling import Span, pad, padded_tile, plan_axis, restore_blocks
from restore_cli.models.spec import SizeRequirement

MULTIPLES = st.sampled_from([1, 4, 8])


@given(st.integers(1, 400), st.integers(1, 60), st.integers(0, 20), MULTIPLES)
@settings(max_examples=300, deadline=None)
def test_a_plan_covers_an_axis_and_overlaps_neighbours_only(length, tile, overlap, multiple):
    length, tile, overlap = length * multiple, tile * multiple, overlap * multiple
    try:
        spans = plan_axis(length, tile, overlap, multiple)
    except AssertionError:
        assert tile < max(3 * overlap, multiple)
        return
    assert spans[0].start == 0
    assert spans[-1].stop == length
    assert len({span.stop - span.start for span in spans}) == 1
    for span in spans:
        assert span.start % multiple == 0
        assert span.stop - span.start <= tile or len(spans) == 1
    for before, after in pairwise(spans):
        assert before.stop - after.start >= overlap
    for before, after in zip(spans, spans[2:], strict=False):
        assert before.stop <= after.start


def test_a_plan_is_the_least_work():
    def lengths(*given, step):
        return [span.length for span in plan_axis(*given, step=step)]

    assert lengths(4000, 512, 32, 64, step=1) == [512] * 4 + [448] * 5
    assert lengths(4000, 256, 32, 32, step=32) == [256] * 18  # equal, and so is their work
    assert lengths(240, 128, 32, 64, step=1) == [128] * 3  # 64 px would be too short
    assert lengths(640, 512, 32, 64, step=1) == [384] * 2  # and so would 320


@given(st.integers(1, 5000), st.integers(2, 10), st.integers(0, 12))
@settings(max_examples=300, deadline=None)
def test_a_plan_of_windows_covers_an_axis_with_lengths_of_almost_the_same(length, units, overlap):
    multiple, tile = 16, 16 * units
    try:
        spans = plan_axis(length, tile, overlap, multiple, step=1)
    except AssertionError:
        assert tile < 3 * overlap
        return
    if len(spans) == 1:
        assert spans == [Span(0, length)]
        return
    assert (spans[0].start, spans[-1].stop) == (0, length)
    lengths = [span.length for span in spans]
    assert all(side % multiple == 0 for side in lengths)
    assert max(lengths) - min(lengths) <= multiple
    assert max(lengths) <= tile
    equal = -(-(length + (len(spans) - 1) * overlap) // (len(spans) * multiple)) * multiple
    assert sum(lengths) <= equal * len(spans)
    for before, after in pairwise(spans):
        assert before.stop - after.start >= overlap
        # So that cross-fades do not meet.
        assert len(spans) == 2 or 3 * (before.stop - after.start) <= 2 * max(lengths) + 3


def test_more_than_two_tiles_never_overlap():
    with pytest.raises(AssertionError):
        plan_axis(500, 64, 32, 8)


def run(image, tile, overlap, scale, operation):
    height, width = image.shape[-2:]
    spans = (plan_axis(height, tile, overlap, 1), plan_axis(width, tile, overlap, 1))

    tiles = (
        operation(image[..., rows.start : rows.stop, columns.start : columns.stop])
        for rows, columns in product(*spans)
    )
    result = torch.full((1, 3, height * scale, width * scale), torch.nan)
    for block in restore_blocks(scale, spans, tiles):
        below, right = block.top + block.pixels.shape[-2], block.left + block.pixels.shape[-1]
        place = result[..., block.top : below, block.left : right]
        assert place.isnan().all()  # every pixel is handed out once
        place.copy_(block.pixels)
    return result


def enlarge(scale):
    return lambda x: torch.nn.functional.interpolate(x, scale_factor=scale, mode="nearest")


@given(
    st.integers(20, 70), st.integers(20, 70), st.integers(1, 6), st.floats(-2, 2), st.integers(1, 4)
)
@settings(max_examples=60, deadline=None)
def test_constants_survive_exactly(height, width, overlap, value, scale):
    image = torch.full((1, 3, height, width), value)
    result = run(image, 20, overlap, scale, enlarge(scale))
    assert torch.equal(result, torch.full((1, 3, height * scale, width * scale), value))


@given(st.integers(20, 90), st.integers(20, 90), st.integers(0, 6))
@settings(max_examples=40, deadline=None)
def test_pointwise_operations_do_not_see_tiles(height, width, overlap):
    image = picture(height, width)
    assert torch.allclose(run(image, 20, overlap, 2, enlarge(2)), enlarge(2)(image), atol=1e-6)


def test_a_filter_equals_the_whole_picture_inside_its_reach():
    torch.manual_seed(0)
    kernel = torch.randn(3, 3, 5, 5)
    image = picture(61, 87)  # not square: rows and columns must not be mixed up

    def operation(x):
        # What lies beyond a tile is unknown to it; beyond the picture it is zero.
        return torch.nn.functional.conv2d(x, kernel, padding=2)

    whole = operation(image)
    tiled = run(image, 32, 10, 1, operation)
    error = (tiled - whole).abs()
    # Weight near a tile's edge is small but not zero, so the two edge pixels are damped only.
    assert error.max() < 0.5 * whole.abs().max()
    assert (error < 1e-5).float().mean() > 0.6


@given(st.integers(1, 40), st.integers(1, 40), MULTIPLES)
@settings(max_examples=60, deadline=None)
def test_padding_extends_and_cropping_gives_back(height, width, multiple):
    image = picture(height, width)
    padded = pad(image, SizeRequirement(multiple_of=multiple, minimum=multiple))
    assert padded.shape[-2] % multiple == 0
    assert padded.shape[-1] % multiple == 0
    assert torch.equal(padded[..., :height, :width], image)
    assert padded.min() >= image.min()
    assert padded.max() <= image.max()


@given(st.integers(1, 40), st.integers(1, 40), MULTIPLES, st.data())
@settings(max_examples=100, deadline=None)
def test_a_tile_of_the_padded_picture_is_cut_without_padding_it(height, width, multiple, data):
    image = picture(height, width)
    padded = pad(image, SizeRequirement(multiple_of=multiple, minimum=4 * multiple))
    spans = []
    for side in padded.shape[-2:]:
        start = data.draw(st.integers(0, side - 1))
        spans.append(Span(start, data.draw(st.integers(start + 1, side))))
    rows, columns = spans
    expected = padded[..., rows.start : rows.stop, columns.start : columns.stop]
    assert torch.equal(padded_tile(image, rows, columns), expected)


@pytest.mark.parametrize(("height", "width"), [(5, 3), (2, 9), (1, 4), (4, 1), (1, 1), (12, 16)])
def test_padding_mirrors_as_torch_does(height, width):
    image, size = picture(height, width), SizeRequirement(multiple_of=16, minimum=16)
    mode = "reflect" if min(height, width) > 1 else "replicate"
    expected = image
    while (sides := tuple(expected.shape[-2:])) != (16, 16):  # torch reflects less than a side
        most = [side - 1 if mode == "reflect" else 16 for side in sides]
        down, right = (min(16 - a, b) for a, b in zip(sides, most, strict=True))
        expected = torch.nn.functional.pad(expected, (0, right, 0, down), mode=mode)
    assert torch.equal(pad(image, size), expected)
