"""Data-parallel training: the processes that `torchrun` or `accelerate launch` started.

Each process computes its part of every batch. Gradients are averaged, so the number of processes
changes the result by rounding only.
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list
from torch import Tensor, nn

from restore_cli.training.launch_env import world_size


class ProcessGroup:
    """The group of training processes; this class is a group of one process."""

    rank, size = 0, 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wrap(self, module: nn.Module) -> nn.Module:
        """Wrap a module: gradients are the group's mean, weights those of the first process."""
        return module

    def all_reduce_mean(self, values: Tensor) -> Tensor:
        """Average each value (of any shape) over the group."""
        return values

    def broadcast(self, value: Any) -> Any:
        """Return the first process' value in every process."""
        return value

    def barrier(self) -> None:
        """Wait until all processes have reached this call."""

    def close(self) -> None:
        """Leave the group."""


class Distributed(ProcessGroup):
    """A group of several processes: accelerate on torch.distributed (NCCL, or Gloo on CPUs)."""

    def __init__(self, device: torch.device) -> None:
        # Frozen parameters, and those of outputs that no loss uses, get no gradient.
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        self._accelerator = Accelerator(
            cpu=device.type == "cpu", device_placement=False, kwargs_handlers=[unused]
        )
        self.rank, self.size = self._accelerator.process_index, self._accelerator.num_processes
        self.device = self._accelerator.device

    def wrap(self, module: nn.Module) -> nn.Module:
        wrapped: nn.Module = self._accelerator.prepare_model(module, device_placement=False)
        return wrapped

    def all_reduce_mean(self, values: Tensor) -> Tensor:
        reduced: Tensor = self._accelerator.reduce(values, "mean")
        return reduced

    def broadcast(self, value: Any) -> Any:
        values = [value]
        broadcast_object_list(values)
        return values[0]

    def barrier(self) -> None:
        self._accelerator.wait_for_everyone()

    def close(self) -> None:
        self._accelerator.end_training()


def init_process_group(device: torch.device) -> ProcessGroup:
    """Return the group of this process; each process has its own device of that type.

    Raises `UsageError` if the environment variables of a group are wrong.
    """
    return Distributed(device) if world_size() > 1 else ProcessGroup(device)
