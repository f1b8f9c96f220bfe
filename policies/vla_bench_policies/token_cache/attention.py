"""Masks, and the attention of a few chosen rows without leaving the fused kernel."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def additive(visible: Bool[Tensor, "*shape"], dtype: torch.dtype) -> Float[Tensor, "*shape"]:
    """Return 0 where a key is visible and minus infinity where not: what fused attention adds without conversion.

    A boolean mask would be turned into this in every layer anew by the fused kernel, and *added* as 0 and 1 by
    transformers' eager attention.
    """
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, float("-inf"))


def visible_keys(
    rows: Int[Tensor, "b q"], keys: Int[Tensor, "#b k"], shown: Bool[Tensor, "b k"], bidirectional: bool
) -> Bool[Tensor, "b 1 q k"]:
    """Return which key each row sees: those that are shown and, unless bidirectional, not behind it in the prompt.

    Args:
        rows: Original positions of the queries; padding may have any.
        keys: Original positions of the keys.
        shown: Keys that are not deleted.
        bidirectional: Whether rows also see those behind them.
    """
    seen = shown[:, None, :].expand(-1, rows.shape[1], -1)
    if not bidirectional:
        seen = seen & (keys[:, None, :] <= rows[:, :, None])
    return seen[:, None]


def attention_of(
    query: Float[Tensor, "b heads q w"], key: Float[Tensor, "b kv k w"], mask: Float[Tensor, "b 1 q k"] | None
) -> Float[Tensor, "b q k"]:
    """Return the softmax attention of a few rows, mean over heads, in single precision.

    Args:
        query: Rotated queries of the chosen rows only.
        key: Rotated keys, fewer heads if they are shared (grouped-query attention).
        mask: Added to the scores; None if every key is seen.
    """
    groups = query.shape[1] // key.shape[1]
    shared = query.unflatten(1, (key.shape[1], groups)).flatten(2, 3)
    scores = (shared.float() @ key.float().transpose(-1, -2)) * query.shape[-1] ** -0.5
    scores = scores.unflatten(2, (groups, query.shape[2])).flatten(1, 2)
    if mask is not None:
        scores = scores + mask.float()
    return scores.softmax(dim=-1).mean(dim=1)


def attended_eagerly(
    query: Float[Tensor, "b heads q w"],
    key: Float[Tensor, "b kv k w"],
    value: Float[Tensor, "b kv k w"],
    mask: Float[Tensor, "b 1 q k"] | None,
    causal: bool,
) -> Float[Tensor, "b heads q w"]:
    """Return what fused attention returns, by whole attention maps as papers compute them to read them."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    if causal:
        row = torch.arange(query.shape[2], device=query.device)
        scores = scores + additive(row <= row[:, None], scores.dtype)
    if mask is not None:
        scores = scores + mask
    return scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype) @ value
