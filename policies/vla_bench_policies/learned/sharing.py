"""One batch, shared out among processes that train together: each sees the answers of all, and learns from its own."""

import torch
from jaxtyping import Shaped
from torch import Tensor, distributed

from vla_bench_policies.reference.training.team import Team

ALONE = Team()
"""One process, which has the whole batch."""


def of_all(part: Shaped[Tensor, "own ..."], team: Team) -> Shaped[Tensor, "batch ..."]:
    """Return what all processes hold, in the order of the batch; alone, the part itself.

    The gradient goes through this process's part only. So a loss of the whole batch, whatever it divides by, has in
    every process the same value, and the sum of all processes' gradients is its gradient. Every process must call it,
    with a part of the same shape.
    """
    if team.count == 1:
        return part
    parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(team.count)]
    distributed.all_gather(parts, part.detach().contiguous())
    parts[team.rank] = part
    return torch.cat(parts)
