"""What `torchrun` starts twice in `test_team_training`: trainings in two processes, and what they find."""

import sys
from contextlib import suppress
from pathlib import Path

import torch
from recordings import CAMERAS
from test_reference_training import CPU, RECIPE
from torch import Tensor, distributed, nn

from vla_bench.types import ActionSpec
from vla_bench_policies.learned import trainer as networks
from vla_bench_policies.learned.recipe import LoopRecipe
from vla_bench_policies.learned.sharing import ALONE, of_all
from vla_bench_policies.learned.trainer import NetworkTrainer
from vla_bench_policies.learned.windows import WindowBatch
from vla_bench_policies.reference.training import frames, trainer
from vla_bench_policies.reference.training.batches import Batch
from vla_bench_policies.reference.training.team import ApartError, Team, joined
from vla_bench_policies.reference.training.trainer import Trainer

LOOP = LoopRecipe(steps=12, batch=4, window=2, warmup_steps=2, validate_every=6)
STOP_AT = 6


class Stopped(Exception):
    """A training that was cut off, in all processes alike."""


class Pictures:
    """Stands for `Windows`: noise, a function of the step."""

    def training(self, step: int, own: slice = slice(None)) -> WindowBatch:
        generator = torch.Generator().manual_seed(step)
        images = torch.rand(LOOP.batch, 2, 1, 4, 4, 3, generator=generator)[own]
        empty = torch.zeros(len(images), 2, 1)
        return WindowBatch(images, empty, empty, empty, images.sum(dim=(2, 3, 4, 5))[:, :, None, None], empty)

    def validation(self, n_windows: int) -> list[WindowBatch]:
        return [self.training(-1)]


class Brightness:
    """An objective: a network that adds up what it sees."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def training(self, batch: WindowBatch, step: int, team: Team = ALONE) -> tuple[Tensor, dict[str, Tensor]]:
        error = self._network(batch.images.flatten(2)) - batch.chunk[..., 0]
        loss = of_all(error, team).square().mean()
        return loss, {"task": loss.detach()}

    def held_out(self, batch: WindowBatch) -> dict[str, Tensor]:
        return self.training(batch, 0)[1]


def reference_trainer(data: frames.Demonstrations, directory: Path, team: Team) -> Trainer:
    return Trainer(RECIPE, data, directory, CPU, ActionSpec(), team=team)


def network_trainer(directory: Path, team: Team) -> NetworkTrainer:
    torch.manual_seed(0)
    network = nn.Linear(48, 1)
    return NetworkTrainer(LOOP, network, Brightness(network), Pictures(), directory, {"policy": "p"}, team)


def first_gradient(training: Trainer, team: Team) -> Tensor:
    """Of the reference VLA's first step, over all processes."""
    batch: Batch = training._batches.training(0)
    loss, _ = trainer._losses(training._forward, batch, RECIPE, team)
    loss.backward()
    team.add_gradients(training.state.model)
    flat = torch.cat([weight.grad.flatten() for weight in training.state.model.parameters()])
    training.state.optimiser.zero_grad()
    return flat


def stopped(training: Trainer | NetworkTrainer) -> None:
    """Train until a step at which something happens; the state of an earlier one is on the disk."""
    advance = training._advance

    def until(*batch):
        if training.state.step == STOP_AT:
            raise Stopped
        return advance(*batch)

    training._advance = until
    with suppress(Stopped):
        training.run()


def main(dataset: Path, cache: Path, out: Path) -> None:
    torch.set_num_threads(1)
    trainer.SAVE_EVERY = networks.SAVE_EVERY = 4
    with joined("cpu") as team:
        with team.after_the_first():
            data = frames.load([dataset], CAMERAS, 32, cache)
        gradient = first_gradient(reference_trainer(data, out / "gradient", team), team)
        torch.save(gradient, out / f"gradient-{team.rank}.pt")
        stopped(reference_trainer(data, out / "reference", team))
        stopped(network_trainer(out / "networks", team))
        if team.count > 1:
            distributed.barrier()  # the first process is the last to write
        for name, resumed in (
            ("reference", reference_trainer(data, out / "reference", team)),
            ("networks", network_trainer(out / "networks", team)),
        ):
            assert resumed.state.step == 4
            resumed.run()
            torch.save(resumed.state.averaged, out / f"{name}-{team.rank}.pt")
        if team.count > 1:
            try:
                team.check_begin(team.rank, CPU)
            except ApartError as caught:
                (out / f"apart-{team.rank}.txt").write_text(str(caught))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
