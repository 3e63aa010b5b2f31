"""Write what every bundled checkpoint makes of a small picture, for tests/weights/test_outputs.py.

    python tests/golden/outputs.py

Run it when weights, or the pixels that are computed from them, were changed on purpose.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from restore_cli import load_model
from restore_cli.weights.manifest import load_manifest

ROOT = Path(__file__).resolve().parents[2]
FILE = Path(__file__).with_suffix(".safetensors")
_PICTURE = ROOT / "examples/shaken/tank.png"
_SIDES = 150, 180  # height, width of the input: more than one tile, no multiple of one
_TILE = 128
_KEPT = slice(90, 130)  # of the rows and columns of the result: across a seam of tiles


def output(name: str) -> torch.Tensor:
    """Result of a checkpoint in fp32 and in tiles: its kept part, (40, 40, 3) uint8."""
    with Image.open(_PICTURE) as picture:
        values = np.asarray(picture.convert("RGB"))[100 : 100 + _SIDES[0], 200 : 200 + _SIDES[1]]
    checkpoint = load_manifest().checkpoints[name]
    model = load_model(
        checkpoint.model, weights=name, device="cpu", precision="fp32", tile=_TILE, overlap=32
    )
    restored = np.asarray(model(values))
    factor = restored.shape[0] // values.shape[0]
    start = _KEPT.start * factor
    kept = slice(start, start + _KEPT.stop - _KEPT.start)
    return torch.from_numpy(restored[kept, kept].copy())


def main() -> None:
    """Write the file."""
    save_file({name: output(name) for name in sorted(load_manifest().checkpoints)}, FILE)
    print(FILE)


if __name__ == "__main__":
    main()
