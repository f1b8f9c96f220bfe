"""Print what playing in parallel gains, against the two bars that this project has set: workers, and batches.

    python benchmarks/parallel_play.py                  # both; about 15 minutes
    python benchmarks/parallel_play.py --only batches   # the policy alone; a minute

Workers play the same starts of a task of real LIBERO, pictures drawn, block by block in turns: one worker with all
cores and one with a single thread, two that share a policy, and two with a policy each. A start's time is how long it
occupies its worker, journal and the way to the next start included. What happens once is left out, as in any long run:
starting processes, building the scene. Nobody plays alone in a crew of two: who runs out of starts plays on, uncounted.
Two are compared with the faster one.

Batches are of recorded noise: time does not depend on what is seen. Intervals are bootstraps of pairs (95 %); a bar is
met where all of the interval lies above it. All are ratios of one machine: let nothing run beside.
"""

import argparse
import os
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import torch

from vla_bench import RunPlan, journal, registry, stats
from vla_bench.parallel.crew import Crew, CrewOptions
from vla_bench.parallel.dealing import Turn
from vla_bench.stats import Interval
from vla_bench.types import Task

LEAST_BY_TWO = 1.8
"""Episodes an hour of two workers on two cores, relative to one."""

LEAST_BY_EIGHT = 1.5
"""Queries a second of eight environments in a batch, relative to one after the other."""

SEATS, BLOCK, WARM_UP, RESAMPLES = 8, 4, 3, 2000
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS")


@dataclass(frozen=True)
class Way:
    """One way of playing."""

    name: str
    workers: int
    share: bool
    threads: int
    """Of each process."""


def ways(cores: int) -> tuple[Way, ...]:
    """Return the ways that are compared: those of one worker, then those of two, what `--workers 2` does first."""
    half = max(1, cores // 2)
    return (
        Way("one worker", 1, share=False, threads=cores),
        Way("one worker, one thread", 1, share=False, threads=1),
        Way("two workers, one policy", 2, share=True, threads=half),
        Way("two workers, a policy each", 2, share=False, threads=half),
    )


def occupied_s(crew: Crew, turns: Sequence[Turn], pages: journal.Journal) -> dict[Turn, float]:
    """Return for how long each turn has occupied its worker [s].

    Raises:
        RuntimeError: If an episode ended in an error.
    """
    left, more = deque(turns), cycle(turns)
    found: dict[Turn, float] = {}
    playing: dict[int, tuple[Turn, bool]] = {}
    since: dict[int, float] = {}
    while len(found) < len(turns) or playing:
        for seat in crew.free() if len(found) < len(turns) else ():
            playing[seat] = (left.popleft(), True) if left else (next(more), False)
            since.setdefault(seat, time.perf_counter())
            crew.give(seat, playing[seat][0], attempt=1)
        for ended in crew.look():
            turn, counts = playing.pop(ended.seat)
            now = time.perf_counter()
            if ended.record.is_broken:
                raise RuntimeError(f"an episode ended in an error, and times mean nothing: {ended.record.error}")
            if counts:
                found[turn] = now - since[ended.seat]
            since[ended.seat] = now
            pages.append(ended.record)
    return found


def paces(plan: RunPlan, compared: Sequence[Way]) -> dict[str, np.ndarray]:
    """Return for how long each start has occupied its worker [s], by way; entry i is the same start."""
    resolved = plan.resolve()
    turns = [(cell, method) for cell in resolved.cells() for method in resolved.methods]
    found: dict[str, dict[Turn, float]] = {way.name: {} for way in compared}
    before = dict(os.environ)
    with ExitStack() as opened, tempfile.TemporaryDirectory() as folder:
        pages = {way.name: opened.enter_context(journal.writing(Path(folder) / way.name)) for way in compared}
        crews = {}
        for way in compared:
            os.environ.update(dict.fromkeys(THREADS, str(way.threads)))
            crew = Crew(resolved, CrewOptions(way.workers, way.share))
            crews[way.name] = opened.enter_context(crew.at_work())
            occupied_s(crew, turns[: way.workers], pages[way.name])  # the scene is built, caches fill
        os.environ.update({name: before[name] for name in THREADS if name in before})
        for index, begin in enumerate(range(0, len(turns), BLOCK)):
            block = turns[begin : begin + BLOCK]
            for way in np.roll(np.array(compared, dtype=object), index):
                found[way.name] |= occupied_s(crews[way.name], block, pages[way.name])
    return {name: np.array([own[turn] for turn in turns]) for name, own in found.items()}


def gain(one_s: np.ndarray, two_s: np.ndarray, rng: np.random.Generator) -> Interval:
    """Return the episodes an hour of two workers relative to one's, from the times of the same starts [s]."""
    chosen = rng.integers(0, len(one_s), (RESAMPLES, len(one_s)))
    low, high = np.quantile(2 * one_s[chosen].mean(axis=1) / two_s[chosen].mean(axis=1), [0.025, 0.975])
    value = float(2 * one_s.mean() / two_s.mean())
    return Interval(value, min(float(low), value), max(float(high), value))


def batches(policy_spec: str, method: str, repetitions: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the times [s] of eight queries, one by one and together, in turns, on the same threads."""
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

    def alone(seen: list[dict]) -> None:
        for seat, obs in zip(seats, seen, strict=True):
            seat.act(obs)

    def together(seen: list[dict]) -> None:
        policy.act_together(seats, seen)

    taken_s: dict[str, list[float]] = {"alone": [], "together": []}
    for repetition in range(repetitions + WARM_UP):
        both = [("alone", alone), ("together", together)]
        for name, ask in both if repetition % 2 else reversed(both):
            seen = look()
            began = time.perf_counter()
            ask(seen)
            policy.synchronize()
            taken_s[name].append(time.perf_counter() - began)
    one, other = (np.array(taken_s[name][WARM_UP:]) for name in ("alone", "together"))
    return one, other


def verdict(found: Interval, bar: float) -> str:
    """Return what an interval says of a bar."""
    if found.low >= bar:
        return "met"
    return "missed" if found.high < bar else "undecided: measure longer"


def told(found: Interval, bar: float) -> str:
    """Return a ratio with its interval, and what it says of a bar."""
    return f"{found.value:.2f}x [{found.low:.2f}, {found.high:.2f}], at least {bar}: {verdict(found, bar)}"


def print_batches(policy: str, repetitions: int) -> None:
    """Measure and print the second bar; `full` decides, the other two are what caches make of it."""
    print(f"batches of {SEATS}, {torch.get_num_threads()} threads, medians of {repetitions}")
    for method in ("full", "random:0.6", "random:0.8"):
        alone_s, together_s = batches(policy, method, repetitions)
        one, other = (SEATS / float(np.median(taken)) for taken in (alone_s, together_s))
        ratio = stats.ratio_of_paired_medians(alone_s, together_s, np.random.default_rng(0))
        print(f"  {method:12s} {one:6.1f} queries/s one by one, {other:6.1f} together: {told(ratio, LEAST_BY_EIGHT)}")


def print_paces(plan: RunPlan) -> None:
    """Measure and print the first bar."""
    compared = ways(os.cpu_count() or 1)
    found = paces(plan, compared)
    for way in compared:
        pace = way.workers * 3600 / found[way.name].mean()
        print(f"  {way.name:28s} {way.threads} threads a process: {pace:6.0f} episodes/h")
    one = min((way.name for way in compared if way.workers == 1), key=lambda name: found[name].mean())
    for way in compared:
        if way.workers == 2:
            ratio = gain(found[one], found[way.name], np.random.default_rng(0))
            print(f"  {way.name} against {one}: {told(ratio, LEAST_BY_TWO)}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="reference")
    parser.add_argument("--suite", default="libero-object@1")
    parser.add_argument("--protocol", default="reference-fast")
    parser.add_argument("--task", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=16, help="starts, played in each of four ways")
    parser.add_argument("--repetitions", type=int, default=40, help="of eight queries, in both ways")
    parser.add_argument("--only", choices=("workers", "batches"))
    chosen = parser.parse_args()
    if chosen.only != "workers":
        print_batches(chosen.policy, chosen.repetitions)
    if chosen.only != "batches":
        plan = RunPlan(
            chosen.suite, chosen.policy, episodes=chosen.episodes, tasks=(chosen.task,), protocol=chosen.protocol,
            timed=False,
        )  # fmt: skip
        print(f"{chosen.episodes} starts of {chosen.suite}, task {chosen.task}, pictures drawn, {os.cpu_count()} cores")
        print_paces(plan)


if __name__ == "__main__":
    main()
