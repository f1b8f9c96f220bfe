"""The network of VLA-ACL: a score for every visual row, from the rows of all views together."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vla_bench_policies.learned.checkpoint import Kind
from vla_bench_policies.reference.vision import Block


@dataclass(frozen=True)
class ScorerConfig:
    """The shape of a scorer, and how much it keeps; trained weights fit no other."""

    rows_width: int = 256
    """Width of the policy's rows."""

    n_rows: int = 128
    """Visual rows, all views."""

    views: int = 2

    width: int = 64
    """Inside the scorer. Choice: small beside the policy's own decoder."""

    layers: int = 5
    """Bidirectional. Source: VLA-ACL."""

    heads: int = 4

    keep: float = 0.5
    """Share of each view's rows that stays: an operating point is trained for one share."""

    @property
    def k(self) -> int:
        """Return how many rows of a view stay."""
        return round(self.keep * self.n_rows / self.views)


class Scorer(nn.Module):
    """Scores rows; greater stays."""

    def __init__(self, config: ScorerConfig) -> None:
        super().__init__()
        self.config = config
        self.narrow = nn.Linear(config.rows_width, config.width)
        self.place = nn.Parameter(0.02 * torch.randn(config.n_rows, config.width))
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.score = nn.Linear(config.width, 1)

    def forward(self, rows: Float[Tensor, "b rows width"]) -> Float[Tensor, "b views per_view"]:
        """Return the score of each row."""
        x = self.narrow(rows) + self.place
        for block in self.blocks:
            x = block(x)
        return self.score(self.norm(x)).unflatten(1, (self.config.views, -1)).squeeze(-1)


def scorer_flops(config: ScorerConfig) -> int:
    """Return the operations of one look, a multiply-add counted as two."""
    n, w = config.n_rows, config.width
    matrices = 12 * w * w  # queries, keys, values, output; two layers, four times as wide between them
    return 2 * n * (config.rows_width * w + config.layers * (matrices + 2 * n * w) + w)


KIND = Kind("VLA-ACL", "vla_bench_policies.acl", "vla-bench train vla-acl", ScorerConfig, Scorer)
