"""Full computation: the reference of every speed-up."""

from dataclasses import dataclass
from typing import ClassVar

from vla_bench.policy import Division, Policy


@dataclass(frozen=True)
class Full:
    """Ask the policy every time, and let it compute everything."""

    division: ClassVar[Division] = Division.EXACT

    @property
    def name(self) -> str:
        """Return `full`."""
        return "full"

    def apply(self, policy: Policy) -> Policy:
        """Return the policy as it is."""
        return policy


METHOD = Full
