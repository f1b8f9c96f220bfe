"""LAC, learnable adaptive caching (arXiv:2602.00686): reuse the rows that trained gates do not ask for."""

from dataclasses import dataclass
from typing import ClassVar, get_args

from vla_bench.errors import OptionError
from vla_bench_policies.lac.gates import KIND
from vla_bench_policies.lac.rule import LacRule, Recovery
from vla_bench_policies.learned.checkpoint import Kind
from vla_bench_policies.learned.method import LearnedMethod
from vla_bench_policies.token_cache.method import check_share
from vla_bench_policies.token_cache.patches import Since


@dataclass(frozen=True)
class Lac(LearnedMethod):
    """Follow trained gates; how many rows are reused they decide themselves."""

    NAME: ClassVar[str] = "lac"
    KIND: ClassVar[Kind] = KIND

    ratio: float = -1.0
    """Share that is reused instead of what the gates choose (the paper's "selector only"); -1 leaves it to them."""

    recover: float = Recovery.probability
    """Probability that a step recomputes a quarter of what it would reuse; 0 is the paper's "without recovery"."""

    max_age: int = Recovery.max_age
    """Inferences after which a row is recomputed for certain; 0 means never. Not in the paper."""

    first_layer: int = -1
    """Layers before it recompute every row; -1 as the gates were trained."""

    flow_px: int = -1
    """Side to which frames are averaged down before flow is computed [px], 0 for not at all; -1 as the gates were
    trained."""

    since: Since = "inference"
    """The frames that flow starts from: `patches.Since`."""

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        super().__post_init__()
        check_share(self.NAME, "recover", self.recover)
        if self.ratio != -1:
            check_share(self.NAME, "ratio", self.ratio)
        for name, least in (("max_age", 0), ("first_layer", -1), ("flow_px", -1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise OptionError(f"{self.NAME}: {name.replace('_', '-')}", value, f"an integer of at least {least}")
        if self.since not in get_args(Since):
            raise OptionError(f"{self.NAME}: since", self.since, f"one of {', '.join(get_args(Since))}")

    def rule(self) -> LacRule:
        """Return a new rule."""
        trained = self.trained()
        return LacRule(
            self.name, compares=True, gates=trained.network, ratio=None if self.ratio == -1 else self.ratio,
            recovery=Recovery(self.recover, max_age=self.max_age),
            first_layer=trained.first_layer if self.first_layer < 0 else self.first_layer,
            flow_px=trained.network.config.flow_px if self.flow_px < 0 else self.flow_px,
            since=self.since,
        )  # fmt: skip


METHOD = Lac
