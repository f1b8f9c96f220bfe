"""From 8-bit pictures to rows of the prompt, with normalisation and both towers on the GPU."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vla_bench_policies.openvla.config import MEANS_AND_DEVIATIONS
from vla_bench_policies.openvla.vision import FusedTowers, Projector, TowerShape
from vla_bench_policies.static.pointwise import allow_variants

DINOV2 = TowerShape(
    width=1024, hidden=4096, blocks=23, patch_px=14, grid=16, registers=4, has_class=True, scaled=True
)  # fmt: skip
"""ViT-L/14 with registers, at 224 px; the last of 24 blocks is not computed."""

SIGLIP = TowerShape(
    width=1152, hidden=4304, blocks=26, patch_px=14, grid=16, registers=0, has_class=False, scaled=False
)  # fmt: skip
"""So400m/14 at 224 px; the last of 27 blocks is not computed."""


def random_sight(
    shapes: tuple[TowerShape, TowerShape], width: int, device: torch.device, dtype: torch.dtype, seed: int
) -> tuple[FusedTowers, Projector]:
    """Return towers and projector with random weights, drawn on the device."""
    generator = torch.Generator(device).manual_seed(seed)
    with torch.device("meta"):
        towers = FusedTowers(shapes)
        projector = Projector(towers.width, width)
    for module in (towers, projector):
        module.to_empty(device=device).to(dtype).requires_grad_(False).eval()
        for name, weight in module.named_parameters():
            weight.fill_(1.0) if "norm" in name and name.endswith("weight") else weight.normal_(
                0, 0.02, generator=generator
            )
    return towers, projector


class StaticSight:
    """Pictures in a buffer to visual rows.

    Both towers are small for a large GPU and know nothing of each other, so that they run side by side, on two streams
    that part and meet again within a graph.
    """

    def __init__(self, towers: FusedTowers, projector: Projector, n_views: int, abreast: bool = True) -> None:
        """Reserve the buffers; without `abreast` the towers run one after the other."""
        like = towers.featurizer.pos_embed
        self._towers, self._projector = towers, projector
        px = towers.featurizer.shape.grid * towers.featurizer.shape.patch_px
        self.images: UInt8[Tensor, "views px px 3"] = torch.zeros(
            n_views, px, px, 3, dtype=torch.uint8, device=like.device
        )
        self._colours = [
            tuple(torch.tensor(part, device=like.device).view(3, 1, 1) for part in pair)
            for pair in MEANS_AND_DEVIATIONS
        ]
        on_cuda = like.device.type == "cuda"
        self._aside = torch.cuda.Stream(like.device) if abreast and on_cuda else None

    def rows(self) -> Float[Tensor, "visual d"]:
        """Return the visual rows, view by view."""
        pixels = self.images.permute(0, 3, 1, 2).float() / 255
        dtype = self._towers.featurizer.pos_embed.dtype
        first, second = (((pixels - mean) / deviation).to(dtype) for mean, deviation in self._colours)
        features = torch.cat(self._features(first, second), dim=2)
        return self._projector(features).flatten(0, 1)

    def _features(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        towers, aside = self._towers, self._aside
        if aside is None:
            return towers.featurizer(first), towers.fused_featurizer(second)
        here = torch.cuda.current_stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            of_second = towers.fused_featurizer(second)
        of_first = towers.featurizer(first)
        here.wait_stream(aside)
        return of_first, of_second


def compile_towers(towers: FusedTowers) -> None:
    """Compile the blocks of both towers in place, once a kind of tower and number of pictures."""
    allow_variants()
    for tower in (towers.featurizer, towers.fused_featurizer):
        for block in tower.blocks:
            block.compile(fullgraph=True, dynamic=False)
