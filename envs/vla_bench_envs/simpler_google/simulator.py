"""What is asked of simpler_env, in the benchmark's words."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from scipy.spatial.transform import Rotation

from vla_bench_envs.simpler_google.errors import MissingSimplerEnvError, SimplerEnvVersionError
from vla_bench_envs.simpler_google.process import Process
from vla_bench_envs.simpler_google.protocols import GoogleProtocol
from vla_bench_envs.simpler_google.starts import Start

VERSIONS = {"simpler_env": "0.0.1", "mani_skill2_real2sim": "0.5.3", "sapien": "2.2.2"}
"""On which the suites are defined. Source: `setup.py` of both, and `requirements.txt` of ManiSkill2_real2sim."""

FINGERS = slice(-4, -2)
"""Of the eleven joints. Source: `agents/robots/googlerobot.py`, `get_gripper_closedness`."""


@dataclass(frozen=True)
class Moment:
    """What is known after a reset or a step, without its picture."""

    proprio: Float32[np.ndarray, " 8"]
    """Tool's position [m] and rotation vector [rad] in the base's frame, right and left finger [rad], 0 open."""

    instruction: str
    """What the robot is told now; it changes in the middle of the apple's episodes."""

    is_final_subtask: bool
    """Whether no other sentence will follow."""

    success: bool
    """Whether the simulator's predicate holds; False after a reset."""

    stats: dict[str, Any]
    """The simulator's `episode_stats`, as it keeps them; empty after a reset."""


class Simulator:
    """simpler_env in its own interpreter."""

    def __init__(self, python: str = "", timeout_s: float = 300.0) -> None:
        """Start it, import the package and compare versions.

        Raises:
            MissingInterpreterError: If no interpreter is named.
            InterpreterError: If that is no Python.
            MissingSimplerEnvError: If it has no simpler_env.
            SimplerEnvVersionError: If it has another version.
            WorkerDiedError: If the process ends.
            WorkerTimeoutError: If it does not answer in time.
        """
        self._process = Process(python, timeout_s)
        self.facts, _ = self._process.ask("hello")
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    @property
    def process(self) -> Process:
        """Return the process in which it runs."""
        return self._process

    @property
    def description(self) -> str:
        """Return the versions of what decides physics and pixels."""
        return ", ".join(f"{name} {self.facts['versions'][name]}" for name in VERSIONS)

    @property
    def interpreter(self) -> str:
        """Return the versions of what it runs on."""
        others = (f"{name} {found}" for name, found in self.facts["versions"].items() if name not in VERSIONS)
        return ", ".join([f"Python {self.facts['python']}", *others])

    def reset(self, start: Start, horizon: int, protocol: GoogleProtocol) -> tuple[Moment, dict[str, Any]]:
        """Build the environment of a start and begin its episode; return the moment and what the simulator says of it.

        A new environment for every episode, as the scripts make one: things that it draws at random (where distractors
        lie) follow from its own seed and from how often it was reset.
        """
        build = {
            "obs_mode": "rgbd",
            "robot": protocol.robot,
            "sim_freq": protocol.sim_hz,
            "control_mode": protocol.control_mode,
            "control_freq": int(protocol.control_hz),
            "max_episode_steps": horizon,
            "scene_name": start.scene,
            "camera_cfgs": {"add_segmentation": True},
            **dict(start.options),
        }  # in maniskill2_evaluator.py's words, `run_maniskill2_eval_single_episode`
        header = {"env_id": start.env_id, "overlay": start.overlay, "build": build, "episode_id": start.episode_id}
        arrays = {"robot_xy": np.array(start.robot_xy_m), "robot_quaternion": start.robot_quaternion}
        if start.object_xy_m is not None:
            arrays["object_xy"] = np.array(start.object_xy_m)
        said, state = self._process.ask("reset", header, arrays)
        return _moment(said, state), said["facts"]

    def step(self, action: Float64[np.ndarray, " 7"]) -> Moment:
        """Apply one action for one control step, at whose end the simulator draws."""
        return _moment(*self._process.ask("step", arrays={"action": np.asarray(action, np.float64)}))

    def picture(self, camera: str) -> UInt8[np.ndarray, "height width 3"]:
        """Return the picture that was drawn at the end of the last reset or step, row 0 at the top."""
        return self._process.ask("picture", {"camera": camera})[1]["picture"]

    def close(self) -> None:
        """End the process."""
        self._process.close()

    def _check(self) -> None:
        if "missing" in self.facts:
            raise MissingSimplerEnvError(self._process.python, self.facts["missing"], self.facts["cause"])
        for package, expected in VERSIONS.items():
            if (found := self.facts["versions"][package]) != expected:
                raise SimplerEnvVersionError(self._process.python, package, found, expected)


def _moment(said: dict[str, Any], state: dict[str, np.ndarray]) -> Moment:
    base, tool = state["base_pose"], state["tool_pose"]
    base_from_scene = Rotation.from_quat(base[3:], scalar_first=True).inv()
    position = base_from_scene.apply(tool[:3] - base[:3])
    rotation = (base_from_scene * Rotation.from_quat(tool[3:], scalar_first=True)).as_rotvec()
    return Moment(
        proprio=np.concatenate([position, rotation, state["qpos"][FINGERS]]).astype(np.float32),
        instruction=said["instruction"],
        is_final_subtask=said["is_final_subtask"],
        success=said.get("success", False),
        stats=said.get("stats", {}),
    )
