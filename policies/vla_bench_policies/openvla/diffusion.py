"""CogACT's action model: a transformer that removes noise from sixteen actions, guided by one hidden state.

Source: microsoft/CogACT, `action_model/models.py` (a diffusion transformer without its adaptive norms: the condition is
a row of its own) and `action_model/gaussian_diffusion.py` (Song et al. 2021, "Denoising Diffusion Implicit Models").
"""

import math
import re

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from vla_bench_policies.openvla.cost import linear
from vla_bench_policies.openvla.errors import PublishedCheckpointError
from vla_bench_policies.openvla.tensors import TensorSource
from vla_bench_policies.openvla.vision import Attention, FeedForward

HEADS = {6: 4, 12: 12, 24: 16}
"""Attention heads by number of blocks: small, base and large (`action_model/action_model.py`)."""

TRAINED_STEPS = 100
"""Noise levels in training, on a squared cosine (Nichol & Dhariwal 2021, equation 17)."""

FREQUENCIES = 256
"""Numbers that tell a noise level, half of them cosines."""

EPS = 1e-6
"""Of the norms, which have no weights."""


class ActionTransformer(nn.Module):
    """Noisy actions, a noise level and a condition to the noise."""

    def __init__(self, width: int, blocks: int, chunk: int, action_size: int, condition: int) -> None:
        super().__init__()
        self.width, self.chunk, self.action_size, self.condition = width, chunk, action_size, condition
        self.x_embedder, self.z_embedder = _Linear(action_size, width), _Condition(condition, width)
        self.t_embedder = _Level(width)
        self.positional_embedding = nn.Parameter(torch.zeros(chunk + 1, width))
        self.blocks = nn.ModuleList(_Block(width, HEADS[blocks]) for _ in range(blocks))
        self.final_layer = _Linear(width, action_size)

    @classmethod
    def of(cls, source: TensorSource) -> "ActionTransformer":
        """Return a transformer of the shape that tensors under `net.` have, without memory for its weights.

        Raises:
            PublishedCheckpointError: If it is none, or of no known size.
        """
        for name in ("net.x_embedder.linear.weight", "net.z_embedder.linear.weight", "net.positional_embedding"):
            if name not in source.names():
                raise PublishedCheckpointError(source.path, f"the tensor {name!r} is missing", "CogACT's action model")
        width, action_size = source.shape("net.x_embedder.linear.weight")
        blocks = len({found[0] for name in source.names() if (found := re.match(r"net\.blocks\.\d+\.", name))})
        if blocks not in HEADS:
            raise PublishedCheckpointError(source.path, f"an action model of {blocks} blocks", f"one of {list(HEADS)}")
        chunk = source.shape("net.positional_embedding")[0] - 1
        with torch.device("meta"):
            return cls(width, blocks, chunk, action_size, source.shape("net.z_embedder.linear.weight")[1])

    def forward(
        self, actions: Float[Tensor, "b chunk action"], level: Float[Tensor, " b"], condition: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b chunk action"]:
        """Return the noise in the actions."""
        first = self.t_embedder(level) + self.z_embedder(condition)
        x = torch.cat((first[:, None], self.x_embedder(actions)), dim=1) + self.positional_embedding
        for block in self.blocks:
            x = block(x)
        return self.final_layer(_normed(x))[:, 1:]

    def guided(
        self, actions: Tensor, level: Tensor, condition: Tensor, guidance: float
    ) -> Float[Tensor, "b chunk action"]:
        """Return the noise, exaggerated away from what it would be without a condition."""
        if guidance == 1:
            return self(actions, level, condition)
        both = torch.cat((condition, self.z_embedder.uncondition.expand_as(condition)))
        told, untold = self(actions.repeat(2, 1, 1), level.repeat(2), both).chunk(2)
        return untold + guidance * (told - untold)

    def flops(self, guidance: float) -> int:
        """Return the operations of one call of `guided`."""
        rows, width = self.chunk + 1, self.width
        block = linear(rows, width, 12 * width) + 4 * rows * rows * width
        ends = linear(self.chunk, self.action_size, width) + linear(rows, width, self.action_size)
        told = linear(1, self.condition, width)
        level = linear(1, FREQUENCIES, width) + linear(1, width, width)
        return (1 if guidance == 1 else 2) * (len(self.blocks) * block + ends + told + level)


def remaining_signal() -> Float64[np.ndarray, " levels"]:
    """Return the share of the actions' variance that is left at each noise level."""

    def cosine(part: float) -> float:
        return math.cos((part + 0.008) / 1.008 * math.pi / 2) ** 2

    steps = range(TRAINED_STEPS)
    lost = [1 - cosine((step + 1) / TRAINED_STEPS) / cosine(step / TRAINED_STEPS) for step in steps]
    return np.cumprod(1 - np.minimum(lost, 0.999))


def visited(n_steps: int) -> Int[np.ndarray, " steps"]:
    """Return the noise levels that are visited, at equal distances from 0."""
    return np.arange(0, TRAINED_STEPS, TRAINED_STEPS // n_steps)


def denoised(
    network: ActionTransformer, noise: Float[Tensor, "b chunk action"], condition: Float[Tensor, "b d"], n_steps: int,
    guidance: float,
) -> Float[Tensor, "b chunk action"]:  # fmt: skip
    """Return the actions that are left when the noise is taken away in a few steps, without adding any (eta 0)."""
    signal, levels = remaining_signal(), visited(n_steps)
    x = noise
    for index in range(len(levels) - 1, -1, -1):
        here, before = float(signal[levels[index]]), float(signal[levels[index - 1]]) if index else 1.0
        level = torch.full((len(x),), float(levels[index]), device=x.device)
        found = network.guided(x, level, condition, guidance)
        clean = x * (1 / here) ** 0.5 - found * (1 / here - 1) ** 0.5
        x = clean * before**0.5 + found * (1 - before) ** 0.5
    return x


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn, self.mlp = Attention(width, heads), FeedForward(width, 4 * width, approximate="tanh")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(_normed(x))
        return x + self.mlp(_normed(x))


class _Linear(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class _Condition(_Linear):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.uncondition = nn.Parameter(torch.zeros(1, inputs))
        """Stands for no condition; learned."""


class _Level(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        """Always in single precision, as all of the action model."""

    def forward(self, level: Float[Tensor, " b"]) -> Float[Tensor, "b width"]:
        half = FREQUENCIES // 2
        frequency = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=level.device) / half)
        angle = level[:, None].float() * frequency
        return self.mlp(torch.cat((angle.cos(), angle.sin()), dim=1))


def _normed(x: Tensor) -> Tensor:
    return nn.functional.layer_norm(x, (x.shape[-1],), eps=EPS)
