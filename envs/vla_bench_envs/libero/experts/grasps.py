"""Where to take hold of an object: candidates by kind of object, scored by the room for the hand."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vla_bench_envs.libero.experts.clearance import hand_penetration
from vla_bench_envs.libero.experts.geometry import (
    UP,
    Matrix,
    Vector,
    downward_gripper,
    half_turn,
    leaning_gripper,
    yaw_of_closing_axis,
)
from vla_bench_envs.libero.experts.motion import SkillFailed
from vla_bench_envs.libero.experts.scene import Scene, category

RIM_BAND_M = 0.008
"""Wall pieces whose top is within this of a bowl's top form its rim."""
UPRIGHT_COST = 0.4
"""Cost of not leaning with a bowl's wall."""
TURN_COST = 3.0
"""Cost per radian off the wall's normal."""
BOWL_DEPTH_M = 0.008
"""Of the grip site below a bowl's rim; from 15 mm on, pads that are not flush with the wall turn the bowl out."""
YAW_STEP_RAD = np.deg2rad(15)
MUG_WALLS = {
    "porcelain_mug": ((0.012, -0.001, 0.0), 0.042, (-1.0, 0.0, 0.0)),
    "white_yellow_mug": ((-0.018, 0.0, 0.0), 0.045, (1.0, 0.0, 0.0)),
    "red_coffee_mug": ((0.0, 0.0, 0.0), 0.042, (1.0, 0.0, 0.0)),
}
"""Centre of the cup [m], radius of its wall [m] and direction of its handle, in the mug's frame."""
MUG_DEPTH_M = 0.015
MOKA_HANDLE_M = (0.0, 0.072, 0.050)
"""Where to hold the moka pot's upright handle, 18 mm below its top, in the pot's frame."""
BOTTLE_NECK_M = 0.012
"""Half width of the wine bottle's neck times about two: what the fingers close on."""
PREFERRED_DEPTH_M = 0.022
"""How far the finger tips reach below the top of a box, can or bottle, at most to its middle."""
FLOOR_GAP_M = 0.0135
"""Lowest grip site over an object's bottom: the finger tips reach 12.4 mm beyond the site."""
WIDEST_M = 0.074
"""Widest side that the fingers (77 mm apart) go around."""
SNUG_M = 0.055
"""From this width on a box leaves no room to turn the hand."""
ROUND = ("alphabet_soup", "tomato_sauce", "wine_bottle")
"""Categories that can be held at any yaw."""
CAN_DIAMETER_M = 0.066
LIFTED_M = 0.06
"""Height over a grasp at which the room for the hand is tested again."""
LIFTED_WEIGHT = 0.7
PENETRATION_COST = 200.0
"""Cost per metre of penetration beyond 2 mm; the other costs are of the order of 0.1 to 1."""
FREE_PENETRATION_M = 0.002
FLANGE_M = 0.2
"""From the grip site back to the wrist's centre."""
EASY_REACH_M = 0.72
"""Up to this distance of the wrist from the shoulder the arm follows well; at 0.79 m it no longer does."""
STRETCH_COST = 12.0
"""Cost per metre beyond that."""
RETRY_COST = 2.0
"""Cost of a grasp at a point that failed before; it fades over 30 mm."""


@dataclass(frozen=True)
class Grasp:
    """A pose of the gripper at which to close."""

    position: Vector
    """Grip site in the world [m]."""
    yaw_rad: float
    """Yaw of the closing axis; 0 is the home pose."""
    cost: float
    """Lower is better; before the test for room."""
    lean_rad: float = 0.0
    """Turn about the gripper's y axis, which lifts one finger."""

    @property
    def rotation(self) -> Matrix:
        """world_from_gripper."""
        return leaning_gripper(self.yaw_rad, self.lean_rad)


@dataclass(frozen=True)
class Errand:
    """What will be done with an object, as far as its grasp must allow for it."""

    goal: Vector | None = None
    """Where its origin will be set down [m]; None if the hand has room there anyway."""
    allowed_at_goal: tuple[str, ...] = ()
    """Objects that the hand may overlap with there."""
    preferred_yaw_rad: float | None = None
    """Wanted yaw, modulo a half turn; None for one close to home."""


NO_ERRAND = Errand()


def choose_grasp(scene: Scene, name: str, errand: Errand, drag: Vector, failed: tuple[Grasp, ...] = ()) -> Grasp:
    """Return the cheapest grasp of an object, room for the hand at the object and at its goal included.

    Args:
        scene: The scene.
        name: The object.
        errand: What follows.
        drag: Way [m] that the object will be pulled before it is lifted.
        failed: Grasps that did not hold, to be avoided.

    Raises:
        SkillFailed: If no candidate fits between the fingers.
    """
    best, best_cost = None, np.inf
    offset = None if errand.goal is None else errand.goal - scene.position(name)
    trials: list[tuple[Vector, float, tuple[str, ...]]] = [
        (np.zeros(3), 1.0, ()), (drag + LIFTED_M * UP, LIFTED_WEIGHT, ())
    ]  # fmt: skip
    if offset is not None:
        trials.append((offset, 1.0, (name, *errand.allowed_at_goal)))
    ranked = [
        (_prior_cost(grasp, errand.preferred_yaw_rad, failed) + _stretch_cost(scene, grasp, offset), grasp)
        for grasp in candidates(scene, name)
    ]
    for prior, grasp in sorted(ranked, key=lambda pair: pair[0]):
        if prior >= best_cost:
            break
        depth, cost = 0.0, prior
        for shift, weight, allowed in trials:
            depth += weight * hand_penetration(scene, grasp.position + shift, grasp.rotation, name, allowed)
            cost = prior + PENETRATION_COST * max(0.0, depth - FREE_PENETRATION_M)
            if cost >= best_cost:
                break
        else:
            best, best_cost = grasp, cost
    if best is None:
        raise SkillFailed(f"{name}: no side is narrower than {WIDEST_M * 1e3:.0f} mm")
    return best


def candidates(scene: Scene, name: str) -> list[Grasp]:
    """Return all grasps to consider for an object, by its category."""
    kind = category(name)
    if "bowl" in kind:
        return list(_rim_grasps(scene, name))
    if "mug" in kind:
        return list(_wall_grasps(scene, name))
    if "moka" in kind:
        return [_handle_grasp(scene, name)]
    return [*_side_grasps(scene, name), *(_round_grasps(scene, name) if kind in ROUND else ())]


def _prior_cost(grasp: Grasp, preferred_yaw_rad: float | None, failed: tuple[Grasp, ...]) -> float:
    """Return a grasp's cost before the tests for reach and room."""
    cost = grasp.cost
    if preferred_yaw_rad is not None:
        cost += 3.0 * abs(half_turn(grasp.yaw_rad - preferred_yaw_rad)) - 0.35 * abs(grasp.yaw_rad)
    for other in failed:
        distance = np.linalg.norm((grasp.position - other.position)[:2])
        cost += RETRY_COST * max(0.0, 1.0 - distance / 0.03)
    return float(cost)


def _stretch_cost(scene: Scene, grasp: Grasp, offset: Vector | None) -> float:
    """Return the cost of stretching the arm, at the object and, `offset` [m] away, at its goal."""
    flange = grasp.position - FLANGE_M * grasp.rotation[:, 2]
    places = [flange] if offset is None else [flange, flange + offset]
    stretch = max(float(np.linalg.norm(place - scene.shoulder)) for place in places)
    return STRETCH_COST * max(0.0, stretch - EASY_REACH_M)


def _rim_grasps(scene: Scene, name: str) -> Iterator[Grasp]:
    """Yield grasps of a bowl's rim at the middle of each flat wall piece, flush with it or, where room is short, not.

    A bowl collides as a ring of flat pieces that lean outwards. Pads that are not flush touch a piece at two heights
    and turn the light bowl (6 g) until it slips; at the joint of two pieces they hold edges only.
    """
    walls = scene.boxes_of(name)
    tops = walls.lattice()[..., 2].max(axis=1)
    for center, rotation, half in zip(*vars(walls[tops > tops.max() - RIM_BAND_M]).values(), strict=True):
        thin, tall = int(np.argmin(half)), int(np.argmax(half))
        upright = rotation[:, tall] * np.sign(rotation[2, tall])
        rim = center + half[tall] * upright
        yaw = yaw_of_closing_axis(rotation[:, thin])
        lean = float(np.arcsin(upright @ downward_gripper(yaw)[:, 0]))
        hold = rim - BOWL_DEPTH_M * upright
        yield Grasp(hold, yaw, 0.35 * abs(yaw), -lean)
        yield Grasp(hold, yaw, 0.35 * abs(yaw) + UPRIGHT_COST / 2, -lean / 2)
        for turn in np.deg2rad((0, 10, -10, 20, -20, 30, -30)):
            if abs(yaw + turn) <= np.pi / 2 + 0.2:
                cost = 0.35 * abs(yaw + turn) + UPRIGHT_COST + TURN_COST * abs(turn)
                yield Grasp(hold, yaw + turn, cost)


def _wall_grasps(scene: Scene, name: str) -> Iterator[Grasp]:
    """Yield grasps of a mug's wall, those near the handle at a high cost."""
    rotation = scene.rotation(name)
    center, radius, handle = (np.array(part) for part in MUG_WALLS.get(category(name), MUG_WALLS["red_coffee_mug"]))
    middle = scene.position(name) + rotation @ center
    middle[2] = scene.top(name) - MUG_DEPTH_M
    for angle in np.arange(0.0, 2 * np.pi, YAW_STEP_RAD):
        radial = np.array([np.cos(angle), np.sin(angle), 0.0])
        yaw = yaw_of_closing_axis(radial)
        cost = 0.35 * abs(yaw) + (2.0 if radial @ rotation @ handle > 0.5 else 0.0)
        yield Grasp(middle + radius * radial, yaw, cost)


def _handle_grasp(scene: Scene, name: str) -> Grasp:
    """Return the grasp across the moka pot's handle."""
    rotation = scene.rotation(name)
    position = scene.position(name) + rotation @ np.array(MOKA_HANDLE_M)
    return Grasp(position, yaw_of_closing_axis(rotation[:, 0]), 0.0)


def _grip_height(scene: Scene, name: str) -> float:
    """Return the height [m] of the grip site for an object held from above."""
    top, bottom = scene.top(name), scene.bottom(name)
    return max(top - min(PREFERRED_DEPTH_M, (top - bottom) / 2), bottom + FLOOR_GAP_M)


def _side_grasps(scene: Scene, name: str) -> Iterator[Grasp]:
    """Yield grasps across the sides of a box, carton or bottle, also off its centre and turned."""
    rotation = scene.rotation(name)
    low, high = scene.bounds(name, rotation)
    is_bottle = category(name) == "wine_bottle"
    middle = scene.position(name) if is_bottle else scene.center(name)
    middle[2] = _grip_height(scene, name)
    upright = int(np.argmax(np.abs(rotation[2])))
    across, along = (axis for axis in range(3) if axis != upright)
    for closing, sliding in ((across, along), (along, across)):
        width = BOTTLE_NECK_M if is_bottle else high[closing] - low[closing]
        if width > WIDEST_M:
            continue
        yaw = yaw_of_closing_axis(rotation[:, closing])
        flat = rotation[:, sliding] * [1.0, 1.0, 0.0]
        for shift in (0.0, 0.008, -0.008, 0.016, -0.016, 0.022, -0.022):
            if abs(shift) > 0.3 * (high[sliding] - low[sliding]):
                continue
            for turn in np.deg2rad((0, 10, -10, 20, -20) if width <= SNUG_M else (0,)):
                cost = 0.2 * abs(yaw + turn) + 6.0 * width + 8.0 * abs(shift) + abs(turn)
                yield Grasp(middle + shift * flat, yaw + turn, cost)


def _round_grasps(scene: Scene, name: str) -> Iterator[Grasp]:
    """Yield grasps of a can or bottle at every yaw."""
    middle = scene.position(name) if category(name) == "wine_bottle" else scene.center(name)
    middle[2] = _grip_height(scene, name)
    for yaw in np.arange(-np.pi / 2, np.pi / 2, YAW_STEP_RAD):
        yield Grasp(middle, yaw, 0.3 * abs(yaw) + 6.0 * CAN_DIAMETER_M)
