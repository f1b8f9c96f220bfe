"""A rule around another rule: the base of modifiers such as `+refresh:4`."""

import numpy as np
from jaxtyping import Int

from vla_bench_policies.token_cache.layout import RowLayout
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Inside, Merge, Step


class WrappedRule(CacheRule):
    """Does what another rule says, with its properties; a modifier overrides what it changes."""

    def __init__(self, inner: CacheRule, modifier: str) -> None:
        """Take over the properties of a rule.

        Args:
            inner: The rule.
            modifier: As in the specification, `refresh:4`.
        """
        super().__init__(
            f"{inner.name}+{modifier}", provenance=inner.provenance, first_is_full=inner.first_is_full,
            compares=inner.compares, eager=inner.eager,
        )  # fmt: skip
        self.inner = inner

    def reset(self) -> None:
        """Forget the episode."""
        self.inner.reset()

    def plan(self, step: Step) -> RowPlan:
        """Return the rule's plan."""
        plan = self.inner.plan(step)
        self.nominal = self.inner.nominal
        return plan

    def overruled(self, step: Step) -> None:
        """Tell the rule."""
        self.inner.overruled(step)

    def watched(self, layout: RowLayout, n_layers: int) -> dict[int, Int[np.ndarray, " rows"]]:
        """Return what the rule watches."""
        return self.inner.watched(layout, n_layers)

    def narrows_at(self, n_layers: int) -> tuple[int, ...]:
        """Return where the rule narrows."""
        return self.inner.narrows_at(n_layers)

    def narrow(self, plan: RowPlan, step: Step, inside: Inside) -> tuple[RowPlan, Merge | None]:
        """Return what the rule makes of the plan."""
        return self.inner.narrow(plan, step, inside)
