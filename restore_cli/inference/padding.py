"""Any picture size for networks that want multiples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from restore_cli.models.spec import SizeRequirement


def pad(image: Tensor, size: SizeRequirement) -> Tensor:
    """Extend (B, C, H, W) to the right and down to an accepted size.

    Mirrors the picture; where it is smaller than what must be added, repeats its edge.
    """
    height, width = image.shape[-2:]
    down, right = size.padded(height) - height, size.padded(width) - width
    mode = "reflect" if down < height and right < width else "replicate"
    return F.pad(image, (0, right, 0, down), mode=mode) if down or right else image
