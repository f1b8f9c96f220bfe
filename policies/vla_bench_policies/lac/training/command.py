"""`vla-bench train lac`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from vla_bench.errors import OptionError
from vla_bench_policies.lac.flow import FlowName, flow_named, reduced
from vla_bench_policies.lac.gates import KIND, GateConfig, Gates
from vla_bench_policies.lac.training.losses import Losses
from vla_bench_policies.lac.training.recipe import GateRecipe
from vla_bench_policies.learned import checkpoint
from vla_bench_policies.learned.command import Lesson, TrainNetworks
from vla_bench_policies.learned.teacher import Teaching

ALIGNMENT_STEPS = 200
"""Of stage 1; stage 2 takes the recipe's."""


@dataclass(frozen=True)
class TrainLac(TrainNetworks):
    """Train the gates of LAC for a frozen policy: stage 1 on its attention, then stage 2 on its task.

    Stage 2 begins with the gates of stage 1 (`--begin`); without them it is the paper's "without stage I". One run of
    stage 2 is one operating point: sweep `--saving`. Interrupt it at any moment; run it again and it goes on exactly.
    On several GPUs: `torchrun --nproc-per-node 4 -m vla_bench.cli train lac ...`.
    """

    out: Path = Path("results/training/lac")
    """Directory for state, log and gates; continued if begun."""

    stage: Literal[1, 2] = 2
    """1 aligns the selector with the policy's attention, 2 trains selector and predictor jointly."""

    begin: Path | None = None
    """Gates of stage 1 to begin with."""

    saving: float = GateRecipe.saving
    """lambda: what reusing everything is worth, in units of the policy's L1 loss; greater reuses more."""

    flow: FlowName = "dis"
    """What the gates are told about motion."""

    flow_px: int = GateConfig.flow_px
    """Side to which frames are averaged down before flow is computed [px]; 0 means not at all."""

    window: int = GateRecipe.window
    """Queries of a window, the first of which is full: a longer one teaches what old rows cost."""

    self_made: float = GateRecipe.self_made
    """Share of the queries after which the cache is what the gates made of it, as in use; else it is a full one."""

    rotate: int = GateRecipe.rotate
    """Queries in which every row is recomputed once at least whatever the gates say, for gates that are used as
    `lac:FILE+rotate:4`; 0 leaves all to the gates."""

    language: bool = False
    """Whether the gates are told the instruction (the paper's language-guided ablation)."""

    def lesson(self, teaching: Teaching) -> Lesson:
        """Return what is taught in a stage.

        Raises:
            NetworksError: If the file to begin with holds no gates.
            ForeignNetworksError: If they are another policy's.
            OptionError: If they are told the instruction and these are not, or the other way round.
        """
        sight = teaching.teacher.sight
        if self.flow_px < 0 or (self.flow_px and sight.image_px % self.flow_px):
            raise OptionError("--flow-px", self.flow_px, f"a divisor of {sight.image_px}, or 0")
        if self.window < 2 or not 0 <= self.self_made <= 1:
            raise OptionError("--window, --self-made", (self.window, self.self_made), "at least 2, and a share")
        if self.rotate < 0:
            raise OptionError("--rotate", self.rotate, "a number of queries, or 0")
        recipe = GateRecipe(
            gates=GateConfig(
                flow=self.flow, flow_px=self.flow_px, px=max(GateConfig.px, 8 * sight.grid),
                text_width=sight.width if self.language else 0, grid=sight.grid,
            ),
            stage=self.stage, saving=self.saving, first_layer=self.first_layer, task_loss=self.task_loss,
            stride=self.stride or teaching.reader.stride, window=self.window, self_made=self.self_made,
            rotate=self.rotate, seed=self.seed,
        )  # fmt: skip
        steps = self.steps or (ALIGNMENT_STEPS if self.stage == 1 else recipe.steps)
        recipe = replace(recipe, steps=steps, batch=self.batch or recipe.batch)
        gates, begin = Gates(recipe.gates), "random"
        if self.begin is not None:
            trained = checkpoint.load_for(self.begin, KIND, teaching.policy)
            told = bool(trained.network.config.text_width)
            if told != self.language:
                found = f"{self.begin}, which {'is' if told else 'is not'} told the instruction"
                raise OptionError(
                    "--begin", found, f"gates that were trained {'with' if self.language else 'without'} --language"
                )
            gates.load_state_dict(trained.network.state_dict())
            begin = trained.sha256[:12]
        flow = flow_named(self.flow)
        motion = reduced(flow, self.flow_px) if self.flow_px else flow
        return Lesson(recipe, KIND, gates, Losses(recipe, gates, teaching.teacher), motion, begin)
