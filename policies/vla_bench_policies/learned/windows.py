"""Consecutive inferences of demonstrations, as batches; a batch is a function of seed and step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vla_bench_policies.learned.recipe import LoopRecipe
from vla_bench_policies.reference.training.frames import Demonstrations, Preparation, UnfitDemonstrationsError

Motion = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Takes two frames (views px px 3) and returns what moved from one to the other (views flow_px flow_px 2)."""


class Reader(Protocol):
    """Turns demonstrations into what a policy is given, and should answer."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Return the views, in the order of their rows."""
        ...

    @property
    def picture_px(self) -> int | None:
        """Return the side of the environment's pictures under the policy's protocol [px]; None if any will do."""
        ...

    @property
    def preparation(self) -> Preparation | None:
        """Return what is done to a picture before the policy sees it."""
        ...

    @property
    def chunk(self) -> int:
        """Return the number of actions of an answer."""
        ...

    @property
    def stride(self) -> int:
        """Return how many of them are applied before the next look."""
        ...

    def tokens(self, sentence: str) -> Sequence[int]:
        """Return an instruction's tokens."""
        ...

    def given(self, states: Float[np.ndarray, "*n p"]) -> Float[Tensor, "*n p"]:
        """Return normalised proprioception."""
        ...

    def wanted(self, actions: Float[np.ndarray, "*n action"]) -> Float[Tensor, "*n action"]:
        """Return normalised actions, in the policy's convention."""
        ...


@dataclass(frozen=True)
class WindowBatch:
    """Windows whose instructions have the same number of tokens."""

    images: Float[Tensor, "b window views px px 3"]
    """Grey levels from 0 to 255, as the policy sees them."""
    flow: Float[Tensor, "b window-1 views flow_px flow_px 2"]
    """From each inference to the next [px of the images]."""
    tokens: Int[Tensor, "b text"]
    proprio: Float[Tensor, "b window p"]
    chunk: Float[Tensor, "b window chunk action"]
    """Normalised."""
    within: Bool[Tensor, "b window chunk"]
    """Whether the episode has that action still."""

    def to(self, device: torch.device) -> "WindowBatch":
        """Return it in the memory of a device."""
        return WindowBatch(**{part.name: getattr(self, part.name).to(device) for part in fields(self)})


class Windows:
    """Draws windows of demonstrations."""

    def __init__(self, data: Demonstrations, reader: Reader, recipe: LoopRecipe, flow: Motion | None = None) -> None:
        """Find where windows can begin.

        Args:
            data: The policy's demonstrations.
            reader: The policy's.
            recipe: Says how long a window is.
            flow: What the networks are told about motion; none tells them nothing.
        """
        self._data, self._reader, self._recipe, self._flow = data, reader, recipe, flow
        self._tokens = [reader.tokens(sentence) for sentence in data.sentences]
        last = np.arange(len(data.end)) + recipe.stride * (recipe.window - 1)
        fits = last < data.end
        n_tokens = np.array([len(tokens) for tokens in self._tokens])[data.sentence]
        self._starts = {
            held_out: [
                np.flatnonzero(fits & (n_tokens == count) & (data.held_out == held_out))
                for count in np.unique(n_tokens)
            ]
            for held_out in (False, True)
        }
        for part, groups in self._starts.items():
            if not sum(map(len, groups)):
                long = recipe.stride * (recipe.window - 1) + 1
                name = "held-out" if part else "training"
                raise UnfitDemonstrationsError(
                    Path(str(data.sources[0]["name"])), f"no {name} episode of {long} frames", "one"
                )

    def training(self, step: int, own: slice = slice(None)) -> WindowBatch:
        """Return the batch of a step, or a part of it; a number of tokens is as likely as it has windows."""
        rng = np.random.default_rng([self._recipe.seed, self._recipe.stage, step])
        groups = self._starts[False]
        sizes = np.array([len(group) for group in groups])
        group = groups[rng.choice(len(groups), p=sizes / sizes.sum())]
        return self._at(rng.choice(group, self._recipe.batch)[own])

    def validation(self, n_windows: int) -> list[WindowBatch]:
        """Return about `n_windows` held-out windows, evenly spread."""
        groups = [group for group in self._starts[True] if len(group)]
        total = sum(map(len, groups))
        batches = []
        for group in groups:
            count = max(1, round(n_windows * len(group) / total))
            chosen = group[np.linspace(0, len(group) - 1, count).round().astype(int)]
            batches += [self._at(part) for part in np.array_split(chosen, -(-count // self._recipe.batch))]
        return batches

    def _at(self, starts: np.ndarray) -> WindowBatch:
        recipe, data = self._recipe, self._data
        index = starts[:, None] + recipe.stride * np.arange(recipe.window)
        pictures = data.pictures(index.ravel()).reshape(*index.shape, *data.images[0].shape[1:])
        if self._flow is None:
            flow = np.zeros((len(starts), recipe.window - 1, *pictures.shape[2:5], 2), np.float32)
        else:
            flow = np.array([[self._flow(*pair) for pair in pairwise(window)] for window in pictures])
        actions, within = data.chunks(index.ravel(), self._reader.chunk)
        return WindowBatch(
            images=torch.from_numpy(pictures).float(),
            flow=torch.from_numpy(flow),
            tokens=torch.tensor([self._tokens[data.sentence[start]] for start in starts]),
            proprio=self._reader.given(data.states[index]),
            chunk=self._reader.wanted(actions).unflatten(0, index.shape),
            within=torch.from_numpy(within).unflatten(0, index.shape),
        )
