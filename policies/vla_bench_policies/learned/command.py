"""What the commands of all learned methods ask for, and do."""

import json
import os
from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from vla_bench import registry
from vla_bench.errors import OptionError, SpecError, VlaBenchError
from vla_bench.lock import only_writer
from vla_bench_policies.learned.checkpoint import Kind, Trained
from vla_bench_policies.learned.recipe import LoopRecipe, TaskLoss
from vla_bench_policies.learned.teacher import Teachable, Teaching
from vla_bench_policies.learned.trainer import NetworkTrainer, Objective
from vla_bench_policies.learned.windows import Motion, Windows
from vla_bench_policies.reference.policy import find
from vla_bench_policies.reference.teaching import reference_teaching
from vla_bench_policies.reference.training import frames
from vla_bench_policies.reference.training.team import Team, joined

NETWORKS, RECIPE = "gates.safetensors", "recipe.json"

OWN_OPTIONS = {"device": "--device", "packed": "nothing: packed weights have no gradient"}
"""What a policy to learn from is made with by the command, and where it is said instead."""


class UnteachableError(VlaBenchError):
    """Refuse to train networks for a policy that does not say what training needs."""

    def __init__(self, policy: str) -> None:
        super().__init__(
            f"no networks can be trained for {policy!r}: it has no 'teaching'. Name weights of the reference VLA, as "
            f"'cpu-deep', or a policy such as 'openvla:FOLDER'; docs/bring-your-own.md says what another one needs"
        )


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
    """What every command that trains networks for a frozen policy asks for.

    On several GPUs: `torchrun --nproc-per-node 4 -m vla_bench.cli train ...`; each takes its share of every batch.
    """

    data: tuple[Path, ...]
    """Directories of the demonstrations that the policy was trained on; every tenth episode is held out."""

    policy: str = "cpu-deep"
    """Weights of the reference VLA, a name that ships or a path; or a policy that can teach, as `openvla:FOLDER`."""

    out: Path = Path("results/training/networks")
    """Directory for state, log and networks; continued if begun."""

    steps: int = 0
    """Optimiser steps; 0 means the recipe's."""

    batch: int = 0
    """Windows a step; 0 means the recipe's."""

    task_loss: TaskLoss = "imitation"
    """The policy's own loss, or half of it and half the distance to the full computation."""

    first_layer: int = 0
    """Layers before it are always computed in full."""

    stride: int = 0
    """Control steps between two queries: what the policy will `execute` of a chunk when the networks are used; 0 means
    what it executes by default."""

    seed: int = 0
    """Of the first weights, the batches and the draws."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Where."""

    threads: int = 0
    """CPU threads; 0 means all cores."""

    half: bool = False
    """Write the networks in half precision, in files half as large; what is held out is measured with those."""

    cache: Path = Path("results/frames")
    """Directory of decoded frames, shared with `vla-bench train reference`."""

    @abstractmethod
    def lesson(self, teaching: Teaching) -> Lesson:
        """Return what is taught."""

    def run(self) -> int:
        """Train, and print where the networks are."""
        self._check()
        with joined(self.device) as team:
            torch.set_num_threads(self.threads or max(1, (os.cpu_count() or 1) // team.local_count))
            teaching = self._teaching()
            torch.manual_seed(self.seed)
            lesson = self.lesson(teaching)
            team.share(lesson.recipe.batch)  # refused before pictures are decoded, which takes minutes
            reader = teaching.reader
            with team.after_the_first():
                data = frames.load(self.data, reader.cameras, reader.picture_px, self.cache, reader.preparation)
                self.out.mkdir(parents=True, exist_ok=True)
            with only_writer(self.out / "train.lock") if team.leads else nullcontext():
                self._train(lesson, teaching, data, team)
        return 0

    def _check(self) -> None:
        """Refuse options that mean nothing.

        Raises:
            OptionError: If there are any.
        """
        if not self.data:
            raise OptionError("--data", "missing", "directories of demonstrations, made with 'vla-bench collect'")
        if min(self.steps, self.batch, self.seed) < 0:
            raise OptionError("--steps, --batch, --seed", (self.steps, self.batch, self.seed), "numbers of at least 0")
        if self.stride < 0:
            raise OptionError("--stride", self.stride, "control steps from a query to the next, or 0")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise OptionError(
                "--device", self.device, "a device that is there: torch finds no GPU; --device cpu is slow"
            )

    def _train(self, lesson: Lesson, teaching: Teaching, data: frames.Demonstrations, team: Team) -> None:
        """Train, with all of a team; the first of them writes and prints."""
        lesson.network.to(self.device)
        recipe, reader = lesson.recipe, teaching.reader
        windows = Windows(data, reader, recipe, lesson.motion)
        origin = {"policy": teaching.policy[:12], "demonstrations": data.fingerprint, "begin": lesson.begin}
        if reader.preparation is not None:
            origin["pictures"] = reader.preparation.name
        trainer = NetworkTrainer(recipe, lesson.network, lesson.objective, windows, self.out, origin, team)
        if team.leads:
            (self.out / RECIPE).write_text(json.dumps({"hash": recipe.hash, **asdict(recipe)}, indent=2) + "\n")
        trainer.run()
        if not team.leads:
            return
        if self.half:
            trainer.round_averaged(torch.float16)
        found = trainer.validate()
        history = {
            **origin, "recipe": asdict(recipe), "seconds": round(trainer.state.seconds), "validation": found,
            "sources": list(data.sources), "threads": torch.get_num_threads(), "device": self.device,
            **({"processes": team.count} if team.count > 1 else {}),
        }  # fmt: skip
        self._save(lesson.kind, trainer.averaged(), teaching.policy, history)
        minutes = trainer.state.seconds / 60
        shown = ", ".join(f"{name.removeprefix('held_out_')} {value:.4f}" for name, value in found.items())
        print(f"{self.out / NETWORKS}: {recipe.steps} steps in {minutes:.0f} min; held out: {shown}")

    def _teaching(self) -> Teaching:
        """Return the policy, frozen, with gradients that go through it to its rows.

        Raises:
            UnteachableError: If it cannot teach.
        """
        name, args, options = registry.taken_apart(self.policy)
        if name not in registry.names("policy"):
            return reference_teaching(find(self.policy), self.device, self.first_layer)
        for option, instead in OWN_OPTIONS.items():
            if option in options:
                raise OptionError(f"--policy {name}: {option}", options[option], f"it to be said by {instead}")
        given = f"device={self.device},packed=False"
        try:
            policy = registry.policy(f"{self.policy},{given}" if args or options else f"{self.policy}:{given}")
        except SpecError as caught:  # a policy that cannot teach has no such options
            raise UnteachableError(self.policy) from caught
        if not isinstance(policy, Teachable):
            raise UnteachableError(self.policy)
        return policy.teaching(self.first_layer)

    def _save(self, kind: Kind, network: nn.Module, policy: str, history: dict[str, Any]) -> None:
        dtype = torch.float16 if self.half else torch.float32
        Trained(kind, network, policy, self.first_layer, history).save(self.out / NETWORKS, dtype)
