"""The README's sheet of degradations: python tools/degradation_sheet.py OUT.png [PHOTO...].

A cell a recipe and photo: a crop of the degraded picture, enlarged to its sharp size without
smoothing, and beside it the path or kernel that was drawn (grey: the camera's, red: an object's).
Without photos, those in examples/sharp.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from restore_cli.degradations.kernels import path_kernel
from restore_cli.degradations.motion import Trajectory
from restore_cli.degradations.recipe import (
    DegradationRecipe,
    Parameters,
    degrade,
    draw,
    load_degradation,
    shipped_degradations,
)
from restore_cli.image import read_image
from restore_cli.rounding import quantise

ROOT = Path(__file__).parent.parent
WIDTH, HEIGHT, SIDE, GAP, HEAD = 264, 200, 112, 6, 22
SEED = 4


def main() -> None:
    """Draw the sheet: a row a recipe, a column a photo."""
    photos = [Path(p) for p in sys.argv[2:]] or sorted((ROOT / "examples" / "sharp").iterdir())
    names = shipped_degradations()
    cell = WIDTH + SIDE + 2 * GAP
    sheet = Image.new(
        "RGB", (len(photos) * cell - GAP, len(names) * (HEAD + HEIGHT + GAP)), "white"
    )
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for row, name in enumerate(names):
        recipe = load_degradation(name)
        top = row * (HEAD + HEIGHT + GAP)
        pen.text((2, top + 3), f"{name}: {recipe.description}", "black", font)
        for column, photo in enumerate(photos):
            left = column * cell
            picture, drawn = degraded(photo, recipe, column)
            sheet.paste(picture, (left, top + HEAD))
            sheet.paste(traces(recipe, drawn), (left + WIDTH + GAP, top + HEAD))
    sheet.save(sys.argv[1], optimize=True)


def degraded(photo: Path, recipe: DegradationRecipe, column: int) -> tuple[Image.Image, Parameters]:
    """Crop the middle of the degraded photo."""
    sharp = read_image(photo).pixels
    height, width = sharp.shape[-2:]
    rng = np.random.default_rng([SEED, column])
    drawn = draw(recipe, rng, picture=(height, width), centre=(width / 2, height / 2))
    small, _ = degrade(sharp, [drawn], recipe)
    large = torch.nn.functional.interpolate(quantise(small), scale_factor=recipe.scale)
    top, left = (large.shape[-2] - HEIGHT) // 2, (large.shape[-1] - WIDTH) // 2
    crop = large[0, :, top : top + HEIGHT, left : left + WIDTH]
    return Image.fromarray((crop.permute(1, 2, 0) * 255).round().byte().numpy()), drawn


def traces(recipe: DegradationRecipe, drawn: Parameters) -> Image.Image:
    """Draw the path at the scale of the crop, or the kernel, and what else was drawn."""
    image = Image.new("RGB", (SIDE, HEIGHT), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(10)
    pen.rectangle((0, 0, SIDE - 1, SIDE - 1), outline="lightgrey")
    lines = []
    for step, values in zip(recipe.steps, drawn, strict=True):
        if values is None:
            lines.append(f"{step.kind}: no")
        elif step.kind == "motion":
            lines.append(f"motion: {values['length']:.0f} px")
            trace(pen, values["path"], "dimgrey")
            if values["object"]:
                trace(pen, values["object"]["path"], "red")
        elif step.kind == "random_kernel":
            kernel = path_kernel(np.array(values["path"]), values["side"])
            grey = Image.fromarray((255 - 255 * kernel / kernel.max()).astype(np.uint8))
            image.paste(grey, ((SIDE - grey.width) // 2, (SIDE - grey.height) // 2))
            lines.append(f"kernel: {values['side']} px")
        else:
            numbers = [f"{v:.2g}" for k, v in values.items() if k != "seed"]
            lines.append(": ".join([step.kind, *([", ".join(numbers)] if numbers else [])]))
    for n, line in enumerate(lines):
        pen.text((0, SIDE + 4 + 12 * n), line.replace("_", " "), "black", font)
    return image


def trace(pen: ImageDraw.ImageDraw, record: dict[str, object], colour: str) -> None:
    """Draw a path around the middle of the square."""
    points = Trajectory.from_record(record).path + SIDE / 2
    pen.line([tuple(p) for p in points], colour, 2)


if __name__ == "__main__":
    main()
