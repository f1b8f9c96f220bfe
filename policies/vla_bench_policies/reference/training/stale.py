"""Training in which the policy meets its own stale rows.

A policy that was trained with everything computed answers from keys and values of one moment only. Under a method that
reuses rows it gets a mixture of moments, which it has never seen. Here it sees such mixtures while it learns: windows
of consecutive inferences, the first in full, then with a share of the visual rows reused, drawn anew for each of them.
Which rows is drawn too, either anywhere or where the pictures changed least: no method is preferred. Not from a paper.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vla_bench_policies.learned.blend import DenseDecoder, Remembered
from vla_bench_policies.reference.model import ReferenceVLA
from vla_bench_policies.reference.teaching import PlainLayers
from vla_bench_policies.reference.tokenizer import PAD
from vla_bench_policies.reference.training.batches import Batch, Batches
from vla_bench_policies.reference.training.frames import Demonstrations, UnfitDemonstrationsError
from vla_bench_policies.reference.training.recipe import Staleness
from vla_bench_policies.token_cache.layout import RowLayout

Answered = list[tuple[Float[Tensor, "b chunk action"], Batch]]
"""What is answered at each inference of some windows, and what should have been."""


class StaleWindows:
    """Draws windows of demonstrations, and answers them with stale rows."""

    def __init__(self, data: Demonstrations, batches: Batches, staleness: Staleness, seed: int) -> None:
        """Find where windows can begin.

        Args:
            data: Demonstrations.
            batches: Of them.
            staleness: How windows are.
            seed: Of what is drawn.

        Raises:
            UnfitDemonstrationsError: If no episode is long enough.
        """
        self._batches, self._staleness, self._seed = batches, staleness, seed
        n_tokens = batches.n_tokens[data.sentence]
        self._starts: dict[tuple[bool, int], list[np.ndarray]] = {}
        for held_out in (False, True):
            for stride in staleness.strides:
                long = stride * (staleness.window - 1)
                fits = (np.arange(len(data.end)) + long < data.end) & (data.held_out == held_out)
                if not fits.any():
                    found = f"no {'held-out' if held_out else 'training'} episode of {long + 1} frames"
                    raise UnfitDemonstrationsError(Path(str(data.sources[0]["name"])), found, "one")
                groups = [np.flatnonzero(fits & (n_tokens == count)) for count in np.unique(n_tokens)]
                self._starts[held_out, stride] = [group for group in groups if len(group)]

    def training(self, model: ReferenceVLA, step: int, own: slice) -> Answered:
        """Return the answers to the windows of a step; what is drawn is drawn for all processes, `own` is answered."""
        rng = np.random.default_rng([self._seed, step, len(self._starts)])
        stride = int(rng.choice(self._staleness.strides))
        groups = self._starts[False, stride]
        sizes = np.array([len(group) for group in groups])
        group = groups[rng.choice(len(groups), p=sizes / sizes.sum())]
        starts, n_visual = rng.choice(group, self._staleness.windows), model.config.n_visual
        still = rng.random(len(starts)) < self._staleness.still
        shares = (self._staleness.least, self._staleness.most)
        reuse = rng.uniform(*shares, (self._staleness.window - 1, len(starts)))
        order = rng.random((self._staleness.window - 1, len(starts), n_visual))
        turn = self._turns(rng, len(starts), n_visual)

        def reused(index: int, change: np.ndarray) -> np.ndarray:
            ranks = np.where(still[own, None], change, order[index - 1, own]).argsort(axis=1).argsort(axis=1)
            return (ranks < np.floor(reuse[index - 1, own] * n_visual)[:, None]) & ~self._due(index, turn[own])

        return self._answer(model, starts[own], stride, reused)

    def validation(self, model: ReferenceVLA, n_windows: int, reuse: float, still: bool) -> list[Answered]:
        """Return the answers to about so many held-out windows, evenly spread, at one share, by the longest stride."""
        stride, n_visual = max(self._staleness.strides), model.config.n_visual
        rng = np.random.default_rng(0)
        answered = []
        groups = self._starts[True, stride]
        total = sum(map(len, groups))
        for group in groups:
            count = max(1, round(n_windows * len(group) / total))
            for part in np.array_split(
                group[np.linspace(0, len(group) - 1, count).round().astype(int)], -(-count // 8)
            ):
                drawn = rng.random((self._staleness.window, len(part), n_visual))
                turn = self._turns(rng, len(part), n_visual)

                def reused(
                    index: int, change: np.ndarray, drawn: np.ndarray = drawn, turn: np.ndarray = turn
                ) -> np.ndarray:
                    ranks = (change if still else drawn[index]).argsort(axis=1).argsort(axis=1)
                    return (ranks < int(reuse * n_visual)) & ~self._due(index, turn)

                answered.append(self._answer(model, part, stride, reused))
        return answered

    def _turns(self, rng: np.random.Generator, n_windows: int, n_visual: int) -> Int[np.ndarray, "b visual"]:
        """Return the inference, modulo `rotate`, in which each row has its turn; parts are equal, and drawn."""
        return rng.random((n_windows, n_visual)).argsort(axis=1) % max(1, self._staleness.rotate)

    def _due(self, index: int, turn: Int[np.ndarray, "b visual"]) -> Bool[np.ndarray, "b visual"]:
        """Return the rows that an inference recomputes in any case."""
        if not self._staleness.rotate:
            return np.zeros(turn.shape, dtype=bool)
        return turn == index % self._staleness.rotate

    def _answer(
        self, model: ReferenceVLA, starts: np.ndarray, stride: int,
        reused: Callable[[int, np.ndarray], np.ndarray],
    ) -> Answered:  # fmt: skip
        """Return the answers of each inference; `reused` says which rows are, told how much each has changed."""
        decoder = DenseDecoder(PlainLayers(model.decoder))
        remembered: Remembered | None = None
        before: Tensor | None = None
        answered: Answered = []
        for index in range(self._staleness.window):
            batch = self._batches.at(starts + stride * index)
            rows, layout = _rows(model, batch)
            mask = None
            if before is not None:
                change = patch_changes(before, batch.images, model.config.patch_px)
                mask = torch.from_numpy(~reused(index, change)).to(rows)
            passed = decoder.run(rows, layout, layout.n_action, mask, remembered)
            answered.append((model.chunk_head(passed.tail), batch))
            remembered, before = passed.remembered, batch.images
        return answered


def _rows(model: ReferenceVLA, batch: Batch) -> tuple[Float[Tensor, "b rows width"], RowLayout]:
    """Return the embedded rows of prompts with equally many tokens."""
    n_tokens = int((batch.tokens[0] != PAD).sum())
    tokens: Int[Tensor, "b text"] = batch.tokens[:, :n_tokens]
    prompt = model.prompt(model.see(batch.images), tokens, batch.proprio)
    return model.rows(prompt, "oft"), model.layout(tokens.shape[1])


def patch_changes(
    before: Float[Tensor, "b cameras 3 px px"], now: Float[Tensor, "b cameras 3 px px"], patch_px: int
) -> Float[np.ndarray, "b visual"]:
    """Return the mean absolute change [grey levels] of each visual row's patch."""
    change = (now - before).abs().mean(dim=2)
    return torch.nn.functional.avg_pool2d(change, patch_px).flatten(1).cpu().numpy()
