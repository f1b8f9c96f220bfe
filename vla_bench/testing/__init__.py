"""Contracts that any environment, policy or method can be held to; they need no test framework.

Each promise is a function whose name is the promise and that returns what was found instead, or None if it is kept.
"""

from vla_bench.testing.environments import check_environment
from vla_bench.testing.methods import check_method
from vla_bench.testing.policies import check_policy

__all__ = ["check_environment", "check_method", "check_policy"]
