"""`vla-bench train reference`."""

import json
import os
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from vla_bench import figures
from vla_bench.errors import OptionError
from vla_bench.lock import only_writer
from vla_bench_policies.reference import checkpoint as checkpoints
from vla_bench_policies.reference.policy import find
from vla_bench_policies.reference.training import frames
from vla_bench_policies.reference.training.curve import training_curve
from vla_bench_policies.reference.training.form import Given, form_of
from vla_bench_policies.reference.training.recipe import PRESETS, Recipe
from vla_bench_policies.reference.training.team import joined
from vla_bench_policies.reference.training.trainer import Trainer, read_log

CHECKPOINT, RECIPE = "checkpoint.safetensors", "recipe.json"
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class TrainReference:
    """Train the reference VLA on demonstrations. Interrupt it at any moment; run it again and it goes on.

    With the same device and threads it goes on exactly, to the last bit. On several GPUs: `torchrun --nproc-per-node 4
    -m vla_bench.cli train reference ...`, where each takes its share of every batch.
    """

    data: tuple[Path, ...]
    """Directories of demonstrations, made with `vla-bench collect`; all are mixed, frame by frame."""

    preset: Literal[
        "cpu", "cpu-deep", "cpu-cached", "simpler", "simpler-close", "simpler-long", "simpler-commanded", "gpu"
    ] = "cpu"
    """Size and recipe: `cpu` for two cores and three hours, `cpu-deep` (twice the layers) for two hours and a half more
    with --begin, `cpu-cached` for an hour more with --begin, in which the policy meets its own stale rows,
    `simpler` for one core and half an hour with --begin and --transfer, `simpler-close` for minutes more with --begin,
    `simpler-long` for 50 minutes more with --begin, of one core that multiplies in bfloat16, `simpler-commanded` for
    another 12, in which the policy learns to go by where it has sent the hand,
    `gpu` for one data-centre card and 20 minutes."""

    given: Given = "fingers"
    """What the model is given of the proprioception. Where the arm always begins alike, a model that is given its pose
    learns not to look; where things lie far apart, it needs the pose to reach them."""

    begin: str = ""
    """Checkpoint to begin from, a name that ships or a path: of the preset's shape, or with fewer layers, between which
    layers are put that change nothing at first."""

    transfer: bool = False
    """With --begin: its checkpoint is another robot's. Views, proprioception and ranges of actions are then those of
    the demonstrations, all else begins as trained."""

    out: Path = Path("results/training")
    """Directory for state, log, curve and checkpoint, which is written anew at every validation; continued if begun."""

    steps: int = 0
    """Optimiser steps; 0 means the preset's."""

    seed: int = 0
    """Of the first weights, the batches and what is done to their images."""

    device: str = ""
    """`cpu` or `cuda`; none means what the preset is for."""

    threads: int = 0
    """CPU threads; 0 means all cores."""

    cache: Path = Path("results/frames")
    """Directory for decoded frames, 98 kB each with two cameras at 128 px; can be deleted afterwards."""

    def run(self) -> int:
        """Train, and print where the checkpoint is."""
        recipe, name = self._recipe(), self._device()
        form = form_of(self.data)
        recipe = replace(recipe, model=form.fitted(recipe.model, self.given))
        with joined(name) as team:
            torch.set_num_threads(self.threads or max(1, (os.cpu_count() or 1) // team.local_count))
            if name == "cuda":
                torch.set_float32_matmul_precision("high")
            with team.after_the_first():
                data = frames.load(self.data, recipe.model.cameras, recipe.model.image_px, self.cache)
                self.out.mkdir(parents=True, exist_ok=True)
            with only_writer(self.out / "train.lock") if team.leads else nullcontext():
                begin = checkpoints.load(find(self.begin)) if self.begin else None
                to, spec = torch.device(name), form.action_spec
                trainer = Trainer(recipe, data, self.out, to, spec, begin, team, self.transfer, form.commanded)
                self._train(trainer, data)
        return 0

    def _train(self, trainer: Trainer, data: frames.Demonstrations) -> None:
        recipe, team = trainer.recipe, trainer.team
        if not team.leads:
            trainer.run()
            return
        (self.out / RECIPE).write_text(json.dumps({"hash": recipe.hash, **asdict(recipe)}, indent=2) + "\n")
        print(
            f"{len(data.training)} frames to train on, {len(data.validation)} held out, "
            f"{len(data.sentences)} sentences; step {trainer.state.step} of {recipe.steps}"
        )

        def save(found: dict[str, float] | None = None) -> None:
            trainer.checkpoint(self._again(), found).save(self.out / CHECKPOINT)

        trainer.run(on_validation=save)
        if not (self.out / CHECKPOINT).exists():  # it was over before, and somebody has moved the file
            save()
        paths = [self.out / f"curve.{suffix}" for suffix in ("png", "pdf")]
        with figures.paper_figure(*paths) as ax:
            training_curve(ax, read_log(self.out))
        minutes = trainer.state.seconds / 60
        print(f"{self.out / CHECKPOINT}: {recipe.steps} steps in {minutes:.0f} min; {paths[0]}")

    def _again(self) -> str:
        data = " ".join(path.name for path in self.data)
        steps = f" --steps {self.steps}" if self.steps else ""
        begin = f" --begin {self.begin}{' --transfer' if self.transfer else ''}" if self.begin else ""
        given = f" --given {self.given}" if self.given != "fingers" else ""
        return f"vla-bench train reference --preset {self.preset} --seed {self.seed}{steps}{given}{begin} --data {data}"

    def _recipe(self) -> Recipe:
        if not self.data:
            raise OptionError("--data", "missing", "directories of demonstrations, made with 'vla-bench collect'")
        if self.steps < 0:
            raise OptionError("--steps", self.steps, "a positive number, or 0 for the preset's")
        if self.seed < 0:
            raise OptionError("--seed", self.seed, "an integer of at least 0")
        if self.transfer and not self.begin:
            raise OptionError("--transfer", True, "--begin beside it, a checkpoint of another robot")
        preset = PRESETS[self.preset]
        return replace(preset, steps=self.steps or preset.steps, seed=self.seed)

    def _device(self) -> str:
        name = self.device or ("cuda" if self.preset == "gpu" else "cpu")
        if name not in DEVICES:
            raise OptionError("--device", name, f"one of {', '.join(DEVICES)}")
        if name == "cuda" and not torch.cuda.is_available():
            raise OptionError("--device", name, "a device that is there: torch finds no GPU; --device cpu is slow")
        return name
