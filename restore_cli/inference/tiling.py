"""A large picture as overlapping tiles, put together row by row.

Planning is integers only. Neighbouring tiles are cross-faded over their overlap, so a constant
survives exactly. A value near a tile's edge, where the tile does not see what the whole picture
sees, is not used at all in the outer quarter of the overlap, and gets little weight next to it.
Finished rows are handed out as soon as no further
tile touches them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from restore_cli.errors import UsageError


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


def plan_axis(length: int, tile: int, overlap: int, multiple: int) -> list[Span]:
    """Equal spans that cover an axis, each overlapping only its neighbours.

    The number of spans is the least that spans of `tile` need; then they are made as short as that
    number allows.

    Args:
        length: of the axis, a multiple of `multiple`.
        tile: longest span; rounded down to a multiple.
        overlap: pixels shared by neighbours, at least; rounded up to a multiple.
        multiple: of every start and stop.

    Raises:
        UsageError: the tile is shorter than three overlaps, so tiles would overlap their
            neighbours' neighbours.
    """
    overlap = -(-overlap // multiple) * multiple
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
    starts = [n * (length - side) // (count - 1) // multiple * multiple for n in range(count)]
    return [Span(start, start + side) for start in starts]


def restore_rows(
    height: int,
    width: int,
    scale: int,
    spans: tuple[list[Span], list[Span]],
    restore: Callable[[Tile], Tensor],
) -> Iterator[Tensor]:
    """Finished rows of the restored picture, from the top down.

    Args:
        height: of the input, pixels.
        width: of the input.
        scale: output pixels per input pixel.
        spans: of the rows and of the columns.
        restore: tile -> (B, C, scale * rows, scale * columns).

    Yields:
        (B, C, n, scale * width); together all scale * height rows.
    """
    rows, columns = spans
    waiting: Tensor | None = None  # rows that the next row of tiles still overlaps
    for band, following in zip(rows, [*rows[1:], None], strict=True):
        strips = (restore(Tile(band, span)) for span in columns)
        joined = _cross_fade(strips, columns, scale, dim=-1)
        if waiting is not None:
            joined = _fade(waiting, joined, dim=-2)
        done = (following.start if following else band.stop) - band.start
        # A copy, so that the next band does not keep this one's memory.
        waiting = joined[..., done * scale :, :].clone()
        yield joined[..., : done * scale, :]


def _cross_fade(tiles: Iterator[Tensor], spans: list[Span], scale: int, dim: int) -> Tensor:
    """Tiles side by side along `dim`, faded into each other where their spans overlap."""
    joined = next(tiles)
    for tile, span, before in zip(tiles, spans[1:], spans, strict=False):
        shared = (before.stop - span.start) * scale
        kept = joined.shape[dim] - shared
        faded = _fade(joined.narrow(dim, kept, shared), tile, dim)
        joined = torch.cat([joined.narrow(dim, 0, kept), faded], dim)
    return joined


def _fade(old: Tensor, new: Tensor, dim: int) -> Tensor:
    """`new`, whose first part along `dim` is faded in over `old`, in the middle half of it."""
    shared = old.shape[dim]
    place = (torch.arange(shared, device=new.device, dtype=new.dtype) + 0.5) / shared
    weight = (2 * place - 0.5).clamp(0, 1)
    weight = weight[:, None] if dim == -2 else weight
    head = torch.lerp(old, new.narrow(dim, 0, shared), weight)
    return torch.cat([head, new.narrow(dim, shared, new.shape[dim] - shared)], dim)
