"""Room for the hand: what a gripper pose would hit, and how high to travel."""

from collections.abc import Sequence

import numpy as np

from vla_bench_envs.libero.experts.geometry import UP, Boxes, Mask, Matrix, Vector, penetration
from vla_bench_envs.libero.experts.scene import Scene

FINGER_OFFSET_M = 0.0101
"""From the pad's face to the middle of the finger's box, along the closing axis."""
FINGER = ((0.0, 0.0, -0.0181), (0.018, 0.0109, 0.0305))
"""Centre, less the opening, and half size of a finger's box in the gripper frame [m]; measured on robosuite 1.4.0."""
PALM = ((0.0016, 0.0, -0.0782), (0.1041, 0.0317, 0.0492))
"""Palm, its front face 26 mm behind the grip site."""
FLANGE = ((0.0, 0.0, -0.21), (0.05, 0.05, 0.085))
"""Flange and wrist behind the palm."""
HALF_OPENING_M = 0.0385
"""Half the distance between the pads of the open gripper."""
MARGIN_M = 0.001
"""Added to the half sizes of the hand's boxes."""
PULL_HEIGHT_M = 0.006
"""How far an object is raised while it is pulled."""
LIFT_HEIGHTS_M = (0.015, 0.03, 0.045, 0.06, 0.08, 0.1, 0.125, 0.15, 0.175, 0.2)
"""Heights at which the way up is tested."""
LIFT_MARGIN_M = 0.003
"""Added to the half sizes of an object for that test."""


def hand_boxes(position: Vector, world_from_gripper: Matrix) -> Boxes:
    """Return the boxes of palm, flange and the two open fingers at a gripper pose; the fingers come last."""
    side = HALF_OPENING_M + FINGER_OFFSET_M
    (_, middle, behind), finger = FINGER
    parts = (PALM, FLANGE, ((side, middle, behind), finger), ((-side, middle, behind), finger))
    centers = position + np.array([center for center, _ in parts]) @ world_from_gripper.T
    rotations = np.broadcast_to(world_from_gripper, (len(parts), 3, 3))
    return Boxes(centers, rotations, np.array([half for _, half in parts]) + MARGIN_M)


def hand_penetration(
    scene: Scene, position: Vector, world_from_gripper: Matrix, held: str, allowed: tuple[str, ...] = ()
) -> float:
    """Return the summed depth [m] to which the open hand would enter its surroundings.

    The fingers may enter the boxes of `held`, which are coarser than its shape; nothing tests `allowed`.
    """
    hand = hand_boxes(position, world_from_gripper)
    tested = np.tile(~scene.owned_by(*allowed), (len(hand), 1))
    tested[2:] &= ~scene.owned_by(held)
    return _depth(hand, scene.obstacles(), tested)


def travel_height(scene: Scene, start: Vector, goal: Vector, radius_m: float, ignored: tuple[str, ...] = ()) -> float:
    """Return the height [m] of the highest obstacle within a horizontal distance of the straight way to the goal."""
    points = scene.obstacles_without(*ignored).lattice(3)
    way = goal[:2] - start[:2]
    share = np.clip((points[..., :2] - start[:2]) @ way / max(float(way @ way), 1e-6), 0.0, 1.0)
    distance = np.linalg.norm(points[..., :2] - (start[:2] + share[..., None] * way), axis=-1)
    return float(np.max(points[..., 2], where=distance < radius_m, initial=0.0))


def way_out(scene: Scene, name: str) -> Vector:
    """Return the shortest horizontal way [m] by which an object must be pulled until it can be lifted straight up.

    Zero if it can be lifted where it is. If no way of up to 80 mm is free, the one least in the way of others.
    """
    if _obstruction(scene, name, np.zeros(3), LIFT_HEIGHTS_M) == 0.0:
        return np.zeros(3)
    ways = [
        length * np.array([np.cos(angle), np.sin(angle), 0.0])
        for length in np.arange(0.01, 0.085, 0.01)
        for angle in np.arange(0.0, 2 * np.pi, np.pi / 8)
    ]
    least, best = np.inf, ways[0]
    for way in ways:
        depth = _obstruction(scene, name, way, (PULL_HEIGHT_M, *LIFT_HEIGHTS_M))
        if depth < least:
            least, best = depth, way
        if depth == 0.0:
            break
    return best


def _obstruction(scene: Scene, name: str, way: Vector, heights_m: Sequence[float]) -> float:
    """Return the summed depth [m] to which an object, moved by `way` and lifted, enters its surroundings."""
    shape = scene.boxes_of(name)
    centers = np.concatenate([shape.centers + way + height * UP for height in heights_m])
    n_copies = len(heights_m)
    half_sizes = np.tile(shape.half_sizes, (n_copies, 1)) + LIFT_MARGIN_M
    moved = Boxes(centers, np.tile(shape.rotations, (n_copies, 1, 1)), half_sizes)
    return _depth(moved, scene.obstacles(), np.tile(~scene.owned_by(name), (len(moved), 1)))


def _depth(first: Boxes, second: Boxes, tested: Mask) -> float:
    """Return the summed depth [m] to which those pairs of boxes that are `tested`, shape (m, n), overlap."""
    spacing = np.linalg.norm(second.centers - first.centers[:, None], axis=-1)
    radii = np.linalg.norm(first.half_sizes, axis=1)[:, None] + np.linalg.norm(second.half_sizes, axis=1)
    one, other = np.nonzero(tested & (spacing < radii))
    return float(np.maximum(penetration(first[one], second[other]), 0.0).sum())
