"""Draw where a checkpoint fails: the pictures of its model card.

    python benchmarks/failures.py --weights gfn-lite.shake -o MODEL_CARDS/pictures

Of `examples/sharp`, each degraded with seeds 1 to 4, the crops of 320x240 reference pixels with the
smallest gain and, of the others, with the longest path of the camera: given (bicubic, or the blurry
picture itself at x1), restored, and sharp, side by side, one row a picture. Written as NAME.jpg.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from restore_cli.degradations.recipe import degrade, draw, load_degradation
from restore_cli.image import read_image
from restore_cli.inference.loading import load_network
from restore_cli.inference.restorer import Restorer, RestorerOptions
from restore_cli.metrics import psnr
from restore_cli.resample import resize_bicubic
from restore_cli.rounding import quantise
from restore_cli.weights.store import locate

PHOTOS = Path(__file__).parents[1] / "examples" / "sharp"
SEEDS = range(1, 5)
HEIGHT, WIDTH = 240, 320
LINE = 22  # pixels above each row for its words


@dataclass(frozen=True)
class Case:
    """One picture: what was given, what came back, what was wanted; (1, 3, HEIGHT, WIDTH)."""

    given: Tensor
    restored: Tensor
    sharp: Tensor
    name: str
    length: float  # of the camera's path, pixels

    @property
    def gain(self) -> float:
        """What restoring adds over the given picture, dB."""
        scores = [float(psnr(x, self.sharp, crop=4)) for x in (self.restored, self.given)]
        return scores[0] - scores[1]


def main() -> None:
    """Parse, restore, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    cases = restore_all(arguments.weights)
    worst = min(cases, key=lambda case: case.gain)
    longest = max((case for case in cases if case is not worst), key=lambda case: case.length)
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / f"{Path(arguments.weights).name.removesuffix('.safetensors')}.jpg"
    drawn(("smallest gain", worst), ("longest path", longest)).save(path, quality=88)
    print(path)


def restore_all(weights: str) -> list[Case]:
    """Every picture with every seed."""
    restorer = Restorer(load_network(locate(weights, None)), RestorerOptions(torch.device("cpu")))
    recipe = load_degradation("shake" if restorer.scale > 1 else "handheld")
    cases = []
    for index, path in enumerate(sorted(PHOTOS.iterdir())):
        sharp = read_image(path).pixels
        top, left = (sharp.shape[-2] - HEIGHT) // 2, (sharp.shape[-1] - WIDTH) // 2
        sharp = sharp[..., top : top + HEIGHT, left : left + WIDTH]
        for seed in SEEDS:
            rng = np.random.default_rng([seed, index])
            drawn_once = draw(recipe, rng, picture=(HEIGHT, WIDTH), centre=(WIDTH / 2, HEIGHT / 2))
            blurry, reference = degrade(sharp, [drawn_once], recipe)
            given = quantise(resize_bicubic(blurry, HEIGHT, WIDTH))
            length = drawn_once[0]["length"] if drawn_once[0] else 0.0
            restored = quantise(restorer(blurry))
            cases.append(Case(given, restored, reference, path.stem, length))
    return cases


def drawn(*rows: tuple[str, Case]) -> Image.Image:
    """Rows of three panels, what each row is above it."""
    sheet = Image.new("RGB", (3 * WIDTH, len(rows) * (HEIGHT + LINE)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for n, (why, case) in enumerate(rows):
        top = n * (HEIGHT + LINE)
        words = f"{why}: {case.name}, path of {case.length:.0f} px, {case.gain:+.2f} dB"
        pen.text((4, top + 3), f"{words}  (given, restored, sharp)", "black", font)
        for column, image in enumerate((case.given, case.restored, case.sharp)):
            values = (image[0].permute(1, 2, 0) * 255).round().byte().numpy()
            sheet.paste(Image.fromarray(values), (column * WIDTH, top + LINE))
    return sheet


if __name__ == "__main__":
    main()
