"""The two networks of LAC: which rows to recompute, and how many may be reused."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vla_bench_policies.lac.flow import FlowName
from vla_bench_policies.learned.checkpoint import Kind

IMAGENET_MEAN, IMAGENET_SCALE = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation of red, green and blue in [0, 1], as torchvision publishes them."""

FLOW_SCALE_PX = 20.0
"""Motion that counts as 1. Choice: the paper does not say how flow is normalised."""


@dataclass(frozen=True)
class GateConfig:
    """The shape of the gates; trained weights fit no other."""

    ratios: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8)
    """Shares of the visual rows that may be reused, from which the predictor chooses. Choice; 0 keeps a full step."""

    flow: FlowName = "dis"
    """What the gates are told about motion. Choice: DIS needs no weights; the paper uses RAFT."""

    flow_px: int = 0
    """Side to which frames are averaged down before flow is computed [px]; 0 means not at all."""

    px: int = 64
    """Side to which frames and flow are reduced before the stem [px]. Choice: a fourth of the cost of 128."""

    widths: tuple[int, ...] = (32, 64, 64)
    """Channels after each 3x3 convolution of stride 2. Choice: the paper gives no architecture."""

    hidden: int = 64
    """Inside the predictor's two layers."""

    text_width: int = 0
    """Width of the policy's text rows if the gates are told them (the paper's language-guided ablation), else 0."""

    grid: int = 8
    """Visual rows along a side of a view."""


class Gates(nn.Module):
    """Cached Token Selector and Cache Ratio Predictor, on one stem; one network for all views."""

    def __init__(self, config: GateConfig) -> None:
        super().__init__()
        self.config = config
        widths = (5, *config.widths)
        self.stem = nn.Sequential(
            *(
                layer
                for narrow, wide in pairwise(widths)
                for layer in (nn.Conv2d(narrow, wide, 3, stride=2, padding=1), nn.GroupNorm(8, wide), nn.GELU())
            )
        )
        self.selector = nn.Conv2d(widths[-1], 1, 1)
        self.predictor = nn.Sequential(
            nn.Linear(widths[-1], config.hidden), nn.GELU(), nn.Linear(config.hidden, len(config.ratios))
        )
        self.told = nn.Linear(config.text_width, widths[-1]) if config.text_width else None

    def forward(
        self, seen: Float[Tensor, "b views 5 px px"], text: Float[Tensor, "b text width"] | None = None
    ) -> tuple[Float[Tensor, "b visual"], Float[Tensor, "b ratios"]]:
        """Return each row's score in [0, 1], high where it should be recomputed, and the logits of the ratios.

        Args:
            seen: What `prepared` returns.
            text: Embedded rows of the instruction, for gates that are told them.
        """
        batch, views = seen.shape[:2]
        features = self.stem(seen.flatten(0, 1))
        if self.told is not None and text is not None:
            features = features + self.told(text.mean(dim=1)).repeat_interleave(views, dim=0)[..., None, None]
        scores = torch.sigmoid(self.selector(_averaged(features, self.config.grid)))
        pooled = features.mean(dim=(2, 3)).unflatten(0, (batch, views)).mean(dim=1)
        return scores.flatten(1).unflatten(0, (batch, views)).flatten(1), self.predictor(pooled)


KIND = Kind("LAC", "vla_bench_policies.lac", "vla-bench train lac", GateConfig, Gates)


def gate_flops(config: GateConfig, views: int) -> int:
    """Return the operations of both networks for one step, a multiply-add counted as two; flow is not counted."""
    side, narrow, convolutions = config.px, 5, 0
    for wide in config.widths:
        side = (side + 1) // 2
        convolutions += 2 * side * side * 9 * narrow * wide
        narrow = wide
    selector = 2 * config.grid * config.grid * narrow
    predictor = 2 * narrow * config.hidden + 2 * config.hidden * len(config.ratios)
    told = 2 * config.text_width * narrow
    return views * (convolutions + selector) + predictor + told


def prepared(
    frames: Float[Tensor, "n px px 3"], flow: Float[Tensor, "n flow_px flow_px 2"], px: int
) -> Float[Tensor, "n 5 px px"]:
    """Return what the stem takes: normalised colours and flow of each view, reduced by averaging.

    Args:
        frames: Grey levels from 0 to 255.
        flow: In pixels of the frame.
        px: Side of the result.
    """
    mean, scale = (frames.new_tensor(values)[:, None, None] * 255 for values in (IMAGENET_MEAN, IMAGENET_SCALE))
    colours, moved = (_averaged(picture.permute(0, 3, 1, 2), px) for picture in (frames, flow))
    return torch.cat(((colours - mean) / scale, moved / FLOW_SCALE_PX), dim=1)


def _averaged(pictures: Float[Tensor, "n c side side"], px: int) -> Float[Tensor, "n c px px"]:
    """Return pictures of another side; a whole factor is half as dear on a CPU, and none costs nothing."""
    side = pictures.shape[-1]
    if side % px:
        return F.adaptive_avg_pool2d(pictures, px)
    return pictures if side == px else F.avg_pool2d(pictures, side // px)


def n_reused(ratio: float, n_rows: int) -> int:
    """Return k = floor(N r), the number of rows that a ratio reuses (paper, section 3)."""
    return int(np.floor(n_rows * ratio + 1e-9))  # 0.6 * 5 is 2.9999999999999996
