"""Where the weights of a published checkpoint go, and in what form: device, precision, bits, several GPUs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vla_bench.errors import MissingPackageError, OptionError
from vla_bench_policies.token_cache.decoder import Product

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}

BITS = {"int8": 8.0, "int4": 4.5}
"""A quantised weight takes [bit], scales included: one of 4 bytes for a row, or for 64 weights."""

OUTLIER = 6.0
"""Features that exceed it are multiplied in half precision (Dettmers et al. 2022, "LLM.int8()", section 3.2)."""

BLOCK = 64
"""Weights that share a scale in 4 bits (Dettmers et al. 2023, "QLoRA", section 3; type NF4)."""


CPU = torch.device("cpu")


@dataclass(frozen=True)
class Placement:
    """Where weights go, and in what form."""

    device: torch.device = CPU
    """Of everything but the decoder layers that other GPUs have."""

    dtype: torch.dtype = torch.bfloat16
    """Of computation, and of weights that are not quantised."""

    packed: bool = True
    """Whether a CPU gets the decoder's weights in the layout of its kernels, through which no gradient goes."""

    quantise: str = ""
    """`int8` or `int4` for the decoder's matrices; none by default."""

    gpus: int = 1
    """Among which the decoder's layers are divided, in order."""

    def of_layer(self, index: int, n_layers: int) -> torch.device:
        """Return where a decoder layer goes."""
        if self.gpus == 1:
            return self.device
        return torch.device(self.device.type, index * self.gpus // n_layers)

    def product(self) -> "Callable[[Tensor], Product] | None":
        """Return what makes of a matrix its product with rows; None for the decoder's own.

        Raises:
            MissingPackageError: If bitsandbytes is not installed.
        """
        if not self.quantise:
            return None
        bits = _bitsandbytes(self.quantise)
        return {"int8": _in_8_bits, "int4": _in_4_bits}[self.quantise](bits)

    def synchronize(self) -> None:
        """Wait for the GPUs, if there are any."""
        if self.device.type == "cuda":
            for index in range(self.gpus):
                torch.cuda.synchronize(index if self.gpus > 1 else self.device)


def placed(device: str, dtype: str, packed: bool = True, quantise: str = "", gpus: int = 1) -> Placement:
    """Return the placement that options name.

    Raises:
        OptionError: If there is no such thing.
        MissingPackageError: If it needs a package that is not installed.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise OptionError("device", device, "'cpu': torch finds no GPU")
    if device not in ("cpu", "cuda"):
        raise OptionError("device", device, "'cpu' or 'cuda'")
    if dtype not in DTYPES:
        raise OptionError("dtype", dtype, " or ".join(map(repr, DTYPES)))
    if quantise and quantise not in BITS:
        raise OptionError("quantise", quantise, " or ".join(map(repr, BITS)))
    most = torch.cuda.device_count() if device == "cuda" else 1
    if isinstance(gpus, bool) or not isinstance(gpus, int) or not 1 <= gpus <= most:
        known = f"{most}, which torch finds" if device == "cuda" else "1 with device=cpu"
        raise OptionError("gpus", gpus, f"an integer from 1 to {known}")
    made = Placement(torch.device(device), DTYPES[dtype], packed, quantise, gpus)
    made.product()  # a missing package is said before anything is read
    return made


def _bitsandbytes(quantise: str) -> Any:
    try:
        import bitsandbytes
    except ImportError as caught:
        raise MissingPackageError(f"quantise={quantise}", "bitsandbytes", caught, extra="quantised") from caught
    return bitsandbytes


def _in_8_bits(bits: Any) -> Callable[[Tensor], Product]:
    def product(weight: Tensor) -> Product:
        with torch.device("meta"):
            made = bits.nn.Linear8bitLt(
                weight.shape[1], weight.shape[0], bias=False, has_fp16_weights=False, threshold=OUTLIER
            )
        made.weight = bits.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
        return made.to(weight.device)  # which quantises

    return product


def _in_4_bits(bits: Any) -> Callable[[Tensor], Product]:
    def product(weight: Tensor) -> Product:
        held, state = bits.functional.quantize_4bit(weight, blocksize=BLOCK, quant_type="nf4")
        return lambda x: bits.matmul_4bit(x, held.t(), quant_state=state)

    return product
