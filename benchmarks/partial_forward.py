"""Print what the decoder costs when a share of the visual rows is reused, beside the bound that the rows alone set.

    OMP_NUM_THREADS=1 python benchmarks/partial_forward.py

Random weights: time does not depend on values. One repetition runs every share, in an order drawn anew; a figure is
the median over repetitions, in processor time of one thread, which other work on the machine moves less than wall time.
Gathering rows, masks and writing keys and values are included. `plain` is the same packed decoder without a cache.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import process_time_ns

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from vla_bench_policies.reference.decoder import NORM_EPS, ROPE_THETA, Decoder
from vla_bench_policies.token_cache.attention import additive
from vla_bench_policies.token_cache.cache import TokenCache
from vla_bench_policies.token_cache.decoder import PackedLlama
from vla_bench_policies.token_cache.lane import Seen
from vla_bench_policies.token_cache.layout import RowLayout
from vla_bench_policies.token_cache.patches import chosen
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Step

SHAPES = {
    "small": (256, 8, 4, 688, RowLayout(1, 256, 30, 7)),
    "cpu-deep": (256, 8, 4, 688, RowLayout(2, 64, 10, 8)),
    "cpu": (256, 4, 4, 688, RowLayout(2, 64, 10, 8)),
}
"""Width, layers, heads, inner width and rows: `small` is the shape of the bars, the others those of the weights that
ship."""

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9)
LIMITS = {0.4: 0.70, 0.6: 0.55, 0.8: 0.40}
"""Greatest time at a share, relative to the time at 0."""

MOST_OVERHEAD = 1.03
"""Greatest time of the cache at share 0, relative to the plain decoder."""


@dataclass
class Share(CacheRule):
    """Reuse the first rows of a random order."""

    share: float = 0.0

    def plan(self, step: Step) -> RowPlan:
        """Return the plan."""
        n_rows = step.layout.n_visual
        order = np.random.default_rng(0).permutation(n_rows)
        return step.full().reuse(chosen(order[: int(n_rows * self.share)], n_rows))


@torch.inference_mode()
def plain(stack: PackedLlama, x: torch.Tensor, n_wanted: int) -> torch.Tensor:
    """Return the last hidden states by the same layers, with nothing kept."""
    rotation = stack.rotation(torch.arange(x.shape[1])[None], x)
    for index in range(stack.n_layers):
        x = stack.layer(index, x, rotation, causal, n_wanted if index == stack.n_layers - 1 else None)
    return stack.norm(x)


def causal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return what the last rows see, each up to itself."""
    first = key.shape[2] - query.shape[2]
    if not first:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)
    mask = additive(torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril(first), key.dtype)
    return F.scaled_dot_product_attention(query, key, value, mask)


def measure(shape: str, repetitions: int) -> pd.DataFrame:
    """Return processor time [ms] of each share and of the plain decoder, a row a repetition."""
    width, layers, heads, hidden, layout = SHAPES[shape]
    torch.manual_seed(0)
    stack = PackedLlama(Decoder(width, layers, heads, hidden), heads, heads, ROPE_THETA, NORM_EPS)
    caches = {share: TokenCache(stack, [Share(share=share)]) for share in SHARES}
    x = torch.randn(1, layout.n_rows, width)
    seen = [Seen(np.zeros((1, 1, 1, 3), np.uint8), np.zeros(8), "")]
    asked: dict[float | str, Callable[[], object]] = {
        share: partial(cache.step, x, layout, seen) for share, cache in caches.items()
    }
    asked["plain"] = partial(plain, stack, x, layout.n_rows - layout.visual.stop)
    order, rows = np.random.default_rng(0), []
    for _ in range(repetitions + 5):
        row = {}
        for index in order.permutation(len(asked)):
            name = list(asked)[index]
            began = process_time_ns()
            asked[name]()
            row[name] = (process_time_ns() - began) / 1e6
        rows.append(row)
    return pd.DataFrame(rows[5:])


def main() -> None:
    """Print a table a shape; exit with an error if a limit of the shape `small` is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=40)
    repetitions = parser.parse_args().repetitions
    torch.set_num_threads(1)
    broken = []
    for shape, (*_, layout) in SHAPES.items():
        times = measure(shape, repetitions).median()
        n_rest = layout.n_rows - layout.n_visual
        lines = []
        for share in SHARES:
            n_active = n_rest + layout.n_visual - int(layout.n_visual * share)
            ratio, bound = times[share] / times[0.0], n_active / layout.n_rows
            lines.append({"reuse": share, "rows": n_active, "ms": times[share], "of full": ratio, "row bound": bound})
            if shape == "small" and ratio > LIMITS.get(share, np.inf):
                broken.append(f"reuse {share} takes {ratio:.2f} of full, the limit is {LIMITS[share]}")
        overhead = times[0.0] / times["plain"]
        print(f"{shape}: {layout.n_rows} rows, plain decoder {times['plain']:.2f} ms, at reuse 0 {overhead:.3f} of it")
        print(pd.DataFrame(lines).to_string(index=False, float_format="{:.2f}".format), end="\n\n")
        if shape == "small" and overhead > MOST_OVERHEAD:
            broken.append(f"reuse 0 takes {overhead:.3f} of the plain decoder, the limit is {MOST_OVERHEAD}")
    if broken:
        raise SystemExit("; ".join(broken))


if __name__ == "__main__":
    main()
