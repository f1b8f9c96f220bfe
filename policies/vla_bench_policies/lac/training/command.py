"""`vla-bench train lac`."""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from vla_bench.errors import OptionError
from vla_bench.lock import only_writer
from vla_bench_policies.lac import checkpoint as gates_on_disk
from vla_bench_policies.lac.flow import FlowName, flow_named
from vla_bench_policies.lac.gates import GateConfig
from vla_bench_policies.lac.teacher import Teacher
from vla_bench_policies.lac.training.recipe import GateRecipe, TaskLoss
from vla_bench_policies.lac.training.trainer import GateTrainer
from vla_bench_policies.lac.training.windows import Windows
from vla_bench_policies.reference import checkpoint as policies_on_disk
from vla_bench_policies.reference.policy import find
from vla_bench_policies.reference.training import frames

GATES, RECIPE = "gates.safetensors", "recipe.json"


@dataclass(frozen=True)
class TrainLac:
    """Train the gates of LAC for a frozen policy: stage 1 on its attention, then stage 2 on its task.

    Stage 2 begins with the gates of stage 1 (`--begin`); without them it is the paper's "without stage I". One run of
    stage 2 is one operating point: sweep `--saving`. Interrupt it at any moment; run it again and it goes on exactly.
    """

    data: tuple[Path, ...]
    """Directories of the demonstrations that the policy was trained on; every tenth episode is held out."""

    stage: Literal[1, 2] = 2
    """1 aligns the selector with the policy's attention, 2 trains selector and predictor jointly."""

    policy: str = "cpu"
    """Weights of the reference VLA: a name that ships, or a path."""

    begin: Path | None = None
    """Gates of stage 1 to begin with."""

    out: Path = Path("results/training/lac")
    """Directory for state, log and gates; continued if begun."""

    saving: float = GateRecipe.saving
    """lambda: what reusing everything is worth, in units of the policy's L1 loss; greater reuses more."""

    steps: int = 0
    """Optimiser steps; 0 means 400 in stage 1 and 600 in stage 2."""

    flow: FlowName = "dis"
    """What the gates are told about motion."""

    language: bool = False
    """Whether the gates are told the instruction (the paper's language-guided ablation)."""

    first_layer: int = 0
    """Layers before it are always computed in full."""

    task_loss: TaskLoss = "imitation"
    """The policy's own L1, or half of it and half the distance to the full computation."""

    seed: int = 0
    """Of the first gates, the batches and the draws."""

    threads: int = 0
    """CPU threads; 0 means all cores."""

    cache: Path = Path("results/frames")
    """Directory of decoded frames, shared with `vla-bench train reference`."""

    def run(self) -> int:
        """Train, and print where the gates are."""
        if not self.data:
            raise OptionError("--data", "missing", "directories of demonstrations, made with 'vla-bench collect'")
        if self.steps < 0 or self.seed < 0:
            raise OptionError("--steps and --seed", (self.steps, self.seed), "numbers of at least 0")
        torch.set_num_threads(self.threads or os.cpu_count() or 1)
        policy = policies_on_disk.load(find(self.policy))
        config = policy.model.config
        recipe = self._recipe(config.width, config.image_px // config.patch_px)
        data = frames.load(self.data, config.cameras, config.image_px, self.cache)
        teacher = Teacher(policy.model, recipe.first_layer)
        windows = Windows(data, policy, recipe, flow_named(recipe.gates.flow))
        begin = None if self.begin is None else gates_on_disk.load_for(self.begin, policy.sha256)
        origin = {
            "policy": policy.sha256[:12],
            "demonstrations": data.fingerprint,
            "begin": "random" if begin is None else begin.sha256[:12],
        }
        self.out.mkdir(parents=True, exist_ok=True)
        with only_writer(self.out / "train.lock"):
            trainer = GateTrainer(recipe, teacher, windows, self.out, origin, begin and begin.gates)
            (self.out / RECIPE).write_text(json.dumps({"hash": recipe.hash, **asdict(recipe)}, indent=2) + "\n")
            trainer.run()
            found = trainer.validate()
            history = {
                **origin, "recipe": asdict(recipe), "seconds": round(trainer.state.seconds), "validation": found,
                "sources": list(data.sources), "threads": torch.get_num_threads(),
            }  # fmt: skip
            trainer.trained(policy.sha256, history).save(self.out / GATES)
        minutes = trainer.state.seconds / 60
        shown = ", ".join(f"{name.removeprefix('held_out_')} {value:.4f}" for name, value in found.items())
        print(f"{self.out / GATES}: stage {self.stage}, {recipe.steps} steps in {minutes:.0f} min; held out: {shown}")
        return 0

    def _recipe(self, width: int, grid: int) -> GateRecipe:
        px, told = max(GateConfig.px, 8 * grid), width if self.language else 0
        recipe = GateRecipe(
            gates=GateConfig(flow=self.flow, px=px, text_width=told, grid=grid),
            stage=self.stage, saving=self.saving, first_layer=self.first_layer, task_loss=self.task_loss,
            seed=self.seed,
        )  # fmt: skip
        return replace(recipe, steps=self.steps or (400 if self.stage == 1 else 600))
