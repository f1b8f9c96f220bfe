"""What the commands of all learned methods ask for, and do."""

import json
import os
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from vla_bench.errors import OptionError
from vla_bench.lock import only_writer
from vla_bench_policies.learned.checkpoint import Kind, Trained
from vla_bench_policies.learned.recipe import LoopRecipe, TaskLoss
from vla_bench_policies.learned.teacher import Teacher
from vla_bench_policies.learned.trainer import NetworkTrainer, Objective
from vla_bench_policies.learned.windows import Motion, Windows
from vla_bench_policies.reference import checkpoint as policies_on_disk
from vla_bench_policies.reference.checkpoint import Checkpoint
from vla_bench_policies.reference.policy import find
from vla_bench_policies.reference.training import frames

NETWORKS, RECIPE = "gates.safetensors", "recipe.json"


@dataclass(frozen=True)
class Lesson:
    """What a command teaches."""

    recipe: LoopRecipe
    kind: Kind
    network: Any
    """Has a `config`; learns."""
    objective: Objective
    motion: Motion | None = None
    """What the network is told about motion."""
    begin: str = "random"
    """Hash of the networks begun from."""


@dataclass(frozen=True)
class TrainNetworks(ABC):
    """What every command that trains networks for a frozen policy asks for."""

    data: tuple[Path, ...]
    """Directories of the demonstrations that the policy was trained on; every tenth episode is held out."""

    policy: str = "cpu-deep"
    """Weights of the reference VLA: a name that ships, or a path."""

    out: Path = Path("results/training/networks")
    """Directory for state, log and networks; continued if begun."""

    steps: int = 0
    """Optimiser steps; 0 means the recipe's."""

    batch: int = 0
    """Windows a step; 0 means the recipe's."""

    task_loss: TaskLoss = "imitation"
    """The policy's own L1, or half of it and half the distance to the full computation."""

    first_layer: int = 0
    """Layers before it are always computed in full."""

    stride: int = LoopRecipe.stride
    """Control steps between two queries: what the policy will `execute` of a chunk when the networks are used."""

    seed: int = 0
    """Of the first weights, the batches and the draws."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Where."""

    threads: int = 0
    """CPU threads; 0 means all cores."""

    cache: Path = Path("results/frames")
    """Directory of decoded frames, shared with `vla-bench train reference`."""

    @abstractmethod
    def lesson(self, policy: Checkpoint, teacher: Teacher) -> Lesson:
        """Return what is taught."""

    def run(self) -> int:
        """Train, and print where the networks are."""
        if not self.data:
            raise OptionError("--data", "missing", "directories of demonstrations, made with 'vla-bench collect'")
        if min(self.steps, self.batch, self.seed) < 0:
            raise OptionError("--steps, --batch, --seed", (self.steps, self.batch, self.seed), "numbers of at least 0")
        if self.stride < 1:
            raise OptionError("--stride", self.stride, "at least one control step from a query to the next")
        torch.set_num_threads(self.threads or os.cpu_count() or 1)
        if self.device == "cuda" and not torch.cuda.is_available():
            raise OptionError(
                "--device", self.device, "a device that is there: torch finds no GPU; --device cpu is slow"
            )
        policy = policies_on_disk.load(find(self.policy))
        policy.model.to(self.device)
        config = policy.model.config
        data = frames.load(self.data, config.cameras, config.image_px, self.cache)
        torch.manual_seed(self.seed)
        lesson = self.lesson(policy, Teacher(policy.model, self.first_layer))
        lesson.network.to(self.device)
        windows = Windows(data, policy, lesson.recipe, lesson.motion)
        origin = {"policy": policy.sha256[:12], "demonstrations": data.fingerprint, "begin": lesson.begin}
        self.out.mkdir(parents=True, exist_ok=True)
        with only_writer(self.out / "train.lock"):
            recipe = lesson.recipe
            trainer = NetworkTrainer(recipe, lesson.network, lesson.objective, windows, self.out, origin)
            (self.out / RECIPE).write_text(json.dumps({"hash": recipe.hash, **asdict(recipe)}, indent=2) + "\n")
            trainer.run()
            found = trainer.validate()
            history = {
                **origin, "recipe": asdict(recipe), "seconds": round(trainer.state.seconds), "validation": found,
                "sources": list(data.sources), "threads": torch.get_num_threads(), "device": self.device,
            }  # fmt: skip
            self._save(lesson.kind, trainer.averaged(), policy, history)
        minutes = trainer.state.seconds / 60
        shown = ", ".join(f"{name.removeprefix('held_out_')} {value:.4f}" for name, value in found.items())
        print(f"{self.out / NETWORKS}: {recipe.steps} steps in {minutes:.0f} min; held out: {shown}")
        return 0

    def _save(self, kind: Kind, network: nn.Module, policy: Checkpoint, history: dict[str, Any]) -> None:
        Trained(kind, network, policy.sha256, self.first_layer, history).save(self.out / NETWORKS)
