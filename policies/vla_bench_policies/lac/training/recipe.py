"""Everything that decides the gates besides the demonstrations and the policy."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Literal

from vla_bench_policies.lac.gates import GateConfig

TaskLoss = Literal["imitation", "distill"]


@dataclass(frozen=True)
class GateRecipe:
    """How gates are trained. Equal recipes on equal demonstrations and an equal policy give equal gates."""

    gates: GateConfig = field(default_factory=GateConfig)
    """Their shape."""

    stage: Literal[1, 2] = 2
    """1 aligns the selector with the policy's attention; 2 trains both networks for the task (paper, section 3)."""

    steps: int = 600
    """Optimiser steps."""

    batch: int = 8
    """Windows a step."""

    window: int = 4
    """Inferences of a window; the first is full. Choice 6 of the method's table."""

    stride: int = 8
    """Control steps from one inference to the next: the actions that the policy applies of a chunk."""

    learning_rate: float = 1e-3
    """At its peak; a cosine brings it to zero."""

    warmup_steps: int = 50
    clip: float = 1.0
    """Largest norm of a gradient."""

    saving: float = 0.01
    """lambda: what a reused share of 1 is worth in units of the task loss. Swept, one value an operating point."""

    task_loss: TaskLoss = "imitation"
    """The policy's own L1 to the demonstration, or half of it and half L1 to the full computation. Choice 1."""

    self_made: float = 0.5
    """Share of the windows' steps after which the cache is what the gates made of it, and not a full one. Choice 6."""

    ratio_temperatures: tuple[float, float] = (1.0, 0.3)
    """tau of the Gumbel-softmax at the first and the last step, by a cosine. Choice 12."""

    mask_temperatures: tuple[float, float] = (0.1, 0.02)
    """tau_s of the sigmoid top-k. Choice 12."""

    blend_every: int = 2
    """Every n-th step trains the predictor alone, through a blend of hard masks, whose gradient is nearer to the exact
    one than a draw's; 0 never does. Choice 4."""

    first_layer: int = 0
    """Layers before it are always computed in full. Choice 7."""

    seed: int = 0
    validate_every: int = 100

    @property
    def hash(self) -> str:
        """Return the recipe's name in records."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    def ratio_temperature(self, step: int) -> float:
        """Return tau of a step."""
        return self._cosine(self.ratio_temperatures, step)

    def mask_temperature(self, step: int) -> float:
        """Return tau_s of a step."""
        return self._cosine(self.mask_temperatures, step)

    def _cosine(self, ends: tuple[float, float], step: int) -> float:
        first, last = ends
        return last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, self.steps))))
