"""The loop: batches in, weights out, with a record of every hundred steps and a state to go on from."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vla_bench.progress import Progress
from vla_bench.types import ActionSpec
from vla_bench_policies.reference.actions import Range
from vla_bench_policies.reference.checkpoint import Checkpoint
from vla_bench_policies.reference.model import Answer, ReferenceVLA
from vla_bench_policies.reference.training.batches import POSITION, Batch, Batches
from vla_bench_policies.reference.training.frames import Demonstrations
from vla_bench_policies.reference.training.growth import UngrowableError, grown, transferred
from vla_bench_policies.reference.training.recipe import Recipe, cosine_rate
from vla_bench_policies.reference.training.sight import learn_to_see
from vla_bench_policies.reference.training.stale import Answered, StaleWindows
from vla_bench_policies.reference.training.state import State
from vla_bench_policies.reference.training.team import Team

STATE, LOG = "state.safetensors", "log.jsonl"
SAVE_EVERY = 100
"""Steps between two states on the disk: what a kill costs at most."""

VALIDATION_FRAMES = 640
STALE_WINDOWS = 64
STALE_CHECKS = (
    ("stale_none_mm", 0.0, False), ("stale_random_mm", 0.6, False), ("stale_still_mm", 0.6, True),
    ("stale_most_mm", 0.8, True),
)  # fmt: skip
"""Names, shares reused, and whether where the pictures changed least."""

TRANSLATION, ROTATION, GRIPPER = slice(0, 3), slice(3, 6), 6


class Trainer:
    """One training in one directory; made again with the same arguments it goes on."""

    def __init__(
        self, recipe: Recipe, data: Demonstrations, directory: Path, device: torch.device, spec: ActionSpec,
        begin: Checkpoint | None = None, team: Team = Team(),  # noqa: B008 - it is frozen
        transfer: bool = False, commanded: bool = False,
    ) -> None:  # fmt: skip
        """Make the first weights, or take up where the directory has stopped.

        Args:
            recipe: How.
            data: On what.
            directory: Holds the state and the log.
            device: Where.
            spec: What the actions of the demonstrations mean.
            begin: A trained model of the same shape or fewer layers, whose weights and ranges are the first ones.
            team: Those who train together; each makes a trainer of its own.
            transfer: Whether `begin` is another robot's: views, proprioception and ranges are then the demonstrations'.
            commanded: Whether the pose in the demonstrations is the one that the hand was sent to.

        Raises:
            ApartError: If others find another state in their directory.
            OtherTrainingError: If the directory holds a training with another recipe or other demonstrations.
            CheckpointError: If its state is broken.
            UngrowableError: If the model to begin with differs in more than its depth, or in what its actions mean.
        """
        self.recipe, self._directory, self._device, self._spec = recipe, directory, device, spec
        self.team, self._commanded = team, commanded
        seen = data.training
        self._actions, self._states = Range.of_actions(data.actions[seen], spec), Range.of(data.states[seen])
        torch.manual_seed(recipe.seed)
        model = ReferenceVLA(recipe.model)
        if begin is not None and transfer:
            model.load_state_dict(transferred(begin.model, recipe.model))
        elif begin is not None:
            model.load_state_dict(grown(begin.model, recipe.model))
            if unequal := begin.action_spec.differences(spec):
                raise UngrowableError(f"in their actions {'; '.join(unequal)}", "what the demonstrations mean")
            self._actions, self._states = begin.actions, begin.states
        model.to(device)
        self._batches = Batches(data, recipe, self._actions, self._states, device, team)
        if recipe.sight_steps and not (directory / STATE).exists():
            learn_to_see(model, self._batches, recipe)
        optimiser = _optimiser(model, recipe)
        averaged = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self.state = State(model, averaged, optimiser)
        self._forward: Callable[..., Answer] = torch.compile(model) if device.type == "cuda" else model
        self._windows = StaleWindows(data, self._batches, recipe.stale, recipe.seed) if recipe.stale else None
        self._origin = {"recipe": recipe.hash, "demonstrations": data.fingerprint}
        self._before: dict[str, Any] = {}
        if begin is not None:
            self._origin["begin"] = begin.sha256 + (" of another robot" if transfer else "")
            self._before = {"before": begin.history}
        self._n_frames, self._sources = len(seen), list(data.sources)
        if (directory / STATE).exists():
            self.state.restore(directory / STATE, self._origin)
        team.check_begin(self.state.step, device)
        if team.leads:
            self._drop_rows_of_the_future()

    def run(self, on_validation: Callable[[dict[str, float]], None] | None = None) -> None:
        """Train until the recipe's last step; whatever interrupts it, the state on the disk is whole.

        Args:
            on_validation: Is told what `validate` found, whenever it was asked; by who leads the team alone.

        Raises:
            CheckpointWriteError: If the state cannot be written.
        """
        show = None if self.team.leads else False
        bar = Progress(total=self.recipe.steps, initial=self.state.step, unit="step", show=show, smoothing=0.05)
        began = time.monotonic() - self.state.seconds
        window: list[dict[str, Tensor]] = []
        try:
            while self.state.step < self.recipe.steps:
                window.append(self._advance())
                self.state.seconds = time.monotonic() - began
                bar.update()
                if not self.team.leads:
                    window.clear()
                    continue
                if self.state.step % self.recipe.validate_every == 0 or self.state.step == self.recipe.steps:
                    found = self.validate()
                    self._note({"step": self.state.step, **found})
                    bar.set_postfix_str(f"held-out {found['translation_mm']:.2f} mm")
                    if on_validation is not None:
                        on_validation(found)
                if self.state.step % SAVE_EVERY == 0 or self.state.step == self.recipe.steps:
                    self._note({"step": self.state.step, "seconds": self.state.seconds, **_mean(window)})
                    window.clear()
                    self.state.save(self._directory / STATE, self._origin)
        finally:
            bar.close()

    def validate(self) -> dict[str, float]:
        """Return the averaged weights' errors on held-out episodes.

        `translation_mm` and `rotation_mrad` are mean absolute errors of the chunk's first action, per axis, and
        `translation_blind_mm` is what the former becomes with the pictures of another frame: near to it, the model does
        not look. `chunk_l1` is over the whole chunk, normalised; `gripper` and `token` are shares that are right;
        `place_now_mm` and `place_then_mm` are of `Answer.places`, per axis.
        """
        model = self.state.model
        with torch.no_grad(), self._averaged():
            rows = [self._errors(batch, model) for batch in self._batches.validation(VALIDATION_FRAMES)]
            return _mean(rows) | self._stale_errors()

    def checkpoint(self, command: str = "", validation: dict[str, float] | None = None) -> Checkpoint:
        """Return the averaged weights with all that a policy needs.

        Args:
            command: What makes it again, for the card.
            validation: Their errors on held-out episodes; measured if not given.
        """
        model = ReferenceVLA(self.recipe.model)
        model.load_state_dict({name: tensor.cpu() for name, tensor in self.state.averaged.items()})
        history = {
            **self._origin,
            "command": command,
            "steps": self.state.step,
            "batch": self.recipe.batch,
            "seed": self.recipe.seed,
            "frames": self._n_frames,
            "sources": self._sources,
            "threads": torch.get_num_threads(),
            "seconds": round(self.state.seconds),
            "device": self._device.type,
            "torch": torch.__version__,
            **({"processes": self.team.count} if self.team.count > 1 else {}),
            "validation": {key: round(value, 4) for key, value in (validation or self.validate()).items()},
            **self._before,
        }
        return Checkpoint(model, self._actions, self._states, history, self._spec, self._commanded)

    def _advance(self) -> dict[str, Tensor]:
        """Take one step and return its losses, for which nobody waits."""
        recipe = self.recipe
        rate = cosine_rate(recipe.learning_rate, recipe.warmup_steps, recipe.steps, self.state.step)
        for group in self.state.optimiser.param_groups:
            group["lr"] = rate
        batch = self._batches.training(self.state.step)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=recipe.bfloat16 or self._device.type == "cuda"):
            loss, parts = _losses(self._forward, batch, self.recipe, self.team)
            if self._windows and recipe.stale:
                own = self.team.share(recipe.stale.windows)
                stale = _stale_loss(self._windows.training(self._model, self.state.step, own), self.team)
                loss, parts = loss + stale, parts | {"stale": self.team.total(stale.detach())}
        loss.backward()
        self.team.add_gradients(self.state.model)
        norm = nn.utils.clip_grad_norm_(self.state.model.parameters(), self.recipe.clip)
        self.state.optimiser.step()
        self.state.optimiser.zero_grad()
        self.state.step += 1
        self.state.average(self.recipe.ema)
        return {**parts, "gradient": norm, "learning_rate": torch.tensor(rate)}

    def _errors(self, batch: Batch, model: nn.Module) -> dict[str, float]:
        answer = model(batch.images, batch.tokens, batch.proprio, batch.bins)
        blind = model(batch.images.roll(1, dims=0), batch.tokens, batch.proprio, batch.bins)
        wrong, wrong_blind = (self._restored(one.chunk) - self._restored(batch.chunk) for one in (answer, blind))
        opens = self._restored(answer.chunk)[:, GRIPPER] < 0
        misplaced = (answer.places - batch.places).abs().mean(dim=0).unflatten(0, (2, 3)) / 2
        misplaced = misplaced * misplaced.new_tensor(self._states.widths[POSITION]) * 1e3
        mm, mrad = self._spec.translation_m * 1e3, self._spec.rotation_rad * 1e3
        return {
            "translation_mm": float(wrong[:, TRANSLATION].abs().mean()) * mm,
            "translation_blind_mm": float(wrong_blind[:, TRANSLATION].abs().mean()) * mm,
            "rotation_mrad": float(wrong[:, ROTATION].abs().mean()) * mrad,
            "gripper": float((opens == (self._restored(batch.chunk)[:, GRIPPER] < 0)).float().mean()),
            "chunk_l1": float(_chunk_loss(answer.chunk, batch, Team())),
            "token": float((answer.logits.argmax(dim=-1) == batch.bins).float().mean()),
            "place_now_mm": float(misplaced[0].mean()),
            "place_then_mm": float(misplaced[1].mean()),
        }

    @property
    def _model(self) -> ReferenceVLA:
        assert isinstance(self.state.model, ReferenceVLA)
        return self.state.model

    def _stale_errors(self) -> dict[str, float]:
        """Return `translation_mm` of a window's last answer: in full, and with rows reused at random or where still."""
        if self._windows is None:
            return {}
        mm, found = self._spec.translation_m * 1e3, {}
        for name, reuse, still in STALE_CHECKS:
            answers = [one[-1] for one in self._windows.validation(self._model, STALE_WINDOWS, reuse, still)]
            wrong = [self._restored(chunk) - self._restored(batch.chunk) for chunk, batch in answers]
            found[name] = float(torch.cat(wrong)[:, TRANSLATION].abs().mean()) * mm
        return found

    def _restored(self, chunk: Tensor) -> Tensor:
        """Return the first action of each chunk (b, action), in the environment's units."""
        return self._actions.restore(chunk)[:, 0]

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Let the model have the averaged weights for a while."""
        kept = {name: tensor.clone() for name, tensor in self.state.model.state_dict().items()}
        self.state.model.load_state_dict(self.state.averaged)
        try:
            yield
        finally:
            self.state.model.load_state_dict(kept)

    def _note(self, row: dict[str, Any]) -> None:
        with (self._directory / LOG).open("a") as stream:
            stream.write(json.dumps(row) + "\n")

    def _drop_rows_of_the_future(self) -> None:
        """Remove what was noted after the state that training goes on from."""
        rows = [row for row in read_log(self._directory) if row["step"] <= self.state.step]
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / LOG).write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_log(directory: Path) -> list[dict[str, Any]]:
    """Return the rows of a training's log; a line that a kill has cut is left out."""
    path = directory / LOG
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def _losses(model: Callable[..., Answer], batch: Batch, recipe: Recipe, team: Team) -> tuple[Tensor, dict[str, Tensor]]:
    """Return this process's part of the whole batch's loss, and the whole of each of its terms."""
    answer = model(batch.images, batch.tokens, batch.proprio, batch.bins)
    parts = {
        "chunk": _chunk_loss(answer.chunk.float(), batch, team),
        "token": F.cross_entropy(answer.logits.float().flatten(0, 1), batch.bins.flatten()) / team.count,
        "place": F.l1_loss(answer.places.float(), batch.places) / team.count,
    }
    loss = parts["chunk"] + recipe.token_loss * parts["token"] + recipe.place_loss * parts["place"]
    return loss, {name: team.total(part.detach()) for name, part in parts.items()}


def _stale_loss(answered: Answered, team: Team) -> Tensor:
    """Return the L1 of this process's windows, all their inferences alike."""
    return sum((_chunk_loss(chunk.float(), batch, team) for chunk, batch in answered), torch.zeros(())) / len(answered)


def _chunk_loss(chunk: Tensor, batch: Batch, team: Team) -> Tensor:
    """Return the absolute error, averaged over the actions that the episodes of all processes still have."""
    wrong = (chunk - batch.chunk).abs().mean(dim=-1)
    return (wrong * batch.within).sum() / team.total(batch.within.sum())


def _optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov and Hutter 2019) that decays matrices and convolutions only."""
    decayed = [weight for name, weight in model.named_parameters() if weight.ndim >= 2 and "words" not in name]
    rest = [weight for name, weight in model.named_parameters() if weight.ndim < 2 or "words" in name]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.95), fused=True)


def _mean(rows: Sequence[Mapping[str, Tensor | float]]) -> dict[str, float]:
    return {key: sum(float(row[key]) for row in rows) / len(rows) for key in rows[0]} if rows else {}
