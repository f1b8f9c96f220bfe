"""Feature difference: reuse the rows whose input to the decoder is nearest to what was computed. A baseline of ours."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vla_bench.policy import Division
from vla_bench_policies.token_cache.method import TokenMethod, check_share
from vla_bench_policies.token_cache.patches import chosen, lowest
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Step


@dataclass(frozen=True)
class FeatureDifference(TokenMethod):
    """Reuse a share of the visual rows: those that differ least from what they were when they were last computed.

    Pixels of a patch say what changed there; the vision tower's row of the patch also says what changed around it,
    and is computed in each step anyway. The comparison is with the row that the cache was made of and not with the
    last inference, so that what creeps is seen, and what stopped after it had moved still counts as moved.
    """

    NAME: ClassVar[str] = "feature-difference"
    division: ClassVar[Division] = Division.TEMPORAL_CACHE

    reuse: float = 0.6
    """Share of the visual rows of all views together; rounded down. 0 is the exact setting."""

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        check_share(self.NAME, "reuse", self.reuse)

    def rule(self) -> CacheRule:
        """Return a new rule."""
        return _FeatureDifference(self.name, self.reuse, first_is_full=False)


@dataclass
class _FeatureDifference(CacheRule):
    reuse: float = 0.6
    _last: Tensor | None = None
    """Rows (visual, d) of the last inference."""

    _then: Tensor | None = None
    """Rows as they were when they were last computed."""

    def reset(self) -> None:
        self._last = self._then = None

    def plan(self, step: Step) -> RowPlan:
        last, self._last = self._last, step.visual.clone()
        if last is None:
            return step.full()
        computed = torch.from_numpy(step.just_computed).to(last.device)
        self._then = last if self._then is None else torch.where(computed[:, None], last, self._then)
        changed = torch.linalg.vector_norm(step.visual - self._then, dim=1).float().cpu().numpy()
        return step.full().reuse(chosen(lowest(changed, int(len(changed) * self.reuse)), len(changed)))


METHOD = FeatureDifference
