"""Any picture size for networks that want multiples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from restore_cli.inference.tiling import Span
    from restore_cli.models.spec import SizeRequirement


def pad(image: Tensor, size: SizeRequirement) -> Tensor:
    """Extend (B, C, H, W) to the right and down to an accepted size.

    Mirrors the picture, again and again where it is small, without repeating its edge. A picture
    of one row or column is repeated instead.
    """
    rows, columns = (torch.arange(size.padded(side)) for side in image.shape[-2:])
    return _taken(image, rows, columns)


def padded_tile(image: Tensor, rows: Span, columns: Span) -> Tensor:
    """A tile of `pad(image, size)`, for which only the tile is copied, if anything.

    Args:
        image: (B, C, H, W).
        rows: of the padded picture.
        columns: likewise.

    Returns:
        (B, C, rows, columns); a view where the tile lies inside of the picture.
    """
    return _taken(
        image, torch.arange(rows.start, rows.stop), torch.arange(columns.start, columns.stop)
    )


def _taken(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Positions that follow one another, also beyond the edges."""
    height, width = image.shape[-2:]
    mirrored = height > 1 and width > 1
    for axis, length, positions in ((-2, height, rows), (-1, width, columns)):
        start, stop = int(positions[0]), int(positions[-1]) + 1
        if stop <= length:
            image = image.narrow(axis, start, stop - start)
            continue
        nearest = positions.clamp(max=length - 1)
        if mirrored:
            place = positions % (2 * (length - 1))
            nearest = torch.minimum(place, 2 * (length - 1) - place)
        image = image.index_select(axis, nearest.to(image.device))
    return image
