"""A checkpoint as one file that runs without this package: ONNX, TorchScript or torch.export.

The graph takes a picture (1, 3, H, W), float32 in [0, 1], of any size above a few pixels, and gives
the restored one, clipped to [0, 1]. Padding and cropping are inside; windows of local statistics
are fixed at what the checkpoint says; there are no tiles. Sizes stay free, so nothing in the graph
may depend on a comparison of sizes: where ours branches, the layers here compute.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from restore_cli.errors import RestoreError, UsageError
from restore_cli.files import write_then_rename
from restore_cli.inference.loading import LoadedNetwork
from restore_cli.inference.local_statistics import (
    LocalCovariance,
    LocalInstanceNorm,
    LocalMean,
    LocalStatistic,
    Size,
)
from restore_cli.inference.restorer import Restorer, RestorerOptions
from restore_cli.models.layers import NORM_EPSILON, GlobalCovariance, Origin
from restore_cli.models.spandrel_adapter import SpandrelConfig
from restore_cli.models.spec import SizeRequirement

_OPSET = 18
_LARGEST = 16384  # side in pixels; torch.export wants a bound
_EXAMPLE = (72, 104)  # the sizes differ, or they would be taken for one
_CHECKED = ((24, 40), (75, 101), (203, 131))  # inside the windows, odd, beyond the windows
TOLERANCE = 1e-3  # of [0, 1]: a quarter of an 8-bit step


class Format(StrEnum):
    """Kinds of files."""

    ONNX = "onnx"
    TORCHSCRIPT = "torchscript"
    PT2 = "pt2"


SUFFIXES = {Format.ONNX: ".onnx", Format.TORCHSCRIPT: ".pt", Format.PT2: ".pt2"}


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was written.

    Attributes:
        path: of the file.
        facts: what is also written into it: model, weights, scale, windows, units.
        differences: largest |difference| to this package's own result by (height, width) of the
            input; empty if it was not checked.
    """

    path: Path
    facts: Mapping[str, str]
    differences: Mapping[Size, float]


def export(
    loaded: LoadedNetwork, path: Path, kind: Format, *, tlsc: bool | None, check: bool
) -> Exported:
    """Write a network as a graph, and with `check` run it beside our own.

    Args:
        loaded: the network.
        path: of the file to write.
        kind: of the file.
        tlsc: local statistics, or None for the checkpoint's default.
        check: compare at sizes below, beyond and unlike the one it was traced at; ONNX runs in
            onnxruntime. A file that differs by more than `TOLERANCE` is not written.

    Raises:
        UsageError: a package is missing, TLSC has no window, or its layer cannot be written.
        RestoreError: the graph gives another picture, or the file cannot be written.
    """
    if isinstance(loaded.config, SpandrelConfig):
        raise UsageError(
            f"'{loaded.file.name}' is of {loaded.config.architecture}, which may branch on sizes",
            hint="export it with spandrel; this is for restore's own networks",
        )
    options = RestorerOptions(torch.device("cpu"), tlsc=tlsc, tile=0)
    restorer = Restorer(loaded, options)
    graph = Graph(restorer.ready(torch.float32), loaded.model.size, restorer.scale).eval()
    facts = _facts(loaded, restorer, graph)
    write, run = _WRITERS[kind]
    with write_then_rename(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters, about themselves
        try:
            write(graph, facts, temporary)
        except RestoreError:
            raise
        except Exception as error:  # torch's exporters raise what they like
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise RestoreError(
                f"'{loaded.file.name}' cannot be written as {kind}: {reason}",
                hint="try another --to, or a newer torch",
            ) from error
        differences = _differences(run(temporary), restorer, graph.least) if check else {}
        if not all(one <= TOLERANCE for one in differences.values()):  # NaN is not
            worst = max(differences.values())
            raise RestoreError(
                f"'{path}' would restore another picture than '{loaded.file.name}': values differ "
                f"by up to {worst:.2g}",
                hint="nothing was written; try another --to, and report it",
            )
    return Exported(path, facts, differences)


class Graph(nn.Module):
    """A network with padding, cropping and clipping, free of branches on sizes."""

    def __init__(self, network: nn.Module, size: SizeRequirement, scale: int) -> None:
        """Take a ready network; its local statistics are replaced in place.

        Raises:
            UsageError: a local statistic that cannot be written.
        """
        super().__init__()
        for name, module in list(network.named_modules()):
            if isinstance(module, LocalStatistic):
                if type(module) not in _FREE:
                    raise UsageError(
                        "local attention goes over windows one by one, which a graph of free size "
                        "cannot hold",
                        hint="use --no-tlsc",
                    )
                parent, _, child = name.rpartition(".")
                free = _FREE[type(module)](module.windows)
                setattr(network.get_submodule(parent), child, free)
        self.network = network
        self.multiple = size.multiple_of
        # No map may be of one position, or block: torch.export would take it for a constant.
        blocks = [max(m.block) for m in network.modules() if isinstance(m, LocalCovariance)]
        self.least = max(size.minimum, size.multiple_of, *blocks) + 1
        self.scale = scale

    def forward(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) in [0, 1] -> (1, 3, scale * H, scale * W) in [0, 1]."""
        height, width = image.shape[-2], image.shape[-1]
        for dim, length in ((-2, height), (-1, width)):
            padded = (length + self.multiple - 1) // self.multiple * self.multiple
            there = torch.arange(padded, device=image.device)
            last = length - 1
            image = image.index_select(dim, last - (there - last).abs())  # mirrored
        restored: Tensor = self.network(image)
        return _cut(restored, height * self.scale, width * self.scale).clamp(0, 1)


def _cut(x: Tensor, height: int, width: int) -> Tensor:
    """The upper left corner, by gathering: a slice asks whether it is the whole."""
    rows, columns = (torch.arange(side, device=x.device) for side in (height, width))
    return x.index_select(-2, rows).index_select(-1, columns)


def _length(x: Tensor, dim: int) -> Tensor:
    """A side as a tensor."""
    return torch.arange(x.shape[dim], device=x.device)[-1] + 1


def _free_mean(x: Tensor, window: Size) -> Tensor:
    """`local_statistics.box_mean` by gathering, for maps of any size beside the window."""
    for dim, length in ((-1, window[1]), (-2, window[0])):
        there = torch.arange(x.shape[dim], device=x.device)
        beyond = there[-1:] + 1
        start = (there - (length - 1) // 2).clamp_min(0)
        start = torch.minimum(start, (beyond - length).clamp_min(0))
        stop = torch.minimum(start + length, beyond)
        before = x.narrow(dim, 0, 1) * 0
        sums = torch.cat([before, x.cumsum(dim)], dim)
        shape = (-1, 1) if dim == -2 else (-1,)
        count = (stop - start).reshape(shape)
        x = (sums.index_select(dim, stop) - sums.index_select(dim, start)) / count
    return x


class FreeMean(LocalStatistic):
    """`LocalMean` without a branch."""

    def forward(self, x: Tensor, projection: nn.Module, *, level: int = 0) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        return _free_mean(projection(x), self.windows[level])


class FreeInstanceNorm(LocalStatistic):
    """`LocalInstanceNorm` without a branch."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        x = x - x.mean((2, 3), keepdim=True)
        mean = _free_mean(x, self.windows[0])
        variance = (_free_mean(x * x, self.windows[0]) - mean * mean).clamp_min(0)
        return (x - mean) * torch.rsqrt(variance + NORM_EPSILON)


class FreeCovariance(LocalCovariance):
    """`LocalCovariance`, both branches computed and one chosen."""

    def over_blocks(self, x: Tensor) -> Tensor:
        return _free_mean(x, (3, 3))

    def forward(self, x: Tensor, projection: nn.Module, *, origin: Origin = (0, 0)) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        height, width = x.shape[-2], x.shape[-1]
        counted = x - x.mean((2, 3), keepdim=True)
        counted = torch.cat([counted, torch.ones_like(x[:, :1])], 1)
        for dim, length, side in ((-2, height, self.block[0]), (-1, width, self.block[1])):
            there = torch.arange((length + side - 1) // side * side, device=x.device)
            inside = (there < length).reshape((-1, 1) if dim == -2 else (-1,))
            counted = counted.index_select(dim, there.clamp_max(length - 1)) * inside
        local = self.blended(counted, projection, x.dtype)
        whole = GlobalCovariance.forward(self, x, projection)  # type: ignore[arg-type]
        covered = (_length(x, -2) <= self.windows[0][0]) & (_length(x, -1) <= self.windows[0][1])
        return torch.where(covered, whole, _cut(local, height, width))


_FREE: dict[type[LocalStatistic], type[LocalStatistic]] = {
    LocalMean: FreeMean,
    LocalInstanceNorm: FreeInstanceNorm,
    LocalCovariance: FreeCovariance,
}


Run = Callable[[Tensor], Tensor]


def _example() -> tuple[Tensor]:
    return (torch.rand(1, 3, *_EXAMPLE, generator=torch.Generator().manual_seed(0)),)


def _free_sizes(graph: Graph) -> dict[str, dict[int, Any]]:
    height, width = (
        torch.export.Dim(name, min=graph.least, max=_LARGEST) for name in ("height", "width")
    )
    return {"image": {2: height, 3: width}}


def _program(graph: Graph) -> torch.export.ExportedProgram:
    """Conditions on sizes that torch.export cannot prove for all of them are checked as it runs."""
    return torch.export.export(
        graph,
        _example(),
        dynamic_shapes=_free_sizes(graph),
        prefer_deferred_runtime_asserts_over_guards=True,
    )


def _write_pt2(graph: Graph, facts: Mapping[str, str], path: Path) -> None:
    program = _program(graph)
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={"restore.json": json.dumps(facts)})


def _run_pt2(path: Path) -> Run:
    with path.open("rb") as file:
        program = torch.export.load(file)
    return program.module()


def _write_torchscript(graph: Graph, facts: Mapping[str, str], path: Path) -> None:
    with torch.inference_mode():
        traced = torch.jit.trace(graph, _example(), check_trace=False)  # type: ignore[no-untyped-call]
    torch.jit.save(traced, str(path), _extra_files={"restore.json": json.dumps(facts)})


def _run_torchscript(path: Path) -> Run:
    return torch.jit.load(str(path))  # type: ignore[no-any-return, no-untyped-call]


def _write_onnx(graph: Graph, facts: Mapping[str, str], path: Path) -> None:
    _need_onnx()
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
    _need_onnx()
    import onnxruntime  # noqa: PLC0415  an extra

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def _need_onnx() -> None:
    try:
        import onnxruntime  # noqa: F401, PLC0415  an extra
        import onnxscript  # noqa: F401, PLC0415  as above
    except ImportError as error:
        raise UsageError(
            f"writing ONNX needs a package that is not there: {error.name}",
            hint="pip install 'restore-cli[onnx]'",
        ) from error


_WRITERS: dict[
    Format, tuple[Callable[[Graph, Mapping[str, str], Path], None], Callable[[Path], Run]]
] = {
    Format.ONNX: (_write_onnx, _run_onnx),
    Format.TORCHSCRIPT: (_write_torchscript, _run_torchscript),
    Format.PT2: (_write_pt2, _run_pt2),
}


def _differences(run: Run, restorer: Restorer, least: int) -> dict[Size, float]:
    """Largest |difference| to our own result for noise over a ramp, by size."""
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
        except Exception as error:  # each runtime has its own
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise RestoreError(
                f"the graph does not run at {width}x{height}: {reason}",
                hint="nothing was written; try another --to, and report it",
            ) from error
        wanted = restorer(image)
        if restored.shape != wanted.shape:
            raise RestoreError(
                f"the graph gives {tuple(restored.shape)} at {width}x{height}, not "
                f"{tuple(wanted.shape)}",
                hint="nothing was written; try another --to, and report it",
            )
        found[height, width] = float((restored - wanted).abs().max())
    return found


def _facts(loaded: LoadedNetwork, restorer: Restorer, graph: Graph) -> dict[str, str]:
    window = loaded.tlsc_base if restorer.tlsc else None
    return {
        "model": loaded.model.name,
        "weights": loaded.file.name,
        "weights_sha256": loaded.file.sha256,
        "weights_license": loaded.file.checkpoint.license if loaded.file.checkpoint else "",
        "scale": str(restorer.scale),
        "tlsc_window": "x".join(map(str, window)) if window else "off",
        "smallest_side": str(graph.least),
        "input": "image (1, 3, H, W), RGB, float32 in [0, 1]",
        "output": "restored (1, 3, scale * H, scale * W), RGB, float32 in [0, 1]",
    }
