"""A causal Llama-style decoder, plainly written: RMSNorm, rotary positions, SwiGLU, fused attention.

Parameters have the names of `transformers.LlamaModel`, which computes the same from the same weights; a test compares.
It is what training uses and what the token cache is compared with; inference goes through `token_cache`.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

ROPE_THETA = 10_000.0
"""Base of the rotary frequencies. Source: Su et al. 2021, "RoFormer", section 3.2.2; Llama's value too."""

NORM_EPS = 1e-6
"""Added to the mean square. Source: the default of `transformers.LlamaConfig`, which OpenVLA keeps."""


class RMSNorm(nn.Module):
    """Divide by the root mean square (Zhang and Sennrich 2019, equation 4), then scale each feature."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "*n width"]) -> Float[Tensor, "*n width"]:
        """Return the scaled input."""
        return F.rms_norm(x, (x.shape[-1],), self.weight, NORM_EPS)


class Attention(nn.Module):
    """Self-attention with rotary positions."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(width, width, bias=False) for _ in range(4))

    def projected(self, x: Float[Tensor, "b q width"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values (b, heads, q, w), not rotated yet."""
        query, key, value = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        return query, key, value

    def forward(
        self,
        x: Float[Tensor, "b q width"],
        rotation: tuple[Tensor, Tensor],
        mask: Float[Tensor, "#b 1 q q"] | None,
        first: int = 0,
    ) -> Float[Tensor, "b tail width"]:
        """Let the rows from `first` on look at what the mask allows; without a mask, at themselves and those before."""
        query, key, value = self.projected(x)
        query, key = rotated(query, *rotation), rotated(key, *rotation)
        if first:
            query = query[:, :, first:]
            mask = below_diagonal(x)[first:] if mask is None else mask[..., first:, :]
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None)
        return self.o_proj(seen.transpose(1, 2).flatten(-2))


class SwiGLU(nn.Module):
    """Gated feed-forward network (Shazeer 2020, equation 6)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "*n width"]) -> Float[Tensor, "*n width"]:
        """Return the network's output, a row at a time."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention and feed-forward network, each normalised before and added to its input."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(width), RMSNorm(width)
        self.self_attn = Attention(width, heads)
        self.mlp = SwiGLU(width, hidden)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None, first: int = 0) -> Tensor:
        """Return the rows from `first` on after this layer; the others give their keys and values only."""
        x = x[:, first:] + self.self_attn(self.input_layernorm(x), rotation, mask, first)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """The stack of layers, from embedded rows to hidden states."""

    def __init__(self, width: int, layers: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.head_width = width // heads
        self.layers = nn.ModuleList(Layer(width, heads, hidden) for _ in range(layers))
        self.norm = RMSNorm(width)

    def forward(
        self,
        x: Float[Tensor, "b q width"],
        positions: Int[Tensor, "#b q"],
        mask: Float[Tensor, "#b 1 q q"] | None = None,
        first: int = 0,
    ) -> Float[Tensor, "b tail width"]:
        """Return the hidden states after the last norm.

        Args:
            x: Embedded rows.
            positions: Of the rows in the prompt, for the rotary embedding.
            mask: Added to the attention scores, 0 or minus infinity; None is plainly causal.
            first: The first row whose state is wanted: the last layer computes none before it.
        """
        rotation = rotary(positions, self.head_width, x.dtype)
        for layer in self.layers[:-1]:
            x = layer(x, rotation, mask)
        return self.norm(self.layers[-1](x, rotation, mask, first))


def below_diagonal(x: Float[Tensor, "b q width"]) -> Float[Tensor, "q q"]:
    """Return the additive mask that lets every row see itself and those before it."""
    n_rows = x.shape[1]
    return torch.full((n_rows, n_rows), -torch.inf, dtype=x.dtype, device=x.device).triu(1)


def rotary(positions: Int[Tensor, "b q"], head_width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return cosine and sine (b, 1, q, head_width) of the rotation of each feature pair (i, i + head_width / 2)."""
    steps = torch.arange(0, head_width, 2, device=positions.device, dtype=torch.float32)
    angle = positions[:, None, :, None].float() * ROPE_THETA ** (-steps / head_width)
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rotated(x: Float[Tensor, "b heads q w"], cosine: Tensor, sine: Tensor) -> Float[Tensor, "b heads q w"]:
    """Return queries or keys turned by their positions."""
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine
