"""The physics of the tabletop: 500 Hz, one set-point at a time, bit-identical for identical set-points."""
# MuJoCo's compiled module has no stubs.
# pyright: reportAttributeAccessIssue=false

from typing import Any

import numpy as np

from vla_bench_envs.libero.startup import prepare_process
from vla_bench_envs.robot.driver import RobotState
from vla_bench_envs.robot.errors import DriverError
from vla_bench_envs.robot.limiter import SetPoint
from vla_bench_envs.robot.limits import Limits
from vla_bench_envs.robot.tabletop import scene
from vla_bench_envs.robot.tabletop.tasks import (
    N_INITIAL_STATES,
    PARKED_M,
    TASKS,
    Thing,
    placements_sha256,
    thing,
)

STEP_NS = round(scene.STEP_S * 1e9)

SMOOTHING_RAD_S = 60.0
"""Of the critically damped filter on set-points, as arms' own controllers have one: without it a set-point that comes
10 ms late is a blow of 100 Nm."""


class Plant:
    """An arm on a table. Time moves by `advance` only."""

    def __init__(self, limits: Limits) -> None:
        """Compile the scene and place the first task's things."""
        prepare_process()
        import mujoco

        self.limits = limits
        self._step = mujoco.mj_step
        self._reset, self._forward = mujoco.mj_resetData, mujoco.mj_forward
        self.model: Any = mujoco.MjModel.from_xml_string(scene.scene(limits))
        self.data: Any = mujoco.MjData(self.model)
        self.t_ns = 0
        """Of the state, on the server's clock."""
        self.task = 0
        self.stopped = False
        """Whether set-points are ignored until `recover`."""
        self._n_joints = len(limits.home_rad)
        self._places = {name: int(self.model.joint(self.model.body(name).jntadr[0]).qposadr[0]) for name in PARKED_M}
        self._lead_s = np.divide(scene.DAMPING_NMS_RAD, scene.STIFFNESS_NM_RAD)
        self.begin(0, 0)

    def begin(self, task: int, init_state: int) -> str:
        """Place the arm at home and a task's things at a start; return the start's hash.

        Raises:
            DriverError: If there is no such task or start.
        """
        if not (0 <= task < len(TASKS) and 0 <= init_state < N_INITIAL_STATES):
            known = f"{len(TASKS)} tasks and {N_INITIAL_STATES} starts"
            raise DriverError("sim", f"was asked for task {task}, start {init_state}, and has {known}")
        self._reset(self.model, self.data)
        self.task = task
        for name, pose in TASKS[task].placements(task, init_state).items():
            place = self._places[name]
            self.data.qpos[place : place + 7] = pose
        self.data.qpos[: self._n_joints] = self.limits.home_rad
        self.data.qpos[self._n_joints : self._n_joints + 2] = self.limits.gripper_open_m / 2
        self._rest(self.data.qpos[: self._n_joints].copy(), self.limits.gripper_open_m)
        self._forward(self.model, self.data)
        return placements_sha256(task, init_state)

    def aim(self, set_point: SetPoint) -> None:
        """Move to a set-point within the next servo period."""
        if self.stopped:
            return
        self._aim = np.asarray(set_point.joints_rad, dtype=float)
        self._gripper_m = set_point.gripper_m

    def hold(self) -> None:
        """Stand where the arm is."""
        self._rest(self.data.qpos[: self._n_joints].copy(), self._gripper_m)

    def advance(self, now_ns: int) -> None:
        """Let physics pass until a time on the server's clock."""
        while self.t_ns + STEP_NS <= now_ns:
            pull = SMOOTHING_RAD_S**2 * (self._aim - self._smooth) - 2 * SMOOTHING_RAD_S * self._velocity
            self._velocity = self._velocity + scene.STEP_S * pull
            self._smooth = self._smooth + scene.STEP_S * self._velocity
            self.data.ctrl[: self._n_joints] = self._smooth + self._lead_s * self._velocity
            self.data.ctrl[self._n_joints :] = self._gripper_m / 2
            self._step(self.model, self.data)
            self.t_ns += STEP_NS

    def state(self) -> RobotState:
        """Return what the arm measures, and whether the task is done."""
        n_joints, data = self._n_joints, self.data
        gripper_m = float(data.qpos[n_joints : n_joints + 2].sum())
        return RobotState(
            t_ns=self.t_ns,
            joints_rad=data.qpos[:n_joints].copy(),
            velocities_rad_s=data.qvel[:n_joints].copy(),
            torques_nm=data.actuator_force[:n_joints].copy(),
            gripper_m=gripper_m,
            success=TASKS[self.task].done(self.things(), gripper_m),
            scene=data.qpos.copy(),
        )

    def things(self) -> dict[str, Thing]:
        """Return where everything is, for predicates and scripted experts."""
        return {name: thing(self.data.qpos[place : place + 7]) for name, place in self._places.items()}

    def _rest(self, joints_rad: np.ndarray, gripper_m: float) -> None:
        self._aim = self._smooth = joints_rad
        self._velocity = np.zeros(self._n_joints)
        self._gripper_m = gripper_m
