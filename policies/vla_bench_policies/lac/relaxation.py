"""From scores and logits to masks whose forward is hard and whose gradient is not zero.

A mask is 1 where a row is recomputed. Sums are written in the order `hard + (soft - soft.detach())`, so that their
forward is exactly 0 or 1.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vla_bench_policies.lac.gates import n_reused
from vla_bench_policies.learned.sharing import ALONE
from vla_bench_policies.reference.training.team import Team

Estimator = Literal["gumbel", "blend"]
"""How the ratio's gradient goes through the mask; see `mixed`."""


def hard_mask(scores: Float[Tensor, "b rows"], k: int) -> Float[Tensor, "b rows"]:
    """Return 0 for the k rows of lowest score, ties to the lower row, and 1 for the others."""
    order = scores.detach().argsort(dim=-1, stable=True)
    return torch.ones_like(scores).scatter_(1, order[:, :k], 0.0)


def soft_mask(scores: Float[Tensor, "b rows"], k: int, temperature: float) -> Float[Tensor, "b rows"]:
    """Return sigmoid((s - theta_k) / temperature), theta_k midway between the k-th and the (k+1)-th lowest score.

    The threshold has a gradient: without it a third of the gradient would push all scores up or down, which changes
    no mask. Where all rows are recomputed, or none, the mask is constant.
    """
    if k == 0 or k == scores.shape[1]:
        return torch.full_like(scores, float(k == 0))
    ordered = scores.sort(dim=-1).values
    threshold = (ordered[:, k - 1 : k] + ordered[:, k : k + 1]) / 2
    return torch.sigmoid((scores - threshold) / temperature)


def candidate_masks(
    scores: Float[Tensor, "b rows"], ratios: tuple[float, ...], temperature: float
) -> Float[Tensor, "b ratios rows"]:
    """Return the mask of every candidate ratio, hard forward, soft backward."""
    masks = []
    for ratio in ratios:
        k = n_reused(ratio, scores.shape[1])
        soft = soft_mask(scores, k, temperature)
        masks.append(hard_mask(scores, k) + (soft - soft.detach()))
    return torch.stack(masks, dim=1)


def gumbel_choice(
    logits: Float[Tensor, "b ratios"], temperature: float, generator: torch.Generator, team: Team = ALONE
) -> Float[Tensor, "b ratios"]:
    """Return a one-hot draw with the gradient of a Gumbel-softmax (Jang et al. 2017, straight-through).

    What is random is drawn for the team's whole batch; each process takes its share.
    """
    n = team.count * len(logits)
    drawn = torch.rand(n, logits.shape[1], generator=generator)[team.share(n)]
    uniform = drawn.to(logits).clamp(1e-9, 1 - 1e-7)
    soft = ((logits - torch.log(-torch.log(uniform))) / temperature).softmax(dim=-1)
    hard = F.one_hot(soft.argmax(dim=-1), logits.shape[1]).to(soft)
    return hard + (soft - soft.detach())


def mixed(
    logits: Float[Tensor, "b ratios"],
    masks: Float[Tensor, "b ratios rows"],
    estimator: Estimator,
    temperature: float,
    generator: torch.Generator,
    team: Team = ALONE,
) -> Float[Tensor, "b rows"]:
    """Return the mask that the policy is run with: m = sum_j p_j mask_j.

    `gumbel`: p is a straight-through draw, the forward is hard, and both networks learn. `blend`: p is the softmax and
    the masks are constants, so that the forward is a blend and only the predictor learns; its gradient has a cosine of
    0.96 to the exact one, against 0.77 of a single draw.
    """
    if estimator == "gumbel":
        weights = gumbel_choice(logits, temperature, generator, team)
    else:
        weights, masks = logits.softmax(dim=-1), masks.detach()
    return (weights[..., None] * masks).sum(dim=1)


def expected_ratio(logits: Float[Tensor, "b ratios"], ratios: tuple[float, ...]) -> Float[Tensor, " b"]:
    """Return sum_j p_j r_j, whose negative is L_ratio of the paper."""
    return logits.softmax(dim=-1) @ logits.new_tensor(ratios)
