"""Learning to see before learning to act: vision alone is asked where the hand is, and where it will go.

A policy that is told its pose finds most actions in it: at the beginning it follows the mean of the demonstrations, and
pictures matter in the few frames before a hand has chosen its way. Vision is an eighth of a step's operations, so
asking it first, in every frame, costs little.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vla_bench.progress import Progress
from vla_bench_policies.reference.model import ReferenceVLA
from vla_bench_policies.reference.training.batches import N_SIGHTS, Batches
from vla_bench_policies.reference.training.recipe import Recipe, cosine_rate

SIGHT_BATCH = 32
"""Frames a step: a small part of what a step of the whole model computes."""


def learn_to_see(model: ReferenceVLA, batches: Batches, recipe: Recipe) -> list[float]:
    """Train vision tower and projector so that a linear map of the mean visual row tells places.

    The map is thrown away. What a mean of rows tells, a decoder's attention finds at once.

    Args:
        model: Whose vision is changed in place.
        batches: Draws frames.
        recipe: How many steps, and at which rate.

    Returns:
        The error of every step: mean absolute, normalised.
    """
    device = next(model.parameters()).device
    readout = nn.Linear(model.config.width, N_SIGHTS).to(device)
    learns = [*model.vision.parameters(), *model.projector.parameters(), *readout.parameters()]
    optimiser = torch.optim.AdamW(learns, lr=recipe.sight_rate, betas=(0.9, 0.95), weight_decay=recipe.weight_decay)
    errors: list[Tensor] = []
    bar = Progress(range(recipe.sight_steps), desc="see", unit="step", smoothing=0.05)
    for step in bar:
        for group in optimiser.param_groups:
            group["lr"] = cosine_rate(recipe.sight_rate, recipe.warmup_steps, recipe.sight_steps, step)
        images, places = batches.sights(step, SIGHT_BATCH)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bfloat16):
            told = readout(model.see(images).mean(dim=1))
        error = F.l1_loss(told.float(), places)
        error.backward()
        nn.utils.clip_grad_norm_(learns, recipe.clip)
        optimiser.step()
        optimiser.zero_grad()
        errors.append(error.detach())
        if step % 100 == 99:
            bar.set_postfix_str(f"places {float(torch.stack(errors[-100:]).mean()):.3f}")
    return [float(error) for error in errors]
