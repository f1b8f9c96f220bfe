"""A token method whose rule follows trained networks."""

from dataclasses import dataclass
from typing import ClassVar

from vla_bench.errors import OptionError
from vla_bench.policy import Division, Policy
from vla_bench_policies.learned import checkpoint
from vla_bench_policies.learned.checkpoint import Kind, Trained
from vla_bench_policies.token_cache.method import TokenMethod, TokenPolicy


@dataclass(frozen=True)
class LearnedMethod(TokenMethod):
    """Follow trained networks, which fit one policy only."""

    KIND: ClassVar[Kind]
    division: ClassVar[Division] = Division.TRAINED

    weights: str = "balanced"
    """Operating point that ships with the package, or the path of a safetensors file that training wrote.

    A path gets the beginning of its networks' hash, `gates.safetensors@1a2b3c4d`, so that a record says which they
    were; with a hash given, other networks are refused.
    """

    def __post_init__(self) -> None:
        """Refuse a path that holds no networks, or others than its hash says."""
        try:
            weights = checkpoint.hashed(str(self.weights), self.KIND)
        except ValueError as caught:
            raise OptionError(
                f"{self.NAME}: weights", self.weights, f"{caught}, which is what the file holds"
            ) from None
        object.__setattr__(self, "weights", weights)

    def trained(self) -> Trained:
        """Return the networks."""
        return checkpoint.load(checkpoint.find(self.weights, self.KIND), self.KIND)

    def apply(self, policy: Policy) -> Policy:
        """Return the policy that follows the networks.

        Raises:
            NoTokenRowsError: If the policy has no token cache.
            UnknownNameError: If there is no such operating point.
            ForeignNetworksError: If the networks belong to another policy.
        """
        if isinstance(policy, TokenPolicy):
            hashed = policy.fingerprint.partition("-")[0]
            checkpoint.load_for(checkpoint.find(self.weights, self.KIND), self.KIND, hashed)
        return super().apply(policy)
