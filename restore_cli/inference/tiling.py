"""A large picture as overlapping tiles, put together tile by tile.

Planning is integers only. Neighbouring tiles are cross-faded over their overlap, so a constant
survives exactly. A value near a tile's edge, where the tile does not see what the whole picture
sees, is not used at all in the outer quarter of the overlap, and gets little weight next to it.
What is finished is handed out as soon as no further tile touches it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from restore_cli.errors import UsageError
from restore_cli.models.spec import Model


@dataclass(frozen=True, slots=True)
class Span:
    """Pixels start ... stop - 1 along one axis."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Tile:
    """One piece of a picture, in input pixels."""

    rows: Span
    columns: Span

    @property
    def pixels(self) -> int:
        """How many the tile has."""
        return (self.rows.stop - self.rows.start) * (self.columns.stop - self.columns.start)


@dataclass(frozen=True, slots=True)
class Block:
    """A finished part of a restored picture: (B, C, h, w), and where its corner lies."""

    top: int
    left: int
    pixels: Tensor


def plan_tiles(
    model: Model, height: int, width: int, tile: int, overlap: int
) -> tuple[list[Span], list[Span]]:
    """Spans of the rows and of the columns of a picture's tiles, for a model.

    They may end beyond the picture, which is padded there. A picture of more than one window
    needs no padding, since windows may lie anywhere.

    Args:
        model: which will restore them.
        height: of the picture, pixels.
        width: likewise.
        tile: longest side.
        overlap: pixels shared by neighbours, at least.

    Raises:
        UsageError: see `plan_axis`.
    """

    def spans(length: int) -> list[Span]:
        covered = length if model.tile_step == 1 and length > tile else model.size.padded(length)
        return plan_axis(covered, tile, overlap, model.size.multiple_of, model.tile_step)

    return spans(height), spans(width)


def plan_axis(
    length: int, tile: int, overlap: int, multiple: int, step: int | None = None
) -> list[Span]:
    """Equal spans that cover an axis, each overlapping only its neighbours.

    The number of spans is the least that spans of `tile` need; then they are made as short as that
    number allows.

    Args:
        length: of the axis, a multiple of `step`; of `multiple` if one span is enough.
        tile: longest span; rounded down to a multiple.
        overlap: pixels shared by neighbours, at least; rounded up to a multiple of `step`.
        multiple: of the length of every span.
        step: every start is a multiple of it; None for `multiple`.

    Raises:
        UsageError: the tile is shorter than three overlaps, so tiles would overlap their
            neighbours' neighbours.
    """
    step = step or multiple
    overlap = -(-overlap // step) * step
    tile = tile // multiple * multiple
    if length <= tile:
        return [Span(0, length)]
    if tile < max(3 * overlap, multiple):
        raise UsageError(
            f"a tile of {tile} px is too small for an overlap of {overlap} px",
            hint=f"use --tile {max(3 * overlap, multiple)} or more, or a smaller --overlap",
        )
    count = -(-(length - overlap) // (tile - overlap))
    side = -(-(length + (count - 1) * overlap) // (count * multiple)) * multiple
    starts = [n * (length - side) // (count - 1) // step * step for n in range(count)]
    return [Span(start, start + side) for start in starts]


def restore_blocks(
    height: int,
    width: int,
    scale: int,
    spans: tuple[list[Span], list[Span]],
    restored: Iterable[Tensor],
) -> Iterator[Block]:
    """Finished parts of the restored picture, a tile each, row by row.

    What is held meanwhile is a tile and the overlaps that wait for their other side: along the
    bottom of a row of tiles, and along the right of one tile.

    Args:
        height: of the input, pixels.
        width: of the input.
        scale: output pixels per input pixel.
        spans: of the rows and of the columns.
        restored: every tile, row by row: (B, C, scale * rows, scale * columns), written to.

    Yields:
        Blocks that together are the picture (B, C, scale * height, scale * width).
    """
    rows, columns = spans
    tiles = iter(restored)
    below: list[Tensor | None] = [None] * len(columns)  # lower edges of the row of tiles above
    for band, next_band in zip(rows, [*rows[1:], None], strict=True):
        tall = ((next_band.start if next_band else band.stop) - band.start) * scale
        beside: Tensor | None = None
        for n, (span, next_span) in enumerate(zip(columns, [*columns[1:], None], strict=True)):
            left = span.start * scale
            wide = (next_span.start if next_span else span.stop) * scale - left
            tile = next(tiles)
            if beside is not None:
                _fade_in(beside, tile, dim=-1)
            beside = tile[..., wide:].clone() if next_span else None
            done = tile[..., :wide]
            edge = below[n]
            if edge is not None:
                _fade_in(edge, done, dim=-2)
            below[n] = done[..., tall:, :].clone() if next_band else None
            yield Block(band.start * scale, left, done[..., :tall, :])


def _fade_in(old: Tensor, new: Tensor, dim: int) -> None:
    """Fade the first part of `new` along `dim` in over `old`, in the middle half of it."""
    shared = old.shape[dim]
    place = (torch.arange(shared, device=new.device, dtype=new.dtype) + 0.5) / shared
    weight = (2 * place - 0.5).clamp(0, 1)
    weight = weight[:, None] if dim == -2 else weight
    head = new.narrow(dim, 0, shared)
    head.copy_(torch.lerp(old, head, weight))
