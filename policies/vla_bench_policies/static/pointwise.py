"""What lies between the matrix products of a layer: plain functions, and the same ones compiled to a kernel each.

All of it is bound by launches and memory, so fusing it is most of what a compiler can do here; matrix products and
attention stay with the vendor's libraries. The product of a single row is bound by reading the matrix, and a plain
reduction reads faster than a matrix kernel.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

NARROW = torch.float8_e4m3fn
"""The 8-bit float of weights and rows: four bits of exponent, three of mantissa."""

LARGEST = 448.0
"""The largest number of `NARROW`."""

MOST_VARIANTS = 128
"""Shapes and types for which a function may be compiled anew, instead of torch's 8; beyond it, compiling fails."""


def normed(x: Float[Tensor, "rows d"], weight: Float[Tensor, " d"], eps: float) -> Float[Tensor, "rows d"]:
    """Return the rows after an RMS norm."""
    return F.rms_norm(x, (x.shape[-1],), weight, eps)


def added_normed(
    x: Float[Tensor, "rows d"], more: Float[Tensor, "rows d"], weight: Float[Tensor, " d"], eps: float
) -> tuple[Tensor, Tensor]:
    """Return the sum, and the sum after an RMS norm."""
    whole = x + more
    return whole, F.rms_norm(whole, (x.shape[-1],), weight, eps)


def turned(
    both: Float[Tensor, "rows turned w"], cosine: Float[Tensor, "rows w"], sine: Float[Tensor, "rows w"]
) -> Float[Tensor, "rows turned w"]:
    """Return queries and keys, rotated; the sine's first half is negative."""
    half = both.shape[-1] // 2
    swapped = torch.cat((both[..., half:], both[..., :half]), dim=-1)
    return both * cosine[:, None] + swapped * sine[:, None]


def turned_and_kept(
    fused: Float[Tensor, "rows heads w"], cosine: Float[Tensor, "rows w"], sine: Float[Tensor, "rows w"],
    slots: Int[Tensor, " rows"], keys: Float[Tensor, "kv slots w"], values: Float[Tensor, "kv slots w"],
) -> Float[Tensor, "rows turned w"]:  # fmt: skip
    """Return queries and keys, rotated, and write keys and values to their slots."""
    n_kept, n_turned = keys.shape[0], fused.shape[1] - keys.shape[0]
    both = turned(fused[:, :n_turned], cosine, sine)
    keys.index_copy_(1, slots, both[:, n_turned - n_kept :].transpose(0, 1))
    values.index_copy_(1, slots, fused[:, n_turned:].transpose(0, 1))
    return both


def gated(gate_up: Float[Tensor, "rows two_hidden"]) -> Float[Tensor, "rows hidden"]:
    """Return SwiGLU of gate and up, side by side."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def narrowed(x: Float[Tensor, "rows d"]) -> tuple[Tensor, Float[Tensor, "rows 1"]]:
    """Return the rows in 8 bits, and what each is to be multiplied with."""
    wide = x.float()
    scale = wide.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12) / LARGEST
    return (wide / scale).clamp(-LARGEST, LARGEST).to(NARROW), scale


def of_one_row(x: Float[Tensor, "1 inputs"], weight: Float[Tensor, "outputs inputs"]) -> Float[Tensor, "1 outputs"]:
    """Return the product of one row and a matrix, as a sum over each of the matrix's rows."""
    return (weight.float() * x.float()).sum(dim=-1).to(x.dtype)[None]


def of_one_row_narrow(
    x: Float[Tensor, "1 inputs"], weight: Tensor, scale: Float[Tensor, "1 outputs"]
) -> Float[Tensor, "1 outputs"]:
    """Return the product of one row, in its own type, and a matrix of 8 bits (outputs, inputs)."""
    return ((weight.float() * x.float()).sum(dim=-1) * scale[0]).to(x.dtype)[None]


def by_library(x: Tensor, weight: Tensor) -> Tensor:
    """Return the product as the library computes it."""
    return F.linear(x, weight)


def by_library_narrow(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Return the product of one row and a matrix of 8 bits by the matrix kernel, which wants several rows."""
    rows, row_scale = narrowed(x)
    padded = torch.cat((rows.view(torch.uint8), rows.new_zeros(15, x.shape[1], dtype=torch.uint8))).view(NARROW)
    return of_narrow(padded, row_scale.expand(16, 1).contiguous(), weight, scale, x.dtype)[:1]


def of_narrow(rows: Tensor, row_scale: Tensor, weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the product of 8-bit rows and an 8-bit matrix (outputs, inputs), each row with a scale of its own.

    The kernel writes bfloat16 only.
    """
    wide = torch.ops.aten._scaled_mm(rows, weight.t(), row_scale, scale, out_dtype=torch.bfloat16, use_fast_accum=True)
    return wide.to(dtype)


@dataclass(frozen=True)
class Kernels:
    """The functions above, plain or compiled."""

    normed: Callable[..., Any] = normed
    added_normed: Callable[..., Any] = added_normed
    turned: Callable[..., Any] = turned
    turned_and_kept: Callable[..., Any] = turned_and_kept
    gated: Callable[..., Any] = gated
    narrowed: Callable[..., Any] = narrowed
    of_one_row: Callable[..., Any] = by_library
    of_one_row_narrow: Callable[..., Any] = by_library_narrow


PLAIN = Kernels()


def allow_variants() -> None:
    """Let a function be compiled for as many shapes as there are here."""
    torch._dynamo.config.recompile_limit = MOST_VARIANTS
    torch._dynamo.config.accumulated_recompile_limit = MOST_VARIANTS * len(fields(Kernels))


def compiled() -> Kernels:
    """Return kernels that are compiled when they first meet a shape; what does not compile whole is an error then."""
    allow_variants()
    own = {field.name: getattr(PLAIN, field.name) for field in fields(Kernels)}
    own |= {"of_one_row": of_one_row, "of_one_row_narrow": of_one_row_narrow}
    return Kernels(**{name: _for_any_rows(kernel) for name, kernel in own.items()})


def _for_any_rows(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Return a kernel that is compiled once for any number of rows above one, and anew for every other size."""
    whole = torch.compile(kernel, fullgraph=True)

    def call(x: Tensor, *rest: Any) -> Any:
        for tensor in (x, *rest):
            if isinstance(tensor, Tensor):
                many = len(x) > 1 and len(tensor) == len(x)
                if many:
                    torch._dynamo.maybe_mark_dynamic(tensor, 0)
                torch._dynamo.mark_static(tensor, list(range(many, tensor.ndim)))
        return whole(x, *rest)

    return call
