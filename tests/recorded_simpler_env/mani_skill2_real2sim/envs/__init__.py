"""Recorded: an environment of the Google robot as `gym.make` returns it, with arithmetic for physics.

Paths are those of ManiSkill2_real2sim at ef7a4d4.
"""

import json
import os
import time
import zlib
from types import SimpleNamespace
from typing import Any

import numpy as np

from mani_skill2_real2sim.envs.options import check_build, check_reset
from mani_skill2_real2sim.envs.tasks import task_of

FINGER_LIMIT_RAD = 1.31  # agents/configs/google_robot/defaults.py, `gripper_common_args`
FINGER_STEP_RAD = 1.0 / 3  # the same file, `gripper_vel_limit` [rad/s] at 3 control steps a second
REACH = np.array([[0.2, -0.7, 0.1], [1.0, 0.7, 1.6]])  # made up: where the inverse kinematics has a solution [m]


def turned(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the product of two quaternions (w, x, y, z)."""
    vector = one[0] * other[1:] + other[0] * one[1:] + np.cross(one[1:], other[1:])
    return np.concatenate([[one[0] * other[0] - one[1:] @ other[1:]], vector])


class Recorded:
    """`TimeLimit(OrderEnforcing(RGBDObservationWrapper(env)))` of the original, in one class."""

    def __init__(self, env_id: str, **kwargs: Any) -> None:
        check_build(env_id, kwargs)
        self.env_id, self.kwargs, self.robot_uid = env_id, kwargs, kwargs["robot"]
        self.task = task_of(env_id, kwargs)
        self.options: dict[str, Any] = {}
        print("a simulator may print")
        os.write(1, b"and its libraries too\n")

    @property
    def unwrapped(self) -> "Recorded":
        """Return the environment without wrappers, which has the links and the sentence."""
        return self

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        """Begin an episode: envs/custom_scenes/*.py, `reset`."""
        assert options is not None
        check_reset(self.env_id, options)
        self.options, self.elapsed = options, 0
        self.tool_p, self.tool_q = np.array([0.5, 0.2, 0.9]), np.array([1.0, 0.0, 0.0, 0.0])
        self.finger = self.finger_goal = self.finger_drive = 0.0
        self.task.begin(options["obj_init_options"])
        self._write_down(seed)
        facts = {
            "scene_name": self.kwargs["scene_name"],
            "scene_pose": SimpleNamespace(p=np.zeros(3)),  # a sapien.Pose, which JSON cannot say
            "urdf_version": str(self.kwargs.get("urdf_version", "")).replace("None", ""),
            "rgb_overlay_path": self.kwargs.get("rgb_overlay_path"),
        }
        return self._obs(), facts | self.task.facts

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        """Apply an action: envs/sapien_env.py, `step`; agents/controllers/pd_ee_pose.py and pd_joint_pos.py."""
        assert isinstance(action, np.ndarray)  # anything else is a TypeError there
        assert action.shape == (7,)
        self._fail_if_told()
        self.task.before_step(self.elapsed)
        self.elapsed += 1
        goal = self.tool_p + action[:3]  # frame `ee_align`: axes of the base, from where the tool is
        if (REACH[0] <= goal).all() and (goal <= REACH[1]).all():
            self.tool_p = goal
            angle = np.linalg.norm(action[3:6])
            axis = action[3:6] / angle if angle else np.zeros(3)
            self.tool_q = turned(np.concatenate([[np.cos(angle / 2)], np.sin(angle / 2) * axis]), self.tool_q)
        self._move_fingers(float(np.clip(action[6], -1, 1)) * FINGER_LIMIT_RAD)
        info = {"elapsed_steps": self.elapsed, **self.task.evaluate(self.tool_p, self.finger)}
        terminated = bool(info["success"])  # `get_done`
        return self._obs(), float(terminated), terminated, self.elapsed >= self.kwargs["max_episode_steps"], info

    def get_language_instruction(self) -> str:
        """Return the sentence of now."""
        return self.task.sentence

    def is_final_subtask(self) -> bool:
        """Return whether no other sentence follows: envs/custom_scenes/base_env.py."""
        return self.task.is_final

    @property
    def tcp(self) -> SimpleNamespace:
        """Return the tool's link, whose pose is in the scene: envs/custom_scenes/base_env.py, `_load_agent`."""
        base = self._base_pose()
        q = base[3:]
        rotated = turned(turned(q, np.concatenate([[0.0], self.tool_p])), q * [1, -1, -1, -1])[1:]
        pose = SimpleNamespace(p=np.float32(base[:3] + rotated), q=np.float32(turned(q, self.tool_q)))
        return SimpleNamespace(pose=pose)

    def close(self) -> None:
        """Let go of the scene: envs/sapien_env.py, `close`."""

    def _move_fingers(self, change: float) -> None:
        if abs(change) >= 1e-3:  # `small_action_repeat_last_target`
            self.finger_goal = float(np.clip(self.finger_drive + change, -0.01, FINGER_LIMIT_RAD))
        self.finger_drive += float(np.clip(self.finger_goal - self.finger_drive, -FINGER_STEP_RAD, FINGER_STEP_RAD))
        self.finger = self.finger_drive

    def _base_pose(self) -> np.ndarray:
        robot = self.options["robot_init_options"]
        height = 0.06205 + 0.017  # envs/custom_scenes/base_env.py, `_initialize_agent`
        return np.float32(np.concatenate([robot["init_xy"], [height], robot["init_rot_quat"]]))

    def _obs(self) -> dict[str, Any]:
        """Return an observation: envs/sapien_env.py, `_get_obs_images`; utils/wrappers/observation.py."""
        qpos = np.zeros(11, np.float32)  # agents/robots/googlerobot.py; fingers are the fourth and third from the end
        qpos[-4:-2] = self.finger
        pose = np.hstack([self.tcp.pose.p, self.tcp.pose.q])
        what = repr(
            (self.env_id, sorted(self.kwargs.items(), key=str), repr(self.options), pose.tobytes(), self.elapsed)
        )
        picture = np.full((512, 640, 3), zlib.crc32(what.encode()) % 200, np.uint8)
        picture[0] = 255
        return {
            "agent": {"qpos": qpos, "qvel": np.zeros(11, np.float32), "base_pose": self._base_pose()},
            "extra": {"tcp_pose": pose} if "Drawer" not in self.env_id else {},
            "camera_param": {"overhead_camera": {}, "base_camera": {}},
            "image": {"overhead_camera": {"rgb": picture}, "base_camera": {"rgb": np.zeros((128, 128, 3), np.uint8)}},
        }

    def _write_down(self, seed: int | None) -> None:
        if "RECORDED_CALLS" in os.environ:
            call = {"env_id": self.env_id, "build": self.kwargs, "seed": seed, "options": self.options}
            with open(os.environ["RECORDED_CALLS"], "a") as calls:
                calls.write(json.dumps(call, default=lambda array: [str(array.dtype), array.tolist()]) + "\n")

    def _fail_if_told(self) -> None:
        fault, _, step = os.environ.get("RECORDED_FAULT", ":-1").partition(":")
        if self.elapsed == int(step):
            if fault == "hang":
                time.sleep(3600)
            raise RuntimeError("vk::Instance::enumeratePhysicalDevices: ErrorInitializationFailed")
