"""The frozen policy as training sees it: what an adapter must have, in its own package, so that networks learn from it.

Teaching = who it is  +  Teacher: rows, a blended forward, a loss  +  Reader: demonstrations in the policy's words
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vla_bench_policies.learned.blend import Remembered
from vla_bench_policies.learned.windows import Reader, WindowBatch
from vla_bench_policies.token_cache.layout import RowLayout


@dataclass(frozen=True)
class Sight:
    """What a policy sees with: the shape of networks that see the same."""

    n_views: int
    grid: int
    """Visual rows along a side of a view."""
    image_px: int
    """Side of the pictures of a `WindowBatch`, and of the frames that a rule is given."""
    width: int
    """Of a row."""

    @property
    def n_visual(self) -> int:
        """Return the number of visual rows."""
        return self.n_views * self.grid**2


@dataclass(frozen=True)
class Looked:
    """What the policy answers in one step."""

    answer: Tensor
    """Whatever `Teacher.loss` takes: normalised actions, scores of tokens, a condition; the first axis is the batch."""

    remembered: Remembered
    """For the next step."""

    attention: Float[Tensor, "b visual"]
    """Mean attention of text, proprioception and action rows to each visual row at the aligned layer."""


class Teacher(Protocol):
    """Runs a frozen policy over prompts of equal length."""

    @property
    def sight(self) -> Sight:
        """Return what it sees with."""
        ...

    def window_rows(self, batch: WindowBatch) -> tuple[Float[Tensor, "b window rows width"], RowLayout]:
        """Return the embedded rows of every inference of some windows, those that answer included."""
        ...

    def black(self) -> Float[Tensor, "1 visual width"]:
        """Return the visual rows of black pictures."""
        ...

    def look(
        self,
        rows: Float[Tensor, "b rows width"],
        layout: RowLayout,
        mask: Float[Tensor, "b visual"] | None = None,
        remembered: Remembered | None = None,
        shown: Bool[Tensor, "b visual"] | None = None,
    ) -> Looked:
        """Return the answer; see `DenseDecoder.run`. With a hard mask it is the token cache's."""
        ...

    def loss(
        self,
        answer: Tensor,
        demonstrated: Float[Tensor, "b chunk action"],
        within: Bool[Tensor, "b chunk"],
        full: Tensor | None,
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """Return the policy's own imitation loss.

        Args:
            answer: Given.
            demonstrated: Normalised actions of the recording.
            within: Which of them the episode still has.
            full: What the full computation answers: half of the loss is the distance to it then.
            generator: For losses that draw, such as that of a diffusion model; on the CPU.
        """
        ...

    def distance(self, answer: Tensor, full: Tensor) -> Float[Tensor, ""]:
        """Return the mean absolute difference of two answers' normalised actions."""
        ...


@dataclass(frozen=True)
class Teaching:
    """A frozen policy, with all that training asks of it."""

    policy: str
    """Hash of its weights, with which the fingerprint begins."""

    teacher: Teacher
    reader: Reader


@runtime_checkable
class Teachable(Protocol):
    """A policy that networks can learn from."""

    def teaching(self, first_layer: int) -> Teaching:
        """Return what training asks of the policy, frozen; layers before `first_layer` are computed in full."""
        ...


def alignment_target(attention: Float[Tensor, "b visual"]) -> Float[Tensor, "b visual"]:
    """Return S_VLA: attention scaled to [0, 1] in each frame (choice 2 of the method's table)."""
    low, high = attention.amin(dim=1, keepdim=True), attention.amax(dim=1, keepdim=True)
    return (attention - low) / (high - low).clamp(min=1e-12)


def imitation_loss(
    chunk: Float[Tensor, "b chunk action"],
    demonstrated: Float[Tensor, "b chunk action"],
    within: Bool[Tensor, "b chunk"],
    full: Float[Tensor, "b chunk action"] | None = None,
) -> Float[Tensor, ""]:
    """Return the loss of a policy that regresses: L1 over the actions that the episode still has.

    Args:
        chunk: Answered.
        demonstrated: In the recording.
        within: Which of its actions the episode still has.
        full: What the full computation answers: half of the loss is the L1 to it then.
    """
    loss = ((chunk - demonstrated).abs().mean(dim=-1) * within).sum() / within.sum().clamp(min=1)
    return loss if full is None else (loss + (chunk - full).abs().mean()) / 2
