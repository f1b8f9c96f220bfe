"""Full computation with whole attention maps: the slow reference that some papers divide by."""

from dataclasses import dataclass
from typing import ClassVar

from vla_bench.policy import Division
from vla_bench_policies.token_cache.method import TokenMethod
from vla_bench_policies.token_cache.rule import CacheRule


@dataclass(frozen=True)
class FullEager(TokenMethod):
    """Compute everything, without the fused attention kernel; shown in tables, never divided by.

    It answers as `full` does. What it is slower by is what a method seems to gain that is compared with it.
    """

    NAME: ClassVar[str] = "full-eager"
    division: ClassVar[Division] = Division.EXACT

    def rule(self) -> CacheRule:
        """Return the rule that recomputes everything, eagerly."""
        return CacheRule(self.name, first_is_full=False, eager=True)


METHOD = FullEager
