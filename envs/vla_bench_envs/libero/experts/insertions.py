"""Skills for one object each: the book into the caddy, the mug into the microwave."""

import numpy as np
from scipy.spatial.transform import Rotation

from vla_bench_envs.libero.experts.geometry import (
    UP,
    Matrix,
    Vector,
    downward_gripper,
    horizontal,
    pitched_gripper,
    yaw_of_closing_axis,
)
from vla_bench_envs.libero.experts.motion import OPEN, Arm, Motion, SkillFailed
from vla_bench_envs.libero.experts.scene import Scene
from vla_bench_envs.libero.experts.skills import Skill, pick

MUG_HANDLE_M = (0.062, 0.0, 0.056)
"""Where to pinch the mug's handle, in the mug's frame."""
MICROWAVE_FLOOR_M = 0.024
"""Of the microwave's floor over its origin."""
MUG_GAP_M = 0.012
"""Of the mug over the microwave's floor while it is pushed in."""
BOOK_LEAN_RAD = np.deg2rad(16)
"""Of the book while it is lowered; its centre of mass is beyond its lower edge from 12 degrees on."""
BOOK_HEIGHT_M = 0.11
"""From the book's bottom to where it is held."""
BOOK_BEHIND_M = 0.011
"""Of the book's origin behind the compartment's middle."""
BOOK_DROP_M = 0.004
"""Height over the floor at which the book is let go."""
CADDY_FLOOR_M = 0.014
"""Of the compartments' floor over the caddy's origin."""


def insert_book(book: str, region: str) -> Skill:
    """Put a standing book into the caddy's back compartment, leaning forward onto the low wall in front of it.

    LIBERO's `In` wants the book's origin 3 mm higher than it is when the book stands upright on the compartment's
    floor, so an upright book satisfies the goal in passing only. Leaning by 18 degrees, as it comes to rest, lifts the
    origin by 4 mm.
    """

    def skill(arm: Arm) -> Motion[None]:
        scene = arm.scene
        caddy = scene.owner_of_region(region)
        yield from pick(arm, book, lift_m=0.08)
        front, side = _caddy_axes(scene, caddy, region)
        yaw = yaw_of_closing_axis(front)
        yaw = min((yaw - np.pi, yaw, yaw + np.pi), key=lambda angle: abs(angle - scene.gripper_yaw))
        upright = downward_gripper(yaw)
        leaning = Rotation.from_rotvec(BOOK_LEAN_RAD * side).as_matrix() @ upright
        start, slot = scene.gripper_position, scene.site(region)
        height = scene.top(caddy) + 0.03 + start[2] - scene.bottom(book)
        yield from arm.move(np.array([start[0], start[1], height]), upright, 0.05, 0.6, turn=0.35)
        above = slot + np.sin(BOOK_LEAN_RAD) * BOOK_HEIGHT_M * front
        yield from arm.move(np.array([above[0], above[1], height]), leaning, 0.03, 0.15, turn=0.35)
        yield from _lower_book(arm, book, region, leaning)
        yield from arm.release(scene.gripper_position, leaning)
        yield from arm.move(scene.gripper_position - 0.1 * leaning[:, 2], leaning, 0.03)

    return skill


def _caddy_axes(scene: Scene, caddy: str, region: str) -> tuple[Vector, Vector]:
    """Return the horizontal directions from the back compartment to the caddy's middle, and to the left of that."""
    across = scene.rotation(caddy)[:, 0]
    front = horizontal(across * np.sign(across @ (scene.position(caddy) - scene.site(region))))
    return front, np.cross(UP, front)


def _lower_book(arm: Arm, book: str, region: str, rotation: Matrix) -> Motion[None]:
    """Lower the leaning book until its lower edge is just over the compartment's floor, near the back wall."""
    scene = arm.scene
    caddy, slot = scene.owner_of_region(region), scene.site(region)
    front, side = _caddy_axes(scene, caddy, region)
    floor = scene.position(caddy)[2] + CADDY_FLOOR_M + BOOK_DROP_M
    for _ in range(90):
        position = scene.gripper_position
        forward = (slot - scene.position(book)) @ front - BOOK_BEHIND_M
        sideways = (slot - scene.center(book)) @ side
        down = floor - scene.bottom(book)
        miss = np.hypot(forward, sideways)
        if miss < 0.006 and abs(down) < 0.005:
            return
        goal = position + forward * front + sideways * side
        goal[2] = position[2] + (down if miss < 0.01 else max(0.0, down + 0.12))
        yield arm.action(goal, rotation, speed=0.6)


def insert_mug(mug: str, region: str) -> Skill:
    """Pinch a mug's handle with a pitched gripper and push the mug into the microwave."""

    def skill(arm: Arm) -> Motion[None]:
        scene = arm.scene
        microwave = scene.owner_of_region(region)
        inward = scene.rotation(microwave)[:, 1]
        rotation = pitched_gripper(inward, np.deg2rad(45))
        yield from _pinch_handle(arm, mug, rotation)
        height = scene.position(mug)[2]
        lift = scene.position(microwave)[2] + MICROWAVE_FLOOR_M + MUG_GAP_M - scene.bottom(mug)
        yield from arm.move(scene.gripper_position + (lift + 0.01) * UP, rotation, 0.01, 0.3, speed=0.6)
        if scene.position(mug)[2] - height < 0.5 * lift:
            raise SkillFailed(f"{mug}: the handle slipped")
        yield from _push_in(arm, mug, microwave, rotation)
        yield from arm.release(scene.gripper_position - 0.01 * UP, rotation)
        yield from arm.move(scene.gripper_position - 0.18 * inward, rotation, 0.03, 0.5, speed=0.8)

    return skill


def _pinch_handle(arm: Arm, mug: str, rotation: Matrix) -> Motion[None]:
    """Close the fingers on a mug's handle."""
    scene, back = arm.scene, -rotation[:, 2]
    handle = scene.position(mug) + scene.rotation(mug) @ np.array(MUG_HANDLE_M)
    arm.gripper = OPEN
    yield from arm.move(handle + 0.13 * back + 0.05 * UP, rotation, 0.05, 0.5, turn=0.35, max_queries=90)
    yield from arm.move(handle + 0.05 * back, rotation, 0.015, 0.12, turn=0.4, max_queries=60)
    yield from arm.move(handle - 0.004 * back, rotation, 0.007, 0.1, speed=0.5, max_queries=40)
    yield from arm.grip(handle, rotation, mug)


def _push_in(arm: Arm, mug: str, microwave: str, rotation: Matrix) -> Motion[None]:
    """Line the held mug up with the microwave's opening, then push it in, just above the floor."""
    scene = arm.scene
    start = scene.gripper_position
    cavity = scene.site(f"{microwave}_heating_region") - np.array([0.03, 0.03, 0.0])
    floor = scene.position(microwave)[2] + MICROWAVE_FLOOR_M + MUG_GAP_M
    for _ in range(120):
        position = scene.gripper_position
        goal = cavity - (scene.position(mug) - position)
        goal[2] = floor + position[2] - scene.bottom(mug)
        if abs(goal[0] - position[0]) > 0.02:
            goal[1] = min(goal[1], max(position[1], start[1] - 0.05))
        if np.linalg.norm((goal - position)[:2]) < 0.012:
            return
        yield arm.action(goal, rotation, speed=0.6)
