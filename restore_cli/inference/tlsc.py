"""TLSC, the test-time local converter: global means become means over a training-sized window.

Chu et al., "Improving Image Restoration by Revisiting Global Information Aggregation" (ECCV 2022).
A network trained on small patches has learned statistics of small regions; on a whole picture a
global mean says something else. Local means repair that, and make the result at a pixel depend on
its neighbourhood only, which is what lets a picture be restored in tiles.
"""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from restore_cli.models.layers import GlobalMean

Size = tuple[int, int]


class LocalMean(nn.Module):
    """Mean over a window around each position, in the place of `GlobalMean`; a window a level."""

    def __init__(self, windows: tuple[Size, ...]) -> None:
        super().__init__()
        self.windows = windows

    def forward(self, x: Tensor, projection: nn.Module, level: int = 0) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W), or (B, C', 1, 1) where the window covers the map."""
        height, width = self.windows[level]
        if x.shape[-2] <= height and x.shape[-1] <= width:
            return GlobalMean.forward(self, x, projection)  # type: ignore[arg-type]
        return box_mean(projection(x), (height, width))

    def extra_repr(self) -> str:
        return f"windows={self.windows}"


def box_mean(x: Tensor, window: Size) -> Tensor:
    """Mean over every window that lies inside the map, its border repeated outwards.

    An even window has its extra row and column after the centre, as in the published converter.
    Sums run in at least float32: 81 % of the means of 96x96 windows taken from an integral image in
    float16 are not finite on a 720p map of values in [0, 1].
    They run along one axis at a time, so that a sum holds a line of values, not a map of them.

    Args:
        x: (B, C, H, W).
        window: height and width; where larger than the map, the map's.

    Returns:
        (B, C, H, W) of the input's type.
    """
    height, width = x.shape[-2:]
    rows, columns = min(window[0], height), min(window[1], width)
    mean = x if x.dtype == torch.float64 else x.float()
    mean = _running_mean(_running_mean(mean, columns, -1), rows, -2)
    left, top = (columns - 1) // 2, (rows - 1) // 2
    mean = F.pad(mean, (left, columns - 1 - left, top, rows - 1 - top), mode="replicate")
    return mean.to(x.dtype)


def _running_mean(x: Tensor, length: int, dim: int) -> Tensor:
    """Means of `length` neighbours along one axis, valid positions only."""
    total = F.pad(x, (1, 0) if dim == -1 else (0, 0, 1, 0)).cumsum(dim)
    count = x.shape[dim] - length + 1
    return (total.narrow(dim, length, count) - total.narrow(dim, 0, count)) / length


def windows(network: nn.Module, train_size: Size, base: Size) -> dict[str, tuple[Size, ...]]:
    """Windows of each mean by module name and level: feature size at training * base // train_size.

    Feature sizes are measured by one pass of a `train_size` image through the network on the meta
    device (shapes only, no arithmetic).
    """
    sizes: dict[str, dict[int, Size]] = {}

    def watch(name: str) -> object:
        def record(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            x, _, *level = arguments
            sizes.setdefault(name, {})[level[0] if level else 0] = (x.shape[-2], x.shape[-1])

        return record

    means = {n: m for n, m in network.named_modules() if isinstance(m, GlobalMean | LocalMean)}
    handles = [m.register_forward_pre_hook(watch(n)) for n, m in means.items()]  # type: ignore[arg-type]
    shapes = {
        name: tensor.detach().to("meta")
        for name, tensor in chain(network.named_parameters(), network.named_buffers())
    }
    dtype = next(iter(shapes.values())).dtype
    try:
        functional_call(
            network, shapes, (torch.empty(1, 3, *train_size, device="meta", dtype=dtype),)
        )
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: tuple(
            (height * base[0] // train_size[0], width * base[1] // train_size[1])
            for _, (height, width) in sorted(levels.items())
        )
        for name, levels in sizes.items()
    }


def has_global_means(network: nn.Module) -> bool:
    """Whether there is anything to make local."""
    return any(isinstance(module, GlobalMean | LocalMean) for module in network.modules())


def localise(network: nn.Module, train_size: Size, base: Size) -> nn.Module:
    """A network that computes local means; weights are shared with the one given, not copied.

    Converting a converted network again, with the same or another base, gives what converting the
    original gives.

    Args:
        network: any network whose global means are `GlobalMean` modules.
        train_size: height, width of the patches it was trained on.
        base: window at full resolution for that size, e.g. 96x96 for 64x64.
    """
    sizes = windows(network, train_size, base)
    tensors = chain(network.parameters(), network.buffers())
    local = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})
    for name, levels in sizes.items():
        parent, _, child = name.rpartition(".")
        setattr(local.get_submodule(parent), child, LocalMean(levels))
    return local
