"""How far apart tiled and whole results are, by overlap: python benchmarks/overlap.py PICTURE...

Prints one row per overlap: the largest difference of any 8-bit value, and the share of values that
differ by at most one step. The default overlap of a checkpoint is the smallest that keeps 99.99 %
of the values within 1/255 and all within 2/255, with room to spare.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from restore_cli.image import read_image
from restore_cli.inference.loading import load_network
from restore_cli.inference.restorer import Restorer, RestorerOptions
from restore_cli.weights.store import locate

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("pictures", nargs="+", type=Path)
parser.add_argument("--weights", help="default: the default checkpoint of mprnet-mscam")
parser.add_argument("--overlaps", nargs="+", type=int, default=[8, 16, 32, 48, 64, 96])
arguments = parser.parse_args()


def restored(image: torch.Tensor, **options: object) -> torch.Tensor:
    """Return the picture restored with these options."""
    loaded = load_network(locate(arguments.weights, "mprnet-mscam"))
    return Restorer(loaded, RestorerOptions(torch.device("cpu"), **options))(image)


print("| TLSC | overlap | tile | largest difference | within 1/255 |")
print("|---|---|---|---|---|")
for tlsc in (True, False):
    images = [read_image(path).pixels for path in arguments.pictures]
    wholes = [restored(image, tlsc=tlsc, tile=0) for image in images]
    for overlap in arguments.overlaps:
        tile = max(96, 3 * overlap)
        largest, close, count = 0, 0, 0
        for image, whole in zip(images, wholes, strict=True):
            tiled = restored(image, tlsc=tlsc, tile=tile, overlap=overlap)
            difference = ((tiled * 255).round() - (whole * 255).round()).abs()
            largest = max(largest, int(difference.max()))
            close += int((difference <= 1).sum())
            count += difference.numel()
        state = "on" if tlsc else "off"
        print(f"| {state} | {overlap} | {tile} | {largest}/255 | {close / count:.4%} |", flush=True)
