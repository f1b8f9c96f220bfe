"""What `torchrun` starts twice in `test_team_gates`: gradients of all losses of gates, trainings that change hands."""

import sys
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from recordings import CAMERAS
from test_lac_training import RECIPE
from torch import Tensor, distributed

from vla_bench_policies.acl.losses import FadingLosses, ScorerRecipe
from vla_bench_policies.acl.scorer import Scorer, ScorerConfig
from vla_bench_policies.lac.flow import difference
from vla_bench_policies.lac.gates import Gates
from vla_bench_policies.lac.training.losses import Losses
from vla_bench_policies.learned import trainer
from vla_bench_policies.learned.trainer import NetworkTrainer
from vla_bench_policies.learned.windows import WindowBatch, Windows
from vla_bench_policies.reference import checkpoint
from vla_bench_policies.reference.teaching import ReferenceReader, ReferenceTeacher
from vla_bench_policies.reference.training import frames
from vla_bench_policies.reference.training.team import Team, joined

GATES = {
    "stage 1": ({"stage": 1}, 0),
    "gumbel": ({"self_made": 1.0}, 2),
    "blend": ({}, 1),
    "distill": ({"task_loss": "distill"}, 2),
    "drawn": ({}, 2),
}
"""Kinds of a loss: what differs in the recipe, and the step."""

KINDS = (*GATES, "vla-acl")
SCORER = ScorerRecipe(batch=8, stride=2)
STOP_AT, SAVED_AT, STEPS = 6, 4, 10


class DrawingTeacher(ReferenceTeacher):
    """Its loss draws, as that of a diffusion model does."""

    def loss(self, answer, demonstrated, within, full, generator) -> Tensor:
        noise = torch.randn(answer.shape, generator=generator, dtype=answer.dtype)
        return super().loss(answer + noise, demonstrated, within, full, generator)


class WideWindows(Windows):
    """Windows whose numbers are of double precision: in it a gradient that is zero but for rounding moves no weight."""

    def _at(self, starts: np.ndarray) -> WindowBatch:
        batch = super()._at(starts)
        parts = {part.name: getattr(batch, part.name) for part in fields(batch)}
        return WindowBatch(**{name: one.double() if one.is_floating_point() else one for name, one in parts.items()})


def gradient(kind: str, data: frames.Demonstrations, weights: Path, team: Team) -> dict[str, Tensor]:
    """Return the gradient of one step over all processes, in double precision, and what the log shows of the step."""
    policy = checkpoint.load(weights)
    change, step = GATES.get(kind, ({}, 0))
    recipe = replace(RECIPE, batch=8, **change) if kind in GATES else SCORER
    windows = WideWindows(data, ReferenceReader(policy), recipe, difference if kind in GATES else None)
    teacher = (DrawingTeacher if kind == "drawn" else ReferenceTeacher)(policy.model)
    torch.manual_seed(0)
    if kind in GATES:
        network = Gates(RECIPE.gates)
        objective = Losses(recipe, network, teacher)
    else:
        sight = teacher.sight
        network = Scorer(ScorerConfig(sight.width, sight.n_visual, width=16, layers=2, heads=2, keep=0.25))
        objective = FadingLosses(replace(SCORER, scorer=network.config), network, teacher)
    policy.model.double()
    network.double()
    batch = windows.training(step, team.share(recipe.batch))
    loss, parts = objective.training(batch, step, team)
    loss.backward()
    team.add_gradients(network)
    flat = torch.cat([weight.grad.flatten() for weight in network.parameters() if weight.grad is not None])
    return {"gradient": flat, "loss": loss.detach(), "within": batch.within.sum(), **parts}


def made(data: frames.Demonstrations, weights: Path, directory: Path, team: Team) -> NetworkTrainer:
    policy = checkpoint.load(weights)
    recipe = replace(RECIPE, steps=STEPS, validate_every=5)
    windows = WideWindows(data, ReferenceReader(policy), recipe, difference)
    torch.manual_seed(0)
    gates = Gates(recipe.gates).double()
    losses = Losses(recipe, gates, ReferenceTeacher(policy.model.double()))
    return NetworkTrainer(recipe, gates, losses, windows, directory, {"policy": "p"}, team)


class Stopped(Exception):
    """A training that was cut off, in all processes alike."""


def stopped(training: NetworkTrainer) -> None:
    """Train until a step at which something happens; the state of an earlier one is on the disk."""
    advance = training._advance

    def until(batch: WindowBatch):
        if training.state.step == STOP_AT:
            raise Stopped
        return advance(batch)

    training._advance = until
    with suppress(Stopped):
        training.run()


def main(dataset: Path, weights: Path, cache: Path, out: Path) -> None:
    """Note the gradient of every kind, stop a training of this team, and end the one that another team has stopped."""
    torch.set_num_threads(1)
    trainer.SAVE_EVERY, trainer.VALIDATION_WINDOWS = SAVED_AT, 8
    with joined("cpu") as team:
        with team.after_the_first():
            data = frames.load([dataset], CAMERAS, 32, cache)
        for kind in KINDS:
            torch.save(gradient(kind, data, weights, team), out / f"{kind}-{team.rank}.pt")
        stopped(made(data, weights, out / "stopped", team))
        ended = made(data, weights, out / "whole", team)
        ended.run()
        torch.save(ended.state.averaged, out / f"whole-{team.rank}.pt")
        if (out / "handed").exists():
            taken_up = made(data, weights, out / "handed", team)
            assert taken_up.state.step == SAVED_AT
            taken_up.run()
            torch.save(taken_up.state.averaged, out / f"handed-{team.rank}.pt")
        if team.count > 1:
            distributed.barrier()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
