"""Refresh: a full step every n-th inference, on top of any reuse method (`random:0.8+refresh:5`)."""

from dataclasses import dataclass
from typing import ClassVar

from vla_bench.errors import OptionError
from vla_bench.policy import Division, Policy
from vla_bench_policies.token_cache.method import NoTokenRowsError, TokenPolicy
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Inside, Merge, Step
from vla_bench_policies.token_cache.wrapped import WrappedRule


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


class _Refreshed(WrappedRule):
    """Asks another rule, but in every n-th step recomputes everything."""

    def __init__(self, rule: CacheRule, every: int) -> None:
        super().__init__(rule, f"refresh:{every}")
        self._every, self._now = every, False

    def reset(self) -> None:
        super().reset()
        self._now = False

    def plan(self, step: Step) -> RowPlan:
        self._now = step.index % self._every == 0
        if not self._now:
            return super().plan(step)
        self.nominal = None
        self.overruled(step)
        return step.full()

    def narrow(self, plan: RowPlan, step: Step, inside: Inside) -> tuple[RowPlan, Merge | None]:
        return (plan, None) if self._now else super().narrow(plan, step, inside)


METHOD = Refresh
