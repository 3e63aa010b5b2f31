"""The README's picture: python tools/before_after.py OUT.png.

Three rows, one example each; columns: the blurry input enlarged by bicubic, what `restore image`
makes of it, and the sharp original. Crops of 300x225 output pixels, labelled.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from restore_cli.image import read_image
from restore_cli.inference.loading import load_network
from restore_cli.inference.restorer import Restorer, RestorerOptions
from restore_cli.resample import resize_bicubic
from restore_cli.weights.store import locate

ROOT = Path(__file__).parent.parent
CROPS = {"motorcycle.png": (200, 90), "casa-mila.jpg": (470, 300), "snowy-mountains.jpg": (430, 20)}
WIDTH, HEIGHT, GAP, HEAD = 300, 225, 6, 26
LABELS = ("blurry, bicubic x4", "restore image -x4", "sharp original")


def main() -> None:
    """Draw the sheet."""
    loaded = load_network(locate(None, "mprnet-mscam"))
    restorer = Restorer(loaded, RestorerOptions(torch.device("cpu")))
    size = (3 * WIDTH + 2 * GAP, HEAD + len(CROPS) * (HEIGHT + GAP) - GAP)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(16)
    for column, label in enumerate(LABELS):
        pen.text((column * (WIDTH + GAP) + 4, 3), label, "black", font)
    for row, (name, (left, top)) in enumerate(CROPS.items()):
        small = read_image(ROOT / "examples" / Path(name).with_suffix(".png")).pixels
        height, width = (4 * side for side in small.shape[-2:])
        sharp = read_image(ROOT / "examples/sharp" / name).pixels
        for column, image in enumerate(
            (resize_bicubic(small, height, width), restorer(small), sharp)
        ):
            crop = image[0, :, top : top + HEIGHT, left : left + WIDTH].clamp(0, 1)
            array = (crop.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
            place = (column * (WIDTH + GAP), HEAD + row * (HEIGHT + GAP))
            sheet.paste(Image.fromarray(array), place)
    sheet.save(sys.argv[1], optimize=True)


if __name__ == "__main__":
    main()
