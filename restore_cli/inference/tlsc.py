"""TLSC, the test-time local converter: replaces global statistics by those of a window.

Chu et al., "Improving Image Restoration by Revisiting Global Information Aggregation" (ECCV 2022).
A network trained on small patches has learned statistics of small regions, and the global mean of a
whole picture differs from them. Local statistics avoid that. They also make the result at a pixel
depend on its neighbourhood only, so that a picture can be restored in tiles.
"""

from __future__ import annotations

import copy
import threading
import warnings
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from restore_cli.inference.local_statistics import LOCAL, LocalStatistic
from restore_cli.models.layers import GlobalStatistic
from restore_cli.models.spec import Size

_one_at_a_time = threading.Lock()  # the filters of warnings belong to the whole process


def windows(network: nn.Module, train_size: Size, base: Size) -> dict[str, tuple[Size, ...]]:
    """Return windows of each statistic by module name and level: feature size * base // train_size.

    `train_size` and `base` are as for `localise`. Feature sizes are measured by running the network
    on an empty batch of size `train_size`, which computes shapes only. (The meta device would
    import torch._dynamo, which takes 1.3 s.)
    """
    sizes: dict[str, dict[int, Size]] = {}

    def watch(name: str) -> Any:
        def record(module: nn.Module, maps: tuple[Tensor, ...], options: dict[str, Any]) -> None:
            height, width = maps[0].shape[-2:]
            sizes.setdefault(name, {})[options.get("level", 0)] = (height, width)

        return record

    handles = [
        module.register_forward_pre_hook(watch(name), with_kwargs=True)
        for name, module in _statistics(network).items()
    ]
    like = next(chain(network.parameters(), network.buffers()))
    try:
        with _one_at_a_time, warnings.catch_warnings(), torch.inference_mode():
            warnings.filterwarnings("ignore", "var_mean.*degrees of freedom")  # empty batch
            network(like.new_empty(0, 3, *train_size))
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


def has_global_statistics(network: nn.Module) -> bool:
    """Whether the network has statistics that are or can be made local."""
    return bool(_statistics(network))


def localise(network: nn.Module, train_size: Size, base: Size) -> nn.Module:
    """Return a copy of a network that computes local statistics and shares its weights.

    `train_size` is that of the training patches, `base` the window at full resolution, e.g. 96x96
    for a training size of 64x64; both are height and width. Converting a converted network, with
    the same or another base, equals converting the original.
    """
    tensors = chain(network.parameters(), network.buffers())
    local = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})
    # Of the copy: another thread may run the network, and its maps would be measured, too.
    sizes = windows(local, train_size, base)
    for name, module in _statistics(local).items():
        kind = type(module) if isinstance(module, LocalStatistic) else LOCAL[type(module)]
        parent, _, child = name.rpartition(".")
        setattr(local.get_submodule(parent), child, kind(sizes[name]))
    return local


def _statistics(network: nn.Module) -> dict[str, GlobalStatistic | LocalStatistic]:
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, GlobalStatistic | LocalStatistic)
    }
