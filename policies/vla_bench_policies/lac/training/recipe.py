"""Everything that decides the gates besides the demonstrations and the policy."""

import math
from dataclasses import dataclass, field

from vla_bench_policies.lac.gates import GateConfig
from vla_bench_policies.learned.recipe import LoopRecipe, TaskLoss


@dataclass(frozen=True)
class GateRecipe(LoopRecipe):
    """How gates are trained: stage 1 aligns the selector with the policy's attention, 2 trains both for the task."""

    gates: GateConfig = field(default_factory=GateConfig)
    """Their shape."""

    saving: float = 0.01
    """lambda: what a reused share of 1 is worth in units of the task loss. Swept, one value an operating point."""

    task_loss: TaskLoss = "imitation"
    """What L_VLA is. Choice 1."""

    self_made: float = 0.5
    """Share of the windows' steps after which the cache is what the gates made of it, and not a full one. Choice 6."""

    rotate: int = 0
    """Inferences in which every row is recomputed once at least whatever the gates say, as by the method's `+rotate`;
    0 leaves all to the gates."""

    ratio_temperatures: tuple[float, float] = (1.0, 0.3)
    """tau of the Gumbel-softmax at the first and the last step, by a cosine. Choice 12."""

    mask_temperatures: tuple[float, float] = (0.1, 0.02)
    """tau_s of the sigmoid top-k. Choice 12."""

    blend_every: int = 2
    """Every n-th step trains the predictor alone, through a blend of hard masks, whose gradient is nearer to the exact
    one than a draw's; 0 never does. Choice 4."""

    def ratio_temperature(self, step: int) -> float:
        """Return tau of a step."""
        return cosine(self.ratio_temperatures, step / max(1, self.steps))

    def mask_temperature(self, step: int) -> float:
        """Return tau_s of a step."""
        return cosine(self.mask_temperatures, step / max(1, self.steps))


def cosine(ends: tuple[float, float], share: float) -> float:
    """Return the value after a share of the way from one end to the other, along half a cosine."""
    first, last = ends
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
