"""One suite and policy of one source: what shares starts, device and clock, and is compared and ranked."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vla_bench import stats
from vla_bench.compare import compare_df, frontier_df, latency, pairs
from vla_bench.compare.pairs import EPISODE
from vla_bench.compare.tables import judgement
from vla_bench.compare.verdict import MARGIN, MIN_PAIRS
from vla_bench.leaderboard import boundaries
from vla_bench.leaderboard.ranks import faster_on_same_starts, ranks
from vla_bench.leaderboard.sources import Source
from vla_bench.tables import REFERENCE_METHOD, Results, interval_columns

NOT_RECORDED = "not recorded"
"""What stands where a source does not say."""

THREADS = ("threads", "OMP_NUM_THREADS", "environment OMP_NUM_THREADS")
"""Columns of `runs` that may say how many threads ran."""

FACTS = ("source", "suite", "policy", "device", "protocol", "date", "commit", "evidence")
"""What all rows of a block share."""


@dataclass(frozen=True)
class Block:
    """Methods that are compared with each other, and nothing else."""

    facts: dict[str, str]
    """Value of each of `FACTS`."""

    rows: pd.DataFrame
    """One row a method, best rank first: what `compare_df` says, `rank`, `too_few_pairs`, and the other boundaries."""

    families: pd.DataFrame
    """What `frontier_df` says of the block's families of methods; may be empty."""

    results: Results
    """The frames behind it."""

    @property
    def is_compared(self) -> bool:
        """Return whether anything but the reference was played."""
        return not self.rows["is_reference"].all()

    @property
    def title(self) -> str:
        """Return what tells the block from others of the same source."""
        return f"{self.facts['suite']}, policy {self.facts['policy']}"


def blocks_of(sources: Iterable[Source], margin: float = MARGIN) -> list[Block]:
    """Return the blocks of all sources, by suite, policy and device; sources are never compared with each other."""
    blocks = [
        _block(source, str(suite), str(policy), margin)
        for source in sources
        for suite, policy in source.results.episodes[["suite", "policy"]].drop_duplicates().itertuples(index=False)
    ]
    return sorted(blocks, key=lambda block: [block.facts[name] for name in ("suite", "policy", "device", "source")])


def _block(source: Source, suite: str, policy: str, margin: float) -> Block:
    results = _chosen(source.results, suite, policy)
    alone = set(results.episodes["method"]) == {REFERENCE_METHOD}
    compared = _reference_alone(results, margin) if alone else compare_df(results, margin=margin)
    episodes = pairs.finished(results)
    asked = boundaries.timed(results, episodes)
    others = [boundaries.describe(asked, episodes, REFERENCE_METHOD, method) for method in compared["method"]]
    rows = pd.concat([compared, pd.DataFrame(others, index=compared.index)], axis=1)
    rows["division"] = rows["division"].replace("", NOT_RECORDED)
    rows["rank"] = pd.array(ranks_of(rows, episodes), dtype="Int64")
    rows["too_few_pairs"] = rows["pairs"].lt(MIN_PAIRS).fillna(False).astype(bool)
    rows["is_reference"] = rows["method"] == REFERENCE_METHOD
    order = ["rank", "is_reference", "speedup", "method"]
    rows = rows.sort_values(order, ascending=[True, True, False, True], na_position="last")
    facts = {"source": source.name, "suite": suite, "policy": policy, "evidence": str(source.evidence)}
    families = frontier_df(results, margin=margin)
    return Block(facts | _conditions(results.runs), rows.reset_index(drop=True), families, results)


def ranks_of(rows: pd.DataFrame, episodes: pd.DataFrame) -> list[int | None]:
    """Return the rank of every row of a block's comparison, by the rule of `ranks.py`.

    Args:
        rows: What `compare_df` returned of one suite and policy.
        episodes: What `pairs.finished` returned of the same.
    """
    judged = {row["method"]: judgement(row) for _, row in rows.iterrows() if row["method"] != REFERENCE_METHOD}
    verdicts = {method: judged_as.verdict for method, judged_as in judged.items() if judged_as is not None}
    speedups = dict(zip(rows["method"], rows["speedup"], strict=True))
    found = ranks(verdicts, speedups, REFERENCE_METHOD, faster_on_same_starts(episodes))
    return [found[method] for method in rows["method"]]


def _chosen(results: Results, suite: str, policy: str) -> Results:
    """Return the frames of one suite and policy."""
    episodes = results.episodes[(results.episodes["suite"] == suite) & (results.episodes["policy"] == policy)]
    queries = results.queries
    if len(queries):  # a frame without rows has no columns either
        key = ["run", "method", "task", "init_state", "seed"]
        queries = queries.merge(episodes[key].drop_duplicates(), on=key)
    return Results(results.runs[results.runs["run"].isin(episodes["run"])], episodes, queries)


def _reference_alone(results: Results, margin: float) -> pd.DataFrame:
    """Return the row of a reference that nothing was compared with, in the columns of `compare_df`."""
    episodes = pairs.latest(pairs.finished(results))
    asked = results.queries.merge(episodes[EPISODE], on=EPISODE) if len(results.queries) else None
    own = results.episodes
    row: dict[str, Any] = {
        **{name: own[name].iloc[0] for name in ("suite", "policy", "method")},
        "reference": REFERENCE_METHOD,
        "margin": margin,
        "division": str(own["division"].iloc[-1]),
        "errors": pairs.n_errors(own),
        "episodes": len(episodes),
        "verdict": "reference",
        **interval_columns("success", _rate(episodes)),
        "policy_ms_per_step": episodes[pairs.TIME].median(),
        **(latency.nothing() if asked is None else latency.describe(asked)),
    }
    absent = dict.fromkeys(("difference", "difference_low", "difference_high", *interval_columns("speedup", None)))
    row |= {name: float("nan") for name in absent}
    return pd.DataFrame([row | dict.fromkeys(("pairs", "needed", "success_shows", "speed_shows"), pd.NA)])


def _rate(episodes: pd.DataFrame) -> stats.Interval | None:
    return stats.wilson(int(episodes["success"].sum()), len(episodes)) if len(episodes) else None


def _conditions(runs: pd.DataFrame) -> dict[str, str]:
    """Return what the runs say of device, protocol, date and code."""

    def said(column: str) -> str:
        values = sorted(set(runs[column].astype(str))) if column in runs else []
        return ", ".join(value for value in values if value not in ("", "none", "nan")) or NOT_RECORDED

    accelerator, processor = said("accelerator"), said("processor")
    device = processor if accelerator == NOT_RECORDED else accelerator
    threads = [f", {said(name)} thread{'s' * (said(name) != '1')}" for name in THREADS if said(name) != NOT_RECORDED]
    dates = sorted({str(began)[:10] for began in runs.get("began", []) if began})
    return {
        "device": "".join([device, *threads[:1]]),
        "protocol": said("protocol"),
        "date": " to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else NOT_RECORDED,
        "commit": said("commit"),
    }
