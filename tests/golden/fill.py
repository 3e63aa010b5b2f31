"""Deterministic weights for parity checks, so that no large state dict has to travel.

``fill(keys, salt)`` gives every tensor of a state dict the same values on every machine, from its
official name and shape alone. The tensors named in ``<system>/keys.json`` are filled, the authors'
own network was run once on them in float64, and its outputs are stored beside as safetensors.
An implementation that maps the official names to its own must reproduce those outputs.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np

ATTENTION = (
    "conv_du",
    "local_att",
    "global_att",
    "attention",
    "query_conv",
    "key_conv",
    "sam12.conv3",
    "sam23.conv3",
)


def fill_tensor(name: str, shape: list[int], salt: int, layout: str) -> np.ndarray:
    """float32 values for one tensor. ``layout``: "torch" (out, in, kh, kw) or "tf" (kh, kw, in, out)."""
    if len(shape) <= 1 and int(np.prod(shape)) == 1 and layout == "torch":
        return np.full(shape, 0.25, np.float32)  # PReLU slope, attention gamma
    rng = np.random.RandomState(zlib.crc32(f"{salt}:{name}".encode()))
    values = rng.randn(*shape)
    if len(shape) == 1:
        return (0.05 * values).astype(np.float32)
    fan_in = np.prod(shape[:-1]) if layout == "tf" else np.prod(shape[1:])
    gain = 2.5 if any(part in name for part in ATTENTION) else 0.6
    return (gain * values / np.sqrt(fan_in)).astype(np.float32)


def fill(
    keys: list[tuple[str, list[int]]], salt: int, layout: str = "torch"
) -> dict[str, np.ndarray]:
    """A whole state dict under its official names."""
    return {name: fill_tensor(name, shape, salt, layout) for name, shape in keys}


def read_keys(path: str | Path) -> list[tuple[str, list[int]]]:
    """Official names and shapes, in the order of the official state dict."""
    return [(name, shape) for name, shape in json.loads(Path(path).read_text())]


def input_image(height: int, width: int, salt: int) -> np.ndarray:
    """A (1, 3, height, width) float32 picture in [0, 1] with smooth parts, edges and noise."""
    rng = np.random.RandomState(1000 + salt)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = []
    for c in range(3):
        f = rng.uniform(0.03, 0.35, 4)
        p = (
            0.5
            + 0.2 * np.sin(f[0] * x + f[1] * y)
            + 0.15 * np.sign(np.sin(f[2] * x - f[3] * y + c))
        )
        planes.append(np.clip(p + 0.05 * rng.randn(height, width), 0, 1))
    return np.stack(planes)[None].astype(np.float32)
