"""Whether a posture touches the table or the arm itself; what can be moved is no obstacle."""
# MuJoCo's compiled module has no stubs.
# pyright: reportAttributeAccessIssue=false

from typing import Any

import numpy as np

from vla_bench_envs.libero.startup import prepare_process
from vla_bench_envs.robot.limits import Limits
from vla_bench_envs.robot.tabletop.scene import scene


class Collision:
    """The arm of a limits file on its table, without anything that can be moved; fingers open."""

    def __init__(self, limits: Limits) -> None:
        """Compile the arm and the table."""
        prepare_process()
        import mujoco

        self._kinematics, self._collide = mujoco.mj_kinematics, mujoco.mj_collision
        self._model: Any = mujoco.MjModel.from_xml_string(scene(limits, with_things=False))
        self._data: Any = mujoco.MjData(self._model)
        self._data.qpos[-2:] = limits.gripper_open_m / 2

    def __call__(self, joints_rad: np.ndarray) -> bool:
        """Return whether the posture (n,) [rad] touches something."""
        self._data.qpos[:-2] = joints_rad
        self._kinematics(self._model, self._data)
        self._collide(self._model, self._data)
        return bool((self._data.contact.dist < 0).any())

    def touching(self, joints_rad: np.ndarray) -> list[tuple[str, str]]:
        """Return the bodies that touch at a posture, for messages and tests."""
        self(joints_rad)
        body_of = self._model.geom_bodyid
        pairs = self._data.contact.geom[self._data.contact.dist < 0]
        return [tuple(self._model.body(int(body_of[geom])).name for geom in pair) for pair in pairs]
