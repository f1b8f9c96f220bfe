"""From pixels to visual rows: patch embedding, a small vision transformer, projector."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

PIXEL_MEAN, PIXEL_SCALE = 127.5, 127.5
"""Grey levels of 255 to about [-1, 1]."""


class PatchEmbedding(nn.Module):
    """Stride-2 convolutions down to a row a patch.

    Convolutions instead of one linear map a patch: with little data and few steps a transformer trains much better
    behind them (Xiao et al. 2021, "Early Convolutions Help Transformers See Better").
    """

    def __init__(self, patch_px: int, width: int) -> None:
        super().__init__()
        widths = stem_widths(patch_px, width)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(narrow, wide, 3, stride=2, padding=1) for narrow, wide in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(1, wide) for wide in widths[1:-1])
        self.projection = nn.Linear(widths[-1], width)

    def forward(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n rows features"]:
        """Return a row a patch, in raster order."""
        x = images
        for convolution, norm in zip(self.convolutions, self.norms, strict=False):
            x = F.gelu(norm(convolution(x)))
        x = F.gelu(self.convolutions[-1](x))
        return self.projection(x.flatten(2).transpose(1, 2))


def stem_widths(patch_px: int, width: int) -> list[int]:
    """Return the channels before and after every convolution: each halves the image and doubles them."""
    halvings = patch_px.bit_length() - 1
    return [3, *(max(width >> (halvings - 1 - step), 16) for step in range(halvings))]


class Block(nn.Module):
    """Bidirectional attention and a two-layer network, normalised before (Dosovitskiy et al. 2021, section 3.1)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "n rows width"]) -> Float[Tensor, "n rows width"]:
        """Return the rows after this block."""
        query, key, value = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value)
        x = x + self.out(seen.transpose(1, 2).flatten(-2))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class VisionTower(nn.Module):
    """One network for all cameras, told which one it looks through."""

    def __init__(self, image_px: int, patch_px: int, width: int, layers: int, heads: int, cameras: int) -> None:
        super().__init__()
        n_rows = (image_px // patch_px) ** 2
        self.patches = nn.Sequential(PatchEmbedding(patch_px, width), nn.LayerNorm(width))
        self.position = nn.Parameter(0.02 * torch.randn(n_rows, width))
        self.camera = nn.Parameter(0.02 * torch.randn(cameras, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        without_biases(self)

    def forward(self, images: Float[Tensor, "b cameras 3 px px"]) -> Float[Tensor, "b cameras rows width"]:
        """Return features of every patch of every camera.

        Args:
            images: Grey levels from 0 to 255, as floats.
        """
        pixels = (images.flatten(0, 1) - PIXEL_MEAN) / PIXEL_SCALE
        x = self.patches(pixels).unflatten(0, images.shape[:2])
        x = (x + self.position + self.camera[:, None]).flatten(0, 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x).unflatten(0, images.shape[:2])


class Projector(nn.Module):
    """Two layers from the vision tower's features to the decoder's rows, as in LLaVA-1.5 and the published VLAs."""

    def __init__(self, vision_width: int, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(vision_width, width), nn.Linear(width, width)
        without_biases(self)

    def forward(self, features: Float[Tensor, "*n vision"]) -> Float[Tensor, "*n width"]:
        """Return decoder rows."""
        return self.fc2(F.gelu(self.fc1(features)))


def without_biases(module: nn.Module) -> None:
    """Begin with biases of zero: what all images share would drown, in the first steps, what tells them apart."""
    for name, weight in module.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(weight)
