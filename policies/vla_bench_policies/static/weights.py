"""The matrices of a Llama, fused, in their own type or in 8-bit floats."""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vla_bench_policies.openvla.config import DecoderShape
from vla_bench_policies.static.pointwise import Kernels, narrowed, of_narrow

SPREAD = 0.02
"""Deviation of random weights: `initializer_range` of Llama's configuration."""


class Matrix(Protocol):
    """A matrix that rows are multiplied with."""

    @property
    def n_bytes(self) -> int:
        """Return what is read of it for a product [byte]."""
        ...

    def times(self, x: Float[Tensor, "rows inputs"], kernels: Kernels) -> Float[Tensor, "rows outputs"]:
        """Return the product."""
        ...


@dataclass(frozen=True)
class WideMatrix:
    """In the type that the rows have."""

    weight: Float[Tensor, "outputs inputs"]

    @property
    def n_bytes(self) -> int:
        """Return what is read of it for a product [byte]."""
        return self.weight.nbytes

    def times(self, x: Float[Tensor, "rows inputs"], kernels: Kernels) -> Float[Tensor, "rows outputs"]:
        """Return the product."""
        return kernels.of_one_row(x, self.weight) if len(x) == 1 else F.linear(x, self.weight)


@dataclass(frozen=True)
class NarrowMatrix:
    """In 8-bit floats with a scale for each output; rows are narrowed on their way in, each with its own scale.

    A single row stays as it is, where kernels are compiled: only the reading of the matrix counts then.
    """

    weight: Tensor
    scale: Float[Tensor, "1 outputs"]

    @classmethod
    def of(cls, matrix: Matrix) -> "NarrowMatrix":
        """Return a matrix in 8 bits."""
        assert isinstance(matrix, WideMatrix)
        weight, scale = narrowed(matrix.weight)
        return cls(weight, scale.t().contiguous())

    @property
    def n_bytes(self) -> int:
        """Return what is read of it for a product [byte]."""
        return self.weight.nbytes

    def times(self, x: Float[Tensor, "rows inputs"], kernels: Kernels) -> Float[Tensor, "rows outputs"]:
        """Return the product."""
        if len(x) == 1:
            return kernels.of_one_row_narrow(x, self.weight, self.scale)
        rows, row_scale = kernels.narrowed(x)
        return of_narrow(rows, row_scale, self.weight, self.scale, x.dtype)


@dataclass(frozen=True)
class LayerWeights:
    """Of one layer."""

    qkv: Matrix
    out: Matrix
    gate_up: Matrix
    down: Matrix
    norm_in: Float[Tensor, " d"]
    norm_out: Float[Tensor, " d"]

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """Return all of them."""
        return self.qkv, self.out, self.gate_up, self.down


@dataclass(frozen=True)
class LlamaWeights:
    """Of a decoder, with embedding and scores of tokens."""

    shape: DecoderShape
    layers: tuple[LayerWeights, ...]
    norm: Float[Tensor, " d"]
    words: Float[Tensor, "vocabulary d"]
    scorer: Float[Tensor, "vocabulary d"]

    @classmethod
    def of(cls, state: dict[str, Tensor], shape: DecoderShape, words: Tensor, scorer: Tensor) -> "LlamaWeights":
        """Return weights under the names of `transformers.LlamaModel`, copied where they are fused."""
        layers = []
        for index in range(shape.layers):
            attention, network = f"layers.{index}.self_attn.", f"layers.{index}.mlp."
            layers.append(
                LayerWeights(
                    WideMatrix(torch.cat([state[f"{attention}{name}_proj.weight"] for name in "qkv"])),
                    WideMatrix(state[f"{attention}o_proj.weight"]),
                    WideMatrix(torch.cat([state[f"{network}{name}_proj.weight"] for name in ("gate", "up")])),
                    WideMatrix(state[f"{network}down_proj.weight"]),
                    state[f"layers.{index}.input_layernorm.weight"],
                    state[f"layers.{index}.post_attention_layernorm.weight"],
                )
            )
        return cls(shape, tuple(layers), state["norm.weight"], words, scorer)

    @classmethod
    def random(cls, shape: DecoderShape, device: torch.device, dtype: torch.dtype, seed: int) -> "LlamaWeights":
        """Return weights that are drawn where they will be: time does not depend on them, and 13 GB are not moved."""
        generator = torch.Generator(device).manual_seed(seed)

        def drawn(*size: int) -> Tensor:
            return torch.randn(size, generator=generator, device=device, dtype=dtype).mul_(SPREAD)

        width, head_width = shape.width, shape.width // shape.heads
        all_heads = (shape.heads + 2 * shape.kv_heads) * head_width
        ones = torch.ones(width, device=device, dtype=dtype)
        layers = tuple(
            LayerWeights(
                WideMatrix(drawn(all_heads, width)),
                WideMatrix(drawn(width, width)),
                WideMatrix(drawn(2 * shape.hidden, width)),
                WideMatrix(drawn(width, shape.hidden)),
                ones.clone(),
                ones.clone(),
            )
            for _ in range(shape.layers)
        )
        return cls(shape, layers, ones.clone(), drawn(shape.vocabulary, width), drawn(shape.vocabulary, width))

    def narrow(self) -> "LlamaWeights":
        """Return a copy of the layers in 8 bits; embedding and scores stay."""
        layers = [
            replace(
                layer,
                qkv=NarrowMatrix.of(layer.qkv),
                out=NarrowMatrix.of(layer.out),
                gate_up=NarrowMatrix.of(layer.gate_up),
                down=NarrowMatrix.of(layer.down),
            )
            for layer in self.layers
        ]
        return replace(self, layers=tuple(layers))

    @property
    def layer_bytes(self) -> int:
        """Return what is read of all layers for one step [byte]."""
        return sum(matrix.n_bytes for layer in self.layers for matrix in layer.matrices)
