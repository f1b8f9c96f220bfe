"""Processes that train as one: each takes a share of every batch, and their gradients are added.

`torchrun --nproc-per-node 4 -m vla_bench.cli train reference ...` starts them, one a GPU. Every process holds all
weights and takes the same steps; the first one alone writes, prints and measures. They share one directory.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from vla_bench.errors import OptionError, VlaBenchError


class ApartError(VlaBenchError):
    """Refuse processes that do not begin at the same step."""

    def __init__(self, step: int, mean: float) -> None:
        super().__init__(
            f"this process begins at step {step}, all processes at {mean:g} on average; expected the same: they need "
            f"one directory --out that all of them can read"
        )


@dataclass(frozen=True)
class Team:
    """This process among those that train together; alone, unless somebody says otherwise."""

    rank: int = 0
    """Number of this process; 0 leads."""

    count: int = 1
    """Processes."""

    local_rank: int = 0
    """Number of this process on its machine."""

    local_count: int = 1
    """Processes on this machine."""

    @property
    def leads(self) -> bool:
        """Return whether this process is the one that writes."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """Return which of `n` things are this process's.

        Raises:
            OptionError: If they cannot be shared out evenly.
        """
        if n % self.count:
            raise OptionError("--nproc-per-node", self.count, f"processes that share a batch of {n} evenly")
        each = n // self.count
        return slice(self.rank * each, (self.rank + 1) * each)

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of a number over all processes, through which no gradient flows; alone, the number itself."""
        if self.count == 1:
            return value
        summed = value.detach().clone()
        distributed.all_reduce(summed)
        return summed

    def add_gradients(self, network: nn.Module) -> None:
        """Give every process the sum of all gradients; alone, do nothing."""
        if self.count == 1:
            return
        gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        for gradient, summed in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))

    def check_begin(self, step: int, device: torch.device) -> None:
        """Refuse processes that have found different states.

        Raises:
            ApartError: If another one begins at another step.
        """
        mean = float(self.total(torch.tensor(float(step), device=device))) / self.count
        if mean != step:
            raise ApartError(step, mean)

    @contextmanager
    def after_the_first(self) -> Iterator[None]:
        """Let the first process through, then all others: it makes files that they only read."""
        if self.count > 1 and not self.leads:
            distributed.barrier()
        yield
        if self.count > 1 and self.leads:
            distributed.barrier()


@contextmanager
def joined(device: str) -> Iterator[Team]:
    """Join the processes that `torchrun` has started, if it has started this one.

    Args:
        device: `cuda` or `cpu`.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Team()
        return
    team = Team(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")))
    if device == "cuda":
        torch.cuda.set_device(team.local_rank)
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield team
    finally:
        distributed.destroy_process_group()
