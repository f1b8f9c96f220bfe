"""What scores the visual rows, on the GPU: each method's own decision. A high score wants to be recomputed.

Nothing here leaves the GPU. Where a method's count is fixed, so is its bucket; `LacGate` chooses it.
"""

from typing import Protocol

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from vla_bench_policies.lac.flow import DIFFERENCE_SCALE, GREY
from vla_bench_policies.lac.gates import FLOW_SCALE_PX, IMAGENET_MEAN, IMAGENET_SCALE, Gates, n_reused
from vla_bench_policies.static.rows import Buckets

FIRST = 4.0
"""Beyond every score: rows that a rule wants whatever their score is."""


class Gate(Protocol):
    """Scores of the rows, and possibly a bucket."""

    @property
    def bucket(self) -> Int[Tensor, " 1"] | None:
        """Return the index of the bucket that was chosen, on the GPU; None where it is fixed."""
        ...

    def scores(self, images: UInt8[Tensor, "views px px 3"]) -> Float[Tensor, " visual"]:
        """Return each row's score; the pictures are those of the next step's reference."""
        ...


class RandomGate:
    """By chance, anew in every step."""

    bucket = None

    def __init__(self, n_visual: int, device: torch.device) -> None:
        self._scores = torch.zeros(n_visual, device=device)

    def scores(self, images: Tensor) -> Float[Tensor, " visual"]:
        """Return random numbers."""
        return self._scores.uniform_().clone()


class PixelGate:
    """By the mean absolute change of a patch since the last step (`methods.pixel_difference`)."""

    bucket = None

    def __init__(self, images: UInt8[Tensor, "views px px 3"], grid: int) -> None:
        """Remember a black picture."""
        self._reference, self._grid = torch.zeros_like(images), grid

    def scores(self, images: Tensor) -> Float[Tensor, " visual"]:
        """Return the change [grey level of 255]."""
        changed = (patches(images, self._grid) - patches(self._reference, self._grid)).abs().mean(dim=1)
        self._reference.copy_(images)
        return changed


class VlaCacheGate:
    """By the cosine of a patch with the last one; rows that text attends to are always recomputed (VLA-Cache).

    Differs from `methods.vla_cache`, so that time can be measured at any budget: rows leave before the first layer, not
    by a schedule of layers from the entropy of attention, which reads the attention of every layer.
    """

    bucket = None

    def __init__(self, images: UInt8[Tensor, "views px px 3"], grid: int, n_relevant: int) -> None:
        """Remember a black picture and no attention.

        Args:
            images: Buffer of the pictures.
            grid: Rows along a side of a view.
            n_relevant: Rows of a view that are never reused.
        """
        self._reference, self._grid, self._n_relevant = torch.zeros_like(images), grid, n_relevant
        self.looked = torch.zeros(len(images) * grid * grid, device=images.device)
        """Attention of the text's rows in the last step; the decoder puts it there."""

    def scores(self, images: Tensor) -> Float[Tensor, " visual"]:
        """Return one minus the cosine, and `FIRST` more for what is relevant."""
        alike = F.cosine_similarity(patches(images, self._grid), patches(self._reference, self._grid), dim=1)
        self._reference.copy_(images)
        views = self.looked.unflatten(0, (len(images), -1))
        relevant = torch.zeros_like(views).scatter_(1, views.topk(self._n_relevant, dim=1).indices, FIRST)
        return 1 - alike + relevant.flatten()


class LacGate:
    """By LAC's gates, told the flow `difference`; their ratio chooses the bucket."""

    def __init__(
        self, gates: Gates, images: UInt8[Tensor, "views px px 3"], buckets: Buckets, ratio: float | None = None
    ) -> None:
        """Remember a black picture.

        Args:
            gates: With as many ratios as they were trained for.
            images: Buffer of the pictures.
            buckets: Of the prompt.
            ratio: One of the gates' ratios, taken whatever they say: they are run and asked all the same.
        """
        self._gates, device = gates, images.device
        n_visual, ratios = buckets.layout.n_visual, gates.config.ratios
        counts = torch.tensor([n_visual - n_reused(one, n_visual) for one in ratios], device=device)
        self._buckets = buckets.bucket_of(counts)
        self._push = torch.zeros(len(ratios), device=device)
        self.force(ratio)
        self._reference = torch.zeros_like(images)
        self._mean, self._scale = (
            torch.tensor(values, device=device) * 255 for values in (IMAGENET_MEAN, IMAGENET_SCALE)
        )
        self._grey = torch.from_numpy(GREY).to(device)
        self.bucket: Int[Tensor, " 1"] | None = torch.zeros(1, dtype=torch.int64, device=device)

    def force(self, ratio: float | None) -> None:
        """Let the bucket be a ratio's whatever the gates say, or theirs again."""
        self._push.zero_()
        if ratio is not None:
            self._push[self._gates.config.ratios.index(ratio)] = 1e6

    def seen(self, images: UInt8[Tensor, "views px px 3"]) -> Float[Tensor, "views 5 px px"]:
        """Return what the stem takes, as `lac.gates.prepared` does it for the flow `difference`."""
        now, then = images.float(), self._reference.float()
        change = ((now - then) @ self._grey) * DIFFERENCE_SCALE
        flow = torch.stack((change, change.abs()), dim=-1) / FLOW_SCALE_PX
        whole = torch.cat(((now - self._mean) / self._scale, flow), dim=-1).permute(0, 3, 1, 2)
        return F.adaptive_avg_pool2d(whole, self._gates.config.px)

    def scores(self, images: Tensor) -> Float[Tensor, " visual"]:
        """Return the selector's scores, and leave the predictor's bucket in `bucket`."""
        assert self.bucket is not None
        dtype = next(self._gates.parameters()).dtype
        scores, logits = self._gates(self.seen(images)[None].to(dtype))
        self._reference.copy_(images)
        self.bucket.copy_(self._buckets[(logits[0].float() + self._push).argmax(dim=0, keepdim=True)])
        return scores[0].float()


def patches(images: UInt8[Tensor, "views px px 3"], grid: int) -> Float[Tensor, "rows values"]:
    """Return the pixels of each row's patch, view by view in raster order (`token_cache.patches` on the GPU)."""
    views, px = images.shape[:2]
    side = px // grid
    cut = images.float().view(views, grid, side, grid, side, 3).permute(0, 1, 3, 2, 4, 5)
    return cut.reshape(views * grid * grid, -1)
