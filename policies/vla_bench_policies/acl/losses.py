"""What the scorer learns from: the frozen policy, with rows faded towards those of a black picture."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from vla_bench_policies.acl.scorer import Scorer, ScorerConfig
from vla_bench_policies.acl.selection import hard_top_k, soft_top_k
from vla_bench_policies.learned.recipe import LoopRecipe, TaskLoss
from vla_bench_policies.learned.sharing import ALONE, of_all
from vla_bench_policies.learned.teacher import Teacher
from vla_bench_policies.learned.windows import WindowBatch
from vla_bench_policies.reference.training.team import Team
from vla_bench_policies.token_cache.layout import RowLayout


@dataclass(frozen=True)
class ScorerRecipe(LoopRecipe):
    """How a scorer is trained."""

    scorer: ScorerConfig = field(default_factory=ScorerConfig)
    """Its shape."""

    batch: int = 32
    """Windows a step; as many frames as LAC's windows hold."""

    window: int = 1
    """Nothing is remembered, so that one look is all."""

    learning_rate: float = 1e-4
    """Of AdamW. Source: VLA-ACL."""

    alphas: tuple[float, float] = (2.0, 0.1)
    """Width of the soft selection at the first and the last step, falling geometrically. Source: VLA-ACL, the ends."""

    task_loss: TaskLoss = "distill"
    """Half the L1 to the demonstration, half the L1 to the full computation. Source: VLA-ACL."""

    def alpha(self, step: int) -> float:
        """Return the width of a step."""
        first, last = self.alphas
        return first * (last / first) ** min(1.0, step / max(1, self.steps - 1))


class FadingLosses:
    """The loss of a scorer on a batch: a row with share s is `x s + black sqrt(1 - s^2)` (VLA-ACL)."""

    def __init__(self, recipe: ScorerRecipe, scorer: Scorer, teacher: Teacher) -> None:
        self._recipe, self._scorer, self._teacher = recipe, scorer, teacher
        self._black = teacher.black()

    def training(self, batch: WindowBatch, step: int, team: Team = ALONE) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss with soft shares, and its parts."""
        rows, layout = self._looked(batch)
        visual = rows[:, layout.visual]
        shares = soft_top_k(self._scores(visual), self._scorer.config.k, self._recipe.alpha(step)).flatten(1)
        faded = self._faded(visual, shares)
        given = torch.cat((rows[:, : layout.visual.start], faded, rows[:, layout.visual.stop :]), dim=1)
        with torch.no_grad():
            full = self._teacher.look(rows, layout).answer if self._recipe.task_loss == "distill" else None
        seed = self._recipe.seed * 1_000_003 + step
        task = self._task(self._teacher.look(given, layout).answer, batch, full, seed, team)
        unsure = of_all(shares * (1 - shares), team).mean()
        return task, {"task": task.detach(), "unsure": unsure.detach()}

    @torch.no_grad()
    def held_out(self, batch: WindowBatch) -> dict[str, Tensor]:
        """Return what the scorer does as it will be used, with rows deleted.

        That is the task loss with it and without, the distance of normalised actions to the full computation's, and the
        deleted share.
        """
        rows, layout = self._looked(batch)
        stays = hard_top_k(self._scores(rows[:, layout.visual]), self._scorer.config.k).flatten(1).bool()
        answer = self._teacher.look(rows, layout, shown=stays).answer
        full = self._teacher.look(rows, layout).answer
        return {
            "task": self._task(answer, batch, None, seed=0),
            "task_full": self._task(full, batch, None, seed=0),
            "distance": self._teacher.distance(answer, full),
            "ratio": 1 - stays.float().mean(),
        }

    def _looked(self, batch: WindowBatch) -> tuple[Tensor, RowLayout]:
        rows, layout = self._teacher.window_rows(batch)  # of one inference each
        return rows[:, 0], layout

    def _scores(self, visual: Tensor) -> Tensor:
        return self._scorer(visual.to(self._scorer.score.weight.dtype))

    def _task(
        self, answer: Tensor, batch: WindowBatch, full: Tensor | None, seed: int, team: Team = ALONE
    ) -> Float[Tensor, ""]:
        generator = torch.Generator().manual_seed(seed)
        whole = None if full is None else of_all(full, team)
        demonstrated, within = of_all(batch.chunk[:, 0], team), of_all(batch.within[:, 0], team)
        return self._teacher.loss(of_all(answer, team), demonstrated, within, whole, generator)

    def _faded(
        self, visual: Float[Tensor, "b rows width"], shares: Float[Tensor, "b rows"]
    ) -> Float[Tensor, "b rows width"]:
        s = shares[..., None]
        rest = torch.sqrt((1 - s.square()).clamp(min=1e-6))  # at s = 1 the root has no derivative
        return (visual * s + self._black * rest).to(visual.dtype)
