"""Layers that several networks share; shapes are (B, C, H, W) of the feature map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GlobalMean(nn.Module):
    """Mean over the whole map, then a linear 1x1 projection of it.

    At test time TLSC (`inference.tlsc`) puts a mean over a window of the training size in its
    place. The projection is part of the call because the two linear maps commute: a local mean is
    cheaper after the projection has cut the channels, a global one before. So is the level: a
    network that runs the same weights at several sizes says at which it is, from 0 up.
    """

    def forward(self, x: Tensor, projection: nn.Module, level: int = 0) -> Tensor:
        """(B, C, H, W) -> (B, C', 1, 1)."""
        projected: Tensor = projection(x.mean((2, 3), keepdim=True))
        return projected


def conv(inputs: int, outputs: int, kernel: int, *, bias: bool = False) -> nn.Conv2d:
    """Stride-1 convolution with zero padding that keeps the size."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias)


def channels_last(network: nn.Module) -> nn.Module:
    """The network with its weights laid out for channels-last maps, in place.

    Measured on 2 cores with one 64-channel 3x3 convolution at 180x320: 2.7 times the speed of NCHW.
    """
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def halve(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H/2, W/2): bilinear x0.5, which for even sizes is the 2x2 mean."""
    return F.avg_pool2d(x, 2)


def double(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 2H, 2W): bilinear x2, half-pixel centres."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
