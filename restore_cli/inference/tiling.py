"""Pads a picture, splits it into overlapping tiles, and blends their results.

Neighbouring tiles are cross-faded over their overlap, so a constant picture stays exactly constant.
Values near a tile's edge lack context: in the outer quarter of the overlap they are not used, and
next to it they have small weights. Finished parts are returned as soon as no further tile overlaps
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from restore_cli.inference.stages import canvas
from restore_cli.models.spec import Model, SizeRequirement


@dataclass(frozen=True, slots=True)
class Span:
    """Pixels start ... stop - 1 along one axis."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """Number of pixels."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Block:
    """A finished part of a restored picture, (B, C, h, w), and the position of its corner."""

    top: int
    left: int
    pixels: Tensor


def pad(image: Tensor, size: SizeRequirement) -> Tensor:
    """Extend (B, C, H, W) to the right and downwards to an accepted size.

    The picture is mirrored without repeating its edge, several times if it is small. A picture of
    one row or column is repeated instead.
    """
    rows, columns = (Span(0, size.padded(side)) for side in image.shape[-2:])
    return padded_tile(image, rows, columns)


def padded_tile(image: Tensor, rows: Span, columns: Span) -> Tensor:
    """Cut rows and columns of `pad(image, size)`, without computing the whole padded picture.

    (B, C, H, W) -> (B, C, rows, columns); a view if the tile lies inside the picture.
    """
    height, width = image.shape[-2:]
    mirrored = height > 1 and width > 1
    for axis, length, span in ((-2, height, rows), (-1, width, columns)):
        if span.stop <= length:
            image = image.narrow(axis, span.start, span.length)
            continue
        places = torch.arange(span.start, span.stop, device=image.device)
        if mirrored:
            places %= 2 * (length - 1)
            places = torch.minimum(places, 2 * (length - 1) - places)
        image = image.index_select(axis, places.clamp(max=length - 1))
    return image


def plan_tiles(
    model: Model, height: int, width: int, tile: int, overlap: int
) -> tuple[list[Span], list[Span]]:
    """Return spans of the rows and columns of a picture's tiles, for a model.

    They may extend beyond the picture, which has to be padded. With `Tiling.WINDOWS`, a side with
    more than one window needs no padding, since windows may start anywhere. All numbers are pixels:
    the picture's sides, the longest side of a tile, and the smallest overlap of neighbours.
    """

    def spans(length: int) -> list[Span]:
        covered = length if model.tile_step == 1 and length > tile else model.size.padded(length)
        return plan_axis(covered, tile, overlap, model.size.multiple_of, model.tile_step)

    return spans(height), spans(width)


def plan_axis(
    length: int, tile: int, overlap: int, multiple: int, step: int | None = None
) -> list[Span]:
    """Return spans that cover an axis; three or more share at most two thirds with each neighbour.

    Of the numbers of spans that `tile` permits, the one with the least work, their total length, is
    taken, and of equal ones the smallest. Spans are as short as their number permits. Where
    rounding to the multiple matters, since they may start anywhere, some are shorter than others by
    one multiple: 4000 px, in spans of at most 512 that are multiples of 64 and overlap by 32,
    are four of 512 and five of 448 px. No span becomes shorter than three quarters of `tile` by
    that: on seven real frames of 640x384 (`maxim.motion`, float32), windows of 384 and 320 px gain
    6.67 dB (4.15 on the worst frame), two of 384 px 6.70 dB (4.49).

    Args:
        length: length of the axis, a multiple of `step`; of `multiple` if one span is enough.
        tile: longest span, at least a multiple and three overlaps; rounded down to a multiple.
        overlap: smallest overlap of neighbours; rounded up to a multiple of `step`.
        multiple: the length of every span is a multiple of it.
        step: every start is a multiple of it; None for `multiple`.
    """
    step = step or multiple
    overlap = -(-overlap // step) * step
    tile = tile // multiple * multiple
    if length <= tile:
        return [Span(0, length)]
    assert tile >= max(3 * overlap, multiple)  # else more than two tiles would overlap

    def lengths_of(count: int) -> list[int]:
        units = -(-(length + (count - 1) * overlap) // multiple)
        short, longer = divmod(units, count)
        if step == multiple or 4 * short * multiple < 3 * tile:
            return [-(-units // count) * multiple] * count
        return [(short + 1) * multiple] * longer + [short * multiple] * (count - longer)

    fewest = -(-(length - overlap) // (tile - overlap))
    lengths = min(map(lengths_of, range(fewest, 2 * fewest)), key=sum)
    # The start of each span if every overlap were the smallest allowed.
    firsts = [first - n * overlap for n, first in enumerate(accumulate(lengths[:-1], initial=0))]
    excess = firsts[-1] + lengths[-1] - length
    gaps = len(lengths) - 1
    starts = [first - n * excess // gaps // step * step for n, first in enumerate(firsts)]
    return [Span(start, start + side) for start, side in zip(starts, lengths, strict=True)]


def restore_blocks(
    scale: int,
    spans: tuple[list[Span], list[Span]],
    restored: Iterable[Tensor],
) -> Iterator[Block]:
    """Yield finished parts of the restored picture, one per tile, row by row.

    Memory holds half of the overlaps with tiles that are not restored yet, below a row of tiles and
    to the right of one tile; the outer quarters of an overlap are final at once. It is allocated
    before the first tile, since anything kept between the feature maps of two tiles leaves gaps.

    Args:
        scale: output pixels per input pixel.
        spans: spans of the rows and of the columns.
        restored: every tile, row by row: (1, 3, scale * rows, scale * columns), float32, modified
            in place. The next one is taken when the last one's block is no longer needed.

    Yields:
        Blocks that together are the restored picture.
    """
    tiles = iter(restored)
    rows, columns = (_parts(axis, scale) for axis in spans)
    deepest, widest = (max(_half(shared) for *_, shared in axis) for axis in (rows, columns))
    tallest = max(height + below for _, height, below in rows)
    lower = canvas(deepest, spans[1][-1].stop * scale, None)  # of all tiles above
    right = canvas(tallest, widest, None)  # of the previous tile
    above = 0  # output rows shared with the tiles above
    for top, height, below in rows:
        before = 0
        for left, width, after in columns:
            tile = next(tiles)
            side = right[..., : tile.shape[-2], :]
            if before:
                _fade_in(side, tile, before, dim=-1)
            side[..., : _half(after)] = tile[..., width + after // 4 :][..., : _half(after)]
            done = tile[..., before // 4 : width + after // 4]
            edge = lower[..., left + before // 4 : left + width + after // 4]
            if above:
                _fade_in(edge, done, above, dim=-2)
            fading = done[..., height + below // 4 :, :][..., : _half(below), :]
            edge[..., : _half(below), :] = fading
            final = done[..., above // 4 : height + below // 4, :]
            yield Block(top + above // 4, left + before // 4, final)
            del tile, done, fading, final  # before the next one is restored
            before = after
        above = below


def _parts(spans: list[Span], scale: int) -> list[tuple[int, int, int]]:
    """Return each span's start, length before the next one, and their overlap, in output pixels."""
    starts = [span.start for span in spans[1:]] + [spans[-1].stop]
    return [
        (span.start * scale, (start - span.start) * scale, (span.stop - start) * scale)
        for span, start in zip(spans, starts, strict=True)
    ]


def _half(shared: int) -> int:
    """Return the length of the middle half of an overlap, over which tiles are cross-faded."""
    return shared - 2 * (shared // 4)


def _fade_in(old: Tensor, new: Tensor, shared: int, dim: int) -> None:
    """Cross-fade to the first `shared` pixels of `new` along `dim`, over their middle half.

    Args:
        old: pixels of the previous tile, of which the first along `dim` are at this middle half.
        new: the tile, modified in place.
        shared: pixels that the two tiles share.
        dim: -1 or -2.
    """
    outer = shared // 4
    place = torch.arange(outer, shared - outer, device=new.device, dtype=new.dtype)
    weight = (2 * (place + 0.5) / shared - 0.5).clamp(0, 1)
    weight = weight[:, None] if dim == -2 else weight
    middle = new.narrow(dim, outer, _half(shared))
    middle.copy_(torch.lerp(old.narrow(dim, 0, _half(shared)), middle, weight))
