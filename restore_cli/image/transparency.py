"""Replaces the arbitrary colour of transparent pixels, which would reach the network."""

from __future__ import annotations

import cv2
import numpy as np
from torch import Tensor


def fill_transparent(pixels: Tensor, alpha: Tensor) -> Tensor:
    """Give fully transparent pixels the colour of the nearest visible one.

    The colour under alpha 0 is arbitrary, often black, and would bleed into edges.

    Args:
        pixels: (1, C, H, W).
        alpha: (1, 1, H, W), 0 for transparent pixels.
    """
    hidden = (alpha[0, 0] == 0).numpy()
    if not hidden.any() or hidden.all():
        return pixels
    _, labels = cv2.distanceTransformWithLabels(
        hidden.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    rows, columns = np.nonzero(~hidden)
    nearest = np.zeros(labels.max() + 1, np.int64)
    nearest[labels[rows, columns]] = np.arange(len(rows))
    source = nearest[labels]
    return pixels[:, :, rows[source], columns[source]]
