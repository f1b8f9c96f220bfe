"""`vla-bench plan`: what a run could show, and how long it would take, before it is started."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro

from vla_bench.compare import pairs
from vla_bench.compare.command import fraction_of
from vla_bench.compare.power import (
    BISECTIONS,
    likely_discordant,
    minimum_detectable_effect,
    non_inferiority_power,
    pairs_needed,
)
from vla_bench.compare.probe import Pace, Probe, from_results, of_plan, try_methods
from vla_bench.compare.verdict import MIN_PAIRS, POWER
from vla_bench.errors import NoResultsError
from vla_bench.plan import ResolvedPlan, RunPlan
from vla_bench.tables import REFERENCE_METHOD, Results, read

RATES = (0.95, 0.8, 0.5)
"""Success of the reference that is supposed."""

DEPENDENCE = (0.25, 0.5, 1.0)
"""Supposed shares of 2 p (1 - p), which is how often two methods of success p disagree if the start does not matter."""


@dataclass(frozen=True)
class Plan:
    """Say what a run could show and how long it would take, without starting it; takes the options of `run`.

    What it could show: the drop of success that the paired test finds with a probability of 80 %, and the probability
    of showing non-inferiority, for supposed rates of success and of disagreement, and for those of earlier results.
    How long: from the wall time of earlier results, if they were made on this machine, or else from a short trial (the
    first task is started, and each method plays a few control steps of it; under a minute in LIBERO).
    """

    plan: Annotated[RunPlan, tyro.conf.arg(name="")] = field(default_factory=RunPlan)
    """What would be played."""

    results: Path | None = None
    """Earlier results of the same suite, policy and protocol, to take times and rates from."""

    margin: float = 2.0
    """Success [percentage points] that a method may lose and still be non-inferior."""

    def run(self) -> int:
        """Print both."""
        plan, margin = self.plan.resolve(), fraction_of("--margin", self.margin)
        earlier = None if self.results is None else _earlier(plan, self.results)
        n = len(plan.tasks) * plan.episodes
        print(
            f"{plan.suite.name} under {plan.protocol}, policy {plan.policy}: {len(plan.tasks)} tasks x {plan.episodes} "
            f"episodes = {n} starts, {len(plan.methods)} methods, {plan.n_episodes} episodes\n"
        )
        print(resolution_text(n, margin, [] if earlier is None else seen_rates(plan, earlier)))
        known = {} if earlier is None else from_results(plan, earlier)
        missing = [method for method in plan.methods if method not in known]
        probe = try_methods(plan, missing) if missing else Probe(0.0, 0.0, {})
        print("\n" + duration_text(plan, known | probe.paces, probe))
        return 0


@dataclass(frozen=True)
class Supposition:
    """What is supposed of the reference and of a method that is as good."""

    success: float
    """Success rate of the reference."""

    discordant: float
    """Share of starts that one of the two solves and the other does not."""

    source: str = "supposed"
    """Where both come from."""


def suppositions() -> list[Supposition]:
    """Return the grid of `RATES` and `DEPENDENCE`."""
    return [Supposition(rate, 2 * rate * (1 - rate) * share) for rate in RATES for share in DEPENDENCE]


def seen_rates(plan: ResolvedPlan, earlier: Results) -> list[Supposition]:
    """Return what earlier results hold of each of the plan's methods and the reference.

    The shares of discordant pairs are those of `likely_discordant`.
    """
    episodes = pairs.finished(Results(earlier.runs, of_plan(plan, earlier), earlier.queries))
    found = []
    for method in plan.methods:
        both = pairs.paired(episodes, REFERENCE_METHOD, method)
        if method == REFERENCE_METHOD or not len(both):
            continue
        n, differing = len(both), int((both["success_own"] != both["success_reference"]).sum())
        source = f"seen: {method}, {differing} of {n} pairs"
        found.append(Supposition(float(both["success_reference"].mean()), likely_discordant(differing, n), source))
    return found


def resolution(n: int, margin: float, supposed: list[Supposition]) -> pd.DataFrame:
    """Return what `n` pairs resolve, a row a supposition.

    Columns: `drop`, the least loss of success found with a probability of 80 % (mid-p McNemar at 5 %, two-sided);
    `non_inferior`, the probability of showing non-inferiority of a method that is as good; `needed`, the pairs with
    which that is 80 %. Fractions of 1.
    """
    return pd.DataFrame(
        {
            "success": one.success,
            "discordant": one.discordant,
            "drop": minimum_detectable_effect(n, one.discordant, POWER, most=one.success)
            if one.success
            else float("nan"),
            "non_inferior": non_inferiority_power(n, 0.0, one.discordant, margin) if n >= MIN_PAIRS else 0.0,
            "needed": pairs_needed(0.0, one.discordant, margin, POWER),
            "source": one.source,
        }
        for one in supposed
    )


def most_discordant(n: int, margin: float) -> float | None:
    """Return the greatest share of discordant pairs at which `n` pairs suffice for non-inferiority; None if none is.

    For a method that is as good as the reference, with a probability of 80 %; by bisection of `non_inferiority_power`.
    """
    if non_inferiority_power(n, 0.0, 0.0, margin) < POWER:
        return None
    enough, too_many = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (enough + too_many) / 2
        suffices = non_inferiority_power(n, 0.0, middle, margin) >= POWER
        enough, too_many = (middle, too_many) if suffices else (enough, middle)
    return enough


def resolution_text(n: int, margin: float, seen: list[Supposition]) -> str:
    """Return what `n` pairs resolve as a person reads it."""
    found = resolution(n, margin, [*suppositions(), *seen])
    shown = pd.DataFrame(
        {
            "success of full": (100 * found["success"]).map("{:.0f} %".format),
            "disagreement": (100 * found["discordant"]).map("{:.1f} %".format),
            "drop found": ["none" if pd.isna(drop) else f"{100 * drop:.1f} points" for drop in found["drop"]],
            "non-inferior shown": (100 * found["non_inferior"]).map("{:.0f} %".format),
            "pairs for 80 %": found["needed"].map("{:.0f}".format),
            "": found["source"],
        }
    )
    return f"What {n} pairs can show\n{shown.to_string(index=False)}\n{_reach(n, margin)}\n{RESOLUTION_LEGEND}"


RESOLUTION_LEGEND = (
    "disagreement: starts that only one of method and full solves; a quarter, half and all of what independent\n"
    "methods would. drop found: least loss of success that the mid-p McNemar test (5 %, two-sided) finds with 80 %\n"
    "probability. non-inferior shown: probability that the one-sided 95 % limit by Tango shows it for a method that\n"
    "is as good as full; pairs for 80 %: the pairs with which that probability is 80 %. seen: pairs of earlier\n"
    "results that disagree; their share is the centre of its Wilson interval."
)
"""What stands under the table of what can be shown."""


def duration_text(plan: ResolvedPlan, paces: dict[str, Pace], probe: Probe) -> str:
    """Return how long the plan takes as a person reads it."""
    horizons = [plan.protocol.horizon(task.suite, task.horizon) for task in plan.tasks]
    rows, likely_s, most_s = [], 0.0, 0.0
    for method in plan.methods:
        pace = paces[method]
        most = sum(pace.lasts_s(horizon) for horizon in horizons) / len(horizons)
        half = sum(pace.lasts_s(horizon / 2) for horizon in horizons) / len(horizons)
        likely = half if pace.episode_s is None else pace.episode_s
        likely_s += likely * len(horizons) * plan.episodes
        most_s += most * len(horizons) * plan.episodes
        rows.append(
            {
                "method": method,
                "ms/query": f"{pace.query_ms:.1f}",
                "ms/step": f"{pace.step_ms:.1f}",
                "s/episode": f"{likely:.1f}",
                "at most": f"{most:.1f}",
                "measured": pace.source,
            }
        )
    once_s = probe.load_s + (len(plan.tasks) + 1) * probe.change_s  # the fingerprint starts a task of its own
    total = f"{duration(likely_s + once_s)} likely, {duration(most_s + once_s)} at most, in one process"
    return f"How long it takes here: {total}\n{pd.DataFrame(rows).to_string(index=False)}\n{_assumed(paces, probe)}"


def duration(seconds: float) -> str:
    """Return a time as a person reads it."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def _earlier(plan: ResolvedPlan, source: Path) -> Results:
    results = read(source)
    if not len(of_plan(plan, results)):
        raise NoResultsError(source, f"holds no episode of {plan.suite.name}, policy {plan.policy!r}, {plan.protocol}")
    return results


def _reach(n: int, margin: float) -> str:
    """Return in a sentence whether non-inferiority can be shown at all."""
    points, most = f"Non-inferiority at {100 * margin:g} points", most_discordant(n, margin)
    if most is None:
        needed = pairs_needed(0.0, 0.0, margin, POWER)
        return f"{points} is out of reach: it takes {needed:.0f} pairs even if method and full never disagree."
    return f"{points} can be shown (80 %) if an equally good method and full disagree on at most {100 * most:.1f} %."


def _assumed(paces: dict[str, Pace], probe: Probe) -> str:
    """Return what the estimate rests on."""
    said = ["ms/query: policy time; ms/step: wall time of a control step; at most: every episode reaches its horizon."]
    if any(pace.episode_s is None for pace in paces.values()):
        said.append("Tried methods: s/episode supposes half of the horizon, and a machine that stays as busy as now.")
        said.append(f"Loading the policy took {probe.load_s:.1f} s, starting a task {probe.change_s:.1f} s.")
    if any(pace.episode_s is not None for pace in paces.values()):
        said.append("Earlier episodes: s/episode is their mean wall time, resets and changes of task included.")
    return "\n".join(said)
