"""One compiled LIBERO task: physics, the success predicate and what is sensed.

A reset is: seed NumPy's global generator, zero the gripper's command, soft reset, set the initial state. It equals a
fresh environment bit for bit, states and pictures, which a test asserts. Each part is needed:

* The seed decides the poses of fixtures (cabinet, stove, rack), which are part of the model and not of an initial
  state; nothing else of a model depends on it. The published loop seeds once, so its fixtures depend on how many
  resets came before. Here every episode of a protocol has the fixtures of `Protocol.scene_seed`.
* The gripper integrates its command, and robosuite's soft reset leaves it where the last episode ended.
"""

from collections import OrderedDict
from typing import Any

import numpy as np

from vla_bench.errors import OptionError
from vla_bench.protocol import Protocol
from vla_bench.types import Task
from vla_bench_envs.libero.rendering import Cameras
from vla_bench_envs.libero.startup import global_seed, make_simulator
from vla_bench_envs.libero.suites import find_suite


class Stage:
    """A task's simulator, which is reused between initial states: 1.5 to 1.9 GB, 3 to 13 s to compile."""

    def __init__(self, task: Task, protocol: Protocol) -> None:
        """Compile the task; nothing is drawn and no OpenGL context is made yet."""
        self.task = task
        suite = find_suite(task.suite)
        self.initial_states = suite.initial_states(task)
        """Official initial states (n, size): time [s], positions, velocities."""
        with global_seed(protocol.scene_seed):
            self.simulator: Any = make_simulator(suite.problem_file(task), protocol.control_hz)
        self.proprio = np.zeros(8, dtype=np.float32)
        """End effector position [m] and rotation vector [rad], world frame; finger positions [m]."""
        self._scene_seed = protocol.scene_seed
        sim = self.simulator.sim
        self.cameras = Cameras(sim.model._model, sim.data._data, protocol.cameras, protocol.image_size, protocol.render)
        self._sense_through_one_observable(protocol.control_hz)

    def _sense_through_one_observable(self, control_hz: float) -> None:
        """Replace robosuite's observables by one that takes all we return, at the same instant.

        robosuite asks some 60 observables at each of the 25 physics steps of a control step whether their time has
        come; it comes at one of them (the 24th after a reset). One of robosuite's own observables keeps that clock.
        """
        from robosuite.utils.observables import Observable, sensor

        @sensor(modality="proprio")
        def sense(_: Any) -> np.ndarray:
            self.proprio = self._sense_proprio()
            self.cameras.capture()
            return self.proprio

        rate: Any = control_hz  # robosuite divides by it; its stub says int
        observable = Observable(name="sensed", sensor=sense, sampling_rate=rate)
        self.simulator._observables = OrderedDict(sensed=observable)

    def _sense_proprio(self) -> np.ndarray:
        """Return end effector position [m], rotation vector [rad] and finger positions [m], as published loops do."""
        from robosuite.utils.transform_utils import convert_quat, quat2axisangle

        robot, data = self.simulator.robots[0], self.simulator.sim.data
        position = data.site_xpos[robot.eef_site_id]
        quaternion = convert_quat(data.get_body_xquat(robot.robot_model.eef_name), to="xyzw")
        fingers = data.qpos[robot._ref_gripper_joint_pos_indexes]
        return np.concatenate([position, quat2axisangle(quaternion), fingers]).astype(np.float32)

    def reset(self, state: np.ndarray, settle_action: tuple[float, ...], settle_steps: int) -> None:
        """Start from an initial state and let things settle; the last moment of settling is what is sensed.

        Raises:
            OptionError: If the state is not one of this task's: of another length, or not finite.
        """
        self._check_state(state)
        with global_seed(self._scene_seed):
            self._place_fixtures()
        simulator = self.simulator
        simulator.sim.set_state_from_flattened(state)  # from here on what LIBERO's set_init_state does
        simulator.sim.forward()
        simulator._check_success()
        simulator._post_process()
        simulator._update_observables(force=True)
        for _ in range(settle_steps):
            self.step(np.asarray(settle_action))

    def _place_fixtures(self) -> None:
        """Make robosuite's soft reset equal a hard one; objects are placed too, and overwritten by the state."""
        from robosuite.utils.errors import RandomizationError

        gripper = self.simulator.robots[0].gripper
        gripper.current_action = np.zeros_like(gripper.current_action)
        while True:
            try:
                self.simulator.reset()
                return
            except RandomizationError:  # an object found no free place: the next draw may do, as in LIBERO
                continue

    def step(self, action: np.ndarray) -> bool:
        """Apply one action for one control step; return whether the task's predicate holds."""
        return bool(self.simulator.step(action)[2])

    @property
    def state(self) -> np.ndarray:
        """Return the simulator's state: time [s], positions and velocities, as an initial state has them."""
        return self.simulator.sim.get_state().flatten()

    def _check_state(self, state: np.ndarray) -> None:
        model = self.simulator.sim.model
        size = 1 + model.nq + model.nv
        if state.shape != (size,) or not np.isfinite(state).all():
            found = f"an array of shape {state.shape}"
            expected = f"{size} finite numbers: a state of {self.task.name!r}, not another's"
            raise OptionError("init_state", found, expected)

    def close(self) -> None:
        """Free the OpenGL context and the simulator."""
        self.cameras.close()
        self.simulator.close()
