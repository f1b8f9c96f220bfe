"""The two vision towers of the published models, and the projector to the decoder's rows.

Both towers are plain vision transformers in timm's layout of names. Of each, the patch features *before the last block*
are used, without the final norm (openvla/openvla, `prismatic/extern/hf/modeling_prismatic.py`,
`PrismaticVisionBackbone`), so that the last block, the norm and SigLIP's pooling are never built.
"""

import re
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vla_bench_policies.openvla.errors import PublishedCheckpointError
from vla_bench_policies.openvla.tensors import TensorSource

HEADS = 16
"""Of both towers: 1024 / 64 in DINOv2 ViT-L, 1152 / 72 in SigLIP so400m."""

EPS = 1e-6
"""Of the norms in both towers: timm's vision transformers."""

PREFIXES = ("featurizer", "fused_featurizer")
"""Names of the towers within `vision_backbone`: DINOv2, SigLIP."""


@dataclass(frozen=True)
class TowerShape:
    """Of one tower, as its weights tell it."""

    width: int
    hidden: int
    """Width inside the feed-forward network."""
    blocks: int
    """That are computed: one less than there are."""
    patch_px: int
    grid: int
    """Patches along a side."""
    registers: int
    """Rows that are no patch besides the class row; only where there is a class row."""
    has_class: bool
    scaled: bool
    """Whether every branch is scaled before it is added (LayerScale), as in DINOv2."""

    @property
    def prefix_rows(self) -> int:
        """Return the rows in front of the patches."""
        return self.has_class + self.registers

    @classmethod
    def of(cls, source: TensorSource, prefix: str) -> "TowerShape":
        """Return the shape that the tensors under a prefix have.

        Raises:
            PublishedCheckpointError: If there is no such tower.
        """
        names = set(source.names())
        for part in ("pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight"):
            if prefix + part not in names:
                raise PublishedCheckpointError(
                    source.path, f"the tensor {prefix + part!r} is missing", "a vision tower"
                )
        numbers = [int(found[1]) for name in names if (found := re.match(re.escape(prefix) + r"blocks\.(\d+)\.", name))]
        _, n_patches, width = source.shape(f"{prefix}pos_embed")
        registers = f"{prefix}reg_token"
        return cls(
            width=width,
            hidden=source.shape(f"{prefix}blocks.0.mlp.fc1.weight")[0],
            blocks=max(numbers),
            patch_px=source.shape(f"{prefix}patch_embed.proj.weight")[-1],
            grid=round(n_patches**0.5),
            registers=source.shape(registers)[1] if registers in names else 0,
            has_class=f"{prefix}cls_token" in names,
            scaled=f"{prefix}blocks.0.ls1.scale_factor" in names,
        )


class Tower(nn.Module):
    """One vision transformer up to the block before its last one."""

    def __init__(self, shape: TowerShape, text_width: int | None = None) -> None:
        """Build a tower whose blocks are told the text by FiLM if `text_width` is given."""
        super().__init__()
        self.shape = shape
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width)) if shape.has_class else None
        self.reg_token = nn.Parameter(torch.zeros(1, shape.registers, shape.width)) if shape.registers else None
        self.pos_embed = nn.Parameter(torch.zeros(1, shape.grid**2, shape.width))
        self.patch_embed = _Patches(shape.width, shape.patch_px)
        self.blocks = nn.ModuleList(Block(shape, text_width) for _ in range(shape.blocks))

    def forward(
        self, images: Float[Tensor, "n 3 px px"], text: Float[Tensor, "n d"] | None = None
    ) -> Float[Tensor, "n patches width"]:
        """Return the features of the patches; positions are told to patches only."""
        x = self.patch_embed(images) + self.pos_embed
        front = [row.expand(len(x), -1, -1) for row in (self.cls_token, self.reg_token) if row is not None]
        x = torch.cat((*front, x), dim=1)
        for block in self.blocks:
            x = block(x, text)
        return x[:, self.shape.prefix_rows :]


class Block(nn.Module):
    """Attention and a feed-forward network, each added to what it saw; between them, optionally, FiLM."""

    def __init__(self, shape: TowerShape, text_width: int | None = None) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(shape.width, eps=EPS) for _ in range(2))
        self.attn = Attention(shape.width, HEADS)
        self.mlp = FeedForward(shape.width, shape.hidden)
        self.ls1, self.ls2 = (_Scale(shape.width) if shape.scaled else nn.Identity() for _ in range(2))
        if text_width is not None:
            self.scale, self.shift = (nn.Linear(text_width, shape.width) for _ in range(2))

    def forward(
        self, x: Float[Tensor, "n rows width"], text: Float[Tensor, "n d"] | None = None
    ) -> Float[Tensor, "n rows width"]:
        """Return the rows after the block; `text` is the mean embedding of the words, for FiLM."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        if text is not None:
            x = x * (1 + self.scale(text)[:, None]) + self.shift(text)[:, None]
        return x + self.ls2(self.mlp(self.norm2(x)))


class Attention(nn.Module):
    """Every row looks at every row."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "n rows width"]) -> Float[Tensor, "n rows width"]:
        """Return what each row has seen."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two layers with an exact GELU, or its tanh approximation."""

    def __init__(self, width: int, hidden: int, approximate: str = "none") -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self._approximate = approximate

    def forward(self, x: Float[Tensor, "*n width"]) -> Float[Tensor, "*n width"]:
        """Return the rows, each by itself."""
        return self.fc2(F.gelu(self.fc1(x), approximate=self._approximate))


class FusedTowers(nn.Module):
    """DINOv2 and SigLIP side by side: the features of a patch are one after the other."""

    def __init__(self, shapes: tuple[TowerShape, TowerShape], text_width: int | None = None) -> None:
        super().__init__()
        self.featurizer, self.fused_featurizer = (Tower(shape, text_width) for shape in shapes)
        self.told = text_width is not None
        """Whether the blocks are told the text."""

    @property
    def width(self) -> int:
        """Return the number of features of a patch."""
        return self.featurizer.shape.width + self.fused_featurizer.shape.width

    def forward(
        self, images: Float[Tensor, "b views 6 px px"], text: Float[Tensor, "b d"] | None = None
    ) -> Float[Tensor, "b visual width"]:
        """Return the features of all patches, view by view; each image is there twice, normalised for each tower."""
        n_views = images.shape[1]
        told = None if text is None else text.repeat_interleave(n_views, dim=0)
        first, second = images.flatten(0, 1).split(3, dim=1)
        both = torch.cat((self.featurizer(first, told), self.fused_featurizer(second, told)), dim=2)
        return both.unflatten(0, (-1, n_views)).flatten(1, 2)


class Projector(nn.Module):
    """Three layers from the features of a patch to a row of the decoder."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, 4 * features)
        self.fc2, self.fc3 = nn.Linear(4 * features, width), nn.Linear(width, width)

    def forward(self, features: Float[Tensor, "*n features"]) -> Float[Tensor, "*n width"]:
        """Return decoder rows."""
        return self.fc3(F.gelu(self.fc2(F.gelu(self.fc1(features)))))


class _Patches(nn.Module):
    def __init__(self, width: int, patch_px: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_px, patch_px)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class _Scale(nn.Module):
    """LayerScale, under the name that the published checkpoints give its factor (timm: `gamma`)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale_factor = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale_factor
