"""Any picture size for networks that want multiples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from restore_cli.models.spec import SizeRequirement


def pad(image: Tensor, size: SizeRequirement) -> Tensor:
    """Extend (B, C, H, W) to the right and down to an accepted size.

    Mirrors the picture, again and again where it is small, without repeating its edge.
    """
    while True:
        height, width = image.shape[-2:]
        down, right = size.padded(height) - height, size.padded(width) - width
        if not down and not right:
            return image
        mode = "reflect" if height > 1 and width > 1 else "replicate"
        if mode == "reflect":  # which takes less than the side at a time
            down, right = min(down, height - 1), min(right, width - 1)
        image = F.pad(image, (0, right, 0, down), mode=mode)
