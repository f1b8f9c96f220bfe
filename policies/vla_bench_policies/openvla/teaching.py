"""The published policies as training of gates sees them: their prompts with the demonstrated answer, their own losses.

What is common is here: pictures, rows, the blended decoder. Each adapter says what is asked behind the prompt, what is
read from the hidden states, and how far it is from a demonstration.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor
from torch.nn import functional as F

from vla_bench.errors import OptionError
from vla_bench_policies.learned.blend import DenseDecoder, Remembered
from vla_bench_policies.learned.teacher import Looked, Sight, Teaching, imitation_loss
from vla_bench_policies.learned.windows import WindowBatch
from vla_bench_policies.openvla.answers import of_libero, of_tokens, to_tokens
from vla_bench_policies.openvla.pictures import normalised
from vla_bench_policies.openvla.prompt import BOS
from vla_bench_policies.reference.training.frames import Preparation
from vla_bench_policies.token_cache.layout import RowLayout

if TYPE_CHECKING:
    from vla_bench_policies.openvla.oft import OpenVlaOftPolicy
    from vla_bench_policies.openvla.policy import OpenVlaPolicy, TrunkPolicy  # noqa: F401

P = TypeVar("P", bound="TrunkPolicy")


class TrunkTeacher(ABC, Generic[P]):
    """Runs a frozen policy over prompts of equal length, and reads demonstrations as it wants them."""

    chunk = 1
    """Actions of an answer."""
    stride = 1
    """Of which are applied before the next look."""
    picture_px: int | None = 256
    """Side of the environment's pictures [px], in both published protocols of LIBERO."""

    def __init__(self, policy: P, first_layer: int) -> None:
        """Take a policy, whose statistics are looked up now.

        Raises:
            OptionError: If no gradient goes through its weights.
            StatisticsKeyError: If it has several and says none.
        """
        placement = policy.trunk.placement
        if placement.packed and placement.device.type == "cpu" and not placement.quantise:
            raise OptionError(
                "packed", True, "False: no gradient goes through weights in the layout of a CPU's kernels"
            )
        self.policy, self._trunk = policy, policy.trunk
        policy.look_up_statistics("")
        self._decoder = DenseDecoder(policy.trunk.stack, first_layer, recomputed=True)
        self.cameras = policy.cameras or ()
        self.preparation = Preparation(policy.preparation, policy.image_px, policy.shown)

    def teaching(self) -> Teaching:
        """Return what training asks of the policy."""
        return Teaching(self._trunk.sha256, self, self)

    @property
    def sight(self) -> Sight:
        """Return what it sees with."""
        grid = self._trunk.towers.featurizer.shape.grid
        return Sight(len(self.cameras), grid, self.policy.image_px, self._trunk.words.shape[1])

    def tokens(self, sentence: str) -> Sequence[int]:
        """Return the tokens of a prompt."""
        return self.policy.prompter.tokens(sentence)

    def given(self, states: Float[np.ndarray, "*n p"]) -> Float[Tensor, "*n p"]:
        """Return proprioception as it was observed; what takes it normalises it."""
        return torch.from_numpy(states)

    def wanted(self, actions: Float[np.ndarray, "*n action"]) -> Float[Tensor, "*n action"]:
        """Return normalised actions in the model's convention, cut off as in its training."""
        own = self._unapplied(actions.astype(np.float64))
        return torch.from_numpy(self.policy.quantiles("action").normalise(own)).float()

    @torch.no_grad()
    def window_rows(self, batch: WindowBatch) -> tuple[Float[Tensor, "b window rows width"], RowLayout]:
        """Return the rows of every inference of some windows, and what they are."""
        n, window = batch.images.shape[:2]
        tokens = batch.tokens.repeat_interleave(window, dim=0)
        visual = self._seen(batch.images.flatten(0, 1), tokens)
        proprio = batch.proprio.flatten(0, 1).cpu().numpy()
        rows, layout = self._asked(visual, tokens, proprio, batch.chunk.flatten(0, 1))
        return rows.unflatten(0, (n, window)), layout

    @torch.no_grad()
    def black(self) -> Float[Tensor, "1 visual width"]:
        """Return the visual rows of black pictures; towers with FiLM are told no words with them."""
        px = self.policy.image_px
        device = self._trunk.device
        dark = torch.zeros(1, len(self.cameras), px, px, 3, device=device)
        return self._seen(dark, torch.tensor([[BOS]], device=device))

    def look(
        self,
        rows: Float[Tensor, "b rows width"],
        layout: RowLayout,
        mask: Float[Tensor, "b visual"] | None = None,
        remembered: Remembered | None = None,
        shown: Bool[Tensor, "b visual"] | None = None,
    ) -> Looked:
        """Return the answer; without a mask everything is recomputed."""
        passed = self._decoder.run(rows, layout, rows.shape[1] - layout.proprio, mask, remembered, shown)
        return Looked(self._answered(passed.tail), passed.remembered, passed.attention)

    @abstractmethod
    def loss(
        self,
        answer: Tensor,
        demonstrated: Float[Tensor, "b chunk action"],
        within: Bool[Tensor, "b chunk"],
        full: Tensor | None,
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """Return the loss that the policy was trained with."""

    @abstractmethod
    def distance(self, answer: Tensor, full: Tensor) -> Float[Tensor, ""]:
        """Return the mean absolute difference of two answers' normalised actions."""

    @abstractmethod
    def _answered(self, tail: Float[Tensor, "b wanted width"]) -> Tensor:
        """Return the answer that hidden states hold, from the prompt's last row on."""

    def _asked(
        self, visual: Tensor, tokens: Tensor, proprio: np.ndarray, chunk: Float[Tensor, "n chunk action"]
    ) -> tuple[Tensor, RowLayout]:
        """Return the rows of prompts, and those that answer behind them."""
        rows, layout, _ = self.policy.rows(visual, tokens, proprio)
        return rows, layout

    def _unapplied(self, actions: Float64[np.ndarray, "*n action"]) -> Float64[np.ndarray, "*n action"]:
        """Return actions as the model says them, of what the environment applied."""
        return of_libero(actions)

    def _seen(self, images: Float[Tensor, "n views px px 3"], tokens: Int[Tensor, "n t"]) -> Tensor:
        flat = normalised(images.flatten(0, 1), self.policy.colours).unflatten(0, images.shape[:2])
        return self._trunk.see(flat.to(self._trunk.words), self.policy.told(tokens))


class OpenVlaTeacher(TrunkTeacher["OpenVlaPolicy"]):
    """OpenVLA: the answer is the scores (b, 7, vocabulary) of seven tokens, each given the demonstrated ones before."""

    def loss(
        self,
        answer: Float[Tensor, "b entries vocabulary"],
        demonstrated: Float[Tensor, "b 1 action"],
        within: Bool[Tensor, "b 1"],
        full: Float[Tensor, "b entries vocabulary"] | None,
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """Return the cross-entropy of the action tokens; the distance to the full computation is a KL divergence.

        The token that ends the answer, which training counted too, is left out: it is never decoded here.
        """
        scores = answer.flatten(0, 1)
        loss = F.cross_entropy(scores, self._tokens_of(demonstrated[:, 0]).flatten())
        if full is None:
            return loss
        likely, aim = scores.log_softmax(dim=-1), full.flatten(0, 1).log_softmax(dim=-1)
        return (loss + F.kl_div(likely, aim, reduction="batchmean", log_target=True)) / 2

    def distance(self, answer: Tensor, full: Tensor) -> Float[Tensor, ""]:
        """Return the distance of the likeliest tokens' values."""
        config = self.policy.config
        one, other = (
            of_tokens(given.argmax(dim=-1).cpu().numpy(), config.n_tokens, config.n_bins) for given in (answer, full)
        )
        return torch.tensor(np.abs(one - other).mean(), dtype=torch.float32, device=answer.device)

    def _answered(self, tail: Tensor) -> Tensor:
        return self._trunk.scores(tail)

    def _asked(self, visual: Tensor, tokens: Tensor, proprio: np.ndarray, chunk: Tensor) -> tuple[Tensor, RowLayout]:
        rows, layout = super()._asked(visual, tokens, proprio, chunk)
        given = self._trunk.embed(self._tokens_of(chunk[:, 0])[:, :-1])
        return torch.cat((rows, given), dim=1), layout

    def _tokens_of(self, values: Float[Tensor, "b action"]) -> Int[Tensor, "b action"]:
        return to_tokens(values, self.policy.config.n_tokens, self.policy.config.n_bins)


class OftTeacher(TrunkTeacher["OpenVlaOftPolicy"]):
    """OpenVLA-OFT: the answer is a chunk of normalised actions, trained by L1."""

    def __init__(self, policy: "OpenVlaOftPolicy", first_layer: int) -> None:
        super().__init__(policy, first_layer)
        self.chunk, self.stride = policy.chunk, policy.execute

    def loss(
        self, answer: Tensor, demonstrated: Tensor, within: Tensor, full: Tensor | None, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """Return the L1 to the recording; nothing is drawn."""
        return imitation_loss(answer, demonstrated, within, full)

    def distance(self, answer: Tensor, full: Tensor) -> Float[Tensor, ""]:
        """Return the mean absolute difference."""
        return (answer - full).abs().mean()

    def _answered(self, tail: Tensor) -> Tensor:
        return self.policy.regressed(tail).float()
