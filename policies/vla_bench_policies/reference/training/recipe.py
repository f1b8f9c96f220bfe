"""Everything that decides the weights besides the demonstrations, and the presets."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field

from vla_bench_policies.reference.model import ModelConfig


@dataclass(frozen=True)
class Staleness:
    """Windows of consecutive inferences in which the model meets its own stale rows (`stale.py`)."""

    windows: int = 6
    """A step."""

    window: int = 4
    """Inferences of a window; the first is full."""

    strides: tuple[int, ...] = (2, 4)
    """Control steps from one inference to the next, of which each step draws one."""

    least: float = 0.0
    """Smallest share of the visual rows that is reused."""

    most: float = 0.9
    """Largest; each inference draws its own, evenly between the two."""

    rotate: int = 0
    """Inferences in which every row is recomputed once at least, another part of the reused ones in each, as
    `methods/rotate.py` does; the parts are drawn for each window. 0 for no such bound on ages."""

    still: float = 0.5
    """Share of the windows in which the rows whose patch has changed least are reused, instead of any."""


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. Equal recipes on equal demonstrations, threads and devices give equal weights."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """Its shape."""

    steps: int = 6_500
    """Optimiser steps."""

    batch: int = 32
    """Frames a step."""

    learning_rate: float = 8e-4
    """At its peak, after the warm-up; a cosine brings it to zero."""

    warmup_steps: int = 300
    weight_decay: float = 0.05
    """Of matrices; norms, biases and embeddings have none."""

    clip: float = 1.0
    """Largest norm of a gradient."""

    ema: float = 0.999
    """Decay a step of the averaged weights, which are the ones that ship."""

    token_loss: float = 0.05
    """Weight of the `ar` head's cross-entropy beside the `oft` head's L1."""

    place_loss: float = 0.5
    """Weight of the L1 of `Answer.places`: a vision tower that learns from actions alone learns late, or not at all."""

    stale: Staleness | None = None
    """Windows beside the batch, whose L1 counts like its own; none by default."""

    shift_px: int = 2
    """Largest shift of a training image, edges repeated: relative places in the image stay right."""

    colour: float = 0.2
    """Largest relative change of brightness, contrast and each channel of a training image."""

    proprio_noise: float = 0.02
    """Standard deviation of what is added to the normalised proprioception."""

    seed: int = 0
    """Of the first weights, the batches and what is done to their images."""

    validate_every: int = 500
    """Steps between two measurements on held-out episodes."""

    sight_steps: int = 0
    """Steps before the first, in which vision alone learns to tell places, see `sight.py`."""

    sight_rate: float = 1e-3
    """Learning rate of these steps at its peak."""

    far: float = 0.0
    """Share of the frames that are drawn by how far the hand still is from its next grasp or release, and not evenly:
    the nearer it is, the more its pose tells, and the less a picture."""

    bfloat16: bool = False
    """Whether a CPU too computes forward passes in bfloat16, as a GPU does; weights and losses stay in float32."""

    @property
    def hash(self) -> str:
        """Return the recipe's name in records; without what came later it has the name it had before."""
        what = asdict(self)
        if not self.sight_steps:
            del what["sight_steps"], what["sight_rate"]
        for later in ("far", "bfloat16"):
            if not what[later]:
                del what[later]
        if self.stale is None:
            del what["stale"]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def cosine_rate(peak: float, warmup_steps: int, steps: int, step: int) -> float:
    """Return the rate of a step: linear warm-up, then half a cosine down to zero."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    share = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * share))


PRESETS: dict[str, Recipe] = {
    "cpu": Recipe(),
    "cpu-deep": Recipe(model=ModelConfig(layers=8), steps=2_400, learning_rate=5e-4, warmup_steps=100, ema=0.998),
    "cpu-cached": Recipe(
        model=ModelConfig(layers=8),
        steps=1_200,
        batch=8,
        learning_rate=3e-4,
        warmup_steps=40,
        ema=0.995,
        stale=Staleness(windows=5, window=5, strides=(2,), least=0.5, most=1.0, rotate=4),
        validate_every=200,
    ),
    "simpler": Recipe(
        sight_steps=1_100,
        far=0.7,
        steps=1_000,
        batch=16,
        learning_rate=5e-4,
        warmup_steps=100,
        ema=0.998,
        shift_px=0,
        colour=0.1,
        validate_every=500,
    ),
    "simpler-close": Recipe(
        steps=420,
        batch=16,
        learning_rate=3e-4,
        warmup_steps=20,
        ema=0.998,
        shift_px=0,
        colour=0.1,
        validate_every=420,
    ),
    "simpler-long": Recipe(
        sight_steps=2_000,
        far=0.4,
        steps=7_000,
        batch=16,
        learning_rate=5e-4,
        warmup_steps=100,
        ema=0.998,
        place_loss=1.0,
        shift_px=0,
        colour=0.1,
        bfloat16=True,
        validate_every=1_000,
    ),
    "simpler-commanded": Recipe(
        far=0.2,
        steps=1_800,
        batch=16,
        learning_rate=4e-4,
        warmup_steps=50,
        ema=0.996,
        place_loss=1.0,
        shift_px=0,
        colour=0.1,
        bfloat16=True,
        validate_every=600,
    ),
    "gpu": Recipe(
        model=ModelConfig(patch_px=8, vision_width=192, vision_layers=3, layers=8),
        steps=12_000,
        batch=256,
        warmup_steps=500,
        validate_every=1_000,
    ),
}
"""Recipes by name: `cpu` for two cores and three hours, `cpu-deep` for two hours and a half more from what `cpu` has
reached, `cpu-cached` for an hour more, in which `cpu-deep` learns to answer with stale rows, `simpler` for one
core and half an hour from what `cpu` has reached on another robot, `simpler-close` for minutes more, with frames drawn
evenly, for when to close the hand, `simpler-long` for 50 minutes more of a core that multiplies in bfloat16, in which
it learns where to go, `simpler-commanded` for 12 more, in which it learns to go by where it has sent the hand, `gpu`
for one data-centre card and 20 minutes. Those for SIMPLER shift no picture: its camera stands still and the policy is
told where the hand is, so a shifted object would be elsewhere."""
