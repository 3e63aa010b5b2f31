"""Score a checkpoint against bicubic on sharp photos, degraded by fixed seeds.

    python benchmarks/quality.py PHOTOS --recipe shake --csv benchmarks/quality/shake.csv
    python benchmarks/quality.py PHOTOS --recipe handheld-mixed --sharp      # the camera at rest
    python benchmarks/quality.py PHOTOS --recipe handheld --side 256         # the middle of each

Each photo is degraded (photo n with seed [SEED, n]), restored as `restore image` does (TLSC, tiles,
rounding to 8 bits) and compared with its reference: PSNR over RGB and SSIM (11x11 Gaussian, valid
region), 4 pixels cropped along each border. At x1 bicubic is the blurry picture itself, and PSNR
above 50 dB counts as 50 in what is printed: an untouched picture has no error at all. Prints the
means and the smallest gain; --csv has every picture.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restore_cli.degradations.recipe import degrade, draw, load_degradation
from restore_cli.degradations.sensor import quantise
from restore_cli.image import PHOTO_SUFFIXES, read_image
from restore_cli.inference.loading import load_network
from restore_cli.inference.restorer import Restorer, RestorerOptions
from restore_cli.metrics import psnr, ssim
from restore_cli.resample import resize_bicubic
from restore_cli.weights.store import locate

CROP = 4
SCORES = ("psnr", "ssim", "bicubic_psnr", "bicubic_ssim")
HIGHEST = 50.0  # dB; rounding to 8 bits alone gives 58.9


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--recipe", default="shake")
    parser.add_argument("--sharp", action="store_true", help="no motion: does it harm?")
    parser.add_argument(
        "--side", type=int, help="of the middle of each photo, pixels; default: all"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", help="default: the default checkpoint of mprnet-mscam")
    parser.add_argument("--tlsc", choices=("on", "off"), help="default: the model's own")
    parser.add_argument("--csv", type=Path)
    arguments = parser.parse_args()
    rows = score(arguments)
    if arguments.csv:
        with arguments.csv.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    kept = ", sharp" if arguments.sharp else ""
    kept += f", middle {arguments.side} px" if arguments.side else ""
    print(f"{len(rows)} pictures, recipe {arguments.recipe}{kept}, seed {arguments.seed}")
    columns = {key: np.array([row[key] for row in rows]) for key in SCORES}
    columns |= {key: columns[key].clip(max=HIGHEST) for key in SCORES if key.endswith("psnr")}
    for key, values in columns.items():
        print(f"{key:13s} {values.mean():.4f}")
    gains = columns["psnr"] - columns["bicubic_psnr"]
    print(f"gain          {gains.mean():+.4f} dB, worst {gains.min():+.4f} dB")


def score(arguments: argparse.Namespace) -> list[dict[str, float]]:
    """One row a photo."""
    loaded = load_network(locate(arguments.weights, "mprnet-mscam"))
    tlsc = {None: None, "on": True, "off": False}[arguments.tlsc]
    restorer = Restorer(loaded, RestorerOptions(torch.device("cpu"), tlsc=tlsc))
    rows = []
    photos = degraded(
        arguments.photos,
        arguments.recipe,
        arguments.seed,
        sharp=arguments.sharp,
        side=arguments.side,
    )
    for path, motion, small, reference in photos:
        row = {"photo": path.name, "length": round(motion["length"], 2)}
        row["moving_object"] = int(bool(motion["object"]))
        bicubic = resize_bicubic(small, *reference.shape[-2:])
        for prefix, image in (("", restorer(small)), ("bicubic_", bicubic)):
            image = quantise(image)  # noqa: PLW2901
            row[f"{prefix}psnr"] = round(float(psnr(image, reference, crop=CROP)), 4)
            row[f"{prefix}ssim"] = round(float(ssim(image, reference, crop=CROP)), 6)
        rows.append(row)
    return rows


def degraded(
    folder: Path, name: str, seed: int, *, sharp: bool = False, side: int | None = None
) -> Iterator[tuple[Path, dict[str, Any], Tensor, Tensor]]:
    """Every photo with its motion, degraded (1, 3, h, w) and as it was (1, 3, H, W), in [0, 1]."""
    recipe = load_degradation(name)
    photos = sorted(path for path in folder.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES)
    for index, path in enumerate(photos):
        photo = read_image(path).pixels
        if side is not None:
            top, left = ((length - side) // 2 for length in photo.shape[-2:])
            photo = photo[..., top : top + side, left : left + side]
        height, width = photo.shape[-2:]
        rng = np.random.default_rng([seed, index])
        centre = (width / 2, height / 2)
        drawn = draw(recipe, rng, picture=(height, width), centre=centre, filmed=sharp)
        small, reference = degrade(photo, [drawn], recipe)
        motion = drawn[0] if drawn[0] and "length" in drawn[0] else {"length": 0.0, "object": None}
        yield path, motion, small, reference


if __name__ == "__main__":
    main()
