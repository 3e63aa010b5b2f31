"""Other engines on our exported networks: onnxruntime in float32 and int8, beside ours.

    python benchmarks/engines.py [--models gfn mprnet-mscam moadg attentive-deblur msan]

Times are taken in turns on an idle machine; *faster* is the median of the turns' ratios. *dB* is
the PSNR of the result against ours in float32, on a picture that comes with the repository. The
int8 network has weights and activations in 8 bits (dynamic quantisation of convolutions). Needs
the extra `onnx`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from restore_cli.cli._process import limit_thread_spinning

if __name__ == "__main__":
    limit_thread_spinning()  # as `restore` does

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from PIL import Image
from torch import Tensor

from restore_cli.inference.export import export
from restore_cli.inference.loading import load_network
from restore_cli.inference.memory import keep_freed_memory
from restore_cli.inference.restorer import Restorer, RestorerOptions
from restore_cli.weights.store import locate

PICTURE = Path(__file__).parent.parent / "examples/shaken/tank.png"
SIZE = 320, 192  # width, height: multiples of what the networks need


def session(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Load a network into onnxruntime on the CPU, with as many threads as torch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    made = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = made.get_inputs()[0].name
    return lambda image: made.run(None, {name: image})[0]


def decibels(one: Tensor, other: Tensor) -> float:
    """PSNR of two pictures (1, 3, H, W) in [0, 1]."""
    return float(-10 * torch.log10((one.clamp(0, 1) - other.clamp(0, 1)).square().mean()))


def compare(model: str, image: Tensor, folder: Path, repeat: int) -> None:
    """Print a row for each engine."""
    loaded = load_network(locate(None, model))
    ours = Restorer(loaded, RestorerOptions(torch.device("cpu"), tile=0))
    exact, small = folder / f"{model}.onnx", folder / f"{model}-int8.onnx"
    export(loaded, exact, "onnx", tlsc=None, check=False)
    quantize_dynamic(exact, small, weight_type=QuantType.QUInt8)
    wanted = ours(image)
    for name, path in {"float32": exact, "int8": small}.items():
        run, ratios = session(path), []
        result = torch.from_numpy(run(image.numpy()))
        for _ in range(repeat):
            begun = time.perf_counter()
            ours(image)
            middle = time.perf_counter()
            run(image.numpy())
            ratios.append((middle - begun) / (time.perf_counter() - middle))
        faster, same = statistics.median(ratios), decibels(result, wanted)
        print(f"| `{model}` | onnxruntime {name} | {faster:.2f} | {same:.0f} dB |", flush=True)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    usual = ["gfn", "mprnet-mscam", "moadg", "attentive-deblur", "msan"]
    parser.add_argument("--models", nargs="+", default=usual)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    keep_freed_memory()
    with Image.open(PICTURE) as picture:
        values = np.asarray(picture.convert("RGB").resize(SIZE), np.float32) / 255
    image = torch.from_numpy(values).permute(2, 0, 1)[None].contiguous()
    print(f"| network | engine, {SIZE[0]}x{SIZE[1]} | faster | against ours |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.models:
            compare(model, image, Path(folder), arguments.repeat)


if __name__ == "__main__":
    main()
