"""Any picture size for networks that want multiples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from restore_cli.inference.tiling import Span

if TYPE_CHECKING:
    from restore_cli.models.spec import SizeRequirement


def pad(image: Tensor, size: SizeRequirement) -> Tensor:
    """Extend (B, C, H, W) to the right and down to an accepted size.

    Mirrors the picture, again and again where it is small, without repeating its edge. A picture
    of one row or column is repeated instead.
    """
    rows, columns = (Span(0, size.padded(side)) for side in image.shape[-2:])
    return padded_tile(image, rows, columns)


def padded_tile(image: Tensor, rows: Span, columns: Span) -> Tensor:
    """A tile of `pad(image, size)`, for which only the tile is copied, if anything.

    Args:
        image: (B, C, H, W).
        rows: of the padded picture.
        columns: likewise.

    Returns:
        (B, C, rows, columns); a view where the tile lies inside of the picture.
    """
    height, width = image.shape[-2:]
    mirrored = height > 1 and width > 1
    for axis, length, span in ((-2, height, rows), (-1, width, columns)):
        if span.stop <= length:
            image = image.narrow(axis, span.start, span.stop - span.start)
            continue
        places = torch.arange(span.start, span.stop, device=image.device)
        if mirrored:
            places %= 2 * (length - 1)
            places = torch.minimum(places, 2 * (length - 1) - places)
        image = image.index_select(axis, places.clamp(max=length - 1))
    return image
