"""What decides every training of a learned method, besides the demonstrations and the policy."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

TaskLoss = Literal["imitation", "distill"]
"""The policy's own L1 to the demonstration, or half of it and half the L1 to the full computation."""


@dataclass(frozen=True)
class LoopRecipe:
    """How the loop goes. Equal recipes on equal demonstrations and an equal policy give equal networks."""

    steps: int = 250
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

    first_layer: int = 0
    """Layers before it are always computed in full. Choice 7."""

    seed: int = 0
    validate_every: int = 100

    stage: int = 2
    """Number of the stage; stages draw other windows."""

    @property
    def hash(self) -> str:
        """Return the recipe's name in records."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]
