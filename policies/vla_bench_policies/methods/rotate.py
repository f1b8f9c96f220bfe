"""Rotate: another n-th of the rows is recomputed in each inference, on top of any reuse method (`lac+rotate:4`).

It bounds the age of what is reused, as `refresh` does, but no step is dearer than the others. Not from a paper.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool

from vla_bench.errors import OptionError
from vla_bench.policy import Division, Policy
from vla_bench_policies.methods.fixed_grid import spread_order
from vla_bench_policies.token_cache.method import NoTokenRowsError, TokenPolicy
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Inside, Merge, Step
from vla_bench_policies.token_cache.wrapped import WrappedRule


@dataclass(frozen=True)
class Rotate:
    """Recompute each row in every n-th inference at least, a different part of each view at a time."""

    division: ClassVar[Division] = Division.EXACT

    every: int = 4
    """Inferences in which all rows have had their turn; 1 computes everything."""

    def __post_init__(self) -> None:
        """Refuse a number that is no positive integer."""
        if not isinstance(self.every, int) or isinstance(self.every, bool) or self.every < 1:
            raise OptionError("rotate: every", self.every, "an integer of at least 1, as in 'random:0.6+rotate:4'")

    @property
    def name(self) -> str:
        """Return for example `rotate:4`."""
        return f"rotate:{self.every}"

    def apply(self, policy: Policy) -> Policy:
        """Return the policy whose rule may not reuse the rows whose turn it is.

        Raises:
            NoTokenRowsError: If the policy has no token cache.
        """
        if not isinstance(policy, TokenPolicy):
            raise NoTokenRowsError(self.name, policy.name)
        return policy.with_rule(_Rotated(policy.rule, self.every))


class _Rotated(WrappedRule):
    """Asks another rule; rows whose turn it is are recomputed, unless it deletes them."""

    def __init__(self, rule: CacheRule, every: int) -> None:
        super().__init__(rule, f"rotate:{every}")
        self._every = every

    def plan(self, step: Step) -> RowPlan:
        plan = super().plan(step)
        if self.nominal is None:
            self.nominal = 1.0 - plan.computed_share()
        return self._turned(plan, step)

    def narrow(self, plan: RowPlan, step: Step, inside: Inside) -> tuple[RowPlan, Merge | None]:
        narrowed, merge = super().narrow(plan, step, inside)
        return self._turned(narrowed, step), merge

    def _turned(self, plan: RowPlan, step: Step) -> RowPlan:
        due = turns(self._every, step.index, step.layout.grid, step.layout.n_visual)
        return plan.recompute(due & (plan.visible_until == plan.n_layers))


def turns(every: int, index: int, grid: int, n_visual: int) -> Bool[np.ndarray, " visual"]:
    """Return the rows whose turn it is: of each view every n-th in an order in which neighbours are far apart.

    Args:
        every: Inferences in which all rows have had their turn.
        index: Of this inference in the episode.
        grid: Rows along a side of a view.
        n_visual: Rows of all views.
    """
    order = spread_order(grid)
    due = np.zeros(len(order), dtype=bool)
    due[order[index % every :: every]] = True
    return np.tile(due, n_visual // len(order))


METHOD = Rotate
