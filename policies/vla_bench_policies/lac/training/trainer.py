"""The loop over batches of windows, with a record of every few steps and a state to go on from."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from vla_bench_policies.lac.checkpoint import TrainedGates
from vla_bench_policies.lac.gates import Gates
from vla_bench_policies.lac.teacher import Teacher
from vla_bench_policies.lac.training.losses import Losses
from vla_bench_policies.lac.training.recipe import GateRecipe
from vla_bench_policies.lac.training.windows import Windows
from vla_bench_policies.reference.training.state import State
from vla_bench_policies.reference.training.trainer import cosine_rate, read_log

STATE, LOG = "state.safetensors", "log.jsonl"
SAVE_EVERY = 20
"""Steps between two states on the disk."""

EMA = 0.99
"""Decay a step of the averaged gates, which are the ones that are saved."""

VALIDATION_WINDOWS = 64


class GateTrainer:
    """One training of gates in one directory; made again with the same arguments it goes on."""

    def __init__(
        self, recipe: GateRecipe, teacher: Teacher, windows: Windows, directory: Path, origin: dict[str, str],
        begin: Gates | None = None,
    ) -> None:  # fmt: skip
        """Make the first gates, or take up where the directory has stopped.

        Args:
            recipe: How.
            teacher: The frozen policy.
            windows: Of its demonstrations.
            directory: Holds the state and the log.
            origin: What must be equal when it goes on: policy, demonstrations, gates begun from.
            begin: Gates of stage I; none begins with random ones.

        Raises:
            OtherTrainingError: If the directory holds another training.
            CheckpointError: If its state is broken.
        """
        self.recipe, self._windows, self._directory = recipe, windows, directory
        torch.manual_seed(recipe.seed)
        gates = Gates(recipe.gates)
        if begin is not None:
            gates.load_state_dict(begin.state_dict())
        optimiser = torch.optim.AdamW(gates.parameters(), lr=recipe.learning_rate, weight_decay=0.01, fused=True)
        averaged = {name: tensor.clone() for name, tensor in gates.state_dict().items()}
        self.state = State(gates, averaged, optimiser)
        self._gates, self._losses = gates, Losses(recipe, gates, teacher)
        self._origin = {"recipe": recipe.hash, **origin}
        if (directory / STATE).exists():
            self.state.restore(directory / STATE, self._origin)
        rows = [row for row in read_log(directory) if row["step"] <= self.state.step]
        directory.mkdir(parents=True, exist_ok=True)
        (directory / LOG).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(self) -> None:
        """Train until the recipe's last step.

        Raises:
            CheckpointWriteError: If the state cannot be written.
        """
        bar = tqdm(total=self.recipe.steps, initial=self.state.step, unit="step", disable=None, smoothing=0.05)
        began = time.monotonic() - self.state.seconds
        rows: list[dict[str, float]] = []
        with bar:
            while self.state.step < self.recipe.steps:
                rows.append(self._advance())
                self.state.seconds = time.monotonic() - began
                bar.update()
                last = self.state.step == self.recipe.steps
                if self.state.step % self.recipe.validate_every == 0 or last:
                    self._note({"step": self.state.step, **self.validate()})
                if self.state.step % SAVE_EVERY == 0 or last:
                    means = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
                    self._note({"step": self.state.step, "seconds": self.state.seconds, **means})
                    rows.clear()
                    self.state.save(self._directory / STATE, self._origin)

    @torch.no_grad()
    def validate(self, ratio: float | None = None) -> dict[str, float]:
        """Return what the averaged gates do on held-out windows.

        That is the alignment error, the task loss with them and without, the distance of normalised actions to the full
        computation's, the reused share and the predictor's entropy.

        Args:
            ratio: Instead of what the predictor chooses.
        """
        kept = {name: tensor.clone() for name, tensor in self._gates.state_dict().items()}
        self._gates.load_state_dict(self.state.averaged)
        try:
            found: list[dict[str, Tensor]] = []
            sizes: list[int] = []
            for batch in self._windows.validation(VALIDATION_WINDOWS):
                found.append(self._losses.inference(batch, ratio) | {"alignment": self._losses.alignment(batch)})
                sizes.append(len(batch.tokens))
        finally:
            self._gates.load_state_dict(kept)
        weights = [size / sum(sizes) for size in sizes]
        return {
            f"held_out_{key}": float(sum(weight * row[key] for weight, row in zip(weights, found, strict=True)))
            for key in found[0]
        }

    def trained(self, policy: str, history: dict[str, Any]) -> TrainedGates:
        """Return the averaged gates.

        Args:
            policy: Hash of the weights that they were trained for.
            history: For the card.
        """
        gates = Gates(self.recipe.gates)
        gates.load_state_dict(self.state.averaged)
        return TrainedGates(gates.eval(), policy, self.recipe.first_layer, history)

    def _advance(self) -> dict[str, float]:
        rate = cosine_rate(self.recipe.learning_rate, self.recipe.warmup_steps, self.recipe.steps, self.state.step)
        for group in self.state.optimiser.param_groups:
            group["lr"] = rate
        batch = self._windows.training(self.state.step)
        if self.recipe.stage == 1:
            loss = self._losses.alignment(batch)
            parts: dict[str, Tensor] = {"alignment": loss.detach()}
        else:
            loss, parts = self._losses.joint(batch, self.state.step)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._gates.parameters(), self.recipe.clip)
        self.state.optimiser.step()
        self.state.optimiser.zero_grad()
        self.state.step += 1
        self.state.average(EMA)
        return {**{key: float(value) for key, value in parts.items()}, "gradient": float(norm), "learning_rate": rate}

    def _note(self, row: dict[str, Any]) -> None:
        with (self._directory / LOG).open("a") as stream:
            stream.write(json.dumps(row) + "\n")
