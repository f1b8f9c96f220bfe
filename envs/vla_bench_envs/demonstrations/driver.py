"""A policy under a method that moves the arm, instead of the expert or before it."""

from collections.abc import Mapping
from dataclasses import dataclass

from vla_bench import registry

TEACHER = "full"
"""The method whose answers are recorded where a policy teaches, and under which one drives if nothing else is said."""


@dataclass(frozen=True)
class Driver:
    """What moves the arm."""

    policy: str
    """Specification, as `vla-bench run --policy` takes it."""

    method: str = TEACHER
    """Under which it drives."""

    def conditions(self, role: str = "driver") -> Mapping[str, str]:
        """Return what must be equal for a dataset to grow: the weights of the policy, and the method.

        Args:
            role: In which it moves the arm; what it is called in the conditions.

        Raises:
            VlaBenchError: If there is no such policy or method, or they do not fit.
        """
        policy, method = registry.policy(self.policy), registry.method(self.method)
        method.apply(policy)
        return {role: f"{policy.name} {policy.fingerprint}", f"{role}_method": method.name}
