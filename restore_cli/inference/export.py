"""Exports a checkpoint to a file that runs without this package: ONNX, TorchScript, torch.export.

The graph takes a picture (1, 3, H, W), float32 in [0, 1], of any size above a few pixels, and
returns the restored picture, clipped to [0, 1]. Padding and cropping are part of the graph, the
windows of local statistics are those of the checkpoint, and there is no tiling. Sizes are dynamic,
so the graph must not contain branches on sizes: the layers here replace those that branch.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from restore_cli.errors import RestoreError, UsageError, require
from restore_cli.files import write_then_rename, writing
from restore_cli.formatting import first_line
from restore_cli.inference.loading import LoadedNetwork
from restore_cli.inference.local_statistics import (
    LocalCovariance,
    LocalInstanceNorm,
    LocalMean,
    LocalStatistic,
)
from restore_cli.inference.restorer import Restorer, RestorerOptions
from restore_cli.models.layers import NORM_EPSILON, GlobalCovariance, Origin
from restore_cli.models.spandrel_adapter import SpandrelConfig
from restore_cli.models.spec import Size, SizeRequirement

_OPSET = 18
_MAX_SIDE = 16384  # side in pixels; torch.export needs a bound
_EXAMPLE = (72, 104)  # equal sides would be exported as one dimension
_CHECKED = ((24, 40), (75, 101), (203, 131))  # smaller than the windows, odd, larger
_REPORT = "nothing was written; try another --to, and report this error"
TOLERANCE = 1e-3  # for values in [0, 1]: a quarter of an 8-bit step


@dataclass(frozen=True, slots=True)
class Exported:
    """What an exported file contains."""

    facts: Mapping[str, str]  # metadata in the file: model, weights, scale, windows, units
    # largest absolute difference to this package's result by (height, width) of the input; empty if
    # not checked
    differences: Mapping[Size, float]


def export(
    loaded: LoadedNetwork, path: Path, kind: str, *, tlsc: bool | None, check: bool
) -> Exported:
    """Export a network as a graph, optionally comparing its results with this package's.

    Args:
        loaded: the network.
        path: path of the file to write.
        kind: key of `FORMATS`.
        tlsc: local statistics, or None for the checkpoint's default.
        check: compare the results at several sizes; ONNX runs in onnxruntime. A file that differs
            by more than `TOLERANCE` is not written.

    Raises:
        UsageError: a package is missing, TLSC has no window, or a layer cannot be exported.
        RestoreError: the graph's result differs, or the file cannot be written.
    """
    if isinstance(loaded.config, SpandrelConfig):
        raise UsageError(
            f"'{loaded.file.name}' is a {loaded.config.architecture} network, which may contain "
            "branches on sizes",
            hint="export it with spandrel; restore exports its own networks only",
        )
    options = RestorerOptions(torch.device("cpu"), tlsc=tlsc, tile=0)
    restorer = Restorer(loaded, options)
    graph = Graph(restorer.build_network(torch.float32), loaded.model.size, restorer.scale).eval()
    facts = _facts(loaded, restorer, graph)
    _, write, run = FORMATS[kind]
    with write_then_rename(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporters
        try:
            with writing(path):
                write(graph, facts, temporary)
        except RestoreError:
            raise
        except Exception as error:  # torch's exporters raise errors of many types
            raise RestoreError(
                f"'{loaded.file.name}' cannot be exported as {kind}: {first_line(error)}",
                hint="try another --to, or a newer torch",
            ) from error
        differences = _differences(run(temporary), restorer, graph.min_side) if check else {}
        if not all(one <= TOLERANCE for one in differences.values()):  # also refuses NaN
            worst = max(differences.values())
            raise RestoreError(
                f"the exported graph of '{loaded.file.name}' differs from restore's result by "
                f"{worst:.2g}, more than the tolerance of {TOLERANCE}",
                hint=_REPORT,
            )
    return Exported(facts, differences)


class Graph(nn.Module):
    """A network with padding, cropping and clipping, without branches on sizes."""

    def __init__(self, network: nn.Module, size: SizeRequirement, scale: int) -> None:
        """Wrap a network; its local statistics are replaced in place.

        Raises `UsageError` if one cannot be exported.
        """
        super().__init__()
        for name, module in list(network.named_modules()):
            if isinstance(module, LocalStatistic):
                if type(module) not in _BRANCH_FREE:
                    raise UsageError(
                        "local attention loops over windows, which a graph with dynamic sizes "
                        "cannot contain",
                        hint="use --no-tlsc",
                    )
                parent, _, child = name.rpartition(".")
                free = _BRANCH_FREE[type(module)](module.windows)
                setattr(network.get_submodule(parent), child, free)
        self.network = network
        self.multiple = size.multiple_of
        # torch.export treats a size of one position or block as a constant.
        blocks = [max(m.block) for m in network.modules() if isinstance(m, LocalCovariance)]
        self.min_side = max(size.minimum, size.multiple_of, *blocks) + 1
        self.scale = scale

    def forward(self, image: Tensor) -> Tensor:
        """Map (1, 3, H, W) in [0, 1] to (1, 3, scale * H, scale * W) in [0, 1]."""
        height, width = image.shape[-2], image.shape[-1]
        for dim, length in ((-2, height), (-1, width)):
            padded = (length + self.multiple - 1) // self.multiple * self.multiple
            position = torch.arange(padded, device=image.device)
            last = length - 1
            image = image.index_select(dim, last - (position - last).abs())  # mirrored
        restored: Tensor = self.network(image)
        return _cut(restored, height * self.scale, width * self.scale).clamp(0, 1)


def _cut(x: Tensor, height: int, width: int) -> Tensor:
    """Return the upper left corner, by index_select, since slicing branches on the size."""
    rows, columns = (torch.arange(side, device=x.device) for side in (height, width))
    return x.index_select(-2, rows).index_select(-1, columns)


def _length(x: Tensor, dim: int) -> Tensor:
    """Return a side as a tensor."""
    return torch.arange(x.shape[dim], device=x.device)[-1] + 1


def _branch_free_box_mean(x: Tensor, window: Size) -> Tensor:
    """Compute `local_statistics.box_mean` by index_select, for any size of map and window."""
    for dim, length in ((-1, window[1]), (-2, window[0])):
        position = torch.arange(x.shape[dim], device=x.device)
        end = position[-1:] + 1
        start = (position - (length - 1) // 2).clamp_min(0)
        start = torch.minimum(start, (end - length).clamp_min(0))
        stop = torch.minimum(start + length, end)
        before = x.narrow(dim, 0, 1) * 0
        sums = torch.cat([before, x.cumsum(dim)], dim)
        shape = (-1, 1) if dim == -2 else (-1,)
        count = (stop - start).reshape(shape)
        x = (sums.index_select(dim, stop) - sums.index_select(dim, start)) / count
    return x


class BranchFreeMean(LocalStatistic):
    """`LocalMean` without a branch."""

    def forward(self, x: Tensor, projection: nn.Module, *, level: int = 0) -> Tensor:
        """Map (B, C, H, W) to (B, C', H, W)."""
        return _branch_free_box_mean(projection(x), self.windows[level])


class BranchFreeInstanceNorm(LocalStatistic):
    """`LocalInstanceNorm` without a branch."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        x = x - x.mean((2, 3), keepdim=True)
        mean = _branch_free_box_mean(x, self.windows[0])
        variance = (_branch_free_box_mean(x * x, self.windows[0]) - mean * mean).clamp_min(0)
        return (x - mean) * torch.rsqrt(variance + NORM_EPSILON)


class BranchFreeCovariance(LocalCovariance):
    """`LocalCovariance` that computes both branches and selects one."""

    def over_blocks(self, x: Tensor) -> Tensor:
        return _branch_free_box_mean(x, (3, 3))

    def forward(self, x: Tensor, projection: nn.Module, *, origin: Origin = (0, 0)) -> Tensor:
        """Map (B, C, H, W) to (B, C', H, W)."""
        height, width = x.shape[-2], x.shape[-1]
        counted = x - x.mean((2, 3), keepdim=True)
        counted = torch.cat([counted, torch.ones_like(x[:, :1])], 1)
        for dim, length, side in ((-2, height, self.block[0]), (-1, width, self.block[1])):
            position = torch.arange((length + side - 1) // side * side, device=x.device)
            inside = (position < length).reshape((-1, 1) if dim == -2 else (-1,))
            counted = counted.index_select(dim, position.clamp_max(length - 1)) * inside
        local = self.blended(counted, projection, x.dtype)
        whole = GlobalCovariance.forward(self, x, projection)  # type: ignore[arg-type]
        covered = (_length(x, -2) <= self.windows[0][0]) & (_length(x, -1) <= self.windows[0][1])
        return torch.where(covered, whole, _cut(local, height, width))


_BRANCH_FREE: dict[type[LocalStatistic], type[LocalStatistic]] = {
    LocalMean: BranchFreeMean,
    LocalInstanceNorm: BranchFreeInstanceNorm,
    LocalCovariance: BranchFreeCovariance,
}


Run = Callable[[Tensor], Tensor]


def _example() -> tuple[Tensor]:
    return (torch.rand(1, 3, *_EXAMPLE, generator=torch.Generator().manual_seed(0)),)


def _program(graph: Graph) -> torch.export.ExportedProgram:
    """Export the graph; conditions on sizes that torch.export cannot prove become asserts."""
    height, width = (
        torch.export.Dim(name, min=graph.min_side, max=_MAX_SIDE) for name in ("height", "width")
    )
    return torch.export.export(
        graph,
        _example(),
        dynamic_shapes={"image": {2: height, 3: width}},
        prefer_deferred_runtime_asserts_over_guards=True,
    )


def _write_pt2(graph: Graph, facts: Mapping[str, str], path: Path) -> None:
    program = _program(graph)
    content = io.BytesIO()  # torch aborts the process if a disk is full
    torch.export.save(program, content, extra_files={"restore.json": json.dumps(facts)})
    path.write_bytes(content.getvalue())


def _run_pt2(path: Path) -> Run:
    with path.open("rb") as file:
        program = torch.export.load(file)
    return program.module()


def _write_torchscript(graph: Graph, facts: Mapping[str, str], path: Path) -> None:
    with torch.inference_mode():
        traced = torch.jit.trace(graph, _example(), check_trace=False)  # type: ignore[no-untyped-call]
    content = io.BytesIO()
    torch.jit.save(traced, content, _extra_files={"restore.json": json.dumps(facts)})
    path.write_bytes(content.getvalue())


def _run_torchscript(path: Path) -> Run:
    return torch.jit.load(str(path))  # type: ignore[no-any-return, no-untyped-call]


def _write_onnx(graph: Graph, facts: Mapping[str, str], path: Path) -> None:
    require("onnx", "onnxruntime", "onnxscript")
    program = torch.onnx.export(
        _program(graph),
        dynamo=True,
        input_names=["image"],
        output_names=["restored"],
        opset_version=_OPSET,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(facts)
    program.save(str(path), external_data=False)


def _run_onnx(path: Path) -> Run:
    require("onnx", "onnxruntime", "onnxscript")
    import onnxruntime  # noqa: PLC0415  an extra

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


# Suffix, writer and runner by name.
FORMATS: dict[
    str, tuple[str, Callable[[Graph, Mapping[str, str], Path], None], Callable[[Path], Run]]
] = {
    "onnx": (".onnx", _write_onnx, _run_onnx),
    "torchscript": (".pt", _write_torchscript, _run_torchscript),
    "pt2": (".pt2", _write_pt2, _run_pt2),
}


def _differences(run: Run, restorer: Restorer, least: int) -> dict[Size, float]:
    """Find the largest absolute difference to this package's result for a noisy ramp, by size."""
    found: dict[Size, float] = {}
    generator = np.random.default_rng(0)
    for sides in _CHECKED:
        height, width = (max(side, least) for side in sides)
        ramp = np.linspace(0, 1, width, dtype=np.float32)
        noise = generator.uniform(-0.2, 0.2, (1, 3, height, width)).astype(np.float32)
        image = torch.from_numpy((ramp + noise).clip(0, 1))
        try:
            with torch.inference_mode():
                restored = run(image)
        except Exception as error:  # each runtime has its own error types
            raise RestoreError(
                f"the exported graph does not run at {width}x{height}: {first_line(error)}",
                hint=_REPORT,
            ) from error
        expected = restorer(image)
        if restored.shape != expected.shape:
            raise RestoreError(
                f"the exported graph returns {tuple(restored.shape)} at {width}x{height}, not "
                f"{tuple(expected.shape)}",
                hint=_REPORT,
            )
        found[height, width] = float((restored - expected).abs().max())
    return found


def _facts(loaded: LoadedNetwork, restorer: Restorer, graph: Graph) -> dict[str, str]:
    listed = loaded.file.checkpoint
    return {
        "model": restorer.name,
        "weights": restorer.weights,
        "weights_sha256": restorer.sha256,
        "weights_license": listed.license if listed else loaded.file.license,
        "scale": str(restorer.scale),
        "tlsc_window": restorer.tlsc_window,
        "smallest_side": str(graph.min_side),
        "input": "image (1, 3, H, W), RGB, float32 in [0, 1]",
        "output": "restored (1, 3, scale * H, scale * W), RGB, float32 in [0, 1]",
    }
