"""The rule that follows a trained scorer."""

from dataclasses import dataclass, field

from vla_bench.errors import VlaBenchError
from vla_bench_policies.acl.scorer import Scorer, scorer_flops
from vla_bench_policies.acl.selection import hard_top_k
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Step


class ScorerShapeError(VlaBenchError):
    """Refuse a scorer for other rows."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(f"the scorer of VLA-ACL is for {found}, the policy has {expected}: train one for this policy")


@dataclass
class AclRule(CacheRule):
    """Keep the rows of highest score of each view, delete the others before the first layer; nothing is remembered."""

    scorer: Scorer = field(kw_only=True)

    def plan(self, step: Step) -> RowPlan:
        """Return the plan."""
        config, layout = self.scorer.config, step.layout
        found, expected = (config.n_rows, config.views, config.rows_width), (
            layout.n_visual, layout.n_views, step.rows.shape[1],
        )  # fmt: skip
        if found != expected:
            raise ScorerShapeError(*("{} rows of {} views, width {}".format(*one) for one in (found, expected)))
        step.spend(scorer_flops(config))
        scorer = self.scorer.to(step.rows.device)
        scores = scorer(step.visual[None].to(scorer.score.weight.dtype))
        stays = hard_top_k(scores, config.k).flatten().bool().cpu().numpy()
        return step.full().delete(~stays)
