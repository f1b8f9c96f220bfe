"""Print what a query of the reference VLA costs on this machine, by stage; a step must stay under 150 ms.

    OMP_NUM_THREADS=2 python benchmarks/reference_step.py

Full computation, fused attention, batch 1. Time does not depend on what is seen, so the pictures are noise.
"""

import argparse
import os

import numpy as np
import pandas as pd
import torch

from vla_bench_policies.reference import flops
from vla_bench_policies.reference.checkpoint import load
from vla_bench_policies.reference.policy import AutoregressivePolicy, ReferencePolicy, find
from vla_bench_policies.reference.tokenizer import tokenizer

WARMUP, QUERIES = 20, 100
LIMIT_MS = 150.0
"""Median of one query of the default policy on two threads of a CPU."""

SENTENCE = "pick up the alphabet soup and place it in the basket"


def measure(policy: ReferencePolicy) -> pd.DataFrame:
    """Return the time of each stage [ms], a row a query."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(WARMUP + QUERIES):
        obs = {camera: rng.integers(0, 256, (128, 128, 3), dtype=np.uint8) for camera in policy.cameras or ()}
        obs |= {"proprio": rng.normal(size=8).astype(np.float32), "instruction": SENTENCE}
        rows.append(policy.act(obs).stages_ms)
    return pd.DataFrame(rows[WARMUP:])


def main() -> None:
    """Print a line a head; exit with an error if the default policy is over the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="cpu-deep", help="name or path of a checkpoint")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    threads = int(os.environ.get("OMP_NUM_THREADS", "2"))
    torch.set_num_threads(threads)
    config = load(find(arguments.weights)).model.config
    n_text = len(tokenizer().encode(SENTENCE))
    lines, medians = [], {}
    for make in (ReferencePolicy, AutoregressivePolicy):
        policy = make(arguments.weights, device=arguments.device)
        times = measure(policy)
        medians[policy.head] = times.sum(axis=1).median()
        cost = flops.of_query(config, n_text, policy.head)
        whole = {"head": policy.head, "GFLOP": cost.total / 1e9, "decoder": f"{cost.decoder_share:.0%}"}
        lines.append(whole | times.median().to_dict() | {"query": medians[policy.head]})
    print(f"median ms of {QUERIES} queries, {threads} threads, {config.n_visual} visual rows")
    print(pd.DataFrame(lines).to_string(index=False, float_format="{:.2f}".format, na_rep="-"))
    if medians["oft"] > LIMIT_MS:
        raise SystemExit(f"too slow: {medians['oft']:.0f} ms, the limit is {LIMIT_MS:.0f} ms")


if __name__ == "__main__":
    main()
