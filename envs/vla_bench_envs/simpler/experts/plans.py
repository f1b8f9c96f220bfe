"""Pick the source, put it on the target."""

import numpy as np
from scipy.spatial.transform import Rotation

from vla_bench_envs.simpler.experts.motion import CLOSED, OPEN, Arm, Motion
from vla_bench_envs.simpler.experts.scene import Scene

UP = np.array([0.0, 0.0, 1.0])

TIP_M = 0.0165
"""The finger tips are this far beyond the end effector's origin. Source: bounds of the finger links, measured."""
DEPTH_M = 0.012
"""The tips reach this far below an object's origin."""
TABLE_GAP_M = 0.002
"""Kept between the tips and the table, which is at height 0 of the base's frame."""
HOVER_M = 0.06
"""Over a grasp, where the descent begins."""
LIFT_M = 0.07
"""After a grasp."""
OVER_M = 0.04
"""Over the place where an object is let go, before it is lowered."""
DROP_M = 0.006
"""Over its support, where an object is let go."""
HELD_RISE_M = 0.02
"""An object that has risen this far is held."""
CLOSING_QUERIES, OPENING_QUERIES = 4, 3
"""Control steps for the fingers; they move 12 mm a step."""
ATTEMPTS = 3
"""Grasps tried."""
GRASP_AT_M = {"bridge_spoon_generated_modified": 0.035}
"""Where an object is taken, along its own x from its origin, which by default is the place: the middle of the spoon's
handle, whose sides are parallel there; at the origin it tapers, and slips. Source: its collision mesh."""


def pick_and_place(arm: Arm) -> Motion[bool]:
    """Put the source on the target; return whether it was held on the way."""
    for _ in range(ATTEMPTS):
        if (yield from pick(arm)):
            yield from place(arm)
            return True
    return False


def pick(arm: Arm) -> Motion[bool]:
    """Take hold of the source from above, across its thinner side, and lift it; return whether it came along."""
    scene = arm.scene
    arm.gripper = OPEN
    rotation = downward(closing_yaw(scene))
    position, turned = scene.pose(scene.source)
    grasp = position + turned.apply([GRASP_AT_M.get(scene.source, 0.0), 0.0, 0.0])
    grasp[2] = max(grasp[2] - DEPTH_M, TABLE_GAP_M) + TIP_M
    above = grasp + HOVER_M * UP
    yield from arm.move(above, rotation, tolerance_m=0.02)
    yield from arm.move(grasp, rotation, tolerance_m=0.004)
    yield from arm.hold(CLOSED, grasp, rotation, CLOSING_QUERIES)
    yield from arm.move(grasp + LIFT_M * UP, rotation, tolerance_m=0.02)
    return bool(scene.pose(scene.source)[0][2] - position[2] > HELD_RISE_M)


def place(arm: Arm) -> Motion[None]:
    """Bring the held source over the target, down, let go and retreat."""
    scene = arm.scene
    rotation = scene.commanded[1]
    support, _ = scene.pose(scene.target)
    support[2] += scene.size(scene.target)[2] / 2 + scene.size(scene.source).min() / 2 + DROP_M
    yield from arm.move(_tool_goal(scene, support + OVER_M * UP), rotation, tolerance_m=0.012)
    goal = _tool_goal(scene, support)
    yield from arm.move(goal, rotation, tolerance_m=0.006, step_m=0.02)
    yield from arm.hold(OPEN, goal, rotation, OPENING_QUERIES)
    yield from arm.move(goal + LIFT_M * UP, rotation, tolerance_m=0.02)


def _tool_goal(scene: Scene, wanted: np.ndarray) -> np.ndarray:
    """Return where the end effector must go for the held source's origin to be at a place [m]."""
    return scene.tool[0] + wanted - scene.pose(scene.source)[0]


def closing_yaw(scene: Scene) -> float:
    """Return the yaw [rad] of the closing axis, nearest to the one at home: across the source's longest side."""
    _, rotation = scene.pose(scene.source)
    size = scene.size(scene.source)
    along = rotation.as_matrix()[:, int(np.argmax(size))]
    yaw = np.arctan2(along[1], along[0])  # a closing axis at yaw 0 is base y, so it crosses what lies along base x
    period = np.pi if np.ptp(size) > 0 else np.pi / 2
    return float((yaw + period / 2) % period - period / 2)


def downward(yaw_rad: float) -> Rotation:
    """Return base_from_tool with the fingers down; at yaw 0 they close along base y, as at home."""
    return Rotation.from_euler("z", yaw_rad) * Rotation.from_euler("y", np.pi / 2)
