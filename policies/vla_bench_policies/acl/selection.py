"""Soft top-k: shares between 0 and 1 that sum to k exactly, and are 0 or 1 in the limit.

Source: Struski et al. 2025, "LapSum: One Method to Differentiate Them All: Ranking, Sorting and Top-k Selection",
section 3: p_i = F((s_i - b) / alpha) with the Laplace distribution F, and b such that the shares sum to k.
"""

import torch
from jaxtyping import Float
from torch import Tensor

BISECTIONS = 50
"""Halvings of the interval that holds the threshold: to less than the rounding of single precision."""


def laplace(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Return the cumulative distribution of the standard Laplace law."""
    tail = 0.5 * torch.exp(-x.abs())
    return torch.where(x < 0, tail, 1 - tail)


def soft_top_k(scores: Float[Tensor, "*b rows"], k: int, alpha: float) -> Float[Tensor, "*b rows"]:
    """Return the share of each row, with its gradient.

    The threshold depends on the scores: d b / d s_i = f_i / sum f, with f the density of the Laplace law at each row
    (the implicit derivative of "the shares sum to k"), so that the shares keep their sum along every gradient.

    Args:
        scores: Greater stays.
        k: How many stay; at 0 and at all rows the shares are constant.
        alpha: Width of the law, in units of the scores.
    """
    if k in (0, scores.shape[-1]):
        return torch.full_like(scores, float(k > 0))
    fixed = scores.detach()
    threshold = _threshold(fixed, k, alpha)
    density = torch.exp(-((fixed - threshold) / alpha).abs())
    moved = density / density.sum(dim=-1, keepdim=True) * (scores - fixed)
    return laplace((scores - threshold - moved.sum(dim=-1, keepdim=True)) / alpha)


def hard_top_k(scores: Float[Tensor, "*b rows"], k: int) -> Float[Tensor, "*b rows"]:
    """Return 1 for the k rows of highest score, ties to the lower row, and 0 for the others."""
    order = (-scores.detach()).argsort(dim=-1, stable=True)
    return torch.zeros_like(scores).scatter_(-1, order[..., :k], 1.0)


def _threshold(scores: Tensor, k: int, alpha: float) -> Float[Tensor, "*b 1"]:
    """Return b, by bisection: the sum falls with it."""
    n_rows = scores.shape[-1]
    reach = alpha * (n_rows + 1.0)  # the law's tails are exponential, so that this is far outside
    low, high = scores.amin(dim=-1, keepdim=True) - reach, scores.amax(dim=-1, keepdim=True) + reach
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        greater = laplace((scores - middle) / alpha).sum(dim=-1, keepdim=True) > k
        low, high = torch.where(greater, middle, low), torch.where(greater, high, middle)
    return (low + high) / 2
