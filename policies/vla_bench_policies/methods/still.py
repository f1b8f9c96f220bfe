"""Still: a full step whenever the hand has hardly moved, on top of any reuse method (`lac:bold+still:3`).

Reuse can end in a fixed point: an arm that stands sees what it saw, so what a rule reuses because nothing moved it
reuses for ever, and the policy that would move the arm never sees the scene as it is. A step while the hand stands
costs no motion, so it is the one in which everything may be computed. Not from a paper; SpecPrune and VLA-ADP ask the
hand's speed too, for budgets.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vla_bench.errors import OptionError
from vla_bench.policy import Division, Policy
from vla_bench_policies.methods.specprune import POSITION
from vla_bench_policies.token_cache.method import NoTokenRowsError, TokenPolicy
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Inside, Merge, Step
from vla_bench_policies.token_cache.wrapped import WrappedRule


@dataclass(frozen=True)
class Still:
    """Compute everything while the hand stands."""

    division: ClassVar[Division] = Division.EXACT

    below_mm: float = 3.0
    """Travel of the end effector since the last inference [mm] below which a step is full; 0 never is."""

    def __post_init__(self) -> None:
        """Refuse what is no distance."""
        if isinstance(self.below_mm, bool) or not isinstance(self.below_mm, int | float) or not self.below_mm >= 0:
            raise OptionError("still: below-mm", self.below_mm, "a distance of at least 0 mm, as in 'lac+still:3'")

    @property
    def name(self) -> str:
        """Return for example `still:3`."""
        return f"still:{self.below_mm}"

    def apply(self, policy: Policy) -> Policy:
        """Return the policy whose rule is overruled while the hand stands.

        Raises:
            NoTokenRowsError: If the policy has no token cache.
        """
        if not isinstance(policy, TokenPolicy):
            raise NoTokenRowsError(self.name, policy.name)
        return policy.with_rule(_Stilled(policy.rule, self))


class _Stilled(WrappedRule):
    """Asks another rule, but recomputes everything where the hand stands."""

    def __init__(self, rule: CacheRule, still: Still) -> None:
        super().__init__(rule, still.name)
        self._below_m, self._position, self._now = still.below_mm * 1e-3, None, False

    def reset(self) -> None:
        super().reset()
        self._position, self._now = None, False

    def plan(self, step: Step) -> RowPlan:
        self._now = self._travel_m(step) < self._below_m
        if not self._now:
            return super().plan(step)
        self.nominal = None
        super().overruled(step)
        return step.full()

    def overruled(self, step: Step) -> None:
        self._travel_m(step)
        super().overruled(step)

    def narrow(self, plan: RowPlan, step: Step, inside: Inside) -> tuple[RowPlan, Merge | None]:
        return (plan, None) if self._now else super().narrow(plan, step, inside)

    def _travel_m(self, step: Step) -> float:
        """Return how far the hand is from where it was at the last inference; 0 where nobody has looked at it yet."""
        before, self._position = self._position, np.array(step.proprio[POSITION])
        return 0.0 if before is None else float(np.linalg.norm(self._position - before))


METHOD = Still
