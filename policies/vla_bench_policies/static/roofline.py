"""What a machine can do at best, measured, and how long each stage of a step takes at best then."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vla_bench_policies.openvla.cost import linear, of_tower
from vla_bench_policies.openvla.vision import FusedTowers, Projector
from vla_bench_policies.static.decoder import StaticDecoder
from vla_bench_policies.static.pointwise import NARROW
from vla_bench_policies.static.timing import Watchmaker
from vla_bench_policies.token_cache.cost import LayerCost


@dataclass(frozen=True)
class Ceilings:
    """Of one machine."""

    copied: float
    """Bytes that a large copy reads and writes [byte/s]."""
    read: float
    """Bytes that a large sum reads [byte/s]."""
    wide: float
    """Operations of a large product in bfloat16, a multiply-add counted as two [1/s]."""
    narrow: float
    """In 8-bit floats with a scale a row; 0 where there is no such kernel."""

    @classmethod
    def measured(cls, clock: Watchmaker, side: int = 8192, n_bytes: int = 4 << 30) -> "Ceilings":
        """Measure them on random numbers; zeros would run faster."""
        device = clock.device
        copied, read = _memory_s(clock, n_bytes)
        left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
        wide = _best_s(clock, lambda: left @ right.t())
        narrow = _narrow_s(clock, left, right)
        products = 2 * side**3
        return cls(2 * n_bytes / copied, n_bytes / read, products / wide, products / narrow if narrow else 0.0)


@dataclass(frozen=True)
class Stage:
    """What a stage has to do at least."""

    flops: int
    """Of matrix products, a multiply-add counted as two."""
    n_bytes: int
    """Weights, and keys and values that are looked at; each once."""

    def floor_ms(self, ceilings: Ceilings, narrow: bool = False) -> float:
        """Return the larger of the times for operations and for bytes [ms]."""
        rate = ceilings.narrow if narrow else ceilings.wide
        return 1e3 * max(self.flops / rate, self.n_bytes / ceilings.read)


def of_sight(towers: FusedTowers, projector: Projector, n_views: int) -> dict[str, Stage]:
    """Return the stages from pictures to rows."""
    shapes = (towers.featurizer.shape, towers.fused_featurizer.shape)
    n_rows = n_views * shapes[0].grid ** 2
    layers = (projector.fc1, projector.fc2, projector.fc3)
    projected = sum(linear(n_rows, layer.in_features, layer.out_features) for layer in layers)
    return {
        "vision": Stage(n_views * sum(map(of_tower, shapes)), _bytes(towers)),
        "projector": Stage(projected, _bytes(projector)),
    }


def of_prefill(decoder: StaticDecoder, n_rows: int, n_wanted: int, cut: int | None = None) -> Stage:
    """Return the prompt's pass.

    Args:
        decoder: Of which weights are read.
        n_rows: That are computed, or left where rows are deleted.
        n_wanted: Last rows whose states are wanted.
        cut: The layer before which rows are deleted; None where they are reused.
    """
    n_layers, cost, given = decoder.weights.shape.layers, _layer_cost(decoder), decoder.n_given
    flops = 0
    for index in range(n_layers):
        n_present = given if cut is not None and index < cut else n_rows
        n_keys = given if cut is None else n_present
        flops += cost.layer(n_present, n_keys, n_wanted if index == n_layers - 1 else None)
    return Stage(flops, decoder.weights.layer_bytes + _looked_bytes(decoder))


def of_one_more(decoder: StaticDecoder) -> Stage:
    """Return the pass of one row behind the prompt, with the scores of all tokens."""
    weights = decoder.weights
    flops = weights.shape.layers * _layer_cost(decoder).layer(1, decoder.n_given) + 2 * weights.scorer.numel()
    return Stage(flops, weights.layer_bytes + weights.scorer.nbytes + _looked_bytes(decoder))


def _layer_cost(decoder: StaticDecoder) -> LayerCost:
    shape = decoder.weights.shape
    both = (shape.heads + 2 * shape.kv_heads) * decoder.head_width
    projections, rest = both * shape.width, shape.width**2 + 3 * shape.width * shape.hidden
    return LayerCost(projections + rest, projections, shape.heads * decoder.head_width, trims=True)


def _looked_bytes(decoder: StaticDecoder) -> int:
    one = decoder.keys[0][:, : decoder.n_given]
    return 2 * decoder.weights.shape.layers * one.numel() * one.element_size()


def _bytes(module: torch.nn.Module) -> int:
    return sum(weight.nbytes for weight in module.parameters())


def _best_s(clock: Watchmaker, step: Callable[[], object]) -> float:
    """Return the median time of one of several in a row [s]: what is launched once would show its launch."""
    several = 5

    def repeated() -> None:
        for _ in range(several):
            step()

    return clock.median_ms(repeated) / several / 1e3


def _memory_s(clock: Watchmaker, n_bytes: int) -> tuple[float, float]:
    """Return the times of a copy and of a reading of so many bytes [s]."""
    source = torch.randn(n_bytes // 4, device=clock.device)
    target = torch.empty_like(source)
    return _best_s(clock, lambda: target.copy_(source)), _best_s(clock, lambda: source.amax())


def _narrow_s(clock: Watchmaker, left: Tensor, right: Tensor) -> float:
    """Return the time of an 8-bit product [s]; 0 if this machine has none."""
    if clock.device.type == "cuda" and torch.cuda.get_device_capability(clock.device) < (8, 9):
        return 0.0
    rows, matrix = left.to(NARROW), right.to(NARROW)
    ones = torch.ones(len(left), 1, device=clock.device)

    def product() -> Tensor:
        return torch.ops.aten._scaled_mm(
            rows, matrix.t(), ones, ones.t(), out_dtype=torch.bfloat16, use_fast_accum=True
        )

    return _best_s(clock, product)
