"""The README's picture: python tools/before_after.py OUT.png.

One row a picture: what was given (at x4 enlarged by bicubic), what `restore image` makes of it with
the model that it chooses, and the sharp original. Crops of 300x225 output pixels, labelled.
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
from restore_cli.weights.manifest import default_model
from restore_cli.weights.store import locate

EXAMPLES = Path(__file__).parent.parent / "examples"
ROWS = (  # given, sharp, scale, corner of the crop
    ("shaken/motorcycle.png", "sharp/motorcycle.png", 1, (300, 120)),
    ("casa-mila.png", "sharp/casa-mila.jpg", 4, (470, 300)),
    ("snowy-mountains.png", "sharp/snowy-mountains.jpg", 4, (430, 20)),
)
WIDTH, HEIGHT, GAP, HEAD = 300, 225, 6, 26
LABELS = ("given", "restored", "sharp original")


def main() -> None:
    """Draw the sheet."""
    size = (3 * WIDTH + 2 * GAP, len(ROWS) * (HEAD + HEIGHT))
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    options = RestorerOptions(torch.device("cpu"))
    restorers = {}
    for row, (given, sharp, scale, (left, top)) in enumerate(ROWS):
        if scale not in restorers:
            loaded = load_network(locate(None, default_model(scale)))
            restorers[scale] = Restorer(loaded, options)
        small = read_image(EXAMPLES / given).pixels
        height, width = (scale * side for side in small.shape[-2:])
        shown = (
            resize_bicubic(small, height, width),
            restorers[scale](small),
            read_image(EXAMPLES / sharp).pixels,
        )
        for column, (image, label) in enumerate(zip(shown, LABELS, strict=True)):
            place = (column * (WIDTH + GAP), row * (HEAD + HEIGHT))
            words = f"{label}, bicubic x{scale}" if scale > 1 and label == "given" else label
            words = f"restore image -x{scale}" if label == "restored" else words
            pen.text((place[0] + 4, place[1] + 3), words, "black", font)
            crop = image[0, :, top : top + HEIGHT, left : left + WIDTH].clamp(0, 1)
            array = (crop.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
            sheet.paste(Image.fromarray(array), (place[0], place[1] + HEAD))
    sheet.save(sys.argv[1], optimize=True)


if __name__ == "__main__":
    main()
