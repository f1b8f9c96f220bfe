"""Buckets, and which rows fill one: all on the GPU, and of a size that does not depend on values."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vla_bench_policies.token_cache.layout import RowLayout

BUCKET = 64
"""Rows by which buckets differ: a tile of a matrix kernel, which computes as many anyhow."""


class Buckets:
    """Sizes of a step, and the rows that a bucket holds: all that are not visual, and as many visual ones as fit.

    Rows come in the order of their positions, those behind the visual ones always last, so that the rows that answer
    are at the end of every bucket.
    """

    def __init__(self, layout: RowLayout, n_given: int, device: torch.device) -> None:
        """Work out the sizes.

        Args:
            layout: Of the prompt.
            n_given: Rows of the prompt; the layout may have places behind them for tokens that are decoded later.
            device: Where rows are chosen.
        """
        self.layout, self.n_given = layout, n_given
        self.n_rest = n_given - layout.n_visual
        first = -(-self.n_rest // BUCKET) * BUCKET
        self.sizes = (*range(first, n_given, BUCKET), n_given)
        """From what the rows that are not visual need, rounded up, to all rows as they are."""
        self.spare = layout.n_rows
        """The slot for padding, behind all rows."""
        self._bos = torch.zeros(1, dtype=torch.int64, device=device)
        self._tail = torch.arange(layout.visual.stop, n_given, device=device)
        self._count = torch.arange(layout.n_visual, device=device)

    def holding(self, n_visual: int) -> int:
        """Return the smallest bucket that holds so many visual rows."""
        return next(size for size in self.sizes if size >= n_visual + self.n_rest)

    def reusing(self, share: float) -> int:
        """Return the bucket of a share of the visual rows that is reused, rounded down."""
        return self.holding(self.layout.n_visual - int(self.layout.n_visual * share + 1e-9))

    def n_visual(self, bucket: int) -> int:
        """Return the visual rows that fit into a bucket."""
        return bucket - self.n_rest

    def filled(self, scores: Float[Tensor, " visual"], bucket: int) -> Int[Tensor, " bucket"]:
        """Return the rows of a bucket, highest scores first to get in; ties go to the higher row.

        A bucket is filled with rows, not with padding: a row more in it costs nothing and is fresher.
        """
        best = self._best(scores, bucket)
        return torch.cat((self._bos, best.sort().values + 1, self._tail))

    def padded(
        self, scores: Float[Tensor, " visual"], bucket: int, n_visual: Int[Tensor, ""]
    ) -> Int[Tensor, " bucket"]:
        """Return the rows of a bucket with exactly so many visual rows; the rest point to the spare slot.

        Args:
            scores: Of the visual rows.
            bucket: Its size.
            n_visual: A number on the GPU, at most what fits.
        """
        best = self._best(scores, bucket)
        out = self._count[: len(best)] < len(best) - n_visual
        places = torch.where(out, self.spare, best + 1)
        return torch.cat((self._bos, places.sort().values, self._tail))

    def bucket_of(self, n_visual: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
        """Return the index of the smallest bucket for so many visual rows, without leaving the GPU."""
        index = torch.zeros_like(n_visual)
        for size in self.sizes[:-1]:
            index = index + (n_visual > size - self.n_rest).to(index.dtype)
        return index

    def _best(self, scores: Tensor, bucket: int) -> Tensor:
        """Return the visual rows with the highest scores, worst first."""
        order = scores.argsort(stable=True)
        return order[len(order) - self.n_visual(bucket) :]
