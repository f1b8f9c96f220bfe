"""LAC, learnable adaptive caching (arXiv:2602.00686): reuse the rows that trained gates do not ask for."""

from dataclasses import dataclass
from typing import ClassVar

from vla_bench.errors import OptionError
from vla_bench.policy import Division, Policy
from vla_bench_policies.lac import checkpoint
from vla_bench_policies.lac.rule import LacRule, Recovery
from vla_bench_policies.token_cache.method import TokenMethod, TokenPolicy, check_share


@dataclass(frozen=True)
class Lac(TokenMethod):
    """Follow trained gates; how many rows are reused they decide themselves."""

    NAME: ClassVar[str] = "lac"
    division: ClassVar[Division] = Division.TRAINED

    weights: str = "balanced"
    """Operating point that ships with the package, or the path of a safetensors file of `vla-bench train lac`.

    A path gets the beginning of its gates' hash, `gates.safetensors@1a2b3c4d`, so that a record says which they were;
    with a hash given, other gates are refused.
    """

    ratio: float = -1.0
    """Share that is reused instead of what the gates choose (the paper's "selector only"); -1 leaves it to them."""

    recover: float = Recovery.probability
    """Probability that a step recomputes a quarter of what it would reuse; 0 is the paper's "without recovery"."""

    max_age: int = Recovery.max_age
    """Inferences after which a row is recomputed for certain; 0 means never. Not in the paper."""

    first_layer: int = -1
    """Layers before it recompute every row; -1 as the gates were trained."""

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        check_share(self.NAME, "recover", self.recover)
        if self.ratio != -1:
            check_share(self.NAME, "ratio", self.ratio)
        for name, least in (("max_age", 0), ("first_layer", -1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise OptionError(f"{self.NAME}: {name.replace('_', '-')}", value, f"an integer of at least {least}")
        path, _, hashed = str(self.weights).partition("@")
        if path.endswith(".safetensors"):
            found = checkpoint.load(checkpoint.find(path)).sha256[:8]
            if hashed and hashed != found:
                raise OptionError(
                    f"{self.NAME}: weights", self.weights, f"{path}@{found}, which is what the file holds"
                )
            object.__setattr__(self, "weights", f"{path}@{found}")

    def rule(self) -> LacRule:
        """Return a new rule."""
        recovery = Recovery(self.recover, max_age=self.max_age)
        trained = checkpoint.load(checkpoint.find(self.weights))
        return LacRule(
            self.name, compares=True, gates=trained.gates, ratio=None if self.ratio == -1 else self.ratio,
            recovery=recovery, first_layer=trained.first_layer if self.first_layer < 0 else self.first_layer,
        )  # fmt: skip

    def apply(self, policy: Policy) -> Policy:
        """Return the policy that follows the gates.

        Raises:
            NoTokenRowsError: If the policy has no token cache.
            UnknownNameError: If there is no such operating point.
            ForeignGatesError: If the gates belong to another policy.
        """
        if isinstance(policy, TokenPolicy):
            checkpoint.load_for(checkpoint.find(self.weights), policy.fingerprint.partition("-")[0])
        return super().apply(policy)


METHOD = Lac
