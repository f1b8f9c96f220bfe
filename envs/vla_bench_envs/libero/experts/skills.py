"""Picking up and setting down."""

from collections.abc import Callable

import numpy as np

from vla_bench_envs.libero.experts.clearance import PULL_HEIGHT_M, travel_height, way_out
from vla_bench_envs.libero.experts.geometry import UP, Matrix, Vector
from vla_bench_envs.libero.experts.grasps import NO_ERRAND, Errand, Grasp, choose_grasp
from vla_bench_envs.libero.experts.motion import OPEN, Arm, Motion, SkillFailed

Skill = Callable[[Arm], Motion[None]]
"""A piece of a plan: given an arm, it moves."""

ATTEMPTS = 3
"""Grasps tried for one pick."""
LIFT_M = 0.05
"""A grasp holds if the object has followed 40 % of this lift."""
STILL_M_PER_S = 0.01
"""An object slower than this has come to rest."""
FINGER_REACH_M = 0.013
"""The finger tips are this far below the grip site."""
DROP_M = 0.006
"""Height over its support at which an object is let go."""
RETREAT_M = 0.08
LOST_M = 0.1
"""An object that moved this far relative to the gripper has been dropped."""
CLEARANCE_M = 0.03
"""Kept over everything on the way while carrying."""
STALL_M = 0.0005
"""Progress of a descent that counts, per query."""
STALLED_QUERIES = 8
"""Without progress for this long, a descent is over."""
PATH_RADIUS_M = 0.07
"""Half width of the swath that a carried object sweeps."""


def pick(arm: Arm, name: str, errand: Errand = NO_ERRAND, lift_m: float = LIFT_M) -> Motion[None]:
    """Take hold of an object, pull it out from under what is above it, and lift it; after a slip, try elsewhere.

    Args:
        arm: The arm.
        name: The object.
        errand: What its grasp must allow for.
        lift_m: How far to lift.

    Raises:
        SkillFailed: If no grasp held.
    """
    failed: tuple[Grasp, ...] = ()
    for _ in range(ATTEMPTS):
        drag = way_out(arm.scene, name)
        grasp = choose_grasp(arm.scene, name, errand, drag, failed)
        yield from _descend(arm, name, grasp)
        yield from arm.grip(grasp.position, grasp.rotation, name)
        height = arm.scene.position(name)[2]
        hold = grasp.position
        if drag.any():
            hold = hold + drag
            yield from arm.move(hold + PULL_HEIGHT_M * UP, grasp.rotation, 0.005, 0.3, speed=0.5, max_queries=20)
        yield from arm.move(hold + lift_m * UP, grasp.rotation, 0.02, 0.3, speed=0.7)
        if arm.scene.position(name)[2] - height > 0.4 * lift_m:
            return
        failed = (*failed, grasp)
        arm.gripper = OPEN
        yield from arm.move(arm.scene.gripper_position + 0.03 * UP, grasp.rotation, 0.02)
        yield from arm.wait(lambda: arm.scene.speed(name) < STILL_M_PER_S)
    raise SkillFailed(f"{name}: {ATTEMPTS} grasps slipped")


def _descend(arm: Arm, name: str, grasp: Grasp) -> Motion[None]:
    """Bring the open gripper to a grasp: up, over and straight down."""
    arm.gripper = OPEN
    start, goal, rotation = arm.scene.gripper_position, grasp.position, grasp.rotation
    height = travel_height(arm.scene, start, goal, 0.10, (name,)) + FINGER_REACH_M + 0.02
    height = max(goal[2] + 0.05, min(height, start[2] + 0.10))
    if height > start[2] + 0.02:
        yield from arm.move(np.array([start[0], start[1], height]), rotation, 0.03, np.inf)
    yield from arm.move(np.array([goal[0], goal[1], height]), rotation, 0.025, 0.25)
    yield from arm.move(goal + 0.035 * UP, rotation, 0.012, 0.12)
    yield from arm.move(goal, rotation, 0.005, 0.08, speed=0.6, max_queries=30, stop=True)


def place(arm: Arm, name: str, target: Vector, drop_m: float = DROP_M, radius_m: float = PATH_RADIUS_M) -> Motion[None]:
    """Set the held object down and retreat; do nothing more if it was lost on the way."""
    goal = yield from carry(arm, name, target, drop_m, radius_m)
    if goal is not None:
        yield from let_go(arm, goal)


def carry(arm: Arm, name: str, target: Vector, drop_m: float, radius_m: float) -> Motion[Vector | None]:
    """Bring the held object over a place and down; return the gripper's goal there, None if the object was lost.

    Args:
        arm: The arm.
        name: The held object.
        target: Where its origin goes (horizontally) and the height of the support under it [m].
        drop_m: Height over the support to stop at.
        radius_m: Half width of the swath to lift it over.
    """
    scene = arm.scene
    rotation = scene.world_from_gripper
    start, held = scene.gripper_position, scene.position(name)
    offset, below = held - start, start[2] - scene.bottom(name)
    height = travel_height(scene, held, target, radius_m, (name,)) + below + CLEARANCE_M
    height = np.clip(height, start[2], start[2] + 0.4)
    if height - start[2] > 0.02:
        yield from arm.move(np.array([start[0], start[1], height]), rotation, 0.03, 0.5)
    hover = max(height, target[2] + drop_m + below + 0.02)
    yield from arm.move(np.array([*(target - offset)[:2], hover]), rotation, 0.03, 0.5)
    if np.linalg.norm(scene.position(name) - scene.gripper_position - offset) > LOST_M:
        return None
    return (yield from lower(arm, name, target + drop_m * UP, rotation))


def let_go(arm: Arm, position: Vector) -> Motion[None]:
    """Open the fingers at a position and retreat upwards."""
    rotation = arm.scene.world_from_gripper
    yield from arm.release(position, rotation)
    yield from arm.move(arm.scene.gripper_position + RETREAT_M * UP, rotation, 0.02, 0.5, speed=0.7)


def lower(arm: Arm, name: str, target: Vector, rotation: Matrix, max_queries: int = 70) -> Motion[Vector]:
    """Bring the held object's origin over the target and its bottom to the target's height; return the gripper's goal.

    Ends early when it gets no closer, as on the edge of something.
    """
    scene = arm.scene
    goal, least, n_stalled = scene.gripper_position, np.inf, 0
    for _ in range(max_queries):
        position = scene.gripper_position
        goal = target - (scene.position(name) - position)
        goal[2] = target[2] + position[2] - scene.bottom(name)
        miss, height = np.linalg.norm((goal - position)[:2]), abs(goal[2] - position[2])
        if (miss < 0.008 and height < 0.006) or n_stalled > STALLED_QUERIES:
            break
        n_stalled = 0 if miss + height < least - STALL_M else n_stalled + 1
        least = min(least, miss + height)
        waypoint = goal.copy()
        if miss > 0.02:
            waypoint[2] = max(goal[2] + 0.03, min(position[2], goal[2] + 0.1))
        yield arm.action(waypoint, rotation, speed=0.7)
    return goal
