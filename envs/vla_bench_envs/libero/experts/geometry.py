"""Rotations of the gripper, oriented boxes and the separating-axis test.

Gripper frame: z points from the palm to the finger tips, x is the closing axis. World frame: z up. A rotation named
`world_from_gripper` has the gripper's axes, in world coordinates, as its columns. Lengths in metres, angles in radians.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

Array = npt.NDArray[np.float64]
"""Any shape; the docstring says which."""
Vector = npt.NDArray[np.float64]
"""Shape (3,)."""
Matrix = npt.NDArray[np.float64]
"""Shape (3, 3), a rotation."""

Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int_]
"""Any shape of truth values."""

UP = np.array([0.0, 0.0, 1.0])


def downward_gripper(yaw_rad: float) -> Matrix:
    """Return world_from_gripper for fingers pointing down; at yaw 0 the closing axis is world +y (the home pose)."""
    cosine, sine = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[-sine, cosine, 0.0], [cosine, sine, 0.0], [0.0, 0.0, -1.0]])


def leaning_gripper(yaw_rad: float, lean_rad: float) -> Matrix:
    """Return world_from_gripper of the downward gripper turned by `lean_rad` about its own y axis."""
    return downward_gripper(yaw_rad) @ Rotation.from_euler("y", lean_rad).as_matrix()


def tilted_gripper(tilt_rad: float) -> Matrix:
    """Return world_from_gripper of the home orientation turned by `tilt_rad` about world x."""
    return Rotation.from_euler("x", tilt_rad).as_matrix() @ downward_gripper(0.0)


def level_gripper(heading: Vector) -> Matrix:
    """Return world_from_gripper for fingers along the horizontal `heading`, closing axis vertical."""
    forward = horizontal(heading)
    return np.stack([-UP, np.cross(forward, -UP), forward], axis=1)


def pitched_gripper(heading: Vector, pitch_rad: float) -> Matrix:
    """Return world_from_gripper for fingers along `heading` and down by `pitch_rad`, closing axis horizontal."""
    level = horizontal(heading)
    forward = level * np.cos(pitch_rad) - UP * np.sin(pitch_rad)
    closing = np.cross(UP, level)
    return np.stack([closing, np.cross(forward, closing), forward], axis=1)


def yaw_of_closing_axis(axis: Vector) -> float:
    """Return the yaw [rad], nearest to home, at which a downward gripper closes along the horizontal part of `axis`."""
    return half_turn(float(np.arctan2(-axis[0], axis[1])))


def half_turn(angle_rad: float) -> float:
    """Return the angle in [-pi/2, pi/2) that is equal modulo pi: the two fingers are interchangeable."""
    return (angle_rad + np.pi / 2) % np.pi - np.pi / 2


def horizontal(vector: Vector) -> Vector:
    """Return the unit vector along the horizontal part of `vector`."""
    flat = np.array([vector[0], vector[1], 0.0])
    return flat / np.linalg.norm(flat)


def nearest_flip(world_from_start: Matrix, world_from_goal: Matrix) -> Matrix:
    """Return the goal or its half turn about the approach axis, whichever is nearer: fingers are interchangeable."""
    flips = (world_from_goal, world_from_goal @ np.diag([-1.0, -1.0, 1.0]))
    return min(flips, key=lambda goal: float(np.linalg.norm(rotation_vector(world_from_start, goal))))


def rotation_vector(world_from_start: Matrix, world_from_goal: Matrix) -> Vector:
    """Return the rotation vector [rad], in the world frame, that turns the start orientation into the goal."""
    return Rotation.from_matrix(world_from_goal @ world_from_start.T).as_rotvec()


@dataclass(frozen=True)
class Boxes:
    """Oriented boxes."""

    centers: Array
    """World position of the centres [m], shape (n, 3)."""
    rotations: Array
    """World-from-box rotations, shape (n, 3, 3)."""
    half_sizes: Array
    """Half edge lengths [m], shape (n, 3)."""

    def __len__(self) -> int:
        """Return the number of boxes."""
        return len(self.centers)

    def __getitem__(self, chosen: Mask | Indices) -> "Boxes":
        """Return the boxes that a mask or indices select."""
        return Boxes(self.centers[chosen], self.rotations[chosen], self.half_sizes[chosen])

    def lattice(self, per_edge: int = 2) -> Array:
        """Return a regular grid over each box in the world, shape (n, per_edge ** 3, 3); 2 gives the corners."""
        ticks = np.linspace(-1.0, 1.0, per_edge)
        grid = np.stack(np.meshgrid(ticks, ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 3)
        local = grid[None] * self.half_sizes[:, None]
        return self.centers[:, None] + np.einsum("nij,nkj->nki", self.rotations, local)


def penetration(first: Boxes, second: Boxes) -> Array:
    """Return the smallest overlap [m] of each pair over fifteen separating axes, shape (n,); negative if apart.

    Source: Gottschalk, Lin and Manocha 1996, OBBTree (SIGGRAPH), section 5, with the axes normalised.
    """
    relative = np.einsum("nki,nkj->nij", first.rotations, second.rotations)
    spread = np.abs(relative)
    offset = np.einsum("nki,nk->ni", first.rotations, second.centers - first.centers)
    reach_first, reach_second = first.half_sizes, second.half_sizes
    faces_first = reach_first + np.einsum("nij,nj->ni", spread, reach_second) - np.abs(offset)
    faces_second = reach_second + np.einsum("nij,ni->nj", spread, reach_first)
    faces_second -= np.abs(np.einsum("nij,ni->nj", relative, offset))
    after, before = [1, 2, 0], [2, 0, 1]
    reach = reach_first[:, after, None] * spread[:, before] + reach_first[:, before, None] * spread[:, after]
    reach += reach_second[:, None, after] * spread[:, :, before] + reach_second[:, None, before] * spread[:, :, after]
    distance = np.abs(offset[:, before, None] * relative[:, after] - offset[:, after, None] * relative[:, before])
    length = np.sqrt(np.maximum(1.0 - relative**2, 0.0))
    usable = length > 1e-3  # parallel edges span no axis; the faces' axes cover that case
    edges = np.where(usable, (reach - distance) / np.where(usable, length, 1.0), np.inf)
    return np.concatenate([faces_first, faces_second, edges.reshape(-1, 9)], axis=1).min(axis=1)
