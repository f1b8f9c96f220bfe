"""The loop over batches of windows, with a record of every few steps and a state to go on from."""

import copy
import json
import time
from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vla_bench.progress import Progress
from vla_bench_policies.learned.recipe import LoopRecipe
from vla_bench_policies.learned.sharing import ALONE
from vla_bench_policies.learned.windows import WindowBatch, Windows
from vla_bench_policies.reference.training.state import State
from vla_bench_policies.reference.training.team import Team
from vla_bench_policies.reference.training.trainer import cosine_rate, read_log

STATE, LOG = "state.safetensors", "log.jsonl"
SAVE_EVERY = 20
"""Steps between two states on the disk."""

EMA = 0.99
"""Decay a step of the averaged networks, which are the ones that are saved."""

VALIDATION_WINDOWS = 64

AHEAD = 2
"""Batches that are made while a step is computed."""


class Objective(Protocol):
    """What networks learn from; it holds them, and knows the frozen policy."""

    def training(self, batch: WindowBatch, step: int, team: Team = ALONE) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and what the log shows of it; both of the batch of the whole team (see `of_all`).

        Args:
            batch: This process's share of the windows.
            step: Number of the step.
            team: Those who have the other shares.
        """
        ...

    def held_out(self, batch: WindowBatch) -> dict[str, Tensor]:
        """Return what the networks do, as they will be used."""
        ...


class NetworkTrainer:
    """One training of networks in one directory; made again with the same arguments it goes on."""

    def __init__(
        self, recipe: LoopRecipe, network: nn.Module, objective: Objective, windows: Windows, directory: Path,
        origin: dict[str, str], team: Team = ALONE,
    ) -> None:  # fmt: skip
        """Begin with a network as it is, or take up where the directory has stopped.

        Args:
            recipe: How.
            network: Learns.
            objective: From what; a function of the network.
            windows: Of the policy's demonstrations.
            directory: Holds the state and the log.
            origin: What must be equal when it goes on: policy, demonstrations, networks begun from.
            team: Those who train together: each with a trainer and its share of the windows. Their number may change
                from one session to the next.

        Raises:
            OptionError: If the batch cannot be shared out evenly.
            ApartError: If others find another state in their directory.
            OtherTrainingError: If the directory holds another training.
            CheckpointError: If its state is broken.
        """
        self.recipe, self._windows, self._directory = recipe, windows, directory
        self._network, self._objective, self._team = network, objective, team
        self._own = team.share(recipe.batch)
        self._device = next(network.parameters()).device
        optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=0.01, fused=True)
        averaged = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        self.state = State(network, averaged, optimiser)
        self._origin = {"recipe": recipe.hash, **origin}
        if (directory / STATE).exists():
            self.state.restore(directory / STATE, self._origin)
        team.check_begin(self.state.step, self._device)
        if team.leads:
            self._drop_rows_of_the_future()

    def _drop_rows_of_the_future(self) -> None:
        """Remove what was noted after the state that training goes on from."""
        rows = [row for row in read_log(self._directory) if row["step"] <= self.state.step]
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / LOG).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(self) -> None:
        """Train until the recipe's last step.

        Raises:
            CheckpointWriteError: If the state cannot be written.
        """
        show = None if self._team.leads else False
        bar = Progress(total=self.recipe.steps, initial=self.state.step, unit="step", show=show, smoothing=0.05)
        began = time.monotonic() - self.state.seconds
        rows: list[dict[str, Tensor]] = []
        with bar, closing(self._batches()) as batches:
            while self.state.step < self.recipe.steps:
                rows.append(self._advance(next(batches)))
                self.state.seconds = time.monotonic() - began
                bar.update()
                if not self._team.leads:
                    rows.clear()
                    continue
                last = self.state.step == self.recipe.steps
                if self.state.step % self.recipe.validate_every == 0 or last:
                    self._note({"step": self.state.step, **self.validate()})
                if self.state.step % SAVE_EVERY == 0 or last:
                    means = {key: sum(float(row[key]) for row in rows) / len(rows) for key in rows[0]}
                    self._note({"step": self.state.step, "seconds": self.state.seconds, **means})
                    rows.clear()
                    self.state.save(self._directory / STATE, self._origin)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return what the averaged networks do on held-out windows; `Objective.held_out` says what."""
        kept = {name: tensor.clone() for name, tensor in self._network.state_dict().items()}
        self._network.load_state_dict(self.state.averaged)
        try:
            batches = [batch.to(self._device) for batch in self._windows.validation(VALIDATION_WINDOWS)]
            found = [self._objective.held_out(batch) for batch in batches]
        finally:
            self._network.load_state_dict(kept)
        sizes = [len(batch.tokens) for batch in batches]
        return {
            f"held_out_{key}": sum(size * float(row[key]) for size, row in zip(sizes, found, strict=True)) / sum(sizes)
            for key in found[0]
        }

    def round_averaged(self, dtype: torch.dtype) -> None:
        """Round the averaged weights to another precision, as they will be on the disk."""
        averaged = self.state.averaged
        self.state.averaged = {name: tensor.to(dtype).to(tensor.dtype) for name, tensor in averaged.items()}

    def averaged(self) -> nn.Module:
        """Return a copy with the averaged weights: what is saved."""
        network = copy.deepcopy(self._network)
        network.load_state_dict(self.state.averaged)
        return network.eval()

    def _batches(self) -> Generator[WindowBatch]:
        """Return the batches from this step on; some are made ahead, in threads, since flow takes its time."""
        steps = iter(range(self.state.step, self.recipe.steps))
        make = partial(self._windows.training, own=self._own)
        with ThreadPoolExecutor(AHEAD) as pool:
            made = deque(pool.submit(make, step) for step in islice(steps, AHEAD))
            while made:
                batch = made.popleft().result()
                made.extend(pool.submit(make, step) for step in islice(steps, 1))
                yield batch.to(self._device)

    def _advance(self, batch: WindowBatch) -> dict[str, Tensor]:
        rate = cosine_rate(self.recipe.learning_rate, self.recipe.warmup_steps, self.recipe.steps, self.state.step)
        for group in self.state.optimiser.param_groups:
            group["lr"] = rate
        loss, parts = self._objective.training(batch, self.state.step, self._team)
        loss.backward()
        self._team.add_gradients(self._network)
        norm = nn.utils.clip_grad_norm_(self._network.parameters(), self.recipe.clip)
        self.state.optimiser.step()
        self.state.optimiser.zero_grad()
        self.state.step += 1
        self.state.average(EMA)
        return {**parts, "gradient": norm, "learning_rate": torch.tensor(rate)}

    def _note(self, row: dict[str, Any]) -> None:
        with (self._directory / LOG).open("a") as stream:
            stream.write(json.dumps(row) + "\n")
