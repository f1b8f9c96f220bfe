"""Refresh: a full step every n-th inference, on top of any reuse method (`random:0.8+refresh:5`)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vla_bench.errors import OptionError
from vla_bench.policy import Division, Policy
from vla_bench_policies.token_cache.layout import RowLayout
from vla_bench_policies.token_cache.method import NoTokenRowsError, TokenPolicy
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Inside, Merge, Step


@dataclass(frozen=True)
class Refresh:
    """Bound the age of what is reused."""

    division: ClassVar[Division] = Division.EXACT

    every: int = 4
    """Inferences from one full step to the next; 1 computes everything."""

    def __post_init__(self) -> None:
        """Refuse a number that is no positive integer."""
        if not isinstance(self.every, int) or isinstance(self.every, bool) or self.every < 1:
            raise OptionError("refresh: every", self.every, "an integer of at least 1, as in 'random:0.6+refresh:4'")

    @property
    def name(self) -> str:
        """Return for example `refresh:4`."""
        return f"refresh:{self.every}"

    def apply(self, policy: Policy) -> Policy:
        """Return the policy whose rule is overruled in every n-th step.

        Raises:
            NoTokenRowsError: If the policy has no token cache.
        """
        if not isinstance(policy, TokenPolicy):
            raise NoTokenRowsError(self.name, policy.name)
        return policy.with_rule(_Refreshed(policy.rule, self.every))


class _Refreshed(CacheRule):
    """Asks another rule, but in every n-th step recomputes everything."""

    def __init__(self, rule: CacheRule, every: int) -> None:
        super().__init__(
            f"{rule.name}+refresh:{every}",
            provenance=rule.provenance,
            first_is_full=rule.first_is_full,
            compares=rule.compares,
            eager=rule.eager,
        )
        self._rule, self._every, self._now = rule, every, False

    def reset(self) -> None:
        self._rule.reset()
        self._now = False

    def plan(self, step: Step) -> RowPlan:
        self._now = step.index % self._every == 0
        if self._now:
            self.nominal = None
            self._rule.overruled(step)
            return step.full()
        plan = self._rule.plan(step)
        self.nominal = self._rule.nominal
        return plan

    def watched(self, layout: RowLayout, n_layers: int) -> dict[int, np.ndarray]:
        return self._rule.watched(layout, n_layers)

    def narrows_at(self, n_layers: int) -> tuple[int, ...]:
        return self._rule.narrows_at(n_layers)

    def narrow(self, plan: RowPlan, step: Step, inside: Inside) -> tuple[RowPlan, Merge | None]:
        return (plan, None) if self._now else self._rule.narrow(plan, step, inside)


METHOD = Refresh
