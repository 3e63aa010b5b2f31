"""Compare what `restore image` chooses between for a large blurred picture: x1, half, and keep.

    python benchmarks/task_choice.py [--side 448] [PHOTO ...]
    python benchmarks/task_choice.py --pairs real/x1    # made by benchmarks/real_frames.py

Middle crops of sharp photos (those of `examples/sharp` without arguments) are blurred in linear
light by camera shake or motion along a straight line, with 0.6 % noise; pairs are blurred already.
The default x1 model restores each blurred picture, and a copy of half its size (half), and the
default x4 model a copy of a quarter (keep). Prints each picture with what would be chosen if it
were large, and the means as a Markdown table: PSNR (dB, 4 px cropped) and SSIM. The rule is in
`restore_cli/jobs/task_choice.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from restore_cli import load_model
from restore_cli.datasets.layouts import find_pairs
from restore_cli.degradations.kernels import convolve, path_kernel
from restore_cli.degradations.recipe import DegradationRecipe, degrade, draw
from restore_cli.degradations.response import to_encoded, to_linear
from restore_cli.image import read_image
from restore_cli.jobs.task_choice import choose, is_sharpened, measure_blur
from restore_cli.metrics import psnr, ssim
from restore_cli.resample import resize_bicubic
from restore_cli.rounding import quantise
from restore_cli.weights.manifest import default_model

PHOTOS = Path(__file__).parents[1] / "examples" / "sharp"
LENGTHS = (12, 24, 40)
NOISE = 0.006


class Scores(NamedTuple):
    """PSNR in dB, and SSIM."""

    psnr: float
    ssim: float

    def __str__(self) -> str:
        return f"{self.psnr:.1f} dB, {self.ssim:.2f}"


def shaken(sharp: Tensor, length: int, seed: int) -> Tensor:
    """(1, 3, H, W) blurred along a camera's path of this length."""
    steps = [
        {"kind": "motion", "length": [length, length], "samples": 4 * length},
        {"kind": "noise", "shot": [1e-9, 1e-9], "read": [NOISE, NOISE]},
    ]
    facts = {"name": "shake", "description": "shake", "source": "ours", "scale": 1}
    recipe = DegradationRecipe.model_validate(facts | {"steps": steps})
    height, width = sharp.shape[-2:]
    rng = np.random.default_rng(seed)
    drawn = draw(recipe, rng, picture=(height, width), centre=(width / 2, height / 2))
    return degrade(sharp, [drawn], recipe)[0]


def swept(sharp: Tensor, length: int, seed: int) -> Tensor:
    """(1, 3, H, W) blurred along a straight line of about this length, in a random direction."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, np.pi)
    line = np.array([[0, 0], [np.cos(angle), np.sin(angle)]])
    extent = length * float(np.abs(line[1]).max())
    blurred = convolve(to_linear(sharp.double()), [path_kernel(line, 2 * round(extent / 2) + 1)])
    noise = torch.from_numpy(rng.normal(0, NOISE, blurred.shape))
    return quantise(to_encoded(blurred + noise).float())


def main() -> None:
    """Parse, blur, restore, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="*", type=Path, default=sorted(PHOTOS.iterdir()))
    parser.add_argument("--side", type=int, default=448)
    parser.add_argument("--pairs", type=Path)
    arguments = parser.parse_args()
    x1, x4 = load_model(default_model(1)), load_model(default_model(4))
    cases = real(arguments.pairs) if arguments.pairs else blurred(arguments.photos, arguments.side)
    found: dict[str, list[list[Scores]]] = {}
    for kind, blurry, sharp in cases:
        size = blurry.shape[-2:]
        half, quarter = (resize_bicubic(blurry, *(side // n for side in size)) for n in (2, 4))
        enlarged = resize_bicubic(x1(quantise(half)), *size)
        made = (blurry, x1(blurry), enlarged, x4(quantise(quarter)))
        scores = [score(image, sharp) for image in made]
        seen = replace(measure_blur(blurry), height=1000, width=1000)
        task = choose(seen, partial(is_sharpened, blurry, x1)).task
        extent = f"found {seen.blur:.1f}, {seen.least:.1f} px"
        print(f"{kind}: {extent}; {'; '.join(map(str, scores))} -> {task}", flush=True)
        found.setdefault(kind, []).append(scores)
    print("", "| blur | blurred | x1 | half | keep |", "|---|---|---|---|---|", sep="\n")
    for kind, several in found.items():
        means = [Scores(*map(fmean, zip(*way, strict=True))) for way in zip(*several, strict=True)]
        print(f"| {kind} | {' | '.join(map(str, means))} |")


def real(folder: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Return the pictures of pairs, (1, 3, H, W)."""
    found = find_pairs(folder)
    for pair in found.pairs if found else ():
        degraded, sharp = (read_image(path).pixels for path in (pair.degraded, *pair.references))
        yield "real blur", degraded, sharp


def blurred(photos: list[Path], side: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Each kind of blur, the blurred and the sharp crop (1, 3, side, side)."""
    for kind, blur in {"camera shake, path": shaken, "straight line": swept}.items():
        for length in LENGTHS:
            for seed, path in enumerate(photos):
                sharp = middle(read_image(path).pixels, side)
                yield f"{kind} of {length} px", blur(sharp, length, seed), sharp


def middle(pixels: Tensor, side: int) -> Tensor:
    """Crop the middle (1, 3, side, side) of a larger picture."""
    top, left = ((whole - side) // 2 for whole in pixels.shape[-2:])
    return quantise(pixels[..., top : top + side, left : left + side])


def score(image: Tensor, sharp: Tensor) -> Scores:
    """PSNR and SSIM of the result, rounded to 8 bits."""
    image = quantise(image)
    return Scores(float(psnr(image, sharp, crop=4)), float(ssim(image, sharp, crop=4)))


if __name__ == "__main__":
    main()
