"""`vla-bench train vla-acl`."""

from dataclasses import dataclass, replace
from pathlib import Path

from vla_bench.errors import OptionError
from vla_bench_policies.acl.losses import FadingLosses, ScorerRecipe
from vla_bench_policies.acl.scorer import KIND, Scorer, ScorerConfig
from vla_bench_policies.learned.command import Lesson, TrainNetworks
from vla_bench_policies.learned.recipe import TaskLoss
from vla_bench_policies.learned.teacher import Teaching


@dataclass(frozen=True)
class TrainAcl(TrainNetworks):
    """Train the scorer of VLA-ACL for a frozen policy: which rows of each view stay, when a given share does.

    One run is one operating point: sweep `--keep`. Interrupt it at any moment; run it again and it goes on exactly.
    On several GPUs: `torchrun --nproc-per-node 4 -m vla_bench.cli train vla-acl ...`.
    """

    out: Path = Path("results/training/vla-acl")
    """Directory for state, log and scorer; continued if begun."""

    task_loss: TaskLoss = "distill"
    """The policy's own loss, or half of it and half the distance to the full computation."""

    keep: float = ScorerConfig.keep
    """Share of each view's rows that stays."""

    def lesson(self, teaching: Teaching) -> Lesson:
        """Return what is taught."""
        sight = teaching.teacher.sight
        shape = ScorerConfig(sight.width, sight.n_visual, sight.n_views, keep=self.keep)
        if not 0 < shape.k < shape.n_rows / shape.views:
            raise OptionError("--keep", self.keep, "a share that keeps some rows of each view, and not all")
        if self.first_layer:
            raise OptionError("--first-layer", self.first_layer, "0: VLA-ACL deletes rows before the decoder")
        stride = self.stride or teaching.reader.stride
        recipe = ScorerRecipe(scorer=shape, task_loss=self.task_loss, stride=stride, seed=self.seed)
        recipe = replace(recipe, steps=self.steps or recipe.steps, batch=self.batch or recipe.batch)
        scorer = Scorer(shape)
        return Lesson(recipe, KIND, scorer, FadingLosses(recipe, scorer, teaching.teacher))
