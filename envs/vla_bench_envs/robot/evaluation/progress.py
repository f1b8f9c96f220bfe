"""How far trials came, and why they failed, as the first rater said."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from vla_bench.stats import clopper_pearson
from vla_bench.types import EpisodeRecord
from vla_bench_envs.robot.evaluation.plan import EvaluationPlan
from vla_bench_envs.robot.evaluation.records import Label
from vla_bench_envs.robot.evaluation.seal import Seal

COLUMNS = ("method", "kind", "name", "n", "of", "share", "share_low", "share_high")


def progress(
    plan: EvaluationPlan, seal: Seal, counted: Sequence[EpisodeRecord], labels: Mapping[str, Label]
) -> pd.DataFrame:
    """Return a row a method and milestone, over all its trials, and a row a failure code that was given, over failures.

    Args:
        plan: Which milestones and codes there are.
        seal: Which method is which.
        counted: Blind episodes that count.
        labels: One rater's, by trial.
    """
    played = {record.key for record in counted}
    aliases = {trial.id: trial.alias for trial in plan.trials() if (trial.alias, trial.cell) in played}
    rows: list[dict[str, Any]] = []
    for method in plan.methods:
        own = [label for name, label in labels.items() if seal.methods.get(aliases.get(name, "")) == method]
        failed = [label for label in own if not label.success]
        for name in plan.milestones if own else ():
            rows.append(_row(method, "milestone", name, sum(name in label.milestones for label in own), len(own)))
        for code in (*plan.failures, ""):
            given = sum(label.failure == code for label in failed)
            if given:
                rows.append(_row(method, "failure", code or "no code", given, len(failed)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(method: str, kind: str, name: str, n: int, of: int) -> dict[str, Any]:
    share = clopper_pearson(n, of)
    return dict(zip(COLUMNS, (method, kind, name, n, of, share.value, share.low, share.high), strict=True))
