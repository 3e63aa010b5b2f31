"""Padding of pictures to the sizes that a network accepts."""

from __future__ import annotations

import torch
from torch import Tensor

from restore_cli.inference.tiling import Span
from restore_cli.models.spec import SizeRequirement


def pad(image: Tensor, size: SizeRequirement) -> Tensor:
    """Extend (B, C, H, W) to the right and downwards to an accepted size.

    The picture is mirrored without repeating its edge, several times if it is small. A picture of
    one row or column is repeated instead.
    """
    rows, columns = (Span(0, size.padded(side)) for side in image.shape[-2:])
    return padded_tile(image, rows, columns)


def padded_tile(image: Tensor, rows: Span, columns: Span) -> Tensor:
    """A tile of `pad(image, size)`, without computing the whole padded picture.

    Args:
        image: (B, C, H, W).
        rows: rows of the padded picture.
        columns: columns of the padded picture.

    Returns:
        (B, C, rows, columns); a view if the tile lies inside the picture.
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
