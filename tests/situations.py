"""Pictures of every size, blur and noise, made of a photo that is repeated as often as it takes."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import torch
from conftest import ROOT

PHOTOS = ROOT / "examples" / "sharp"


@cache
def photo(name: str) -> np.ndarray:
    """Luma of a photo at half its size, where it is sharp; or a generated texture."""
    if name == "discs":
        rng = np.random.default_rng(0)
        image = np.full((432, 576), 0.5, np.float32)
        for _ in range(500):
            centre = (int(rng.integers(0, 576)), int(rng.integers(0, 432)))
            radius = int(rng.integers(2, 24))
            cv2.circle(image, centre, radius, float(rng.random()), -1, cv2.LINE_AA)
        return image
    image = cv2.imread(str(next(PHOTOS.glob(f"{name}.*"))), cv2.IMREAD_GRAYSCALE)
    half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return half.astype(np.float32) / 255


def kernel(kind: str, pixels: int) -> np.ndarray:
    side = 2 * (pixels // 2) + 5
    centre = side // 2
    spread = np.zeros((side, side), np.float32)
    if kind == "disc":
        cv2.circle(spread, (centre, centre), pixels // 2, 1.0, -1)
    elif kind == "corner":  # a hand that moved down and then to the right
        reach = pixels // 2
        spread[centre - reach : centre + reach + 1, centre - reach] = 1
        spread[centre + reach, centre - reach : centre + reach + 1] = 1
    else:
        angle = np.deg2rad(float(kind))
        for t in np.linspace(-pixels / 2, pixels / 2, 8 * pixels + 1):
            spread[round(centre + t * np.sin(angle)), round(centre + t * np.cos(angle))] += 1
    return spread / spread.sum()


def situation(
    name: str, width: int, height: int, kind: str, pixels: int, noise: float
) -> torch.Tensor:
    """(1, 3, height, width): a photo, repeated as often as it takes, blurred and noisy."""
    tile = photo(name)
    if pixels:
        margin = pixels + 4
        padded = np.pad(tile, margin, mode="wrap")
        tile = cv2.filter2D(padded, -1, kernel(kind, pixels))[margin:-margin, margin:-margin]
    if noise:
        tile = tile + np.random.default_rng(1).normal(0, noise / 255, tile.shape)
    rows, columns = (-(-side // own) for side, own in zip((height, width), tile.shape, strict=True))
    whole = np.tile(tile.astype(np.float32), (rows, columns))[:height, :width]
    return torch.from_numpy(np.ascontiguousarray(whole)).expand(1, 3, -1, -1)
