"""Drawers, knobs, doors and the plate that is pushed."""

import numpy as np

from vla_bench_envs.libero.experts.geometry import (
    UP,
    Vector,
    downward_gripper,
    half_turn,
    horizontal,
    level_gripper,
    nearest_flip,
    pitched_gripper,
    tilted_gripper,
    yaw_of_closing_axis,
)
from vla_bench_envs.libero.experts.motion import CLOSED, OPEN, Arm, Motion
from vla_bench_envs.libero.experts.scene import Scene
from vla_bench_envs.libero.experts.skills import Skill

DRAWER_OPEN_M = -0.15
"""Joint value to pull a drawer to; LIBERO calls it open below -0.14."""
DRAWER_CLOSED_M = 0.001
"""Joint value to push a drawer to; LIBERO calls it closed above 0."""
PULL_AHEAD_M = 0.03
"""How far the goal runs ahead of the gripper while it pulls or pushes."""
KNOB_HEIGHT_M = 0.036
"""Of the knob's bar over the stove's origin."""
KNOB_AHEAD_RAD = 0.35
"""How far the goal runs ahead of the knob."""
KNOB_ON_RAD = 0.75
"""Turn that switches the stove on; LIBERO asks for 0.5."""
PUSH_HEIGHT_M = 0.0115
"""Of the pads over the plate's bottom; the finger meshes do not collide with the plate."""
PUSHED_M = 0.01
"""Distance to its target at which a pushed plate has arrived."""
DOOR_CLOSED_RAD = -0.003
"""Joint value to push the microwave's door to; LIBERO calls it closed above -0.005."""
DOOR_RADIUS_M = 0.20
"""From the hinge to where the door is pushed."""


def drawer_handle(scene: Scene, cabinet: str, which: str) -> tuple[Vector, Vector]:
    """Return the middle of a drawer's handle bar [m] and the direction in which the drawer opens."""
    rotation = scene.rotation(cabinet)
    centers = scene.parts(f"{cabinet}_cabinet_{which}").centers
    outward = -rotation[:, 1]
    return centers[np.argmax(centers @ outward)].copy(), outward


def open_drawer(cabinet: str, which: str, until_m: float = DRAWER_OPEN_M, roll_back: bool = True) -> Skill:
    """Pinch a drawer's bar with a level gripper, pull, and, if asked, come back to pointing down."""

    def skill(arm: Arm) -> Motion[None]:
        scene = arm.scene
        handle, outward = drawer_handle(scene, cabinet, which)
        rotation = level_gripper(-outward)
        arm.gripper = OPEN
        yield from arm.move(handle + 0.12 * outward + 0.06 * UP, rotation, 0.05, 0.5, turn=0.35, max_queries=70)
        yield from arm.move(handle + 0.05 * outward, rotation, 0.015, 0.12, turn=0.4, max_queries=50)
        yield from arm.move(handle + 0.002 * outward, rotation, 0.007, 0.1, speed=0.5, max_queries=40)
        yield from arm.grip(handle, rotation, cabinet, max_queries=12)
        for _ in range(80):
            if scene.joint(f"{cabinet}_{which}_level") < until_m:
                break
            goal = scene.gripper_position + PULL_AHEAD_M * outward
            goal[2] = drawer_handle(scene, cabinet, which)[0][2]
            yield arm.action(goal, rotation, speed=0.6)
        yield from arm.release(scene.gripper_position, rotation, min_queries=4, max_queries=4)
        away = scene.gripper_position + 0.07 * outward + 0.02 * UP
        yield from arm.move(away, rotation, 0.03, 0.5)
        if roll_back:
            yield from _roll_back(arm, away - 0.04 * outward + 0.11 * UP, outward)

    return skill


def _roll_back(arm: Arm, position: Vector, outward: Vector) -> Motion[None]:
    """Turn a level gripper back to pointing down in steps of 20 degrees, while going to a position."""
    side = -np.sign(outward[1])
    for tilt in np.deg2rad((60, 40, 20, 0)):
        yield from arm.move(position, tilted_gripper(side * tilt), 0.06, 0.35, turn=0.5, max_queries=40)


def close_drawer(cabinet: str, which: str) -> Skill:
    """Push a drawer's bar with closed finger tips, pitched so that the hand stays clear of the upper bars."""

    def skill(arm: Arm) -> Motion[None]:
        scene = arm.scene
        handle, outward = drawer_handle(scene, cabinet, which)
        rotation = nearest_flip(scene.world_from_gripper, pitched_gripper(-outward, np.deg2rad(30)))
        arm.gripper = CLOSED
        start = scene.gripper_position
        yield from arm.move(start + 0.06 * outward + 0.02 * UP, rotation, 0.06, 1.0, turn=0.4, max_queries=30)
        yield from arm.move(handle + 0.09 * outward + 0.06 * UP, rotation, 0.05, 0.4, turn=0.4, max_queries=40)
        yield from arm.move(handle + 0.03 * outward + 0.004 * UP, rotation, 0.015, 0.15)
        for _ in range(110):
            if scene.joint(f"{cabinet}_{which}_level") > DRAWER_CLOSED_M:
                break
            handle, _ = drawer_handle(scene, cabinet, which)
            position = scene.gripper_position
            ahead = (position - handle) @ outward - PULL_AHEAD_M
            yield arm.action(handle + ahead * outward + 0.006 * UP, rotation, speed=0.6)
        yield from arm.move(scene.gripper_position + 0.06 * outward + 0.05 * UP, rotation, 0.03, 0.5)

    return skill


def turn_knob(stove: str) -> Skill:
    """Pinch the bar of a stove's knob and turn it until the stove is on."""

    def skill(arm: Arm) -> Motion[None]:
        scene, joint = arm.scene, f"{stove}_button"
        start = scene.joint(joint)
        rotation = scene.rotation(stove)
        yaw = half_turn(float(np.arctan2(rotation[1, 0], rotation[0, 0])) + start)
        knob = scene.position(stove) + rotation @ np.array([0.0, 0.001, 0.0]) + KNOB_HEIGHT_M * UP
        arm.gripper = OPEN
        yield from arm.move(knob + 0.08 * UP, downward_gripper(yaw), 0.03, 0.3)
        yield from arm.move(knob, downward_gripper(yaw), 0.006, 0.08, speed=0.7, max_queries=25)
        yield from arm.grip(knob, downward_gripper(yaw), stove, max_queries=12)
        for _ in range(50):
            turned = scene.joint(joint) - start
            if turned > KNOB_ON_RAD:
                break
            yield arm.action(knob, downward_gripper(yaw + turned + KNOB_AHEAD_RAD), speed=0.5, turn=0.6)
        yield from arm.release(knob, scene.world_from_gripper, min_queries=4, max_queries=4)
        yield from arm.move(scene.gripper_position + 0.10 * UP, scene.world_from_gripper, 0.03, np.inf)

    return skill


def push_plate(plate: str, region: str) -> Skill:
    """Push a plate to a region with closed fingers inside its rim; start over if they slip out."""

    def skill(arm: Arm) -> Motion[None]:
        for _ in range(3):
            yield from _push_once(arm, plate, region)
            if np.linalg.norm((arm.scene.site(region) - arm.scene.position(plate))[:2]) < 0.02:
                return

    return skill


def _push_once(arm: Arm, plate: str, region: str) -> Motion[None]:
    """Put closed fingers into a plate and push it towards a region until it is there or they slip over the rim."""
    scene, target = arm.scene, arm.scene.site(region)
    start = scene.position(plate)
    height = scene.bottom(plate) + PUSH_HEIGHT_M
    rotation = downward_gripper(yaw_of_closing_axis(target - start))
    arm.gripper = CLOSED
    touch = np.array([start[0], start[1], height])
    yield from arm.move(touch + 0.06 * UP, rotation, 0.025, 0.25)
    yield from arm.move(touch, rotation, 0.008, 0.15, speed=0.8, max_queries=40)
    for _ in range(150):
        position, middle = scene.gripper_position, scene.position(plate)
        remaining = (target - middle) * [1.0, 1.0, 0.0]
        distance = np.linalg.norm(remaining)
        inside = (position - middle) * [1.0, 1.0, 0.0]
        if distance < PUSHED_M or np.linalg.norm(inside) > 0.055:
            break
        heading = remaining / distance
        sideways = inside - heading * (inside @ heading)
        goal = position + heading * min(0.03, 0.01 + 0.5 * distance) - 0.8 * sideways
        goal[2] = height
        yield arm.action(goal, rotation, speed=0.6)
    yield from arm.move(scene.gripper_position + 0.08 * UP, rotation, 0.02, 0.5)


def close_microwave(microwave: str) -> Skill:
    """Sweep the microwave's door shut from its outside."""

    def skill(arm: Arm) -> Motion[None]:
        scene = arm.scene
        along, outside, hinge = _door_frame(scene, microwave)
        turn_sign = np.sign(np.cross(along, outside)[2])
        height = hinge[2] + 0.02
        rotation = downward_gripper(0.0)
        arm.gripper = CLOSED
        start = hinge + DOOR_RADIUS_M * along + 0.07 * outside
        start[2] = height
        yield from arm.move(scene.gripper_position + 0.2 * UP, rotation, 0.06, 0.7, turn=0.4)
        yield from arm.move(start + 0.20 * UP, rotation, 0.05, 0.4, turn=0.4)
        yield from arm.move(start, rotation, 0.03, 0.3)
        for _ in range(160):
            if scene.joint(f"{microwave}_microjoint") > DOOR_CLOSED_RAD:
                break
            along = _door_frame(scene, microwave)[0]
            outside = turn_sign * np.array([-along[1], along[0], 0.0])
            position = scene.gripper_position
            slide = (hinge + DOOR_RADIUS_M * along - position) @ along
            goal = position - PULL_AHEAD_M * outside + 0.3 * slide * along
            goal[2] = height
            yield arm.action(goal, rotation, speed=0.6)
        yield from arm.move(scene.gripper_position + 0.08 * outside, rotation, 0.03, 0.5)

    return skill


def _door_frame(scene: Scene, microwave: str) -> tuple[Vector, Vector, Vector]:
    """Return the direction from hinge to handle, the open door's outward normal and a point on the hinge [m]."""
    hinge = scene.joint_anchor(f"{microwave}_microjoint")
    door = scene.parts(f"{microwave}_microdoorroot")
    along = horizontal(door.centers[0] - hinge)
    normal = np.array([along[1], -along[0], 0.0])
    away = -scene.rotation(microwave)[:, 0]
    return along, normal if normal @ away > 0 else -normal, hinge
