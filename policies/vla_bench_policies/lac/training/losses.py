"""What the gates learn from: in stage I the policy's attention, in stage II its own loss against the rows saved."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vla_bench_policies.lac.gates import Gates, n_reused, prepared
from vla_bench_policies.lac.relaxation import Estimator, candidate_masks, expected_ratio, hard_mask, mixed
from vla_bench_policies.lac.training.recipe import GateRecipe
from vla_bench_policies.learned.blend import Remembered
from vla_bench_policies.learned.sharing import ALONE, of_all
from vla_bench_policies.learned.teacher import Looked, Teacher, alignment_target
from vla_bench_policies.learned.windows import WindowBatch
from vla_bench_policies.methods.rotate import turns
from vla_bench_policies.reference.training.team import Team
from vla_bench_policies.token_cache.layout import RowLayout


@dataclass(frozen=True)
class Asked:
    """What the gates say about the inferences of a window after its first."""

    scores: Float[Tensor, "b steps visual"]
    logits: Float[Tensor, "b steps ratios"]


class Losses:
    """The losses of both stages on one batch, which a team shares out."""

    def __init__(self, recipe: GateRecipe, gates: Gates, teacher: Teacher) -> None:
        self._recipe, self._gates, self._teacher = recipe, gates, teacher

    def training(self, batch: WindowBatch, step: int, team: Team = ALONE) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the recipe's stage, and its parts."""
        if self._recipe.stage == 2:
            return self.joint(batch, step, team)
        loss = self.alignment(batch, team)
        return loss, {"alignment": loss.detach()}

    def held_out(self, batch: WindowBatch) -> dict[str, Tensor]:
        """Return what `inference` finds, and the alignment error."""
        return self.inference(batch) | {"alignment": self.alignment(batch)}

    def alignment(self, batch: WindowBatch, team: Team = ALONE) -> Tensor:
        """Return L_align = MSE(f_sel(V_t), S_VLA) of stage I (paper, section 3)."""
        rows, layout = self._teacher.window_rows(batch)
        target = alignment_target(self._full(rows[:, 1:].flatten(0, 1), layout).attention)
        scores = self._ask(batch, rows, layout).scores.flatten(0, 1)
        return F.mse_loss(of_all(scores, team), of_all(target, team))

    def joint(self, batch: WindowBatch, step: int, team: Team = ALONE) -> tuple[Tensor, dict[str, Tensor]]:
        """Return L_VLA + lambda L_ratio of stage II (paper, section 3), and its parts."""
        recipe = self._recipe
        blends = recipe.blend_every and step % recipe.blend_every == recipe.blend_every - 1
        estimator: Estimator = "blend" if blends else "gumbel"
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        rng = np.random.default_rng([recipe.seed, step])
        tau, tau_s = recipe.ratio_temperature(step), recipe.mask_temperature(step)
        rows, layout = self._teacher.window_rows(batch)
        asked = self._ask(batch, rows, layout)
        ratios = self._gates.config.ratios
        remembered: Remembered = self._full(rows[:, 0], layout).remembered
        task = asked.scores.new_zeros(())
        for index in range(1, rows.shape[1]):
            masks = candidate_masks(asked.scores[:, index - 1], ratios, tau_s)
            mask = mixed(asked.logits[:, index - 1], masks, estimator, tau, generator, team)
            mask = self._with_turns(mask, index)
            looked = self._teacher.look(rows[:, index], layout, mask, remembered)
            self_made = rng.random() < recipe.self_made
            full = None if self_made and recipe.task_loss == "imitation" else self._full(rows[:, index], layout)
            task = task + self._task(looked, batch, index, full, generator, team)
            if not self_made and full is not None:
                remembered = full.remembered
            elif estimator == "gumbel":
                remembered = looked.remembered
            else:  # a blend is a cache that inference never has
                remembered = self._likeliest(rows[:, index], layout, asked, index, remembered).remembered
        task = task / (rows.shape[1] - 1)
        logits = of_all(asked.logits, team)
        saved = expected_ratio(logits.flatten(0, 1), ratios).mean()
        likeliest = logits.new_tensor(ratios)[logits.argmax(dim=-1)].mean()
        parts = {"task": task.detach(), "expected_ratio": saved.detach(), "likeliest_ratio": likeliest}
        return task - recipe.saving * saved, parts | {"entropy": _entropy(logits).detach()}

    @torch.no_grad()
    def inference(self, batch: WindowBatch, ratio: float | None = None) -> dict[str, Tensor]:
        """Return what the gates do as they will be used: the likeliest ratio, hard masks, the cache they made.

        That is the task loss with them and without, the distance of normalised actions to the full computation's, the
        reused share and the predictor's entropy.

        Args:
            batch: Held-out windows.
            ratio: Instead of what the predictor chooses.
        """
        rows, layout = self._teacher.window_rows(batch)
        asked = self._ask(batch, rows, layout)
        remembered = self._teacher.look(rows[:, 0], layout).remembered
        found: dict[str, list[Tensor]] = {"task": [], "task_full": [], "distance": [], "ratio": []}
        for index in range(1, rows.shape[1]):
            mask = self._hard_masks(asked, index, ratio)
            looked = self._teacher.look(rows[:, index], layout, mask, remembered)
            full = self._teacher.look(rows[:, index], layout)
            for name, one in (("task", looked), ("task_full", full)):
                found[name].append(self._task(one, batch, index, None, torch.Generator().manual_seed(index)))
            found["distance"].append(self._teacher.distance(looked.answer, full.answer))
            found["ratio"].append(1 - mask.mean())
            remembered = looked.remembered
        return {name: torch.stack(values).mean() for name, values in found.items()} | {
            "entropy": _entropy(asked.logits)
        }

    def _hard_masks(self, asked: Asked, index: int, ratio: float | None = None) -> Float[Tensor, "b visual"]:
        """Return the masks of inference: the likeliest ratio's, or those of a given one."""
        ratios, scores = self._gates.config.ratios, asked.scores[:, index - 1]
        likeliest = asked.logits[:, index - 1].argmax(dim=-1).tolist()
        shares = [ratios[choice] if ratio is None else ratio for choice in likeliest]
        masks = [hard_mask(one[None], n_reused(share, len(one))) for one, share in zip(scores, shares, strict=True)]
        return self._with_turns(torch.cat(masks), index)

    def _with_turns(self, mask: Float[Tensor, "b visual"], index: int) -> Float[Tensor, "b visual"]:
        """Return the mask in which the rows whose turn it is are recomputed, too."""
        every = self._recipe.rotate
        if not every:
            return mask
        due = torch.from_numpy(turns(every, index, self._gates.config.grid, mask.shape[1])).to(mask.device)
        return mask.masked_fill(due, 1.0)

    @torch.no_grad()
    def _likeliest(self, rows: Tensor, layout: RowLayout, asked: Asked, index: int, remembered: Remembered) -> Looked:
        return self._teacher.look(rows, layout, self._hard_masks(asked, index), remembered)

    @torch.no_grad()
    def _full(self, rows: Tensor, layout: RowLayout) -> Looked:
        return self._teacher.look(rows, layout)

    def _ask(self, batch: WindowBatch, rows: Tensor, layout: RowLayout) -> Asked:
        frames, flow = batch.images[:, 1:], batch.flow
        seen = prepared(frames.flatten(0, 2), flow.flatten(0, 2), self._gates.config.px)
        seen = seen.unflatten(0, (frames.shape[0] * frames.shape[1], frames.shape[2]))
        scores, logits = self._gates(seen, rows[:, 1:, layout.text].flatten(0, 1).to(seen.dtype))
        return Asked(scores.unflatten(0, frames.shape[:2]), logits.unflatten(0, frames.shape[:2]))

    def _task(
        self, looked: Looked, batch: WindowBatch, index: int, full: Looked | None, generator: torch.Generator,
        team: Team = ALONE,
    ) -> Tensor:  # fmt: skip
        """Return L_VLA of a step over the whole team's windows: it divides by the actions that they still have."""
        distill = self._recipe.task_loss == "distill"
        reference = of_all(full.answer, team) if distill and full is not None else None
        demonstrated, within = of_all(batch.chunk[:, index], team), of_all(batch.within[:, index], team)
        return self._teacher.loss(of_all(looked.answer, team), demonstrated, within, reference, generator)


def _entropy(logits: Float[Tensor, "*n ratios"]) -> Tensor:
    """Return the mean entropy [nat] of the predictor's choice."""
    shares = logits.softmax(dim=-1)
    return -(shares * shares.clamp(min=1e-12).log()).sum(dim=-1).mean()
