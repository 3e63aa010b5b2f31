"""Draw docs/tlsc.png: what tiles change in a picture, without TLSC and with it.

python tools/tlsc_sheet.py examples/shaken/tank.png docs/tlsc.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from restore_cli.image import MAX_PIXELS, read_image
from restore_cli.inference.loading import load_network
from restore_cli.inference.restorer import Restorer, RestorerOptions
from restore_cli.weights.store import locate

TILE, OVERLAP, ENLARGED = 336, 112, 20


def main() -> None:
    """Restore whole and in tiles, both ways."""
    source, target = (Path(text) for text in sys.argv[1:])
    image = read_image(source, max_pixels=MAX_PIXELS).pixels
    loaded = load_network(locate(None, "mprnet-mscam"))
    shown = {"input": image}
    for tlsc in (False, True):
        made = []
        for tile in (0, TILE):
            options = RestorerOptions(torch.device("cpu"), tlsc=tlsc, tile=tile, overlap=OVERLAP)
            made.append(Restorer(loaded, options)(image))
        difference = (made[1] - made[0]).abs()
        name = "with TLSC" if tlsc else "without TLSC"
        largest = float(difference.max()) * 255
        shown["restored, TLSC"] = made[0]
        shown[f"{name}: at most {largest:.0f}/255"] = (difference * ENLARGED).clamp(0, 1)
    order = sorted(shown, key=lambda name: ":" in name)
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.6), layout="constrained")
    for axis, name in zip(axes.flat, order, strict=True):
        axis.imshow(shown[name][0].permute(1, 2, 0))
        axis.set_title(name, fontsize=10)
        axis.axis("off")
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    main()
