"""Measure the reference VLA on a GPU under every method and budget, and set it beside the success of the same methods.

    python benchmarks/gpu_reference.py --data RECORDINGS --out results/released/gpu            # on the GPU, 5 minutes
    vla-bench run ... $(python benchmarks/gpu_reference.py --methods) --results results/gpu-play    # success, anywhere
    python benchmarks/gpu_reference.py --out results/released/gpu --success results/gpu-play    # the table once more

Times need a GPU and no simulator: recorded episodes are replayed, a query waits for the device. Success needs a
simulator and no GPU: the same weights decide on a processor, where ten starts of a task take minutes. The two meet in
`reference.csv`, by method; a method that nobody has played has no success there. Actions on a GPU differ from those on
a processor by rounding: `distance_mm` is that to the full computation on the same device.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd

import vla_bench
from vla_bench import registry
from vla_bench.replay.command import STAGES, SUMMARY, Replay
from vla_bench.replay.plan import ReplayPlan

POLICY = "reference:execute=2,ensemble=True"
"""Weights and options whose success under many methods is in `results/released/`."""

SHARES = (0.2, 0.4, 0.6, 0.8, 0.9)
"""Of the visual rows, left out."""

TIMES, PARTS, TABLE = "reference_times.csv", "reference_stages.csv", "reference.csv"
RECORDINGS = (1, 3, 10)
"""How many are replayed: one for a table at all, then more while there is time."""

PLAYED = ("episodes", "success", "success_low", "success_high")
"""Columns of success."""


def methods() -> Iterator[str]:
    """Yield every method that ships, each at five budgets where it has one."""
    yield from ("full", "full-eager")
    for share in SHARES:
        yield from (f"{name}:{share}" for name in ("random", "pixel-difference", "feature-difference", "fastv"))
        keep = round(1 - share, 2)
        yield from (f"{name}:{keep}" for name in ("fixed-grid", "attention-topk", "vla-adp", "vla-pruner"))
    for similarity in (0.9999, 0.999, 0.996, 0.98, 0.95):
        yield f"vla-cache:{similarity}"
    for kept in (0.05, 0.1, 0.2, 0.3, 0.4):
        yield f"specprune:{kept},precise={kept}"
    for budget in (0.25, 0.5, 1.0, 1.5, 2.0):
        yield f"sparsevlm:{budget}"
    for every in (2, 3, 4, 6, 8):
        yield from (f"keyframe:{every}", f"action-reuse:{every}")
    yield from ("lac", "lac:bold", "lac:recover=1", "lac:bold,recover=1", "vla-acl")
    for ratio in (0.2, 0.4, 0.6, 0.8):
        yield f"lac:bold,ratio={ratio}"
    for every in (2, 3, 4, 6, 8):
        yield from (f"lac:bold+refresh:{every}", f"lac+rotate:{every}")


def measure(options: argparse.Namespace) -> None:
    """Replay more and more recordings while there is time, and write times and stages after each turn."""
    began, took = perf_counter(), 0.0
    for n_recordings in RECORDINGS:
        left = 60 * options.minutes - (perf_counter() - began)
        if took * n_recordings > left:
            print(f"no time for {n_recordings} recordings: {took:.0f} s each, {left:.0f} s left", flush=True)
            break
        turn = perf_counter()
        policy = f"{options.policy},device={options.device}"
        plan = ReplayPlan(options.data, policy, tuple(options.method or methods()), n_recordings)
        if Replay(plan, options.work, films=0).run():
            print("some recordings ended in an error: they are left out", file=sys.stderr)
        took = (perf_counter() - turn) / n_recordings
        directory = options.work / plan.check().id
        for name, own in ((SUMMARY, TIMES), (STAGES, PARTS)):
            pd.read_csv(directory / name).to_csv(options.out / own, index=False)
        if n_recordings >= len(plan.dataset):
            break


def joined(times: pd.DataFrame, sources: Sequence[Path], policy: str) -> pd.DataFrame:
    """Return times by method with the success of the same method under the same policy.

    Args:
        times: As a replay sums them up.
        sources: Of episodes, which may be of other policies, too.
        policy: Whose success it shall be, by the name in records.

    Raises:
        SystemExit: If nobody has played that policy, or on several suites.
    """
    if not sources:
        return times.assign(**dict.fromkeys(PLAYED, np.nan))
    every = vla_bench.summary_df(*sources)
    played = every[every["policy"] == policy]
    if (suites := sorted(played["suite"].unique())) and len(suites) == 1:
        found = times.merge(played[["method", *PLAYED]], on="method", how="left")
        return found.assign(suite=suites[0], played_as=policy)
    on = f"{policy!r} on {', '.join(suites)}" if suites else ", ".join(map(repr, sorted(every["policy"].unique())))
    raise SystemExit(f"--success has episodes of {on}; expected {policy!r} on one suite")


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/released/gpu"), help="folder of the tables")
    parser.add_argument("--data", type=Path, help="recordings to replay; none: only the table is made anew")
    parser.add_argument("--work", type=Path, default=Path("results/gpu-replay"), help="folder of the replay's journal")
    parser.add_argument("--success", type=Path, nargs="*", default=[], help="runs, or exported ones, of one policy")
    parser.add_argument("--policy", default=POLICY, help=f"without its device (default: {POLICY})")
    parser.add_argument("--device", default="cuda", help="cuda or cpu (default: cuda; never chosen for you)")
    parser.add_argument("--minutes", type=float, default=5.0, help="after which no further recordings are begun")
    parser.add_argument("--method", action="append", help="instead of all of them")
    parser.add_argument("--methods", action="store_true", help="print them as options of 'vla-bench run', and stop")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the table."""
    options = read_options(arguments)
    if options.methods:
        print(" ".join(f"--method {name}" for name in methods()))
        return
    for name in options.method or methods():
        registry.method(name)  # a wrong name is said before a minute is spent
    options.out.mkdir(parents=True, exist_ok=True)
    if options.data is not None:
        try:
            measure(options)
        except KeyboardInterrupt:
            print("interrupted: the table is made of what is there", file=sys.stderr)
    if not (options.out / TIMES).exists():
        raise SystemExit(f"there is no {options.out / TIMES}; expected one: measure first, with --data RECORDINGS")
    policy = registry.policy(options.policy).name if options.success else ""
    table = joined(pd.read_csv(options.out / TIMES), options.success, policy)
    table.to_csv(options.out / TABLE, index=False)
    n_played = int(table["success"].notna().sum())
    print(f"{options.out / TABLE}: {len(table)} methods, {n_played} of them with success")


if __name__ == "__main__":
    main()
