"""Print what playing in parallel gains: episodes an hour by workers, queries a second by batch.

    python benchmarks/parallel_play.py                  # both; about 15 minutes
    python benchmarks/parallel_play.py --only batches   # the policy alone; a minute

Workers play the same starts of real LIBERO, pictures drawn, in a run each; what starting them takes (a fingerprint, the
policy, environments) is left out, as it is of any long run. Batches are of recorded noise: time does not depend on what
is seen. Both are ratios of one machine: let nothing run beside.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from vla_bench import RunPlan, registry
from vla_bench.parallel.crew import CrewOptions
from vla_bench.runner import run
from vla_bench.types import Task

LEAST_BY_TWO = 1.8
"""Episodes an hour of two workers on two cores, relative to one."""

LEAST_BY_EIGHT = 1.5
"""Queries a second of eight environments in a batch, relative to one after the other."""

SEATS = 8


def pace(plan: RunPlan, workers: int, share: bool) -> float:
    """Return episodes an hour while all workers have one in hand."""
    with tempfile.TemporaryDirectory() as folder:
        records = run(plan.resolve(), Path(folder) / "run", crew=CrewOptions(workers, share))
    return workers * 3600 * len(records) / sum(record.wall_s for record in records)


def batches(policy_spec: str, method: str, repetitions: int) -> tuple[float, float]:
    """Return queries a second one by one and together."""
    policy = registry.policy(policy_spec)
    seats = [registry.method(method).apply(policy.seat()) for _ in range(SEATS)]
    rng = np.random.default_rng(0)
    task = Task("noise", 0, "noise", "put the bowl on the plate", 100, 1)
    size = policy._model.config.image_px
    for index, seat in enumerate(seats):
        seat.reset(task, index)

    def look() -> list[dict]:
        return [
            {camera: rng.integers(0, 255, (size, size, 3), dtype=np.uint8) for camera in policy.cameras}
            | {"proprio": np.zeros(8, np.float32), "instruction": task.instruction}
            for _ in seats
        ]

    alone, together = [], []
    for _ in range(repetitions + 3):
        seen, then = look(), look()
        began = time.perf_counter()
        for seat, obs in zip(seats, seen, strict=True):
            seat.act(obs)
        middle = time.perf_counter()
        policy.act_together(seats, then)
        alone.append(middle - began)
        together.append(time.perf_counter() - middle)
    return SEATS / float(np.median(alone[3:])), SEATS / float(np.median(together[3:]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="reference")
    parser.add_argument("--episodes", type=int, default=4, help="of each of two tasks")
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--only", choices=("workers", "batches"))
    chosen = parser.parse_args()
    if chosen.only != "workers":
        for method in ("full", "random:0.6", "random:0.8"):
            alone, together = batches(chosen.policy, method, chosen.repetitions)
            print(f"{method:12s} {alone:6.1f} queries/s one by one, {together:6.1f} in batches of {SEATS}: "
                  f"{together / alone:.2f}x (at least {LEAST_BY_EIGHT})")  # fmt: skip
    if chosen.only != "batches":
        plan = RunPlan(
            "libero-object@1", chosen.policy, episodes=chosen.episodes, tasks=(0, 2), protocol="reference-fast",
            timed=False,
        )  # fmt: skip
        one = pace(plan, 1, share=False)
        for share in (False, True):
            two = pace(plan, 2, share)
            where = "one policy" if share else "a policy each"
            print(f"two workers, {where}: {two:.0f} episodes/h against {one:.0f} of one: {two / one:.2f}x "
                  f"(at least {LEAST_BY_TWO})")  # fmt: skip


if __name__ == "__main__":
    main()
