"""Pairs of real motion blur for `restore benchmark`, out of frames of GoPro_Large.

    python benchmarks/real_frames.py GOPR0372_07_01 -o real
    restore benchmark --dataset real/x1 --model maxim attentive-deblur msan bicubic
    restore benchmark --dataset real/x1 --model maxim=maxim.gopro bicubic
    restore benchmark --dataset real/x4 --model maxim-mscam mprnet-mscam maxim+bicubic bicubic

GOPR0372_07_01 is a folder with blur/ (the dataset's blur_gamma) and sharp/, of frames of 960x540.
Every twelfth frame is taken: x1 is its middle 640x384; x4 the whole frame, its blurry half shrunk
by MATLAB's bicubic and rounded to 8 bits. GoPro_Large: Nah et al., CVPR 2017, CC BY 4.0.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from restore_cli.image import read_rgb8
from restore_cli.resample import resize_bicubic

EVERY, HEIGHT, WIDTH, SCALE = 12, 384, 640, 4


def main() -> None:
    """Read, cut and shrink, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("frames", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    blurry = sorted(arguments.frames.glob("blur/*"))
    # Their numbers count the frames of the film; the folder may hold every second one only.
    first = int(blurry[0].stem[-6:])
    for path in blurry:
        if (int(path.stem[-6:]) - first) % EVERY:
            continue
        degraded, sharp = read_rgb8(path), read_rgb8(arguments.frames / "sharp" / path.name)
        height, width = sharp.shape[-2:]
        top, left = (height - HEIGHT) // 2, (width - WIDTH) // 2
        for half, picture in (("lr", degraded), ("hr", sharp)):
            crop = picture[:, top : top + HEIGHT, left : left + WIDTH]
            write(arguments.output / "x1" / half / f"{path.stem}.png", crop)
        small = resize_bicubic(degraded[None] / 255, height // SCALE, width // SCALE)
        small = (small[0].clamp(0, 1) * 255).round().to(torch.uint8)
        write(arguments.output / "x4" / "lr" / f"{path.stem}.png", small)
        write(arguments.output / "x4" / "hr" / f"{path.stem}.png", sharp)


def write(path: Path, picture: Tensor) -> None:
    """(3, H, W) uint8 as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(path)


if __name__ == "__main__":
    main()
