"""Floating-point operations outside of the decoder, by formula: a multiply-add is two; a test counts as torch does."""

from vla_bench_policies.openvla.model import Trunk
from vla_bench_policies.openvla.vision import TowerShape


def of_seeing(trunk: Trunk, n_views: int) -> int:
    """Return the operations of both towers and the projector for that many pictures."""
    towers = (trunk.towers.featurizer.shape, trunk.towers.fused_featurizer.shape)
    features, width = trunk.towers.width, trunk.words.shape[1]
    told = sum(2 * shape.blocks * linear(1, width, shape.width) for shape in towers) if trunk.towers.told else 0
    projector = linear(trunk.rows_per_view, features, 4 * features)
    projector += linear(trunk.rows_per_view, 4 * features, width) + linear(trunk.rows_per_view, width, width)
    return n_views * (sum(map(of_tower, towers)) + projector + told)


def of_tower(shape: TowerShape) -> int:
    """Return the operations of one tower for one picture."""
    n_patches = shape.grid**2
    rows = n_patches + shape.prefix_rows
    block = linear(rows, shape.width, 4 * shape.width) + 2 * linear(rows, shape.width, shape.hidden)
    attention = 4 * rows * rows * shape.width
    return linear(n_patches, 3 * shape.patch_px**2, shape.width) + shape.blocks * (block + attention)


def linear(rows: int, inputs: int, outputs: int) -> int:
    """Return the operations of a matrix product."""
    return 2 * rows * inputs * outputs
