"""The reference VLA as a whole: rows in, actions out.

    row      0    1 ... n          n+1 ... m   m+1       then
    holds    BOS  visual, by view  text        proprio   8 action queries (one pass)  or  action tokens, one by one

The prompt has OpenVLA-OFT's geometry: visual rows first, so that a method which saves rows finds them where it does in
the published models. One trunk carries two heads. `oft` answers a chunk of 8 actions in one pass and is trained by L1
(Kim et al. 2025, "Fine-Tuning Vision-Language-Action Models", section IV). `ar` answers one action as 7 tokens of 256
bins, each seeing those before (Kim et al. 2024, "OpenVLA", section 3.2).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vla_bench_policies.reference.actions import N_BINS
from vla_bench_policies.reference.decoder import Decoder
from vla_bench_policies.reference.tokenizer import BOS, PAD, tokenizer
from vla_bench_policies.reference.vision import Projector, VisionTower
from vla_bench_policies.token_cache.attention import additive
from vla_bench_policies.token_cache.layout import RowLayout

Head = Literal["oft", "ar"]

N_PLACES = 6
"""Numbers that training asks for besides actions: the hand's position now, and at its next grasp or release."""


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model; the weights fit no other."""

    cameras: tuple[str, ...] = ("agentview", "robot0_eye_in_hand")
    """Views in the order of their rows."""

    image_px: int = 128
    """Height and width of an image [px]."""

    patch_px: int = 16
    """Height and width of what a visual row stands for [px]; a power of two."""

    vision_width: int = 128
    vision_layers: int = 2
    vision_heads: int = 4

    width: int = 256
    """Of the decoder: as in the published models, it carries most of a step."""

    layers: int = 4
    heads: int = 4
    hidden: int = 688
    """Width inside the decoder's feed-forward network."""

    chunk: int = 8
    """Actions that one pass answers."""

    proprio_size: int = 8
    action_size: int = 7

    proprio_entries: tuple[int, ...] = (6, 7)
    """Entries of the proprioception that are given: of LIBERO's, the fingers. Where the arm is the model has to see.
    Given the pose as well, it learned libero-object without looking (93 of 100 with pictures that never changed)."""

    @property
    def rows_per_view(self) -> int:
        """Return the number of visual rows of a camera."""
        return (self.image_px // self.patch_px) ** 2

    @property
    def n_visual(self) -> int:
        """Return the number of visual rows of a step, all views."""
        return len(self.cameras) * self.rows_per_view


@dataclass(frozen=True)
class Answer:
    """Both heads' outputs while training."""

    chunk: Float[Tensor, "b chunk action"]
    """Normalised actions of the `oft` head."""

    logits: Float[Tensor, "b action bins"]
    """Scores of the bins of the `ar` head, each entry given the true ones before it."""

    places: Float[Tensor, "b places"]
    """Normalised position of the hand now, and at its next grasp or release: what training asks besides."""


class ReferenceVLA(nn.Module):
    """Images, instruction and proprioception to actions, all normalised."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = c = config
        views = len(c.cameras)
        self.vision = VisionTower(c.image_px, c.patch_px, c.vision_width, c.vision_layers, c.vision_heads, views)
        self.projector = Projector(c.vision_width, c.width)
        self.words = nn.Embedding(len(tokenizer()), c.width)
        self.proprio = nn.Sequential(nn.Linear(len(c.proprio_entries), c.width), nn.GELU(), nn.Linear(c.width, c.width))
        self.queries = nn.Parameter(0.02 * torch.randn(c.chunk, c.width))
        self.bins = nn.Embedding(c.action_size * N_BINS, c.width)
        self.decoder = Decoder(c.width, c.layers, c.heads, c.hidden)
        self.chunk_head = nn.Sequential(nn.Linear(c.width, c.width), nn.GELU(), nn.Linear(c.width, c.action_size))
        self.place_head = nn.Linear(c.width, N_PLACES)
        self.bin_heads = nn.Parameter(0.02 * torch.randn(c.action_size, N_BINS, c.width))
        for embedding in (self.words, self.bins):
            nn.init.normal_(embedding.weight, std=0.02)

    def layout(self, n_text: int, head: Head = "oft") -> RowLayout:
        """Return where the rows of a prompt with `n_text` tokens are."""
        n_action = self.config.chunk if head == "oft" else self.config.action_size - 1
        return RowLayout(len(self.config.cameras), self.config.rows_per_view, n_text, n_action)

    def see(self, images: Float[Tensor, "b cameras 3 px px"]) -> Float[Tensor, "b visual width"]:
        """Return the visual rows."""
        return self.projector(self.vision(images)).flatten(1, 2)

    def prompt(
        self, visual: Float[Tensor, "b visual width"], tokens: Int[Tensor, "b text"], proprio: Float[Tensor, "b p"]
    ) -> Float[Tensor, "b prompt width"]:
        """Return the embedded rows of the prompt, proprioception last.

        Args:
            visual: What `see` returns.
            tokens: The instruction, filled up with PAD.
            proprio: Normalised, all entries.
        """
        begin = self.words(tokens.new_full((len(tokens), 1), BOS))
        given = self.proprio(proprio[:, list(self.config.proprio_entries)])
        return torch.cat((begin, visual, self.words(tokens), given[:, None]), dim=1)

    def forward(
        self,
        images: Float[Tensor, "b cameras 3 px px"],
        tokens: Int[Tensor, "b text"],
        proprio: Float[Tensor, "b p"],
        bins: Int[Tensor, "b action"],
    ) -> Answer:
        """Return what both heads answer, for training: the action tokens `bins` are given, not decoded.

        Queries and action tokens follow the same prompt and do not see each other, so that one pass trains both.
        """
        prompt = self.prompt(self.see(images), tokens, proprio)
        batch, n_prompt = prompt.shape[:2]
        given = self.bins(self._numbered(bins)[:, :-1])
        x = torch.cat((prompt, self.queries.expand(batch, -1, -1), given), dim=1)
        positions, mask = self._both_heads(tokens, n_prompt)
        hidden = self.decoder(x, positions, additive(mask, x.dtype), first=n_prompt - 1)
        last, chunk, action = hidden.split((1, self.config.chunk, self.config.action_size - 1), dim=1)
        scores = torch.einsum("baw,anw->ban", torch.cat((last, action), dim=1), self.bin_heads)
        return Answer(self.chunk_head(chunk), scores, self.place_head(last[:, 0]))

    def rows(self, prompt: Float[Tensor, "b prompt width"], head: Head) -> Float[Tensor, "b rows width"]:
        """Return the prompt followed by the rows that answer in one pass; the `ar` head's are decoded later."""
        if head == "ar":
            return prompt
        return torch.cat((prompt, self.queries.expand(len(prompt), -1, -1)), dim=1)

    def answer(self, prompt: Float[Tensor, "b prompt width"]) -> Float[Tensor, "b chunk action"]:
        """Return the chunk of the `oft` head by the plain decoder; prompts without PAD only."""
        x = self.rows(prompt, "oft")
        positions = torch.arange(x.shape[1], device=x.device)[None]
        return self.chunk_head(self.decoder(x, positions, first=prompt.shape[1]))

    def bin_of(self, entry: int, hidden: Float[Tensor, "b width"]) -> Int[Tensor, " b"]:
        """Return the most likely bin of an action's entry, told by the row before it."""
        return (hidden @ self.bin_heads[entry].T).argmax(dim=-1)

    def token(self, entry: int, bins: Int[Tensor, " b"]) -> Float[Tensor, "b width"]:
        """Return the row that tells the decoder the bin of an action's entry."""
        return self.bins(bins + entry * N_BINS)

    def _numbered(self, bins: Int[Tensor, "b action"]) -> Int[Tensor, "b action"]:
        """Return the token of each bin: every entry of an action has its own 256."""
        return bins + N_BINS * torch.arange(bins.shape[1], device=bins.device)

    def _both_heads(self, tokens: Tensor, n_prompt: int) -> tuple[Int[Tensor, "b q"], Bool[Tensor, "b 1 q q"]]:
        """Return positions, in which PAD does not count, and who sees whom."""
        n_queries, n_given = self.config.chunk, self.config.action_size - 1
        real = tokens.new_ones((len(tokens), n_prompt + n_queries + n_given), dtype=torch.bool)
        real[:, n_prompt - 1 - tokens.shape[1] : n_prompt - 1] = tokens != PAD
        positions = real.long().cumsum(dim=1) - 1
        positions[:, n_prompt + n_queries :] -= n_queries
        row = torch.arange(real.shape[1], device=tokens.device)
        causal = row <= row[:, None]
        apart = (row[:, None] >= n_prompt + n_queries) & (row >= n_prompt) & (row < n_prompt + n_queries)
        visible = (causal & ~apart)[None] & real[:, None]
        visible |= torch.eye(len(row), dtype=torch.bool, device=tokens.device)  # a PAD row must see something
        return positions.clamp(min=0), visible[:, None]
