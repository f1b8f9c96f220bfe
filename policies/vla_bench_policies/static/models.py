"""Models of published shapes with random weights: what is timed does not depend on what they know."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vla_bench_policies.lac.gates import GateConfig, Gates
from vla_bench_policies.openvla.config import DecoderShape
from vla_bench_policies.openvla.heads import ActionHead
from vla_bench_policies.openvla.vision import FusedTowers, Projector, TowerShape
from vla_bench_policies.static.answers import Answer, OnePass, Tokens
from vla_bench_policies.static.decoder import StaticDecoder
from vla_bench_policies.static.pointwise import Kernels
from vla_bench_policies.static.vision import DINOV2, SIGLIP, StaticSight, compile_towers, random_sight
from vla_bench_policies.static.weights import LlamaWeights
from vla_bench_policies.token_cache.layout import RowLayout

ACTION_SIZE = 7

LLAMA_7B = DecoderShape()
"""The defaults are OpenVLA's."""

RATIOS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of reuse that are measured, which LAC's gates can choose here."""


@dataclass(frozen=True)
class PromptShape:
    """Rows of a prompt, and how it is answered."""

    name: str
    layout: RowLayout
    n_given: int
    chunk: int
    """Actions of an answer."""

    @property
    def one_pass(self) -> bool:
        """Return whether the answer's rows are part of the prompt."""
        return self.layout.bidirectional


def openvla(rows_per_view: int = 256, n_views: int = 1) -> PromptShape:
    """Return BOS, one picture, 25 rows of text, and places for the tokens of an action."""
    layout = RowLayout(n_views, rows_per_view, n_text=24, n_action=ACTION_SIZE)
    return PromptShape("openvla", layout, layout.proprio + 1, chunk=1)


def openvla_oft(chunk: int = 8, rows_per_view: int = 256, n_views: int = 2) -> PromptShape:
    """Return BOS, two pictures, proprioception, 34 rows of text, a row for each entry of each action, EOS."""
    layout = RowLayout(
        n_views, rows_per_view, n_text=33, n_action=chunk * ACTION_SIZE + 1, bidirectional=True, n_before_text=1
    )
    return PromptShape("openvla-oft" if chunk == 8 else f"openvla-oft-{chunk}", layout, layout.n_rows, chunk)


@dataclass(frozen=True)
class Sizes:
    """Of the networks."""

    decoder: DecoderShape = LLAMA_7B
    towers: tuple[TowerShape, TowerShape] = (DINOV2, SIGLIP)
    gate_px: int = 64

    @classmethod
    def small(cls) -> "Sizes":
        """Return sizes for a test."""
        decoder = DecoderShape(width=128, hidden=192, layers=4, heads=4, kv_heads=4, vocabulary=384)
        first, second = (
            replace(tower, width=64, hidden=96, blocks=2, patch_px=4, grid=8) for tower in (DINOV2, SIGLIP)
        )
        return cls(decoder, (first, second), gate_px=16)


class RandomModel:
    """Networks with random weights on a device, shared by all prompts and variants."""

    def __init__(self, sizes: Sizes, device: torch.device, dtype: torch.dtype, seed: int = 0) -> None:
        """Draw the weights where they will be."""
        self.sizes, self.device, self.dtype = sizes, device, dtype
        torch.manual_seed(seed)
        self.weights = LlamaWeights.random(sizes.decoder, device, dtype, seed)
        self.towers: FusedTowers
        self.projector: Projector
        self.towers, self.projector = random_sight(sizes.towers, sizes.decoder.width, device, dtype, seed)
        self._fast_towers: FusedTowers | None = None
        with torch.device(device):
            self.head = ActionHead(sizes.decoder.width, ACTION_SIZE).to(dtype).requires_grad_(False).eval()
            config = GateConfig(RATIOS, flow="difference", px=sizes.gate_px, grid=sizes.towers[0].grid)
            self.gates = Gates(config).requires_grad_(False).eval()
        self._restored = (torch.ones(ACTION_SIZE, device=device), torch.zeros(ACTION_SIZE, device=device))

    @property
    def rows_per_view(self) -> int:
        """Return the visual rows of a picture."""
        return self.sizes.towers[0].grid ** 2

    def decoder(self, prompt: PromptShape, kernels: Kernels, weights: LlamaWeights | None = None) -> StaticDecoder:
        """Return a decoder with rows of a prompt in it."""
        decoder = StaticDecoder(weights or self.weights, prompt.layout, prompt.n_given, kernels)
        decoder.rows[: prompt.n_given].normal_(0, 1)
        return decoder

    def sight(self, prompt: PromptShape, fast: bool = False) -> StaticSight:
        """Return the towers with a buffer for a prompt's pictures; `fast` ones are compiled and run side by side."""
        if fast and self._fast_towers is None:
            self._fast_towers = deepcopy(self.towers)
            compile_towers(self._fast_towers)
        towers = self._fast_towers if fast and self._fast_towers is not None else self.towers
        return StaticSight(towers, self.projector, prompt.layout.n_views, abreast=fast)

    def answer(self, prompt: PromptShape, decoder: StaticDecoder, cut: int | None = None) -> Answer:
        """Return how a prompt is answered."""
        if prompt.one_pass:
            return OnePass(self.head, prompt.chunk, ACTION_SIZE, self._restored)
        n_tokens = self.sizes.decoder.vocabulary - 64
        return Tokens(decoder, n_tokens, 256, self._restored, cut)

    def pictures(self, prompt: PromptShape, pinned: bool) -> Callable[[], Tensor]:
        """Return what shows other pictures each time it is called, in host memory."""
        px = self.sizes.towers[0].grid * self.sizes.towers[0].patch_px
        size = (prompt.layout.n_views, px, px, 3)
        reel = [torch.randint(0, 256, size, dtype=torch.uint8, pin_memory=pinned) for _ in range(4)]
        shown = [0]

        def following() -> Tensor:
            shown[0] = (shown[0] + 1) % len(reel)
            return reel[shown[0]]

        return following
