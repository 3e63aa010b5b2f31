"""The exponential moving average of a network's weights, which is what a run exports."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class ExponentialMovingAverage(nn.Module):
    """Exponential moving average of a network's weights, with a smaller decay at the start.

    With a constant decay of 0.998, the initial weights still made up 60 % of the average after 250
    steps. (torch's AveragedModel reads its counter from the GPU at every step, a synchronisation.)
    """

    count: Tensor

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.module = copy.deepcopy(network)
        self.decay = decay
        self.register_buffer("count", torch.zeros((), dtype=torch.int64, device="cpu"))

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Include the weights after one more step."""
        count = int(self.count)
        kept = min(self.decay, (1 + count) / (10 + count)) if count else 0.0
        pairs = zip(self.module.parameters(), network.parameters(), strict=True)
        averaged, current = zip(*((mean, new.detach()) for mean, new in pairs), strict=True)
        torch._foreach_lerp_(list(averaged), list(current), 1 - kept)
        self.count += 1
